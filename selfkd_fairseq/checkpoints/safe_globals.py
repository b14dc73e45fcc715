"""What the pickled globals of a checkpoint become in torch's safe mode: the one list of those that are allowed.

fairseq itself saves an ``argparse.Namespace`` (the settings), and among its meters arrays and scalars of numpy
(``--eval-bleu`` counts n-grams in them). A Namespace is a plain holder of attributes. numpy's own functions are not
safe to call with what a stranger wrote: the pickled state of a ``numpy.dtype`` may put fields outside of an array's
memory, which are then read, also as pointers to Python objects. So each name of numpy stands for something of this
module that makes arrays and scalars of numbers, checks all that it is given, and knows nothing else.
"""

from __future__ import annotations

import argparse
import functools
import math
import pickle
import re
from typing import Any

import numpy as np
import torch

__all__ = ["CHECKPOINT_GLOBALS", "NumberArray", "NumberType", "allow_checkpoint_globals"]

_NUMBERS = re.compile(r"b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)")  # bool, integers, floating point, complex


def _refused(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"GLOBAL {what} is not of plain numbers")  # worded for damage.why_not_loaded


class NumberType:
    """Stands in for ``numpy.dtype``: a kind of numbers and the order of their bytes, no objects, fields or texts."""

    code: str
    order: str = "="

    def __new__(cls, code: str, align: bool = False, copy: bool = False) -> NumberType:
        """As numpy writes it.

        Args:
            code: kind and size in bytes, such as ``"i8"``.
            align: of no meaning for numbers.
            copy: the same.

        Returns:
            The kind.

        Raises:
            UnpicklingError: it is not of numbers.
        """
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise _refused(f"numpy.dtype({code!r})" if isinstance(code, str) and code.isalnum() else "numpy.dtype")
        kind = super().__new__(cls)
        kind.code = code
        return kind

    def __setstate__(self, state: Any) -> None:
        _, order, *others = state
        shape_or_fields = any(part is not None for part in others[:3])
        if shape_or_fields or type(order) is not str or order not in ("<", ">", "|", "="):
            raise _refused("numpy.dtype")
        self.order = order

    def of_numpy(self) -> np.dtype:
        """The same as numpy's dtype.

        Returns:
            A dtype without fields, shape and objects.
        """
        return np.dtype(self.order + self.code)


class NumberArray(np.ndarray):
    """Stands in for ``numpy.ndarray``: an array of numbers, which is saved as numpy's own."""

    def __new__(cls) -> NumberArray:
        """Make one that is empty.

        Returns:
            No number; what was pickled comes as its state.
        """
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        if type(kind) is not NumberType or type(data) is not bytes or type(shape) is not tuple:
            raise _refused("numpy.ndarray")
        dtype = kind.of_numpy()
        if not all(type(size) is int and size >= 0 for size in shape):
            raise _refused("numpy.ndarray")
        # A second state would free memory that a tensor may share by now.
        if math.prod(shape) * dtype.itemsize != len(data) or self.size:
            raise _refused("numpy.ndarray")
        whole = (1, shape, dtype, by_columns is True, data)
        super().__setstate__(whole)  # type: ignore[arg-type]  # numpy's stub asks for numpy.bool, and numpy for bool

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)


def _array(subtype: Any, shape: Any, typecode: Any) -> NumberArray:
    """Stand in for ``_reconstruct``, by which numpy makes the array that a state is then given to."""
    if subtype is not NumberArray:
        raise _refused("numpy.ndarray")
    return NumberArray()


def _scalar(kind: Any, data: Any) -> Any:
    """Stand in for ``scalar``."""
    if type(kind) is not NumberType or type(data) is not bytes:
        raise _refused("numpy.generic")
    (value,) = np.frombuffer(data, kind.of_numpy())
    return value


def _bytes(text: Any, encoding: Any) -> bytes:
    """Stand in for ``encode``, as which pickle writes bytes. torch has allowed it since 2.5, with any encoding."""
    if type(text) is not str or encoding != "latin1":
        raise _refused("_codecs.encode")
    return text.encode("latin1")


CHECKPOINT_GLOBALS: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "numpy.ndarray": NumberArray,
    "numpy.dtype": NumberType,
    "numpy.core.multiarray._reconstruct": functools.partial(_array),  # of numpy 1
    "numpy.core.multiarray.scalar": functools.partial(_scalar),
    "numpy._core.multiarray._reconstruct": functools.partial(_array),  # of numpy 2
    "numpy._core.multiarray.scalar": functools.partial(_scalar),
    "_codecs.encode": functools.partial(_bytes),
}
"""Every global that a checkpoint may hold, by the name that is pickled, and what it becomes."""


def _named_for_torch() -> list[Any]:
    """What torch takes its names from: the objects. Pairs of a name and an object are for torch 2.5 and later alone."""
    for name, stand_in in CHECKPOINT_GLOBALS.items():
        if stand_in is not argparse.Namespace:
            stand_in.__module__, _, stand_in.__name__ = name.rpartition(".")
            stand_in.__qualname__ = stand_in.__name__
    return list(CHECKPOINT_GLOBALS.values())


_STAND_INS = _named_for_torch()


def allow_checkpoint_globals() -> None:
    """Allow :data:`CHECKPOINT_GLOBALS` in weights-only loading, for this process; a second call changes nothing."""
    allowed = torch.serialization.get_safe_globals()  # torch 2.4 keeps a list, in which each would stand again
    torch.serialization.add_safe_globals([stand_in for stand_in in _STAND_INS if stand_in not in allowed])
