"""Checkpoints that can be trusted: nothing of them runs, and they are never half written.

**Loading.** In its safe mode (``weights_only``) ``torch.load`` refuses every pickled global that it does not know.
Those that fairseq itself saves are allowed, in a form in which they run no code: the list is in
:mod:`selfkd_fairseq.checkpoint_globals`. Everything else stays refused, in one line. The mode is torch's default from
2.6 on; with this module imported, fairseq reads checkpoints in it with any torch, ``--ema-seed-model`` included. A
checkpoint with a setting that fairseq would run as Python is refused, too
(:mod:`selfkd_fairseq.checkpoint_settings`), and so is the text itself by the ``eval`` of fairseq's modules, for
programs that read a checkpoint by themselves and let fairseq build the model.

Not covered: what a program loads with ``torch.load(..., weights_only=False)``; the ``eval`` of other plugins and of
modules of fairseq that are imported later than this one; and files that only speech models read by other ways than a
checkpoint (vocoders, pitch statistics, ``load_pretrained_decoder_from`` of ``xm_transformer``, manifests, YAML).

**Writing.** fairseq writes one file under a temporary name and renames it, but makes the others of the same moment,
``checkpoint_last.pt`` among them, by ``PathManager.copy``, which overwrites in place. A process that is killed, or a
disk that is full, in the middle of that leaves half a ``checkpoint_last.pt``, and the next start fails. With this
module imported, that copy too gets its name only when it is whole. Not covered is
``--write-checkpoints-asynchronously``: there fairseq lets iopath write in place, and makes no copies.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from pathlib import Path
from typing import Any, Iterator

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from .checkpoint_damage import (
    RefusedCheckpoint,
    find_damage,
    is_out_of_memory,
    why_no_checkpoint,
    why_not_loaded,
)
from .checkpoint_globals import allow_checkpoint_globals
from .checkpoint_settings import runs, why_refused
from .data.files import publish

_fairseq_copy = PathManager.copy
_fairseq_load = checkpoint_utils.load_checkpoint_to_cpu
_fairseq_load_ema = checkpoint_utils.load_ema_from_checkpoint
_one_thread = threading.RLock()  # torch.load is one for all of them


class RunningSetting(RefusedCheckpoint):
    """A setting of a checkpoint would run as Python: refused like a pickled global. The message is one line."""


@contextlib.contextmanager
def _harmless_loads(path: str, whole: bool) -> Iterator[None]:
    """Calls of ``torch.load``, all of one path, are made in the safe mode; refused settings reach nobody.

    ``whole``: what is not a whole checkpoint of fairseq-train is refused, too.
    """

    def load_and_check(*arguments: Any, **options: Any) -> Any:
        try:
            state = load(*arguments, **{"weights_only": True, **options})
        except Exception as error:  # the readers of a damaged file raise errors of many kinds
            if is_out_of_memory(error):
                raise
            damage = find_damage(Path(PathManager.get_local_path(path)))
            raise RefusedCheckpoint(f"{path} {damage or why_not_loaded(error)}") from error
        reason = why_refused(state) if isinstance(state, dict) else None
        if reason is not None:
            raise RunningSetting(f"{path} {reason}")
        reason = why_no_checkpoint(state) if whole else None
        if reason is not None:
            raise RefusedCheckpoint(f"{path} {reason}")
        return state

    with _one_thread:
        load = torch.load
        torch.load = load_and_check
        try:
            yield
        finally:
            torch.load = load


def load_harmless(
    path: str, arg_overrides: dict[str, Any] | None = None, load_on_all_ranks: bool = False
) -> dict[str, Any]:
    """Stand in for fairseq's ``load_checkpoint_to_cpu``: a checkpoint that is damaged or could run code is refused.

    Args:
        path: of the checkpoint.
        arg_overrides: settings that take the place of the checkpoint's; whoever calls is trusted with these.
        load_on_all_ranks: whether all workers read it at the same time.

    Returns:
        The checkpoint with its tensors on the CPU, brought up to date by fairseq; its settings are an omegaconf
        configuration.

    Raises:
        RunningSetting: fairseq would run a setting of it, or they are of an absurd size.
        RefusedCheckpoint: it is damaged, holds a global that is not allowed, or is no checkpoint of fairseq-train.
        OSError: it cannot be read.
    """
    with _harmless_loads(path, whole=True):
        state: dict[str, Any] = _fairseq_load(path, arg_overrides, load_on_all_ranks)
    return state


def load_ema_harmless(fpath: str) -> dict[str, Any]:
    """Stand in for fairseq's ``load_ema_from_checkpoint`` (``--ema-seed-model``), in the same way.

    Args:
        fpath: of the checkpoint.

    Returns:
        The checkpoint with its tensors on the CPU and the averaged parameters (``--store-ema``) as its model.

    Raises:
        RunningSetting, RefusedCheckpoint, OSError: as :func:`load_harmless`.
        KeyError: it holds no averaged parameters.
    """
    with _harmless_loads(fpath, whole=False):  # fairseq reads the averaged parameters alone
        state: dict[str, Any] = _fairseq_load_ema(fpath)
    return state


def load_checkpoints_harmless() -> None:
    """Make fairseq read checkpoints with the two functions above, for this process; a second call changes nothing."""
    checkpoint_utils.load_checkpoint_to_cpu = load_harmless
    checkpoint_utils.load_ema_from_checkpoint = load_ema_harmless


def eval_harmless(source: Any) -> Any:
    """Stand in for ``eval`` in fairseq's modules, which evaluate literals alone.

    Args:
        source: what ``eval`` takes.

    Returns:
        Its value.

    Raises:
        RunningSetting: it could run something (:func:`selfkd_fairseq.checkpoint_settings.runs`).
        Exception: whatever ``eval`` raises; a name is a NameError.
    """
    if runs(source):
        raise RunningSetting(f"fairseq would run {ascii(source)[:100]} as Python: refused")
    return eval(source, {"__builtins__": {}})


def evaluate_harmlessly() -> None:
    """Give the modules of fairseq that are loaded :func:`eval_harmless`; a second call adds those loaded meanwhile.

    A name of a module goes before the builtin of that name. So this holds for ``fairseq.utils.eval_bool`` and the like
    whoever imported them and when, and for models that call ``eval`` themselves.
    """
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "fairseq":
            vars(module)["eval"] = eval_harmless


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
evaluate_harmlessly()
copy_checkpoints_whole()
