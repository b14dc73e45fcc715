"""A command shows its results: what fairseq, Hydra and torch say meanwhile to their authors is left out."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let only errors and warnings be logged, and drop Python's warnings about the code of fairseq, Hydra and torch.

    A module of fairseq sets the root logger to DEBUG when it is imported: every library's messages would be shown.

    Yields:
        None.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(fairseq|hydra|torch)\.")
            warnings.filterwarnings("ignore", message=r"\s*'config' is validated")  # Hydra's, about fairseq
            yield
    finally:
        logging.disable(disabled)
