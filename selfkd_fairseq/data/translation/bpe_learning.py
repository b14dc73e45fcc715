"""The merges that subword-nmt learns, in less than a fifth of its memory.

``subword_nmt.learn_bpe`` keeps every word as a tuple of strings and, for every pair of symbols, a dictionary of the
words that have it: about 1.2 kB for each different word, so 3 to 4 GB for 3 million. Here all words lie one
after the other in one array, a slot for each character. A symbol of several characters has its number in its first
and its last slot and nothing in between, so that a merge looks at what stands beside a symbol and changes it in
place. The merges are the same to the last tie; the tests compare the two.
"""

from __future__ import annotations

import heapq
from array import array
from typing import Any, Iterable, Iterator, NamedTuple

import numpy as np

END_OF_WORD = "</w>"
LEAST_COUNT = 2  # of a pair that is worth a merge, as in subword-nmt
_BOUNDARY = -1  # the slot between two words
_INSIDE = -2  # a slot between the first and the last of a symbol
_CHUNK = 1 << 20


def _pair(left: int, right: int) -> int:
    """Two symbols as one number, which takes a third of the memory of a tuple."""
    return left << 32 | right


def _symbols(pair: int) -> tuple[int, int]:
    return divmod(pair, 1 << 32)


class _Candidate(NamedTuple):
    """An entry of the heap of pairs; the best comes first, of equals the last in the order of the strings."""

    times: int
    strings: tuple[str, str]
    pair: int

    def __lt__(self, other: Any) -> bool:
        return bool((self.times, self.strings) > (other.times, other.strings))


class _Text:
    """All words, one after the other, with a boundary before, between and after them.

    Args:
        words: each with the number of times that it occurs.

    Attributes:
        slots: (n,) int32, see the module.
        starts: (words,) int64, the first slot of each word.
        counts: (words,) int64, how often each word occurs.
        strings: number of a symbol -> its string.
        lengths: number of a symbol -> its characters, the end of the word not among them.
    """

    def __init__(self, words: Iterable[tuple[str, int]]) -> None:
        self.numbers: dict[str, int] = {}
        self.strings: list[str] = []
        self.lengths: list[int] = []
        slots, starts, counts = array("i", [_BOUNDARY]), array("q"), array("q")
        for word, count in words:
            starts.append(len(slots))
            counts.append(count)
            slots.extend([self.number(mark, 1) for mark in word[:-1]])
            slots.append(self.number(word[-1] + END_OF_WORD, 1))
            slots.append(_BOUNDARY)
        self.slots = np.frombuffer(slots, dtype=np.intc)
        self.starts = np.frombuffer(starts, dtype=np.int64)
        self.counts = np.frombuffer(counts, dtype=np.int64)
        self._places: dict[int, Any] = {}

    def number(self, string: str, length: int) -> int:
        """The number of a symbol; new ones get the next."""
        number = self.numbers.setdefault(string, len(self.strings))
        if number == len(self.strings):
            self.strings.append(string)
            self.lengths.append(length)
        return number

    def places(self, symbol: int) -> Any:
        """The first slots of a symbol, in order."""
        if symbol not in self._places:  # of one character, and never merged before
            self._places[symbol] = np.flatnonzero(self.slots == symbol).astype(np.int32)
        else:
            known = self._places[symbol]
            self._places[symbol] = known[self.slots[known] == symbol]
        return self._places[symbol]

    def occurrences(self, left: int, right: int) -> Any:
        """The first slots of a pair, in order, no two of them overlapping."""
        step = self.lengths[left]
        first = self.places(left)
        first = first[self.slots[first + step] == right]
        if left != right:
            return first
        kept, free = [], 0
        for place in first.tolist():  # "a a a" holds the pair once
            if place >= free:
                kept.append(place)
                free = place + 2 * step
        return np.array(kept, dtype=np.int32)

    def weights(self, places: Any) -> Any:
        """How often the word around each slot occurs."""
        return self.counts[np.searchsorted(self.starts, places, side="right") - 1]

    def merge(self, first: Any, left: int, right: int) -> int:
        """Make one symbol of each occurrence; its number."""
        length = self.lengths[left] + self.lengths[right]
        merged = self.number(self.strings[left] + self.strings[right], length)
        second = first + self.lengths[left]
        self.slots[second - 1] = _INSIDE
        self.slots[second] = _INSIDE
        self.slots[first] = merged
        self.slots[first + length - 1] = merged
        known = self._places.get(merged)  # "ab c" and "a bc" make one symbol
        self._places[merged] = first if known is None else np.sort(np.concatenate([self.places(merged), first]))
        return merged


