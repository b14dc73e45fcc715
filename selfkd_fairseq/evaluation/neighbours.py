"""The nearest words of given words in an output embedding, as the soft targets of ``self_kd`` see them."""

from __future__ import annotations

import csv
import io
import re
from typing import Any, NamedTuple, Sequence

import torch
from torch import Tensor

from ..core.geometry import SIMILARITIES, rms_distance
from ..core.options import SelfKDOptions
from ..core.soft_targets import soft_targets

__all__ = ["COLUMNS", "Neighbour", "as_csv", "as_table", "find_neighbours", "most_frequent_words"]

COLUMNS = ("word", "neighbour", "rank", "distance", "distance / RMS", "q nearest", "q full", "frequency")
# Words whose row of the exact soft targets, as long as the vocabulary, is in memory at a time.
CHUNK = 64


class Neighbour(NamedTuple):
    """A word and one of those that share its probability.

    Attributes:
        word: the target word.
        neighbour: the word that shares; of rank 0 the word itself.
        rank: 0 for the word itself, 1 for its nearest word.
        distance: Euclidean distance of the two rows of the matrix.
        relative_distance: in units of the root mean square distance of two rows.
        q_nearest: soft-target probability of ``neighbour`` with the support ``nearest``; over all ranks they sum to 1.
        q_full: the same with the exact support ``full``, where every other word shares too.
        frequency: of ``neighbour`` in the training text, as the dictionary has it; None for fairseq's special symbols,
            which it does not count.
    """

    word: str
    neighbour: str
    rank: int
    distance: float
    relative_distance: float
    q_nearest: float
    q_full: float
    frequency: int | None


def most_frequent_words(dictionary: Any, count: int) -> list[str]:
    """The most frequent words of a fairseq dictionary; of equals the first one.

    No special symbols, and none of the words that fairseq makes up to fill a dictionary (frequency 0).

    Args:
        dictionary: of fairseq, with the frequencies of its words.
        count: how many words, at least 0.

    Returns:
        At most ``count`` words, the most frequent first.
    """
    indices = [i for i in range(dictionary.nspecial, len(dictionary)) if dictionary.count[i] > 0]
    return [dictionary[i] for i in sorted(indices, key=lambda i: -dictionary.count[i])[:count]]


def find_neighbours(
    weight: Tensor, dictionary: Any, words: Sequence[str], count: int, options: SelfKDOptions
) -> list[list[Neighbour]]:
    """For each word itself and its nearest words, with distances and soft targets of :mod:`selfkd_fairseq.core`.

    Args:
        weight: (V, d), the output embedding matrix, any float dtype; no gradient flows.
        dictionary: fairseq's dictionary of V words. Its padding and bos are neighbours of no word, as in the criterion.
        words: in the dictionary; at least one.
        count: neighbours of each word, in [1, V). Near V there may be fewer: a word is not its own neighbour.
        options: of the teacher ``embedding``: similarity, temperature, scale and floor; support and size are not read.

    Returns:
        For each word a list by rank, from 0.

    Raises:
        ValueError: an option is out of its range.
    """
    nearest = options._replace(support="nearest", support_size=count)
    nearest.check(vocabulary_size=len(weight))
    excluded = (dictionary.pad(), dictionary.bos())
    rms = float(rms_distance(weight))
    found = []
    for start in range(0, len(words), CHUNK):
        target = torch.tensor([dictionary.indices[word] for word in words[start : start + CHUNK]])
        sparse = soft_targets(None, weight, target, nearest, excluded)
        exact = soft_targets(None, weight, target, nearest._replace(support="full"), excluded)
        # Column 0 of the exact ones is the target, column k + 1 is word k.
        columns = torch.cat([torch.zeros_like(sparse.indices[:, :1]), sparse.indices[:, 1:] + 1], dim=1)
        q_full = exact.probs.gather(1, columns)
        distances = SIMILARITIES["distance"].measure.of_support(weight, sparse.indices)
        for row in zip(*(x.tolist() for x in (sparse.indices, sparse.probs, distances, sparse.valid, q_full))):
            found.append(_by_rank(dictionary, rms, *row))
    return found


def _by_rank(
    dictionary: Any,
    rms: float,
    indices: list[int],
    q_nearest: list[float],
    distances: list[float],
    valid: list[bool],
    q_full: list[float],
) -> list[Neighbour]:
    """One word and its neighbours from a row of the soft targets."""
    ranks = range(len(indices))
    return [
        Neighbour(
            word=dictionary[indices[0]],
            neighbour=dictionary[indices[rank]],
            rank=rank,
            distance=distances[rank],
            relative_distance=distances[rank] / rms if rms else 0.0,
            q_nearest=q_nearest[rank],
            q_full=q_full[rank],
            frequency=dictionary.count[indices[rank]] if indices[rank] >= dictionary.nspecial else None,
        )
        for rank in ranks
        if valid[rank]
    ]


def as_csv(neighbours: Sequence[Sequence[Neighbour]]) -> str:
    """The rows as CSV with :data:`COLUMNS`; numbers to 9 digits, which is all of a float32.

    Args:
        neighbours: of each word, as of :func:`find_neighbours`.

    Returns:
        CSV, the titles first.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in (row for rows in neighbours for row in rows):
        writer.writerow([f"{value:.9g}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def as_table(neighbours: Sequence[Sequence[Neighbour]], markdown: bool) -> str:
    """The rows as an aligned table with :data:`COLUMNS`; numbers to 4 digits.

    Args:
        neighbours: of each word, as of :func:`find_neighbours`.
        markdown: a table of Markdown, else plain text; the same numbers in both.

    Returns:
        Lines, the last without its end.
    """
    lines = [list(COLUMNS)]
    for row in (row for rows in neighbours for row in rows):
        words = [_escaped(word) if markdown else word for word in (row.word, row.neighbour)]
        numbers = [row.distance, row.relative_distance, row.q_nearest, row.q_full]
        frequency = "" if row.frequency is None else f"{row.frequency:,}"
        lines.append([*words, str(row.rank), *(f"{number:#.4g}" for number in numbers), frequency])
    widths = [max(map(len, column)) for column in zip(*lines)]
    left = 2  # columns of words
    cells = [
        [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))]
        for line in lines
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in cells)
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:]))


def _escaped(word: str) -> str:
    """A word that Markdown shows as it is: ``<unk>`` is no tag, ``&apos;`` no apostrophe, and ``|`` ends no cell."""
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", word)
