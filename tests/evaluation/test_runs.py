"""Reading run folders: names, checks, messages."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from selfkd_fairseq.evaluation.calibration import Bin
from selfkd_fairseq.evaluation.errors import ScoringError
from selfkd_fairseq.evaluation.runs import parse_run, read_evaluation, read_run
from tests.evaluation.run_folders import (
    PROVENANCE,
    bins,
    evaluation,
    generate_output,
    training_log,
    word_shares,
    write_run,
)

TOKENS, NLL = [3, 2, 4], [2.5, 3.0, 8.0]


def refused(call, *arguments):
    with pytest.raises(ScoringError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_name_of_a_system(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    assert parse_run("sweep/self_kd/1") == ("self_kd", Path("sweep/self_kd/1"))
    assert parse_run("name=sweep/seed=1") == ("name", Path("sweep/seed=1"))
    assert parse_run("sweep/kd/seed=1")[0] == "kd"
    assert parse_run("lr=1")[0] == tmp_path.name
    assert parse_run("lr=2") == ("lr", Path("2"))
    for text in ("=x", "x=", "/"):
        assert "write NAME=RUN" in refused(parse_run, text)


def test_everything_is_read(tmp_path):
    calibration = {"expected_calibration_error": 0.03125, "bins": bins(0.25, None)}
    shares = word_shares(0.75, 0.5)
    written = evaluation(4, TOKENS, NLL, calibration=calibration, word_shares=shares)
    folder = write_run(
        tmp_path / "1", written, generate_output("abc", "xyz"), training_log([3, 2], 0.25), {"commit": "1"}
    )
    run = read_run("kd", folder, "test")
    assert (run.system, run.seed, run.folder, run.provenance) == ("kd", 4, folder, {"commit": "1"})
    assert run.translations.hypotheses == ["a", "b", "c"] and run.translations.references == ["x", "y", "z"]
    assert run.log.alpha == [(1, 0.25), (2, 0.5)]
    found = run.evaluation
    assert found.word_shares == shares
    assert found.bins == [Bin(0.0, 0.5, 3, 0.375, 0.625), Bin(0.5, 1.0, 0, None, None)]
    assert (found.ids, found.tokens.tolist(), found.nll.tolist()) == ([0, 1, 2], TOKENS, NLL)
    assert (found.accuracy, found.calibration_error, found.target_lang) == (60.5, 0.03125, "de")
    assert found.data == PROVENANCE["data"]["sha256"]
    assert found.tokens.dtype == np.int64 and found.nll.dtype == np.float64
    assert found.record == {key: value for key, value in written.items() if key != "per_sentence"}


def test_only_the_evaluation_is_needed(tmp_path):
    without = {key: value for key, value in PROVENANCE.items() if key != "data"}
    run = read_run("kd", write_run(tmp_path / "1", evaluation(1, TOKENS, NLL, None, provenance=without)), "test")
    assert (run.translations, run.log, run.provenance, run.evaluation.data) == (None, None, None, None)
    assert run.evaluation.target_lang is None


def test_what_is_missing_and_what_makes_it(tmp_path):
    assert refused(read_run, "kd", tmp_path / "a", "test").endswith("a does not exist")
    (tmp_path / "file").touch()
    assert "is no folder of a run" in refused(read_run, "kd", tmp_path / "file", "test")
    (tmp_path / "a" / "checkpoints").mkdir(parents=True)
    assert "checkpoints/*.pt is missing (fairseq-train makes it)" in refused(read_run, "kd", tmp_path / "a", "test")
    (tmp_path / "a" / "checkpoints" / "checkpoint_last.pt").touch()
    message = refused(read_run, "kd", tmp_path / "a", "valid")
    assert "results/evaluate-valid.json is missing (selfkd-evaluate" in message and "--gen-subset valid" in message
    write_run(tmp_path / "a", evaluation(1, TOKENS, NLL), generate_output("ab", "xy"))
    assert "generate-test.txt has 2 sentences, evaluate-test.json 3" in refused(read_run, "kd", tmp_path / "a", "test")
    write_run(tmp_path / "a", evaluation(1, TOKENS, NLL), generate_output("abc", "xyz")[:-9])
    assert "generate-test.txt is cut off" in refused(read_run, "kd", tmp_path / "a", "test")
    (tmp_path / "a" / "results" / "generate-test.txt").unlink()
    (tmp_path / "a" / "provenance.json").write_text("[1]")
    assert "provenance.json is damaged: it holds no JSON object" in refused(read_run, "kd", tmp_path / "a", "test")


def changed(**parts):
    """An evaluation in which some sentences' numbers are others."""
    record = evaluation(1, TOKENS, NLL)
    record["per_sentence"].update(parts)
    return record


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "is damaged: it holds no JSON object"),
        ({}, "is of format None, and format 1 is needed: make it anew"),
        (evaluation(1, TOKENS, NLL, format=2), "is of format 2, and format 1 is needed"),
        (evaluation(1, TOKENS, NLL, split="valid"), "is of the split 'valid', not of 'test'"),
        (evaluation("1", TOKENS, NLL), "is damaged: training.seed is missing or of a wrong type"),
        (evaluation(True, TOKENS, NLL), "training.seed is missing or of a wrong type"),
        (evaluation(1, TOKENS, NLL, accuracy=None), "accuracy is missing"),
        (evaluation(1, TOKENS, NLL, accuracy=math.nan), "accuracy is nan"),
        (evaluation(1, TOKENS, NLL, calibration=[]), "calibration.expected_calibration_error is missing"),
        *(
            (evaluation(1, TOKENS, NLL, calibration={"expected_calibration_error": 0.1, "bins": found}), message)
            for found, message in [
                (None, "calibration.bins is missing"),
                ([0.5], "bin 0 of the calibration.tokens is missing"),
                ([[]], "bin 0 of the calibration.tokens is missing"),
                ([*bins(0.1), {"from": 0}], "bin 1 of the calibration.tokens is missing"),
                ([{**bins(0.1)[0], "tokens": 1e999}], "bin 0 of the calibration.tokens is missing or of a wrong type"),
                ([{**bins(0.1)[0], "accuracy": "0.5"}], "bin 0 of the calibration.accuracy is missing"),
                ([{**bins(0.1)[0], "confidence": math.nan}], "bin 0 of the calibration.confidence is nan"),
                ([{**bins(0.1)[0], "to": 10**400}], "bin 0 of the calibration.to is too large"),
            ]
        ),
        *(
            (evaluation(1, TOKENS, NLL, word_shares=found), message)
            for found, message in [
                ([], "word_shares.soft_targets.target is missing"),
                ({"model": {}}, "word_shares.soft_targets.target is missing"),
                (word_shares(0.5, math.inf), "word_shares.model.target is inf"),
                (word_shares(0.5, 10**400), "word_shares.model.target is too large"),
            ]
        ),
        (evaluation(1, TOKENS, NLL, checkpoint=None), "checkpoint is missing"),
        (evaluation(1, TOKENS, NLL, tokens=8), "its sentences have 9 tokens, not 8"),
        (evaluation(1, TOKENS, NLL, sentences=4), "per_sentence.tokens does not hold 4 finite numbers"),
        (evaluation(1, TOKENS, NLL, nll={"nats_per_token": 1.6}), "the nll of its sentences is not that of the whole"),
        (changed(nll=[2.5, None, 8.0]), "per_sentence.nll does not hold 3 finite numbers"),
        (changed(nll=[2.5, {}, 8.0]), "per_sentence.nll holds something that is no number"),
        (changed(id=[0, 1]), "per_sentence.id does not hold 3"),
        (changed(tokens=[5, -1, 5]), "its sentences have 9 tokens"),
    ],
)
def test_damaged_evaluations(tmp_path, record, message):
    path = tmp_path / "evaluate-test.json"
    path.write_text(json.dumps(record))
    found = refused(read_evaluation, path, "test")
    assert found.startswith(str(path)) and message in found


def test_evaluation_that_is_cut_off(tmp_path):
    path = tmp_path / "evaluate-test.json"
    path.write_text(json.dumps(evaluation(1, TOKENS, NLL))[:-30])
    assert refused(read_evaluation, path, "test").startswith(f"{path} is damaged: ")
