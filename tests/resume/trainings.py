"""What two trainings are compared by: every bit of their checkpoints, and every number of their logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.fairseq_setup import own_tensors

TIMES = ("wps", "ups", "wall")


def checkpoint(folder: Path, name: str = "checkpoint_last.pt") -> dict[str, Any]:
    """A checkpoint of a folder, loaded in torch's safe mode."""
    state: dict[str, Any] = torch.load(folder / name, weights_only=True)
    return state


def updates_done(state: dict[str, Any]) -> int:
    """The number of updates that a checkpoint was written after."""
    return int(state["optimizer_history"][-1]["num_updates"])


def training_state(state: dict[str, Any]) -> dict[str, Any]:
    """All of a checkpoint that decides how the training goes on; not the options, the times and the meters."""
    left_out = ("metrics", "previous_training_time")
    extra = {key: value for key, value in state["extra_state"].items() if key not in left_out}
    kept = {key: state[key] for key in ("criterion", "last_optimizer_state", "task_state")}
    return {
        **kept,
        "model": own_tensors(state["model"]),
        "extra_state": extra,
        "optimizer_history": state["optimizer_history"][-1],
    }


def differences(one: Any, two: Any, path: str = "checkpoint") -> list[str]:
    """The paths of all values that differ in any bit, in two nested structures of tensors and plain values."""
    if type(one) is not type(two):
        return [path]
    if isinstance(one, torch.Tensor):
        same = one.dtype == two.dtype and one.shape == two.shape and one.numpy().tobytes() == two.numpy().tobytes()
        return [] if same else [path]
    if isinstance(one, (list, tuple)):
        one, two = dict(enumerate(one)), dict(enumerate(two))
    if isinstance(one, dict):
        if one.keys() != two.keys():
            return [f"keys of {path}"]
        return [found for key in one for found in differences(one[key], two[key], f"{path}[{key!r}]")]
    return [] if one == two else [path]


def assert_same_checkpoint(one: Path, two: Path, name: str = "checkpoint_last.pt") -> None:
    """The checkpoints of that name in two folders hold the same training, to the last bit."""
    found = differences(training_state(checkpoint(one, name)), training_state(checkpoint(two, name)))
    assert not found, f"{name} differs: {found[:20]}"


def logged(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The last record of every update, validation and epoch, without its times: {(kind, number of updates): record}.

    fairseq logs an update again when the process that had logged it was killed before it saved, and repeats each
    record at the end of an epoch.
    """
    records = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.startswith('{"epoch"'):
                continue
            record = json.loads(line)
            (counter,) = (key for key in record if key.endswith("num_updates"))
            kind = counter[: -len("num_updates")].rstrip("_") or "update"
            records[kind, int(record[counter])] = {k: v for k, v in record.items() if not k.endswith(TIMES)}
    return records
