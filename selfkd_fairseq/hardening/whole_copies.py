"""Copies of checkpoints are never half written.

fairseq writes one file under a temporary name and renames it, but makes the others of the same moment,
``checkpoint_last.pt`` among them, by ``PathManager.copy``, which overwrites in place. A process that is killed, or a
disk that is full, in the middle of that leaves half a ``checkpoint_last.pt``, and the next start fails. Here that copy,
too, gets its name only when it is whole. Not covered is ``--write-checkpoints-asynchronously``: there fairseq lets
iopath write in place, and makes no copies.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import Any, Callable

from fairseq.file_io import PathManager

from ..data.files import publish
from .stand_ins import stand_in

__all__ = ["copy_checkpoints_whole", "copying_whole"]


def copying_whole(copy: Callable[..., Any]) -> Callable[..., Any]:
    """Let what a copy overwrites stay as it was until the copy is on disk.

    The unfinished copy lies beside it under fairseq's own temporary name, ``dst_path`` and ``.tmp``, so that what a
    kill leaves behind is overwritten by the next checkpoint of that name. Paths that iopath serves (``s3://...``), and
    calls that must not overwrite, stay as they are.

    Args:
        copy: ``PathManager.copy``.

    Returns:
        A function of the same arguments that returns whether it has copied. Where it fails, ``dst_path`` is as it was
        and the unfinished copy is removed.
    """

    @functools.wraps(copy)
    def copy_whole(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        if not overwrite or any(PathManager.path_requires_pathmanager(path) for path in (src_path, dst_path)):
            return copy(src_path, dst_path, overwrite=overwrite)
        whole = Path(os.path.realpath(dst_path))  # a link stays one
        unfinished = Path(f"{whole}.tmp")
        try:
            copied = copy(src_path, str(unfinished), overwrite=True)
            if copied:
                publish(unfinished, whole)
        finally:  # published, it is no longer there
            with contextlib.suppress(OSError):
                unfinished.unlink()
        return bool(copied)  # without iopath it is the name of the copy

    return copy_whole


def copy_checkpoints_whole() -> None:
    """Make fairseq copy checkpoints in that way, for this process; a second call changes nothing."""
    stand_in(PathManager, "copy", lambda copy: staticmethod(copying_whole(copy)))
