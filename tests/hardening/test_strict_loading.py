"""Safe loading: what fairseq checkpoints hold is allowed (test_safe_globals), everything else is refused."""

import argparse
import functools
import pickle

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema.ema import EMA

from selfkd_fairseq.checkpoints.damage import RunningSetting
from tests.hostile.payloads import Opens


@pytest.mark.parametrize("where", ["args", "extra_state", "model"])
def test_a_planted_global_is_refused_and_not_run(tmp_path, where):
    harm = tmp_path / "harm"
    torch.save({"args": argparse.Namespace(), where: {"x": Opens(harm)}}, tmp_path / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert not harm.exists()


def as_seed_of_an_average(path):
    """What ``--ema-seed-model`` of fairseq-train does."""
    return EMA(torch.nn.Linear(1, 1), EMAConfig(store_ema=True, ema_seed_model=path)).get_model().state_dict()


@pytest.mark.parametrize("torch_default", [True, False], ids=["torch 2.6", "before torch 2.6"])
@pytest.mark.parametrize("load", [checkpoint_utils.load_checkpoint_to_cpu, as_seed_of_an_average])
def test_fairseq_refuses_a_planted_checkpoint(tmp_path, monkeypatch, load, torch_default):
    harm, path = tmp_path / "harm", tmp_path / "checkpoint.pt"
    if not torch_default:
        monkeypatch.setattr(torch, "load", functools.partial(torch.load, weights_only=False))
    average = torch.nn.Linear(1, 1).state_dict()
    state = {"args": None, "cfg": None, "model": {}, "extra_state": {"ema": average}, "optimizer_history": []}
    torch.save({**state, "x": Opens(harm)}, path)
    with pytest.raises(pickle.UnpicklingError):
        load(str(path))
    torch.save({**state, "cfg": {"model": {"x": "exit()"}}}, path)
    with pytest.raises(RunningSetting, match=r"checkpoint.pt is refused: .* its setting x "):
        load(str(path))
    assert not harm.exists()
    torch.save(state, path)
    if load is as_seed_of_an_average:
        assert all(torch.equal(value, average[key]) for key, value in load(str(path)).items())


@pytest.mark.parametrize("load", [checkpoint_utils.load_checkpoint_to_cpu, as_seed_of_an_average])
def test_torchs_own_escape_hatch_stays_open(tmp_path, monkeypatch, load):
    """Whoever sets it trusts the file, whatever it holds."""
    average = torch.nn.Linear(1, 1).state_dict()
    extra = {"ema": average, "epoch": 1, "train_iterator": {"epoch": 1}}
    state = {"args": None, "cfg": None, "model": {}, "extra_state": extra, "optimizer_history": [{"best_loss": 1.0}]}
    torch.save({**state, "x": Opens(tmp_path / "made")}, tmp_path / "foreign.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    load(str(tmp_path / "foreign.pt"))
    assert (tmp_path / "made").exists()


def test_averaged_parameters_are_read_from_a_file_that_holds_nothing_else(tmp_path):
    """``--ema-seed-model`` reads no model and no settings."""
    average = torch.nn.Linear(1, 1).state_dict()
    torch.save({"extra_state": {"ema": average}}, tmp_path / "checkpoint.pt")
    loaded = as_seed_of_an_average(str(tmp_path / "checkpoint.pt"))
    assert all(torch.equal(value, average[key]) for key, value in loaded.items())
