"""Which settings of a checkpoint fairseq would run, and which only look as if."""

import argparse

import pytest
from omegaconf import OmegaConf

from selfkd_fairseq.checkpoint_settings import setting_that_runs

RUN = [
    "print()", "  print()", "\tprint()", "\nprint()", "[(512, 3)] * int('9')", "(lambda: 1)()",
    "[f() for f in [exit]]", "f'{exit()}'", b"exit()", "${oc.env:HOME}",
    ["x", "exit()"], {"a": {"b": ("exit()",)}}, argparse.Namespace(x=argparse.Namespace(y="exit()")),
]  # fmt: skip
KEPT = [
    "True", "[(512, 3)] * 20", "5000,50000", "transformer-big", "{'beam': 5}", '{"beam": 5}', "1+1", "relu", "", "a b",
    "print(", "x" * 10, "\0", "exit()\nexit()", "(" * 500, None, 3, 0.5, True, [1, 2], b"True", "\ud800",
]  # fmt: skip


def states(value):
    """A checkpoint with the value in each place where fairseq looks for settings."""
    yield {"cfg": {"model": argparse.Namespace(x=value), "task": {}}}
    yield {"cfg": {"model": {"deep": {"x": value}}}}
    yield {"cfg": {"model": None, "task": {"x": value}}, "args": None}
    yield {"cfg": {"criterion": {"_name": "ctc", "wer_args": value}}}
    yield {"cfg": None, "args": argparse.Namespace(x=value)}


@pytest.mark.parametrize("value", RUN)
def test_calls_are_found(value):
    assert all(setting_that_runs(state) is not None for state in states(value))


@pytest.mark.parametrize("value", KEPT)
def test_anything_else_is_left(value):
    assert [setting_that_runs(state) for state in states(value)] == [None] * 5


def test_names_of_files_may_look_like_calls():
    names = ["data", "save_dir", "tensorboard_logdir", "finetune_from_model", "restore_file", "wandb_project"]
    assert setting_that_runs({"cfg": {"model": {name: "runs(2)/kd" for name in names}}}) is None
    assert setting_that_runs({"cfg": {"model": {"encoder_layers": "runs(2)/kd"}}}) == "encoder_layers"


def test_omegaconf_is_not_resolved(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    settings = OmegaConf.create({"model": {"a": "${oc.env:SECRET}"}, "task": "${model}"})
    assert setting_that_runs({"cfg": settings}) == "a"
    settings = OmegaConf.create({"evil": {"x": "exit()"}, "model": "${evil}", "task": {}})
    assert setting_that_runs({"cfg": settings}) is not None


@pytest.mark.parametrize("state", [{}, {"cfg": 3}, {"cfg": []}, {"args": "x"}])
def test_what_is_no_checkpoint(state):
    assert setting_that_runs(state) is None
