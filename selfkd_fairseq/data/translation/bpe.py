"""Joint byte pair encoding as subword-nmt does it: learning, vocabularies, segmentation."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import IO, Any, Iterable, Mapping, Sequence

from ..errors import PreparationError
from ..progress import progress_bar
from .recipe import Cleaning

SEPARATOR = "@@"
VERSION_LINE = "#version: 0.2\n"  # of subword-nmt's format of merges
# subword-nmt remembers each word that it has split; that many take about 20 MB.
WORDS_REMEMBERED = 50_000


def learn_codes(words: Iterable[tuple[str, int]], merges: int, file: IO[str]) -> int:
    """Learn at most ``merges`` merges (fewer if no pair of symbols occurs twice) and write them to ``file``.

    Args:
        words: each word once with its frequency, over both languages together.
        merges: at least 1.
        file: open for writing text.

    Returns:
        The number of merges.

    Raises:
        PreparationError: there is not a single merge to learn.
    """
    from .bpe_learning import learn_merges  # here, so that a call that has nothing to do does not wait for numpy

    found = progress_bar(iterable=learn_merges(words, merges), total=merges, desc="learn BPE", unit="merge")
    lines = [f"{first} {second}\n" for first, second in found]
    if not lines:  # subword-nmt could not read such a file back
        raise PreparationError("the training text is too small to learn BPE from: no pair of characters occurs twice")
    file.write(VERSION_LINE)
    file.writelines(lines)
    return len(lines)


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

    Returns:
        A ``BPE`` of subword-nmt.
    """
    state = codes.stat()  # another file may take this path later in the life of the process
    return _load_segmenter(codes, vocabulary, threshold, (state.st_ino, state.st_mtime_ns))


def _forget_words(segmenter: Any) -> None:
    if len(segmenter.cache) > WORDS_REMEMBERED:
        segmenter.cache.clear()


def count_subwords(words: Iterable[tuple[str, int]], codes: Path) -> Counter[str]:
    """How often each subword occurs in a text, from how often each word does.

    Args:
        words: each word with its frequency.
        codes: file of merges, as :func:`learn_codes` writes it.

    Returns:
        Subword, with ``@@`` where the word goes on, -> frequency.
    """
    segmenter = load_segmenter(codes)
    subwords: Counter[str] = Counter()
    for word, count in words:
        for subword in segmenter.segment_tokens([word]):
            subwords[subword] += count
        _forget_words(segmenter)
    return subwords


def write_vocabulary(counts: Mapping[str, int], file: IO[str]) -> None:
    """Write one ``subword count`` line each, most frequent first, ties in the order of the code points.

    Args:
        counts: subword -> frequency.
        file: open for writing text.
    """
    for subword, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        file.write(f"{subword} {count}\n")


def _segment(sentence: str, segmenter: Any) -> str:
    segmented: str = segmenter.segment(sentence)
    _forget_words(segmenter)
    return segmented


def segment_pairs(
    pairs: list[tuple[str, str]],
    codes: Path,
    vocabularies: Sequence[Path | None],
    threshold: int,
    cleaning: Cleaning | None = None,
) -> list[tuple[str, str] | None]:
    """Both sides of each pair (words joined by single spaces) as subwords joined by single spaces.

    Args:
        pairs: of sentences.
        codes: file of merges.
        vocabularies: of each side, see :func:`load_segmenter`.
        threshold: as there.
        cleaning: says which pairs of segmented sentences are kept; None: all.

    Returns:
        For each pair in order (source, target), or None for one that ``cleaning`` does not keep.
    """
    source, target = (load_segmenter(codes, vocabulary, threshold) for vocabulary in vocabularies)
    done: list[tuple[str, str] | None] = []
    for first, second in pairs:
        pair = _segment(first, source), _segment(second, target)
        done.append(pair if cleaning is None or cleaning.keeps(*pair) else None)
    return done
