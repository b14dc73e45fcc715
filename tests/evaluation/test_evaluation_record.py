"""The numbers of ``evaluate-SPLIT.json`` from the scores of a few tokens."""

import json

import numpy as np
import pytest

from selfkd_fairseq.evaluation.calibration import calibrate
from selfkd_fairseq.evaluation.errors import EvaluationError
from selfkd_fairseq.evaluation.evaluation_record import as_json, measurements
from selfkd_fairseq.evaluation.teacher_forced import TokenScores


def measure(nll, lengths):
    scores = TokenScores(np.array(nll), np.full(len(nll), 0.5), np.arange(len(nll)) < 1)
    return measurements(scores, np.array(lengths), calibrate(scores.confidence, scores.correct))


def test_units():
    found = measure([np.log(2), np.log(4), np.log(8), np.log(4)], [3, 1])
    assert (found["sentences"], found["tokens"]) == (2, 4)
    assert found["nll"] == pytest.approx({"nats_per_token": np.log(4), "bits_per_token": 2, "ppl": 4})
    assert found["accuracy"] == 25  # percent
    assert found["calibration"]["expected_calibration_error"] == pytest.approx(0.25)  # a fraction
    assert found["per_sentence"]["id"] == [0, 1] and found["per_sentence"]["tokens"] == [3, 1]
    assert found["per_sentence"]["nll"] == pytest.approx([np.log(64), np.log(4)])


def test_a_token_that_was_not_scored():
    with pytest.raises(EvaluationError, match="2 tokens were scored, but the split has 3"):
        measure([1.0, 2.0], [1, 2])


@pytest.mark.parametrize("nll", [float("nan"), float("inf"), 1e6])
def test_an_nll_without_a_perplexity(nll):
    with pytest.raises(EvaluationError, match="did the training diverge"), np.errstate(over="ignore"):
        measure([1.0, nll], [2])


def test_json_has_a_line_for_each_entry():
    record = {"format": 1, "split": "test", "per_sentence": {"nll": [1.5, 0.1]}, "name": "à"}
    text = as_json(record)
    assert json.loads(text) == record and len(text.splitlines()) == len(record) + 2
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json({"nll": float("nan")})
