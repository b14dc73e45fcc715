"""The mean of several checkpoints of one training, itself a checkpoint that fairseq loads.

Which mean, to the last bit: the values of a parameter are added in float64, in the order of the files, the sum is
divided by their number in float64, and the quotient is rounded once to the parameter's own dtype (to nearest, ties to
even). In float32 and half precision the sum is exact unless the magnitudes differ by more than about 2**25.

Only the model is averaged. The optimizer's state is left out: it belongs to the point where a training stood, and the
mean is another point. All else (``cfg``, ``task_state``, ``extra_state``, ...) is taken from the newest file.

Memory: one part of the model is averaged at a time, and one file is open at a time, mapped where torch can (2.1 or
newer), so that besides the result a small part of one model is held, whatever the number of files.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, Sequence, Tuple

import torch
from torch import Tensor

from .checkpoint_damage import find_damage, is_out_of_memory, why_not_loaded
from .checkpoint_globals import allow_checkpoint_globals
from .checkpoint_settings import why_refused
from .data.files import publish

# Where the averaged files are named in the result. fairseq reads the entries that it knows and no others.
PROVENANCE = "averaged_checkpoints"
OPTIMIZER_STATE = "last_optimizer_state"
FILE_NAMES = {"epoch": r"checkpoint(\d+)\.pt", "update": r"checkpoint_\d+_(\d+)\.pt"}
# A part of a model: the larger of this many elements and a sixteenth of the model.
PART_ELEMENTS = 1 << 18
PARTS = 16

Model = Dict[str, Tensor]
Slice = Tuple[str, int, int]  # a parameter, and a range of its elements in row-major order


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


def average_checkpoints(paths: Sequence[Path]) -> dict[str, Any]:
    """Average checkpoints of one training.

    Args:
        paths: the files, at least one; the order is that of the sum.

    Returns:
        A checkpoint: the entries of the newest file (the one with the most updates; the later one of equals) without
        the optimizer's state, ``model`` with the mean of each floating-point tensor (same dtype; tensors that share
        their memory in every file share it here) and the other tensors, which must be equal in all files, and
        :data:`PROVENANCE`: for each file ``file`` (the path as given) and ``num_updates``.

    Raises:
        AverageError: a file is damaged, no checkpoint, given twice, changed while it was read or unlike the others,
            has settings that fairseq would run as Python, or a mean is not a number.
        OSError: a file cannot be read.
    """
    files = _open_all(paths)
    newest, owners, updates = _inspect(files)
    state = newest.load()
    state.pop(OPTIMIZER_STATE, None)
    model = state["model"]
    means: Model = {}
    for key, tensor in model.items():
        if tensor.is_floating_point() and owners[key] == key:
            means[key] = torch.empty(tensor.shape, dtype=tensor.dtype)
        # In place, so that the container keeps its type, its order and the versions noted in its _metadata.
        model[key] = means[owners[key]] if tensor.is_floating_point() else tensor.clone()
    for part in _parts({key: mean.numel() for key, mean in means.items()}):
        _average_part(files, part, means)
    for key, mean in means.items():
        if torch.isnan(mean).any():
            raise AverageError(f"the mean of {key} is not a number: did a training diverge?")
    state[PROVENANCE] = [{"file": str(file.path), "num_updates": count} for file, count in zip(files, updates)]
    return state


def save_checkpoint(state: dict[str, Any], output: Path) -> None:
    """Write a checkpoint under its final name only when it is whole; folders on the way are made.

    Args:
        state: what :func:`average_checkpoints` gave.
        output: the final name.

    Raises:
        AverageError: it cannot be written. Then nothing of it is left behind, and a file that was there before stays.
        OSError: the same.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            torch.save(state, file)
        publish(unfinished, output)
    except RuntimeError as error:  # torch's own, for a disk that is full
        raise AverageError(f"cannot write {output}: {error}") from error
    finally:
        if unfinished.exists():
            unfinished.unlink()


class _File:
    """A checkpoint file that is read several times and must stay the same meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = self._stamp()

    def _stamp(self) -> tuple[int, ...]:
        status = os.stat(self.path)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def load(self) -> dict[str, Any]:
        """The checkpoint, on the CPU, mapped and not read where torch can do so."""
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
        """Raise AverageError if the file is damaged."""
        damage = find_damage(self.path)
        if damage is not None:
            raise AverageError(f"{self.path} {damage}")


def _is_plain(tensor: Tensor) -> bool:
    """Whether it has one number at each place of its memory: not sparse, nested, quantised, complex or without any."""
    dense = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
    return dense and not (tensor.is_complex() or tensor.is_quantized)


def _open_all(paths: Sequence[Path]) -> list[_File]:
    files: dict[tuple[int, ...], _File] = {}
    for path in paths:
        file = _File(path)
        if files.setdefault(file.stamp[:2], file) is not file:
            raise AverageError(f"{path} is given twice")
    if not files:
        raise AverageError("no checkpoint is given")
    return list(files.values())


def _inspect(files: list[_File]) -> tuple[_File, dict[str, str], list[int]]:
    """Check each file by itself and against the first.

    Returns:
        The newest file; for each tensor of the model the first tensor that shares its memory in all files (itself if
        it shares none); for each file its number of updates.
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


def _parts(sizes: dict[str, int]) -> Iterator[list[Slice]]:
    """Cut a model, given as its parameters' numbers of elements, into parts of nearly equal size."""
    limit = max(PART_ELEMENTS, -(-sum(sizes.values()) // PARTS))
    part: list[Slice] = []
    room = limit
    for key, size in sizes.items():
        start = 0
        while start < size:
            stop = min(size, start + room)
            part.append((key, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield part
                part, room = [], limit
    if part:
        yield part


def _average_part(files: list[_File], part: list[Slice], means: Model) -> None:
    """Write the mean of some slices of the parameters to ``means``."""
    sums: list[Tensor] = []
    for file in files:
        model = file.load()["model"]
        for index, (key, start, stop) in enumerate(part):
            values = model[key].detach().reshape(-1)[start:stop]
            if file is files[0]:
                sums.append(values.to(torch.float64, copy=True))
            else:
                sums[index] += values
        del model, values  # give up the mapping before the next file is mapped
    for (key, start, stop), total in zip(part, sums):
        means[key].view(-1)[start:stop] = round_once(total.div_(len(files)), means[key].dtype)


def round_once(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float64 to a floating-point dtype, to nearest with ties to even.

    torch rounds float64 to a half precision by way of float32, which is off by one now and then. Here the step to
    float32 rounds to odd, which leaves enough for the second step to be right.

    Args:
        values: float64, any shape.
        dtype: of the result.

    Returns:
        The values in ``dtype``, any shape (their own); float32 as torch rounds to it.
    """
    if dtype in (torch.float64, torch.float32):
        return values.to(dtype)
    single = values.float()
    bits = single.view(torch.int32)
    back = single.double()
    inexact_even = (back != values) & ~torch.isnan(values) & (bits % 2 == 0)
    bits += torch.where(back.abs() > values.abs(), -1, 1) * inexact_even
    return single.to(dtype)
