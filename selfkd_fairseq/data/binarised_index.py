"""The index of a binarised text, ``SPLIT.idx`` beside ``SPLIT.bin``, as fairseq-preprocess writes it (format ``mmap``).

A header says how the tokens are stored and how many sentences there are; then come a length and an offset of each.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import PreparationError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Header", "read_header", "read_sentences"]

_HEADER = struct.Struct("<9sQBQ")  # magic, version, code of the tokens' type, number of sentences
_MAGIC = b"MMIDIDX\x00\x00"
_TOKEN_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}


class Header(NamedTuple):
    """What the first bytes of an index say."""

    token_type: str
    """Of the ``.bin`` file, in numpy's words: integers."""
    sentences: int
    """How many."""


def read_header(index: Path) -> Header:
    """Read the header alone.

    Args:
        index: the ``.idx`` file.

    Returns:
        The type of the tokens and the number of sentences; whether they are there is not looked at.

    Raises:
        PreparationError: this is no such index.
        OSError: it cannot be read.
    """
    with open(index, "rb") as file:
        content = file.read(_HEADER.size)
    if len(content) < _HEADER.size or not content.startswith(_MAGIC):
        raise PreparationError(f"{index} is damaged, or no index of binarised data")
    _, version, code, sentences = _HEADER.unpack(content)
    if version != 1 or code not in _TOKEN_TYPES:
        raise PreparationError(f"{index} is damaged: version {version} of the format, tokens of type {code}")
    return Header(_TOKEN_TYPES[code], int(sentences))


def read_sentences(index: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read where each of S sentences lies.

    Args:
        index: the ``.idx`` file.

    Returns:
        Lengths (S,) in tokens and offsets (S,) in bytes, both int64.

    Raises:
        PreparationError: this is no such index, or it is cut short or too long.
        OSError: it cannot be read.
    """
    import numpy as np  # here, so that a preparation that has nothing to do does not wait for the import

    count, size = read_header(index).sentences, os.path.getsize(index)
    if size != _HEADER.size + 12 * count:
        raise PreparationError(f"{index} is damaged: {size} bytes, and {count} sentences in its header")
    with open(index, "rb") as file:
        file.seek(_HEADER.size)
        lengths = np.fromfile(file, "<i4", count).astype(np.int64)
        return lengths, np.fromfile(file, "<i8", count)