def _sums(keys: Any, weights: Any) -> Iterator[tuple[int, int]]:
    """Each different key with the sum of its weights."""
    different, inverse = np.unique(keys, return_inverse=True)
    # The sums are whole numbers below 2 ** 53, which float64 adds exactly.
    sums = np.bincount(inverse, weights, minlength=len(different)).astype(np.int64)
    return zip(different.tolist(), sums.tolist())


class _Statistics:
    """How often each pair of neighbouring symbols occurs, and which pair occurs most often.

    Only pairs above a threshold are candidates; it falls when none is left, so that most pairs never become one.
    """

    def __init__(self, text: _Text) -> None:
        self.text = text
        self.counts: dict[int, int] = {}
        self.candidates: list[_Candidate] = []
        self.threshold = 0
        self._count_all()

    def _count_all(self) -> None:
        slots, base = self.text.slots, len(self.text.strings)
        for begin in range(0, len(slots) - 1, _CHUNK):
            chunk = slots[begin : begin + _CHUNK + 1]
            places = np.flatnonzero((chunk[:-1] != _BOUNDARY) & (chunk[1:] != _BOUNDARY))
            keys = chunk[places].astype(np.int64) * base + chunk[places + 1]
            for key, count in _sums(keys, self.text.weights(begin + places)):
                pair = _pair(*divmod(key, base))
                self.counts[pair] = self.counts.get(pair, 0) + count

    def _candidate(self, pair: int, count: int) -> _Candidate:
        left, right = _symbols(pair)
        return _Candidate(count, (self.text.strings[left], self.text.strings[right]), pair)

    def add(self, left: int, right: int, change: int) -> None:
        """Count a pair more or less often."""
        pair = _pair(left, right)
        count = self.counts.pop(pair, 0) + change
        if count:
            self.counts[pair] = count
        if change > 0 and count >= self.threshold:
            heapq.heappush(self.candidates, self._candidate(pair, count))

    def _lower_threshold(self) -> bool:
        """Find new candidates; False if no pair occurs twice."""
        most = max(self.counts.values(), default=0)
        if most < LEAST_COUNT:
            return False
        self.threshold = max(LEAST_COUNT, most // 10)
        self.candidates = [
            self._candidate(pair, count) for pair, count in self.counts.items() if count >= self.threshold
        ]
        heapq.heapify(self.candidates)
        return True

    def best(self) -> tuple[int, int] | None:
        """The most frequent pair, of equals the last in the order of their strings; None if none occurs twice."""
        while True:
            while self.candidates:
                candidate = heapq.heappop(self.candidates)
                count = self.counts.get(candidate.pair, 0)
                if count == candidate.times:
                    return _symbols(candidate.pair)
                if self.threshold <= count < candidate.times:  # it became rarer, so its turn may come later
                    heapq.heappush(self.candidates, candidate._replace(times=count))
            if not self._lower_threshold():
                return None


def _merge(text: _Text, statistics: _Statistics, left: int, right: int) -> None:
    """Merge a pair everywhere, and count what now stands beside what."""
    first = text.occurrences(left, right)
    length = text.lengths[left] + text.lengths[right]
    weights = text.weights(first)
    before, after = text.slots[first - 1], text.slots[first + length]
    # Where two occurrences touch, what lies between them is what stands before the second.
    follower = np.searchsorted(first, first + length)
    touches = follower < len(first)
    touches[touches] = first[follower[touches]] == (first + length)[touches]
    merged = text.merge(first, left, right)
    has_before, has_after = before != _BOUNDARY, (after != _BOUNDARY) & ~touches
    for symbol, count in _sums(before[has_before], weights[has_before]):
        statistics.add(symbol, left, -count)
    for symbol, count in _sums(after[has_after], weights[has_after]):
        statistics.add(right, symbol, -count)
        statistics.add(merged, symbol, count)
    for symbol, count in _sums(text.slots[first - 1][has_before], weights[has_before]):
        statistics.add(symbol, merged, count)
    statistics.counts.pop(_pair(left, right), None)


def learn_merges(words: Iterable[tuple[str, int]], merges: int) -> Iterator[tuple[str, str]]:
    """Byte pair encoding (Sennrich et al., 2016): the pairs of symbols to merge, in order.

    Args:
        words: each word once, not empty, with its count.
        merges: at most this many.

    Yields:
        The strings of both symbols; the last character of a word carries :data:`END_OF_WORD`. Fewer than ``merges``
        if no pair occurs twice any more.
    """
    text = _Text(words)
    statistics = _Statistics(text)
    for _ in range(merges):
        pair = statistics.best()
        if pair is None:
            return
        yield text.strings[pair[0]], text.strings[pair[1]]
        _merge(text, statistics, *pair)
