"""The files of a split of binarised data, looked through before fairseq maps them into memory.

fairseq takes lengths and offsets of ``SPLIT.idx`` on trust, and reads the tokens of a ``SPLIT.bin`` when a batch needs
them: of a file that was cut short or overwritten it would score another text, or end in the middle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data import indexed_dataset

from ..data.binarised_index import read_header, read_sentences
from ..data.errors import PreparationError
from .errors import EvaluationError

__all__ = ["check_binarised"]


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
    try:
        dtype = np.dtype(read_header(index).token_type)
        lengths, offsets = read_sentences(index)
    except PreparationError as error:
        raise EvaluationError(str(error)) from error
    if not len(lengths):
        raise EvaluationError(f"{index} is empty: it has no sentence")
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
