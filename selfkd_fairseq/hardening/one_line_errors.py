"""Errors that a user can mend are one line in fairseq's own commands, too.

The console commands of this package print such an error as one line. ``fairseq-train`` and its like let it through to
Python, which prints some hundred lines of stack. In a program of that name, and nowhere else, it is printed here as
``fairseq-train: error: ...``; the exit status stays 1. Scripts and notebooks keep their own handling, and every other
exception keeps its stack.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Callable

from torch.multiprocessing.spawn import ProcessRaisedException

from ..common.errors import MendableError
from ..common.one_line import in_one_line
from .stand_ins import stand_in

__all__ = ["print_in_one_line"]

Hook = Callable[["type[BaseException]", BaseException, "TracebackType | None"], Any]


def _message(error: BaseException) -> str | None:
    """What to print of an error, None if it keeps its stack.

    With several GPUs fairseq-train starts a process for each; of an error there, the text of its stack comes back.
    """
    if isinstance(error, MendableError):
        return str(error)
    if isinstance(error, ProcessRaisedException):
        name, _, message = str(error).strip().splitlines()[-1].partition(": ")
        module, _, kind = name.rpartition(".")
        found = getattr(sys.modules.get(module), kind, None)
        return message if isinstance(found, type) and issubclass(found, MendableError) else None
    return None


def _hook(
    program: str, before: Hook, kind: type[BaseException], error: BaseException, stack: TracebackType | None
) -> None:
    """Stand in for ``sys.excepthook``, with the name of the program and the hook that was there before."""
    message = _message(error)
    if message is None:
        before(kind, error, stack)
    else:
        print(f"{program}: error: {in_one_line(message)}", file=sys.stderr, flush=True)


def print_in_one_line() -> None:
    """Have each :class:`MendableError` that ends one of fairseq's commands printed as one line, for this process.

    A second call changes nothing.
    """
    program = Path(sys.argv[0]).name if sys.argv else ""  # Python embedded in another program may have no arguments
    if program.startswith("fairseq-"):
        stand_in(sys, "excepthook", lambda before: functools.partial(_hook, program, before))
