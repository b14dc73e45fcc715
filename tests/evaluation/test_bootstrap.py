"""Intervals of the perplexity, against a loop in plain Python and against the normal approximation."""

import math
import statistics

import numpy as np
import pytest

from selfkd_fairseq.evaluation.bootstrap import nll_difference, perplexity

TOKENS = np.array([3, 1, 7, 2, 5, 4])
NLL = np.array([4.0, 3.5, 9.0, 1.0, 12.0, 6.0])
BASELINE = np.array([4.5, 3.0, 9.5, 1.5, 11.0, 7.0])


def percentile(values, percent):
    """Linear between the order statistics (definition 7 of Hyndman and Fan)."""
    values = sorted(values)
    place = percent / 100 * (len(values) - 1)
    low = math.floor(place)
    return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])


def by_hand(sums, samples, seed):
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(samples):
        drawn = [int(i) for i in generator.integers(6, size=6)]
        means.append(sum(float(sums[i]) for i in drawn) / sum(int(TOKENS[i]) for i in drawn))
    return means


def test_perplexity_is_that_of_a_loop():
    value, low, high = perplexity(NLL, TOKENS, 50, 7)
    draws = [math.exp(mean) for mean in by_hand(NLL, 50, 7)]
    assert value == pytest.approx(math.exp(35.5 / 22))
    assert (low, high) == pytest.approx((percentile(draws, 2.5), percentile(draws, 97.5)))
    assert perplexity(NLL, TOKENS, 50, 7) == (value, low, high) != perplexity(NLL, TOKENS, 50, 8)


def test_difference_is_that_of_a_loop_on_the_same_draws():
    value, low, high = nll_difference(NLL, BASELINE, TOKENS, 50, 7)
    draws = [a - b for a, b in zip(by_hand(NLL, 50, 7), by_hand(BASELINE, 50, 7))]
    assert value == pytest.approx((35.5 - 36.5) / 22)
    assert (low, high) == pytest.approx((percentile(draws, 2.5), percentile(draws, 97.5)))
    assert nll_difference(NLL, NLL, TOKENS, 50, 7) == (0, 0, 0)


def test_one_sentence_is_every_draw():
    assert perplexity(NLL[:1], TOKENS[:1], 50, 7) == pytest.approx([math.exp(4 / 3)] * 3)
    assert nll_difference(NLL[:1], BASELINE[:1], TOKENS[:1], 50, 7) == pytest.approx([-0.5 / 3] * 3)


def test_large_sample_comes_near_the_normal_approximation():
    generator = np.random.default_rng(1)
    tokens = generator.integers(5, 40, size=1000)
    nll = tokens * generator.gamma(4.0, 0.5, size=1000)
    # Delta method for a ratio of sums: the residuals nll - mean * tokens carry the variance.
    mean = float(nll.sum() / tokens.sum())
    residuals = [float(a - mean * b) for a, b in zip(nll, tokens)]
    error = math.sqrt(1000) * statistics.stdev(residuals) / float(tokens.sum())
    value, low, high = perplexity(nll, tokens, 10000, 12345)
    assert math.log(value) == pytest.approx(mean)
    assert math.log(low) == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert math.log(high) == pytest.approx(mean + 1.96 * error, abs=0.1 * error)
