"""Several trainings in one process, each as if it were alone."""

import json
import logging

from fairseq import checkpoint_utils
from fairseq.logging import progress_bar
from fairseq_cli import train

from selfkd_fairseq.runs.multirun import forget_last_training, record_provenance


class Writer:
    closed = False

    def close(self):
        self.closed = True


def test_nothing_is_left_of_the_training_before(tmp_path):
    checkpoint_utils.save_checkpoint.best = 1.0
    train.should_stop_early.best = 1.0
    train.should_stop_early.num_runs = 2
    on_screen = logging.StreamHandler()
    for logger in (train.logger, progress_bar.logger):
        logger.addHandler(on_screen)
        logger.addHandler(logging.FileHandler(tmp_path / "log.json"))
    writer = progress_bar._tensorboard_writers["train"] = Writer()
    forget_last_training()
    for function in (checkpoint_utils.save_checkpoint, train.should_stop_early):
        assert not hasattr(function, "best") and not hasattr(function, "num_runs")
    for logger in (train.logger, progress_bar.logger):
        assert logger.handlers == [on_screen]
        logger.removeHandler(on_screen)
    assert writer.closed and not progress_bar._tensorboard_writers
    forget_last_training()


def test_a_resume_by_another_version_is_recorded(tmp_path):
    first = {"command": ["a"], "time": "1", "commit": "c", "versions": {"torch": "2"}}

    def record():
        return json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))

    record_provenance(tmp_path, first)
    record_provenance(tmp_path, {**first, "command": ["b"], "time": "2"})
    assert record() == {**first, "resumed": []}
    other = {**first, "time": "3", "versions": {"torch": "3"}}
    record_provenance(tmp_path, other)
    record_provenance(tmp_path, {**other, "time": "4"})
    assert record() == {**first, "resumed": [other]}
    record_provenance(tmp_path, {**first, "time": "5"})
    assert [start["time"] for start in record()["resumed"]] == ["3", "5"]
    assert [path.name for path in tmp_path.iterdir()] == ["provenance.json"]
