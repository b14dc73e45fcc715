"""fairseq reads checkpoints in torch's safe mode, with any torch, and refuses settings that it would run as Python.

In that mode (``weights_only``, torch's default from 2.6 on) ``torch.load`` refuses every pickled global that it does
not know; :mod:`selfkd_fairseq.checkpoints.safe_globals` has the list of those that fairseq's own checkpoints need. A
setting that fairseq would run is refused as well (:mod:`selfkd_fairseq.checkpoints.settings`), and each refusal is one
line that names the file.

``fairseq.checkpoint_utils`` alone sees another ``torch.load``, which all commands, ``from_pretrained`` and
``--ema-seed-model`` open checkpoints by. With torch's own escape hatch (``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD``) it is
torch's, as whoever opens it trusts what the file holds.

Not covered: what a program loads with ``torch.load`` itself; and files that only speech models read by other ways than
a checkpoint (vocoders, pitch statistics, ``load_pretrained_decoder_from`` of ``xm_transformer``, manifests, YAML).
"""

from __future__ import annotations

import os
import types
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils

from ..checkpoints.damage import (
    RefusedCheckpoint,
    RunningSetting,
    find_damage,
    is_out_of_memory,
    why_no_checkpoint,
    why_not_loaded,
)
from ..checkpoints.safe_globals import allow_checkpoint_globals
from ..checkpoints.settings import why_refused
from .stand_ins import stand_in

__all__ = ["load_checkpoints_strictly", "load_strictly"]


def _escape_hatch_is_open() -> bool:
    """As torch reads its variable."""
    return os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0").lower() in ("1", "y", "yes", "true")


def load_strictly(file: Any, *arguments: Any, **options: Any) -> Any:
    """Stand in for ``torch.load`` where fairseq reads checkpoints.

    Args:
        file: the open checkpoint.
        *arguments: of ``torch.load``.
        **options: of ``torch.load``.

    Returns:
        What the file holds.

    Raises:
        RunningSetting: fairseq would run a setting of it, or they are of an absurd size.
        RefusedCheckpoint: it is damaged, holds a global that is not allowed, or is no checkpoint of fairseq-train.
        OSError: it cannot be read.
    """
    if _escape_hatch_is_open():
        return torch.load(file, *arguments, **options)
    name = getattr(file, "name", file)
    try:
        state = torch.load(file, *arguments, **{"weights_only": True, **options})
    except Exception as error:  # the readers of a damaged file raise errors of many kinds
        if is_out_of_memory(error):
            raise
        damage = find_damage(Path(name)) if isinstance(name, str) else None
        raise RefusedCheckpoint(f"{name} {damage or why_not_loaded(error)}") from error
    reason = why_refused(state) if isinstance(state, dict) else None
    if reason is not None:
        raise RunningSetting(f"{name} {reason}")
    reason = None if _holds_averages_alone(state) else why_no_checkpoint(state)
    if reason is not None:
        raise RefusedCheckpoint(f"{name} {reason}")
    return state


def _holds_averages_alone(state: Any) -> bool:
    """Whether it is all that ``--ema-seed-model`` reads, and no more."""
    return isinstance(state, dict) and set(state) == {"extra_state"} and "ema" in state["extra_state"]


class _StrictTorch(types.ModuleType):
    """torch, but for its ``load``."""

    load = staticmethod(load_strictly)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def load_checkpoints_strictly() -> None:
    """Make fairseq read checkpoints by :func:`load_strictly`, for this process; a second call changes nothing."""
    allow_checkpoint_globals()
    stand_in(checkpoint_utils, "torch", lambda _: _StrictTorch("torch"))
