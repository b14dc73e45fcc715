"""How often each word of a text occurs, for texts with more different words than should lie in memory."""

from __future__ import annotations

import heapq
import itertools
import operator
from collections import Counter
from pathlib import Path
from typing import Iterable, Iterator

from ..files import read_lines

# A run of this many types takes about 100 MB while it is counted.
TYPES_IN_MEMORY = 500_000


def _write_run(counts: Counter[str], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for word in sorted(counts):
            file.write(f"{word} {counts[word]}\n")
    return path


def count_words(lines: Iterable[str], stem: Path) -> list[Path]:
    """Count the space-separated words of ``lines``.

    Args:
        lines: no word has white space in it.
        stem: where to keep the counts: ``STEM.0``, ``STEM.1`` and so on, each a run of ``word count`` lines in the
            order of the words.

    Returns:
        The files; together they hold the counts, see :func:`merge_counts`.
    """
    runs: list[Path] = []
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split())
        if len(counts) >= TYPES_IN_MEMORY:
            runs.append(_write_run(counts, Path(f"{stem}.{len(runs)}")))
            counts.clear()
    return [*runs, _write_run(counts, Path(f"{stem}.{len(runs)}"))]


def _read_run(path: Path) -> Iterator[tuple[str, int]]:
    for line in read_lines(path):
        word, count = line.rsplit(" ", 1)
        yield word, int(count)


def merge_counts(runs: Iterable[Path]) -> Iterator[tuple[str, int]]:
    """Add up runs of counts without holding them in memory.

    Args:
        runs: files of :func:`count_words`.

    Yields:
        Each word of all runs once, in order, with its count.
    """
    merged = heapq.merge(*(_read_run(path) for path in runs))
    for word, entries in itertools.groupby(merged, key=operator.itemgetter(0)):
        yield word, sum(count for _, count in entries)
