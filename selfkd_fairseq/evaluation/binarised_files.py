"""The files of a split of binarised data, looked through before fairseq maps them into memory.

fairseq takes lengths and offsets of ``SPLIT.idx`` on trust, and reads the tokens of a ``SPLIT.bin`` when a batch needs
them: of a file that was cut short or overwritten it would score another text, or end in the middle.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data import indexed_dataset

from .errors import EvaluationError

__all__ = ["check_binarised"]

# magic, version, code of the tokens' dtype, number of sentences; then a length and an offset in bytes of each sentence
_HEADER = struct.Struct("<9sQBQ")
_MAGIC = b"MMIDIDX\x00\x00"
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}  # code -> integers


def check_binarised(prefix: Path, dictionary: Any, closed: bool = True) -> None:
    """Raise EvaluationError unless two files are what fairseq-preprocess writes (``--dataset-impl mmap``).

    Files of its other formats, which carry another mark, are left to fairseq's own readers.

    Args:
        prefix: path of the files, but for ``.idx`` and ``.bin``.
        dictionary: fairseq's, of the words.
        closed: whether each sentence must end with ``</s>``, as those of fairseq-preprocess do.

    Raises:
        EvaluationError: the index is cut or does not fit the tokens, there is no sentence, a token is not in the
            dictionary, or a sentence does not end with ``</s>``.
        OSError: a file cannot be read.
    """
    if indexed_dataset.infer_dataset_impl(str(prefix)) not in ("mmap", None):
        return
    index, tokens = (Path(f"{prefix}{end}") for end in (".idx", ".bin"))
    content = index.read_bytes()
    lengths, offsets, dtype = _read_index(index, content)
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    if (lengths < 0).any() or (offsets != (ends - lengths) * dtype.itemsize).any():
        raise EvaluationError(f"{index} is damaged: its lengths and offsets do not agree")
    size = tokens.stat().st_size
    if size != total * dtype.itemsize:
        raise EvaluationError(f"{tokens} is damaged: it has {size} bytes, and {index} says {total * dtype.itemsize}")
    words = np.memmap(tokens, dtype=dtype, mode="r")
    if words.max() >= len(dictionary) or words.min() < 0:
        raise EvaluationError(
            f"{tokens} has a word {words.max()}, and the dictionary {len(dictionary)} words: it is damaged, or was "
            "binarised with another dictionary"
        )
    if closed and (words[ends[lengths > 0] - 1] != dictionary.eos()).any():
        raise EvaluationError(f"{tokens} is damaged: a sentence does not end with {dictionary[dictionary.eos()]}")


def _read_index(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """Lengths (S,) in tokens and offsets (S,) in bytes of the sentences, both int64, and the dtype of the tokens."""
    if len(content) < _HEADER.size or not content.startswith(_MAGIC):
        raise EvaluationError(f"{path} is damaged, or no index of binarised data")
    _, version, code, count = _HEADER.unpack_from(content)
    if version != 1 or code not in _DTYPES or len(content) != _HEADER.size + 12 * count:
        raise EvaluationError(f"{path} is damaged: {len(content)} bytes, and {count} sentences in its header")
    if count == 0:
        raise EvaluationError(f"{path} is empty: it has no sentence")
    lengths = np.frombuffer(content, "<i4", count, _HEADER.size).astype(np.int64)
    offsets = np.frombuffer(content, "<i8", count, _HEADER.size + 4 * count)
    return lengths, offsets, np.dtype(_DTYPES[code])
