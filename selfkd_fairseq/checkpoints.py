"""Checkpoints that can be trusted: nothing of them runs, and they are never half written.

**Loading.** In its safe mode (``weights_only``) ``torch.load`` refuses every pickled global that it does not know. A
fairseq checkpoint holds exactly one such global: ``argparse.Namespace`` (the legacy ``args`` entry, and task or model
settings). It is a plain holder of attributes, so allowing it lets no code run. Everything else stays refused, with
torch's own error. The mode is torch's default from 2.6 on; with this module imported, fairseq reads checkpoints in it
with any torch. A checkpoint with a setting that fairseq would run as Python is refused, too
(:mod:`selfkd_fairseq.checkpoint_settings`).

**Writing.** fairseq writes one file under a temporary name and renames it, but makes the others of the same moment,
``checkpoint_last.pt`` among them, by ``PathManager.copy``, which overwrites in place. A process that is killed, or a
disk that is full, in the middle of that leaves half a ``checkpoint_last.pt``, and the next start fails. With this
module imported, that copy too gets its name only when it is whole. Not covered is
``--write-checkpoints-asynchronously``: there fairseq lets iopath write in place, and makes no copies.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import pickle
import shutil
from pathlib import Path
from typing import Any, Iterator

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from .checkpoint_settings import setting_that_runs
from .data.files import publish

CHECKPOINT_GLOBALS = (argparse.Namespace,)
_fairseq_copy = PathManager.copy
_fairseq_load = checkpoint_utils.load_checkpoint_to_cpu


def allow_checkpoint_globals() -> None:
    """Allow :data:`CHECKPOINT_GLOBALS` in weights-only loading, for this process."""
    torch.serialization.add_safe_globals(list(CHECKPOINT_GLOBALS))


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Calls of ``torch.load`` that do not say otherwise are made in the safe mode."""
    load = torch.load
    torch.load = functools.partial(load, weights_only=True)
    try:
        yield
    finally:
        torch.load = load


class RunningSetting(pickle.UnpicklingError):
    """A setting of a checkpoint would run as Python: refused like a pickled global. The message is one line."""


def load_harmless(
    path: str, arg_overrides: dict[str, Any] | None = None, load_on_all_ranks: bool = False
) -> dict[str, Any]:
    """Stand in for fairseq's ``load_checkpoint_to_cpu``: a checkpoint that could run code is refused.

    Args:
        path: of the checkpoint.
        arg_overrides: settings that take the place of the checkpoint's.
        load_on_all_ranks: whether all workers read it at the same time.

    Returns:
        The checkpoint with its tensors on the CPU, brought up to date by fairseq; its settings are an omegaconf
        configuration.

    Raises:
        RunningSetting: fairseq would run a setting of it.
        pickle.UnpicklingError: it holds a global that is not allowed.
        OSError: it cannot be read.
    """
    with _weights_only():
        state: dict[str, Any] = _fairseq_load(path, arg_overrides, load_on_all_ranks)
    setting = setting_that_runs(state)
    if setting is not None:
        raise RunningSetting(f"{path} is refused: fairseq would run what its setting {setting} says as Python")
    return state


def load_checkpoints_harmless() -> None:
    """Make fairseq read checkpoints with :func:`load_harmless`, for this process; a second call changes nothing."""
    checkpoint_utils.load_checkpoint_to_cpu = load_harmless


def copy_whole(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
    """Stand in for fairseq's ``PathManager.copy``: what is overwritten stays as it was until the copy is on disk.

    The unfinished copy lies beside it under fairseq's own temporary name, ``dst_path`` and ``.tmp``, so that what a
    kill leaves behind is overwritten by the next checkpoint of that name. Paths that iopath serves (``s3://...``), and
    calls that must not overwrite, are left to fairseq.

    Args:
        src_path: of the file to copy.
        dst_path: of the copy.
        overwrite: whether a file of that name is replaced.

    Returns:
        Whether the file was copied: True but for what fairseq does.

    Raises:
        OSError: a file cannot be read or written; ``dst_path`` is then as it was, and the unfinished copy is removed.
    """
    if not overwrite or any(PathManager.path_requires_pathmanager(path) for path in (src_path, dst_path)):
        return bool(_fairseq_copy(src_path, dst_path, overwrite=overwrite))
    unfinished = Path(f"{dst_path}.tmp")
    try:
        shutil.copyfile(src_path, unfinished)
        publish(unfinished, Path(dst_path))
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    return True


def copy_checkpoints_whole() -> None:
    """Make fairseq copy checkpoints with :func:`copy_whole`, for this process; a second call changes nothing."""
    PathManager.copy = staticmethod(copy_whole)


allow_checkpoint_globals()
load_checkpoints_harmless()
copy_checkpoints_whole()
