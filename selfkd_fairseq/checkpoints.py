"""Checkpoints that can be trusted: loaded in torch's safe mode, and never half written.

**Loading.** From torch 2.6 on, ``torch.load`` refuses every pickled global that it does not know. A fairseq checkpoint
holds exactly one such global: ``argparse.Namespace`` (the legacy ``args`` entry, and task or model settings).
It is a plain holder of attributes, so allowing it lets no code run. Everything else stays refused, with
torch's own error.

**Writing.** fairseq writes one file under a temporary name and renames it, but makes the others of the same moment,
``checkpoint_last.pt`` among them, by ``PathManager.copy``, which overwrites in place. A process that is killed, or a
disk that is full, in the middle of that leaves half a ``checkpoint_last.pt``, and the next start fails. With this
module imported, that copy too gets its name only when it is whole. Not covered is
``--write-checkpoints-asynchronously``: there fairseq lets iopath write in place, and makes no copies.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
from pathlib import Path

import torch
from fairseq.file_io import PathManager

from .data.files import publish

CHECKPOINT_GLOBALS = (argparse.Namespace,)
_fairseq_copy = PathManager.copy


def allow_checkpoint_globals() -> None:
    """Allow :data:`CHECKPOINT_GLOBALS` in weights-only loading, for this process.

    Older versions of torch (before 2.4) have no such list and nothing to allow.
    """
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals(list(CHECKPOINT_GLOBALS))


def copy_whole(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
    """fairseq's ``PathManager.copy``, but a local file that is overwritten stays as it was until the copy is on disk.

    The unfinished copy lies beside it under fairseq's own temporary name, ``dst_path`` and ``.tmp``, so that what a
    kill leaves behind is overwritten by the next checkpoint of that name. Paths that iopath serves (``s3://...``), and
    calls that must not overwrite, are left to fairseq.

    Args:
        src_path: of the file to copy.
        dst_path: of the copy.
        overwrite: whether a file of that name is replaced.

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
copy_checkpoints_whole()
