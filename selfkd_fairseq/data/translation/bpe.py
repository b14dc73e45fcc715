"""Joint byte pair encoding with subword-nmt: learning, vocabularies, segmentation."""

from __future__ import annotations

import functools
import io
from collections import Counter
from pathlib import Path
from typing import IO, Any, Iterable, Mapping

from ..errors import PreparationError

SEPARATOR = "@@"


def count_words(lines: Iterable[str]) -> Counter[str]:
    """How often each space-separated word occurs in ``lines``."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split())
    return counts


def _by_frequency(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def learn_codes(counts: Mapping[str, int], merges: int, file: IO[str]) -> None:
    """Learn at most ``merges`` merges (fewer if no pair of symbols occurs twice) and write them to ``file``.

    Args:
        counts: word -> frequency, over both languages together.
        merges: at least 1.
        file: open for writing text.

    Raises:
        PreparationError: there is not a single merge to learn.
    """
    from subword_nmt.learn_bpe import learn_bpe

    too_small = PreparationError("the training text is too small to learn BPE from: no pair of characters occurs twice")
    if not any(len(word) > 1 for word in counts):
        raise too_small
    codes = io.StringIO()
    learn_bpe([f"{word} {count}" for word, count in _by_frequency(counts)], codes, merges, is_dict=True)
    if codes.getvalue().count("\n") < 2:  # the version line alone; subword-nmt cannot read such a file back
        raise too_small
    file.write(codes.getvalue())


@functools.lru_cache(maxsize=8)
def _load_segmenter(codes: Path, vocabulary: Path | None, threshold: int, _fingerprint: tuple[int, int]) -> Any:
    from subword_nmt.apply_bpe import BPE, read_vocabulary

    allowed = None
    if vocabulary is not None:
        with open(vocabulary, encoding="utf-8", newline="\n") as file:
            allowed = read_vocabulary(file, threshold)
    with open(codes, encoding="utf-8", newline="\n") as file:
        return BPE(file, separator=SEPARATOR, vocab=allowed)


def load_segmenter(codes: Path, vocabulary: Path | None = None, threshold: int = 0) -> Any:
    """subword-nmt's segmenter, made once per process and file of merges.

    Args:
        codes: file of merges.
        vocabulary: file of ``subword count`` lines; if given, subwords counted fewer than ``threshold`` times
            are split again.
        threshold: see ``vocabulary``.
    """
    state = codes.stat()  # another file may take this path later in the life of the process
    return _load_segmenter(codes, vocabulary, threshold, (state.st_ino, state.st_mtime_ns))


def count_subwords(counts: Mapping[str, int], codes: Path) -> Counter[str]:
    """How often each subword occurs in a text, from how often each word does."""
    segmenter = load_segmenter(codes)
    subwords: Counter[str] = Counter()
    for word, count in counts.items():
        for subword in segmenter.segment_tokens([word]):
            subwords[subword] += count
    return subwords


def write_vocabulary(counts: Mapping[str, int], file: IO[str]) -> None:
    """One ``subword count`` line each, most frequent first, ties in the order of the code points."""
    for subword, count in _by_frequency(counts):
        file.write(f"{subword} {count}\n")


def segment_lines(lines: list[str], codes: Path, vocabulary: Path | None, threshold: int) -> list[str]:
    """Each line (words joined by single spaces) as subwords joined by single spaces."""
    segmenter = load_segmenter(codes, vocabulary, threshold)
    return [segmenter.segment(line) for line in lines]
