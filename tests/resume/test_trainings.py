"""What the other tests of this folder compare with sees the smallest difference."""

import math

import pytest
import torch

from tests.resume.trainings import differences, logged


def state():
    return {"model": {"w": torch.tensor([0.0, 1.0]), "b": torch.tensor([math.nan])}, "lr": [0.5, None], "name": "adam"}


def test_equal_states_have_no_difference():
    assert differences(state(), state()) == []


@pytest.mark.parametrize(
    "change, place",
    [
        (lambda s: s["model"]["w"][0].neg_(), "checkpoint['model']['w']"),  # the sign of a zero
        (lambda s: s["model"].update(w=s["model"]["w"].double()), "checkpoint['model']['w']"),
        (lambda s: s["model"].pop("b"), "keys of checkpoint['model']"),
        (lambda s: s["lr"].append(1), "keys of checkpoint['lr']"),
        (lambda s: s["lr"].insert(0, s["lr"].pop() or 0), "checkpoint['lr'][0]"),
        (lambda s: s.update(name=None), "checkpoint['name']"),
    ],
)
def test_a_difference_is_named(change, place):
    changed = state()
    change(changed)
    assert differences(state(), changed)[0] == place


def test_the_last_record_of_an_update_counts_and_times_do_not(tmp_path):
    (tmp_path / "log").write_text(
        '{"epoch": 1, "loss": "3", "num_updates": "2", "wps": "7"}\n'
        "end of epoch 1\n"
        '{"epoch": 1, "valid_loss": "5", "valid_num_updates": "2", "valid_wps": "0"}\n'
        '{"epoch": 1, "loss": "4", "num_updates": "2", "wps": "8"}\n'
    )
    assert logged(tmp_path / "log") == {
        ("update", 2): {"epoch": 1, "loss": "4", "num_updates": "2"},
        ("valid", 2): {"epoch": 1, "valid_loss": "5", "valid_num_updates": "2"},
    }
