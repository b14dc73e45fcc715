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
from pathlib import Path
from typing import Any, Iterator, Sequence, Tuple

import torch
from torch import Tensor

from ..data.files import publish
from .average_inputs import AverageError, CheckpointFile, Model, inspect_files, open_files

__all__ = ["PROVENANCE", "average_checkpoints", "round_once", "save_checkpoint"]

# Where the averaged files are named in the result. fairseq reads the entries that it knows and no others.
PROVENANCE = "averaged_checkpoints"
OPTIMIZER_STATE = "last_optimizer_state"
# A part of a model: the larger of this many elements and a sixteenth of the model.
PART_ELEMENTS = 1 << 18
PARTS = 16

Slice = Tuple[str, int, int]  # a parameter, and a range of its elements in row-major order


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
    files = open_files(paths)
    newest, owners, updates = inspect_files(files)
    state = newest.load()
    state.pop(OPTIMIZER_STATE, None)
    model = state["model"]
    means: Model = {
        key: torch.empty(tensor.shape, dtype=tensor.dtype)
        for key, tensor in model.items()
        if tensor.is_floating_point() and owners[key] == key
    }
    for key, tensor in model.items():
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


def _average_part(files: list[CheckpointFile], part: list[Slice], means: Model) -> None:
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
