"""What is read of a log of fairseq-train."""

import json
import math

import pytest

from selfkd_fairseq.evaluation.training_log import read_training_log


def read(tmp_path, *lines):
    path = tmp_path / "log.json"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return read_training_log(path)


def test_curves_are_in_nats_and_the_last_record_of_an_update_counts(tmp_path):
    log = read(
        tmp_path,
        "{'_name': None, 'a': {'config': 1}}",
        {"nll_loss": "3", "loss": "9", "alpha": "0.1", "skd_target_prob": "0.7", "num_updates": "100"},
        {"nll_loss": "2", "loss": "9", "alpha": "0.2", "skd_target_prob": "0.8", "num_updates": "200"},
        {"valid_nll_loss": "4", "valid_loss": "9", "valid_skd_target_prob": "0.1", "valid_num_updates": "200"},
        {"train_nll_loss": "2.5", "train_alpha": "0.15", "train_num_updates": "200"},
        "2024-01-01 | INFO | a line of another kind",
        "2024-01-01 | INFO | train_inner | " + json.dumps({"nll_loss": "1", "alpha": "0.3", "num_updates": "200"}),
        {"nll_loss": "nan", "alpha": "0.4", "num_updates": "300"},
        '{"nll_loss": "1", "num_upd',
    )
    nats = math.log(2)
    assert log.train_nll == [(100, pytest.approx(3 * nats)), (200, pytest.approx(nats))]
    assert log.valid_nll == [(200, pytest.approx(4 * nats))]
    assert log.alpha == [(100, 0.1), (200, 0.3), (300, 0.4)]
    assert log.target_prob == [(100, 0.7)]


def test_cross_entropy_and_a_training_shorter_than_a_log_interval(tmp_path):
    log = read(
        tmp_path,
        {"epoch": 1, "train_loss": "6", "train_num_updates": "5"},
        {"epoch": 1, "valid_loss": "7", "valid_num_updates": "5"},
    )
    assert log.train_nll == [(5, pytest.approx(6 * math.log(2)))]
    assert log.valid_nll == [(5, pytest.approx(7 * math.log(2)))]
    assert log.alpha == log.target_prob == []


def test_stored_log_of_multi30k(root):
    log = read_training_log(root / "examples" / "translation" / "multi30k" / "results" / "self_kd" / "log.jsonl")
    assert log.valid_nll[-1] == (1860, pytest.approx(math.log(7.12), abs=1e-3))  # its valid_ppl
    assert log.train_nll[0] == (100, pytest.approx(math.log(2529.37), abs=1e-3))
    assert log.alpha[-1] == (1800, 0.44975) and log.target_prob[-1] == (1800, 0.8927)
