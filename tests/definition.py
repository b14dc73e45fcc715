"""The method restated in numpy, token by token, from its equations: it shares no code with the package."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np


class Token(NamedTuple):
    """What a support may look at: logits (V,), distances (V,) from the target's row of W to every row, the target's
    word, n, the excluded words, and the words that chance drew, if it did.
    """

    logits: np.ndarray | None
    distances: np.ndarray
    target: int
    n: int
    excluded: set
    drawn: list | None = None


def distances_from(weight, target):
    return np.sqrt(((weight - weight[target]) ** 2).sum(axis=1))


def first(n, order, left_out):
    """The first n words of an order, those left out skipped."""
    return list(itertools.islice((int(k) for k in order if k not in left_out), n))


def predicted(token):
    return first(token.n, np.argsort(-token.logits, kind="stable"), token.excluded)


def near(token):
    return first(token.n, np.argsort(token.distances, kind="stable"), {token.target, *token.excluded})


def every_word(token):
    return [k for k in range(len(token.distances)) if k not in token.excluded]


def by_chance(token):
    """Chance cannot be restated: the words are given, and it is checked that they may be drawn."""
    words = [int(k) for k in token.drawn]
    assert len(set(words)) == len(words) == token.n, f"not {token.n} different words: {words}"
    assert not {token.target, *token.excluded} & set(words), f"words that may not be drawn: {words}"
    return words


# The words that share probability with the target, for each support of the package; the target may be among them.
WORDS = {
    "predicted": predicted,
    "nearest": near,
    "full": every_word,
    "random": by_chance,
}


def support_of(support, token):
    """The words of a support, the target among them."""
    assert support in WORDS, f"tests/definition.py does not say what the support {support!r} is: add it to WORDS"
    return {token.target, *WORDS[support](token)}


def is_drawn(support):
    """Whether a support draws its words by chance, so that the definition has to be given them."""
    return WORDS.get(support) is by_chance


def nearest(weight, target, n, excluded):
    """The n nearest words of the target by brute force."""
    return near(Token(None, distances_from(weight, target), target, n, set(excluded)))


def soft_target_row(logits, weight, target, *, n, tau, relative, floor, excluded, support="predicted", drawn=None):
    """q of one token as a dict {word: probability}; float64 throughout."""
    weight = np.asarray(weight, dtype=np.float64)
    logits = None if logits is None else np.asarray(logits, dtype=np.float64)
    distances = distances_from(weight, target)
    words = support_of(support, Token(logits, distances, target, n, set(excluded), drawn))
    if relative:
        mean_square = np.mean([np.dot(w, w) for w in weight])
        mean = weight.mean(axis=0)
        tau = tau * math.sqrt(2.0 * (mean_square - np.dot(mean, mean)))
    unnormalised = {k: math.exp(-distances[k] / tau) for k in words}
    total = sum(unnormalised.values())
    q = {k: v / total for k, v in unnormalised.items()}
    if q[target] < floor:
        scale = (1.0 - floor) / (1.0 - q[target])
        q = {k: floor if k == target else v * scale for k, v in q.items()}
    return q


def log_softmax_row(logits):
    top = max(logits)
    total = top + math.log(sum(math.exp(z - top) for z in logits))
    return [z - total for z in logits]


def losses(logits, weight, targets, *, alpha, label_smoothing=0.0, pad=None, excluded=(), drawn=None, **soft):
    """(L, L_CE, nll, L_SKD) as sums in nats over the tokens that are not padding, and dL/dlogits.

    ``drawn``: for a support that draws, {token: its words}.
    """
    logits = np.asarray(logits, dtype=np.float64)
    vocabulary = logits.shape[1]
    gradient = np.zeros_like(logits)
    sums = np.zeros(4)
    eps_i = label_smoothing / (vocabulary - 1)
    for i, target in enumerate(int(t) for t in targets):
        if target == pad:
            continue
        lprobs = log_softmax_row([float(z) for z in logits[i]])
        # fairseq's label smoothing: 1 - eps on the target, eps / (V - 1) on every other word.
        smoothed = [eps_i] * vocabulary
        smoothed[target] = 1.0 - label_smoothing
        words = None if drawn is None else drawn[i]
        q = soft_target_row(logits[i], weight, target, excluded={*excluded, pad}, drawn=words, **soft)
        ce = -sum(s * lp for s, lp in zip(smoothed, lprobs))
        skd = -sum(q[k] * lprobs[k] for k in q)
        sums += [(1 - alpha) * ce + alpha * skd, ce, -lprobs[target], skd]
        for k in range(vocabulary):
            p = math.exp(lprobs[k])
            gradient[i, k] = (1 - alpha) * (p - smoothed[k]) + alpha * (p - q.get(k, 0.0))
    return sums, gradient
