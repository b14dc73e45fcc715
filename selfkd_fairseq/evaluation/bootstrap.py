"""Perplexity and its uncertainty: the bootstrap over sentences.

The sentences of the test set are drawn anew, with replacement, as many as there are; the interval holds the middle
95 % of what the draws give (percentiles 2.5 and 97.5, as :func:`scipy.stats.bootstrap` takes them). Two systems are
compared on the same draws. Source: Efron and Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 13. The
sentences are taken for independent; where a model carries its state from sentence to sentence this is an approximation.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import numpy as np
from scipy import stats


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


def _mean(sums: np.ndarray, tokens: np.ndarray, axis: int = -1) -> Any:
    """Mean per token."""
    return sums.sum(axis) / tokens.sum(axis)


def _perplexity(nll: np.ndarray, tokens: np.ndarray, axis: int = -1) -> Any:
    return np.exp(_mean(nll, tokens, axis))


def _interval(statistic: Callable[..., Any], sums: np.ndarray, tokens: np.ndarray, samples: int, seed: int) -> Interval:
    value = float(statistic(sums, tokens))
    if len(sums) == 1:
        return Interval(value, value, value)  # every draw is the same, and scipy asks for two sentences
    drawn = stats.bootstrap(
        (sums, tokens),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=samples,
        batch=1,  # all draws at once would be (samples, sentences) numbers
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return Interval(value, *map(float, drawn.confidence_interval))


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
    return _interval(_perplexity, nll, tokens, samples, seed)


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
    return _interval(_mean, nll - baseline, tokens, samples, seed)
