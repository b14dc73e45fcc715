"""A trained model and its task, loaded from one of fairseq's checkpoints by fairseq itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Collection, NamedTuple

import torch
from fairseq import checkpoint_utils
from fairseq.data import data_utils

from .. import register
from ..checkpoints.damage import RefusedCheckpoint, UnfitCheckpoint, find_damage, why_unfit
from .damage import one_message
from .errors import EvaluationError

__all__ = ["TrainedModel", "load_trained_model"]


class TrainedModel(NamedTuple):
    """What a checkpoint holds, and the task set up on a data folder."""

    model: Any
    """A ``FairseqModel`` in float32 on its device, in evaluation mode."""
    task: Any
    """fairseq's, with the dictionaries of the data folder."""
    settings: Any
    """The configuration of the training, as fairseq made it from the checkpoint (omegaconf, from a Namespace too)."""
    epoch: int
    """The last epoch that the training had begun."""
    num_updates: int
    """Optimizer updates that the training had done."""


def load_trained_model(
    path: Path, data: Path, device: torch.device, tasks: Collection[str] | None = None
) -> TrainedModel:
    """Load a checkpoint by fairseq's own functions; once :mod:`selfkd_fairseq.hardening` is installed, none of it runs.

    Args:
        path: the file.
        data: folder of binarised data; takes the place of the one that the checkpoint names.
        device: where the model goes.
        tasks: names of those that the caller can use; None for all.

    Returns:
        The model on ``device`` in evaluation mode, its task on the data, and how far it was trained.

    Raises:
        EvaluationError: the file is no whole checkpoint, of another task, does not fit the dictionaries of the data,
            or has a setting that fairseq would run as Python.
        OSError: a file cannot be read.
    """
    register()
    state = _read_checkpoint(path, data)
    _check_task(state, path, data, tasks)
    epoch, num_updates = _progress(state, path)
    with one_message(f"cannot build the model of {path} with the data in {data}"):
        try:
            (model,), settings, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], state=state)
        except SystemExit as error:  # how this package's own tasks and models end a fairseq command
            raise EvaluationError(f"{path}: {error}") from error
        except UnfitCheckpoint as error:
            raise EvaluationError(f"{path} {why_unfit(error.__cause__ or error, str(data))}") from error
    return TrainedModel(model.to(device).eval(), task, settings, epoch, num_updates)


def _read_checkpoint(path: Path, data: Path) -> dict[str, Any]:
    damage = find_damage(path)
    if damage is not None:
        raise EvaluationError(f"{path} {damage}")
    try:
        with one_message(f"{path} is damaged, or not a checkpoint"):
            state: dict[str, Any] = checkpoint_utils.load_checkpoint_to_cpu(str(path), {"data": str(data)})
            complete = bool(state["model"]) and (state.get("cfg") or state.get("args")) is not None
    except RefusedCheckpoint as error:
        raise EvaluationError(str(error)) from error
    if not complete:
        raise EvaluationError(f"{path} is not a checkpoint of fairseq-train: it has no model, or neither cfg nor args")
    return state


def _check_task(state: dict[str, Any], path: Path, data: Path, tasks: Collection[str] | None) -> None:
    """Raise EvaluationError unless the task is one of ``tasks`` and can be set up on the data."""
    with one_message(f"{path} does not have the settings of a checkpoint of fairseq-train"):
        legacy = state.get("args")  # fairseq, too, prefers it
        settings = state["cfg"].task if legacy is None else legacy
        name = settings._name if legacy is None else settings.task
    if tasks is not None and name not in tasks:
        raise EvaluationError(f"{path} is of the task {name}; what can be evaluated: {', '.join(tasks)}")
    # Where the settings do not name the languages, fairseq takes them from the names of the data files.
    named = name != "translation" or None not in (settings.source_lang, settings.target_lang)
    if not named and None in data_utils.infer_language_pair(str(data)):
        raise EvaluationError(f"{data} holds no binarised pair of languages, and {path} does not name them")


def _progress(state: dict[str, Any], path: Path) -> tuple[int, int]:
    """The last epoch that the training had begun, and its number of updates."""
    with one_message(f"{path} does not say how far its training came"):
        place, updates = state["extra_state"]["train_iterator"], state["optimizer_history"][-1]["num_updates"]
        finished = place["iterations_in_epoch"] == 0  # then fairseq names the epoch that comes next
        return int(place["epoch"]) - int(finished), int(updates)
