"""Damaged files: one message in place of the many exceptions of the libraries that read them."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import Iterator

import torch

from ..common.errors import MendableError
from .errors import EvaluationError

__all__ = ["one_message", "reason_in_one_line"]

LONGEST_REASON = 200


def reason_in_one_line(error: BaseException) -> str:
    """What an exception says, for a message.

    Args:
        error: any exception.

    Returns:
        Its text, or its name if it has none, in one line that is not too long.
    """
    return (" ".join(str(error).split()) or type(error).__name__)[:LONGEST_REASON]


@contextlib.contextmanager
def one_message(beginning: str) -> Iterator[None]:
    """Around calls of fairseq and torch on files that may be damaged or not fit together.

    What they log meanwhile, and their warnings, are dropped: they say the same at length.

    Args:
        beginning: of the message, with the names of the files; the reason follows.

    Yields:
        None.

    Raises:
        EvaluationError: in place of any other exception, but for those that say enough: of memory, of a file that is
            not there or cannot be opened (OSError with its name), and each MendableError.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MendableError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.filename):
            raise
        raise EvaluationError(f"{beginning}: {reason_in_one_line(error)}") from error
    finally:
        logging.disable(disabled)
