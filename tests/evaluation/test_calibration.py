"""Expected calibration error against a plain loop over tokens and bins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfkd_fairseq.evaluation.calibration import BINS, calibrate


def by_hand(confidence, correct, bins):
    """Bins of (confidence, correct) pairs, and the error, as Guo et al. write it: sum of |B| / n |acc - conf|."""
    found, error = [], 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [(c, k) for c, k in zip(confidence, correct) if low < c <= high]
        found.append(inside)
        if inside:
            mean_confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(k for _, k in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(accuracy - mean_confidence)
    return found, error


def test_an_example_worked_out():
    # four bins: (0, 0.25] empty; 0.4 wrong and 0.5 right: |0.5 - 0.45|; 0.6 right: 0.4; 0.9 wrong: 0.9
    found = calibrate(np.array([0.4, 0.5, 0.6, 0.9]), np.array([False, True, True, False]), bins=4)
    assert found.expected_calibration_error == pytest.approx((2 * 0.05 + 0.4 + 0.9) / 4)
    assert [b.tokens for b in found.bins] == [0, 2, 1, 1]
    assert found.bins[0] == (0.0, 0.25, 0, None, None)
    assert found.bins[1] == pytest.approx((0.25, 0.5, 2, 0.45, 0.5))


def test_perfect_calibration_has_no_error():
    confidence = np.repeat([0.25, 0.75], 4)
    correct = np.array([True, False, False, False, True, True, True, False])
    assert calibrate(confidence, correct).expected_calibration_error == pytest.approx(0)


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.lists(
        st.tuples(st.floats(1e-9, 1) | st.sampled_from([1 / 15, 0.2, 0.6, 1.0]), st.booleans()), min_size=1
    ),
    bins=st.sampled_from([1, 2, 10, BINS]),
)
def test_against_a_plain_loop(tokens, bins):
    confidence, correct = [c for c, _ in tokens], [k for _, k in tokens]
    expected, error = by_hand(confidence, correct, bins)
    found = calibrate(np.array(confidence), np.array(correct), bins)
    assert found.expected_calibration_error == pytest.approx(error, abs=1e-12)
    assert [b.tokens for b in found.bins] == [len(inside) for inside in expected]
    for number, (b, inside) in enumerate(zip(found.bins, expected)):
        assert (b.low, b.high) == (number / bins, (number + 1) / bins)
        if inside:
            assert b.confidence == pytest.approx(np.mean([c for c, _ in inside]))
            assert b.accuracy == pytest.approx(np.mean([k for _, k in inside]))
        else:
            assert b.confidence is None and b.accuracy is None
