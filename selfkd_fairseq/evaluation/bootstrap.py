"""Perplexity and its uncertainty: the bootstrap over sentences.

The sentences of the test set are drawn anew, with replacement, as many as there are; the interval holds the middle
95 % of what the draws give (percentiles 2.5 and 97.5, interpolated as :func:`numpy.percentile` does). Two systems are
compared on the same draws. Source: Efron and Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 13. The
sentences are taken for independent; where a model carries its state from sentence to sentence this is an approximation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PERCENTILES = (2.5, 97.5)


class Interval(NamedTuple):
    """A number and its 95 % interval.

    Attributes:
        value: the number, of all sentences.
        low: percentile 2.5 of the draws, in the unit of the number.
        high: percentile 97.5.
    """

    value: float
    low: float
    high: float


def _resampled_means(sums: np.ndarray, tokens: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Mean per token in each draw of sentences, (samples,)."""
    generator = np.random.default_rng(seed)
    means = np.empty(samples)
    for sample in range(samples):  # one draw at a time: all at once would be (samples, sentences) numbers
        drawn = generator.integers(len(sums), size=len(sums))
        means[sample] = sums[drawn].sum() / tokens[drawn].sum()
    return means


def perplexity(nll: np.ndarray, tokens: np.ndarray, samples: int, seed: int) -> Interval:
    """Perplexity, exp of the mean nll per token, with its interval.

    Args:
        nll: (S,) sum over the tokens of each sentence, nats.
        tokens: (S,) number of tokens of each.
        samples: number of draws.
        seed: of the draws; the same seed and number of sentences give the same draws.

    Returns:
        The perplexity of all sentences, and percentiles 2.5 and 97.5 of that of the draws.
    """
    low, high = np.percentile(np.exp(_resampled_means(nll, tokens, samples, seed)), PERCENTILES)
    return Interval(float(np.exp(nll.sum() / tokens.sum())), float(low), float(high))


def nll_difference(nll: np.ndarray, baseline: np.ndarray, tokens: np.ndarray, samples: int, seed: int) -> Interval:
    """Mean nll per token less that of a baseline on the same sentences, nats per token; negative is better.

    Args:
        nll: (S,) sum over the tokens of each sentence, nats.
        baseline: (S,) the same of the baseline.
        tokens: (S,) number of tokens of each, the same for both.
        samples: number of draws.
        seed: as of :func:`perplexity`; both systems are compared on the same draws.

    Returns:
        The mean difference over all tokens in nats, and percentiles 2.5 and 97.5 of that of the draws.
    """
    difference = nll - baseline
    low, high = np.percentile(_resampled_means(difference, tokens, samples, seed), PERCENTILES)
    return Interval(float(difference.sum() / tokens.sum()), float(low), float(high))
