"""Whether a model's confidence is its accuracy: the expected calibration error (Guo et al., 2017, arXiv 1706.04599).

Counted here and not by :func:`scipy.stats.binned_statistic`, whose bins hold their lower bound and not, as the paper's,
their upper one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["BINS", "Bin", "Calibration", "calibrate"]

BINS = 15  # as in the paper's tables


class Bin(NamedTuple):
    """The tokens whose confidence is above ``low`` and at most ``high``."""

    low: float
    """A fraction."""
    high: float
    """As ``low``."""
    tokens: int
    """Their number."""
    confidence: float | None
    """Mean within the bin, a fraction; None where there is no token."""
    accuracy: float | None
    """As ``confidence``."""


class Calibration(NamedTuple):
    """Bins of equal width that cover (0, 1], and what they add up to."""

    expected_calibration_error: float
    """Mean over all tokens of the distance between accuracy and mean confidence of their bin, a fraction."""
    bins: list[Bin]
    """From the least confident to the most."""


def calibrate(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Calibration:
    """Compare confidence and accuracy, bin by bin.

    Args:
        confidence: (T,) float64 in (0, 1], T at least 1: probability of the most probable word.
        correct: (T,) bool: that word is the right one.
        bins: their number.

    Returns:
        The expected calibration error, a fraction, and the bins from the least confident to the most.
    """
    edges = np.arange(bins + 1) / bins
    numbers = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    tokens = np.bincount(numbers, minlength=bins)
    confidences = np.bincount(numbers, weights=confidence, minlength=bins)
    hits = np.bincount(numbers, weights=correct, minlength=bins)
    error = float(np.abs(hits - confidences).sum() / len(confidence))
    found = []
    for number, count in enumerate(tokens.tolist()):
        means = (float(confidences[number] / count), float(hits[number] / count)) if count else (None, None)
        found.append(Bin(float(edges[number]), float(edges[number + 1]), count, *means))
    return Calibration(error, found)
