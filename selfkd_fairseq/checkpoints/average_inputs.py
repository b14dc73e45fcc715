"""The checkpoints that go into a mean: which files, what each holds, whether they are of one training."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any, Dict, Sequence

import torch
from torch import Tensor

from .damage import find_damage, is_out_of_memory, why_not_loaded
from .safe_globals import allow_checkpoint_globals
from .settings import why_refused

__all__ = ["AverageError", "CheckpointFile", "Model", "inspect_files", "last_checkpoints", "open_files"]

FILE_NAMES = {"epoch": r"checkpoint(\d+)\.pt", "update": r"checkpoint_\d+_(\d+)\.pt"}

Model = Dict[str, Tensor]


class AverageError(Exception):
    """Something that the user can mend: a damaged file, files that do not fit together. The message is one line."""


def last_checkpoints(folder: Path, count: int, kind: str, upper_bound: int | None = None) -> list[Path]:
    """The last checkpoints that fairseq wrote to a folder.

    Args:
        folder: fairseq's ``--save-dir``.
        count: how many, at least 1.
        kind: ``"epoch"`` for checkpointN.pt, ``"update"`` for checkpoint_E_N.pt.
        upper_bound: leave out those whose N is larger; None leaves out none.

    Returns:
        Their paths, from the oldest to the newest.

    Raises:
        AverageError: there are fewer.
        OSError: the folder cannot be read.
    """
    found = []
    for path in folder.iterdir():
        match = re.fullmatch(FILE_NAMES[kind], path.name)
        if match and (upper_bound is None or int(match[1]) <= upper_bound):
            found.append((int(match[1]), path))
    if len(found) < count:
        bound = "" if upper_bound is None else f" up to {kind} {upper_bound}"
        raise AverageError(f"{folder} holds {len(found)} {kind} checkpoints{bound}, {count} are wanted")
    return [path for _, path in sorted(found)[-count:]]


class CheckpointFile:
    """A checkpoint file that is read several times and must stay the same meanwhile.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = self._stamp()

    def _stamp(self) -> tuple[int, ...]:
        status = os.stat(self.path)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def load(self) -> dict[str, Any]:
        """The checkpoint, on the CPU, mapped and not read where torch can do so.

        Returns:
            Its entries.

        Raises:
            AverageError: it changed, is damaged or no checkpoint of fairseq, or cannot be averaged.
            MemoryError: the memory does not suffice.
            OSError: it cannot be opened.
        """
        if self._stamp() != self.stamp:
            raise AverageError(f"{self.path} changed while it was being read")
        can_map = zipfile.is_zipfile(self.path)
        try:
            state: dict[str, Any] = torch.load(str(self.path), map_location="cpu", weights_only=True, mmap=can_map)
        except Exception as error:  # the readers of a damaged file raise errors of many kinds
            if is_out_of_memory(error):
                raise MemoryError from error
            if isinstance(error, OSError) and error.filename:  # the file itself cannot be opened
                raise
            raise AverageError(f"{self.path} {why_not_loaded(error)}") from error
        model = state.get("model") if isinstance(state, dict) else None
        if not isinstance(model, dict) or not model or not all(isinstance(x, Tensor) for x in model.values()):
            raise AverageError(f"{self.path} is not a fairseq checkpoint: it holds no model")
        if state.get("cfg") is None and state.get("args") is None:
            raise AverageError(f"{self.path} is not a fairseq checkpoint: it has neither cfg nor args")
        for key, tensor in model.items():
            if not _is_plain(tensor):
                raise AverageError(f"{self.path} cannot be averaged: {key} is not a dense tensor of real numbers")
        return state

    def check(self) -> None:
        """Raise an error if the file is damaged.

        Raises:
            AverageError: it is.
            OSError: it cannot be read.
        """
        damage = find_damage(self.path)
        if damage is not None:
            raise AverageError(f"{self.path} {damage}")


def _is_plain(tensor: Tensor) -> bool:
    """Whether it has one number at each place of its memory: not sparse, nested, quantised, complex or without any."""
    dense = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
    return dense and not (tensor.is_complex() or tensor.is_quantized)


def open_files(paths: Sequence[Path]) -> list[CheckpointFile]:
    """The files of a mean, none of them twice.

    Args:
        paths: of the files.

    Returns:
        One for each path.

    Raises:
        AverageError: there is none, or one is given twice.
        OSError: a file is not there.
    """
    files: dict[tuple[int, ...], CheckpointFile] = {}
    for path in paths:
        file = CheckpointFile(path)
        if files.setdefault(file.stamp[:2], file) is not file:
            raise AverageError(f"{path} is given twice")
    if not files:
        raise AverageError("no checkpoint is given")
    return list(files.values())


def inspect_files(files: Sequence[CheckpointFile]) -> tuple[CheckpointFile, dict[str, str], list[int]]:
    """Check each file by itself and against the first.

    Args:
        files: at least one.

    Returns:
        The newest file; for each tensor of the model the first tensor that shares its memory in all files (itself if
        it shares none); for each file its number of updates.

    Raises:
        AverageError: a file is damaged, no checkpoint, changed meanwhile or unlike the first, or has settings that
            fairseq would run as Python.
        OSError: a file cannot be read.
    """
    allow_checkpoint_globals()
    updates: list[int] = []
    first: Model = {}
    owners: dict[str, str] = {}
    for file in files:
        file.check()
        state = file.load()
        reason = why_refused(state)  # the settings of the newest go into the result
        if reason is not None:
            raise AverageError(f"{file.path} {reason}")
        updates.append(_num_updates(state, file.path))
        model = state["model"]
        if first:
            _compare(first, files[0].path, model, file.path)
        else:
            first, owners = model, dict.fromkeys(model, "")
        places = _places(model)
        seen: dict[tuple[str, str], str] = {}
        owners = {key: seen.setdefault((owners[key], places[key]), key) for key in first}
    newest = max(range(len(files)), key=lambda index: (updates[index], index))
    return files[newest], owners, updates


def _num_updates(state: dict[str, Any], path: Path) -> int:
    """Of the training; 0 where the checkpoint does not say it."""
    history = state.get("optimizer_history")
    if history is None or history == []:
        return 0
    last = history[-1] if isinstance(history, list) else None
    updates = last.get("num_updates", 0) if isinstance(last, dict) else None
    if not isinstance(updates, int):
        raise AverageError(f"{path} is not a fairseq checkpoint: its optimizer_history holds no number of updates")
    return updates


def _places(model: Model) -> dict[str, str]:
    """For each tensor the first one that lies at the same place in memory: itself, if it is not shared."""
    seen: dict[Any, str] = {}
    places = {}
    for key, tensor in model.items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if tensor.numel() else key
        places[key] = seen.setdefault(place, key)
    return places


def _compare(first: Model, first_path: Path, model: Model, path: Path) -> None:
    """Raise AverageError unless two models have the same tensors, all of the same shape, dtype and integers."""
    unlike = sorted(first.keys() ^ model.keys())
    if unlike:
        only = first_path if unlike[0] in first else path
        raise AverageError(f"{first_path} and {path} hold different models: {unlike[0]} is in {only} alone")
    for key, tensor in model.items():
        forms = [f"{tuple(t.shape)} {str(t.dtype).replace('torch.', '')}" for t in (first[key], tensor)]
        if forms[0] != forms[1]:
            raise AverageError(f"{key} is {forms[0]} in {first_path} and {forms[1]} in {path}")
        if not tensor.is_floating_point() and not torch.equal(first[key], tensor):
            raise AverageError(f"{key} holds no floating-point numbers and differs in {first_path} and {path}")
