"""The method restated in numpy, token by token, from its equations: it shares no code with the package.

A distribution over words is an array (V,), which is 0 outside of its support; float64 throughout.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np


class Options(NamedTuple):
    """The options of the method, by the names and with the defaults of its documentation."""

    support: str = "predicted"
    support_size: int = 1
    temperature: float = 1.0
    temperature_scale: str = "relative"
    min_target_prob: float = 0.5
    similarity: str = "distance"
    teacher: str = "embedding"
    embedding_weight: float = 1.0
    gate: str = "all"
    student_temperature: float = 1.0
    normalise: str = "vocabulary"
    control: str = "none"


class Token(NamedTuple):
    """What the soft targets of one token may look at.

    The words that chance drew and the permutation of the vocabulary (V,) that chance made are inputs: they cannot be
    restated, and it is checked that chance may have made them.
    """

    target: int
    logits: np.ndarray | None = None  # (V,) of the model
    teacher_logits: np.ndarray | None = None  # (V,) of its pass without dropout
    excluded: frozenset = frozenset()
    drawn: list | None = None
    permutation: list | None = None


class Space:
    """The embedding space: a matrix (V, d), and how its rows lie to the one of a target."""

    def __init__(self, weight):
        self.rows = np.asarray(weight, dtype=np.float64)
        self.centred = self.rows - self.rows.mean(axis=0)
        # Root mean square distance of two rows: 2 (mean |w|^2 - |mean w|^2), of rows less their mean.
        self.unit = math.sqrt(2.0 * np.mean([np.dot(row, row) for row in self.centred]))
        self._distances, self._cosines = {}, {}

    def distances(self, target):
        if target not in self._distances:
            self._distances[target] = np.sqrt(((self.rows - self.rows[target]) ** 2).sum(axis=1))
        return self._distances[target]

    def cosines(self, target):
        if target not in self._cosines:
            lengths = np.sqrt((self.centred**2).sum(axis=1))
            self._cosines[target] = self.centred @ self.centred[target] / (lengths * lengths[target])
            self._cosines[target][target] = 1.0
        return self._cosines[target]


# ------------------------------------------------------------------------------------------------ words of a support


def first(n, order, left_out):
    """The first n words of an order, those left out skipped."""
    return list(itertools.islice((int(k) for k in order if int(k) not in left_out), n))


def predicted(token, space, options):
    """Within the support the n words are chosen beside the target."""
    beside = {token.target} if options.normalise == "support" else set()
    order = np.argsort(-np.asarray(token.logits, dtype=np.float64), kind="stable")
    return first(options.support_size, order, token.excluded | beside)


def near(token, space, options):
    order = np.argsort(space.distances(token.target), kind="stable")
    return first(options.support_size, order, token.excluded | {token.target})


def every_word(token, space, options):
    return [k for k in range(len(space.rows)) if k not in token.excluded]


def by_chance(token, space, options):
    words = [int(k) for k in token.drawn]
    assert len(set(words)) == len(words) == options.support_size, f"not {options.support_size} different words: {words}"
    assert not {token.target, *token.excluded} & set(words), f"words that may not be drawn: {words}"
    return words


# The words that share probability with the target, for each support of the package; the target may be among them.
WORDS = {
    "predicted": predicted,
    "nearest": near,
    "full": every_word,
    "random": by_chance,
}


def is_drawn(support):
    """Whether a support draws its words by chance, so that the definition has to be given them."""
    return WORDS.get(support) is by_chance


def nearest(weight, target, n, excluded):
    """The n nearest words of the target by brute force."""
    return near(Token(target, excluded=frozenset(excluded)), Space(weight), Options(support_size=n))


# ----------------------------------------------------------------------------------------------------------- scores


def by_distance(distances, cosines, tau, unit):
    return -distances / (tau * unit)


def by_gaussian(distances, cosines, tau, unit):
    return -(distances**2) / (2.0 * (tau * unit) ** 2)


def by_cosine(distances, cosines, tau, unit):
    return cosines / tau


# s(t, k) of the words k by their distances and cosines to the target; which of the two is the first.
SIMILARITIES = {
    "distance": (by_distance, "distances"),
    "gaussian": (by_gaussian, "distances"),
    "cosine": (by_cosine, "cosines"),
}


def reads_space(options):
    """Whether soft targets read the matrix, beyond the choice of words."""
    return options.control != "uniform" and (options.teacher == "embedding" or options.embedding_weight != 0)


def permuted(token, vocabulary):
    """pi_t (V,): pi on the words beside t, but for the word that pi sends to t, which goes where pi sends t."""
    pi, t = np.array(token.permutation), token.target
    assert np.array_equal(np.sort(pi), np.arange(vocabulary)), "no permutation"
    assert all(pi[k] == k for k in token.excluded), "the excluded words have to stay"
    pi_t = np.where(pi == t, pi[t], pi)
    pi_t[t] = t
    return pi_t


def seen_words(token, options, vocabulary):
    """For each word the word whose row of the matrix it is judged by."""
    rows_are_shuffled = options.control == "shuffled_rows" and reads_space(options)
    return permuted(token, vocabulary) if rows_are_shuffled else np.arange(vocabulary)


def scores_of(token, space, options):
    """The score of every word (V,)."""
    vocabulary = len(space.rows)
    scores = np.zeros(vocabulary)
    if options.control == "uniform":
        return scores
    if reads_space(options):
        similarity, _ = SIMILARITIES[options.similarity]
        unit = {"relative": space.unit, "absolute": 1.0}[options.temperature_scale]
        words = seen_words(token, options, vocabulary)
        distances, cosines = space.distances(token.target)[words], space.cosines(token.target)[words]
        scores = similarity(distances, cosines, options.temperature, unit)
    if options.teacher == "self":
        of_model = np.asarray(token.teacher_logits, dtype=np.float64) / options.student_temperature
        scores = of_model + (options.embedding_weight * scores if reads_space(options) else 0.0)
    return scores


# ----------------------------------------------------------------------------------------------------- soft targets


class Row(NamedTuple):
    """Soft targets of one token: q (V,); the words that it is about (V,) bool; what its score was made of, one number
    for each word of the support beside the target, none where the matrix was not read.
    """

    probs: np.ndarray
    support: np.ndarray
    measures: np.ndarray


def row_of(token, space, options):
    """The soft targets of one token."""
    assert options.support in WORDS, f"tests/definition.py does not say what {options.support!r} is: add it to WORDS"
    t, vocabulary = token.target, len(space.rows)
    support = np.zeros(vocabulary, dtype=bool)
    support[[t, *WORDS[options.support](token, space, options)]] = True
    scores = scores_of(token, space, options)
    q = np.where(support, np.exp(np.where(support, scores - scores[support].max(), 0.0)), 0.0)
    q /= q.sum()
    if options.gate == "others" and options.teacher == "self" and options.control != "uniform":
        of_model = np.asarray(token.teacher_logits, dtype=np.float64)[support] / options.student_temperature
        kept = float(np.exp(log_softmax(of_model))[np.flatnonzero(support) == t][0])
        q = np.zeros(vocabulary)
        others = [k for k in np.flatnonzero(support) if k != t]
        if others:
            q[others] = (1.0 - kept) * np.exp(log_softmax(scores[others]))
        q[t] = kept  # 1 where it is alone
    if q[t] < options.min_target_prob:
        q *= (1.0 - options.min_target_prob) / (1.0 - q[t])
        q[t] = options.min_target_prob
    measures = np.zeros(0)
    if reads_space(options):
        name = SIMILARITIES[options.similarity][1]
        others = support.copy()
        others[t] = False
        measures = getattr(space, name)(t)[seen_words(token, options, vocabulary)][others]
    if options.control == "shuffled":  # what belongs to pi_t(k) goes to k
        words = permuted(token, vocabulary)
        q, support = q[words], support[words]
    return Row(q, support, measures)


# ------------------------------------------------------------------------------------------------------------ losses


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


def entropy(q):
    q = q[q > 0]
    return -float((q * np.log(q)).sum())


class Losses(NamedTuple):
    """Sums over the tokens that are not padding, in nats; the gradient of L (N, V); what is logged beside; their q."""

    sums: list  # L, L_CE, nll, L_SKD
    gradient: np.ndarray
    statistics: dict
    rows: list  # of soft targets


def losses(
    logits, weight, targets, *, alpha, label_smoothing=0.0, pad=None, excluded=(), drawn=None, teacher_logits=None,
    permutation=None, **options,
):  # fmt: skip
    """The losses of a batch.

    ``weight``: a matrix or a :class:`Space`. ``drawn``: for a support that draws, {token: its words}.
    """
    options = Options(**options)
    space = weight if isinstance(weight, Space) else Space(weight)
    logits = np.asarray(logits, dtype=np.float64)
    vocabulary = logits.shape[1]
    gradient = np.zeros_like(logits)
    sums, rows = np.zeros(4), []
    statistics = dict(ntokens=0, n_correct=0, target_prob=0.0, entropy=0.0, measure=0.0, num_pairs=0)
    temperature = options.student_temperature
    for i, target in enumerate(int(t) for t in targets):
        if target == pad:
            continue
        token = Token(
            target, logits[i], None if teacher_logits is None else teacher_logits[i],
            frozenset({*excluded, pad} - {None}), None if drawn is None else drawn[i], permutation,
        )  # fmt: skip
        rows.append(row_of(token, space, options))
        q, support, measures = rows[-1]
        lprobs = log_softmax(logits[i])
        # fairseq's label smoothing: 1 - eps on the target, eps / (V - 1) on every other word.
        smoothed = np.full(vocabulary, label_smoothing / (vocabulary - 1))
        smoothed[target] = 1.0 - label_smoothing
        ce = -float((smoothed * lprobs).sum())
        # The student: its distribution at its temperature, over all words or over those of the support.
        compared = support if options.normalise == "support" else np.ones(vocabulary, dtype=bool)
        student = np.full(vocabulary, -np.inf)
        student[compared] = log_softmax(logits[i][compared] / temperature)
        some = q > 0
        skd = temperature**2 * float((q[some] * (np.log(q[some]) - student[some])).sum())
        sums += [(1 - alpha) * ce + alpha * skd, ce, -lprobs[target], skd]
        gradient[i] = (1 - alpha) * (np.exp(lprobs) - smoothed) + alpha * temperature * (np.exp(student) - q)
        statistics["ntokens"] += 1
        statistics["n_correct"] += int(lprobs.argmax() == target)
        statistics["target_prob"] += q[target]
        statistics["entropy"] += entropy(q)
        statistics["measure"] += float(measures.sum())
        statistics["num_pairs"] += len(measures)
    return Losses(list(sums), gradient, statistics, rows)
