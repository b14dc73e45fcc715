"""Files that appear under their final name only when they are whole, and the lock on a destination."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from pathlib import Path
from typing import IO, Any, Iterator, Sequence

from .errors import PreparationError

# Everything unfinished lies in this folder of the destination; a new run clears it.
UNFINISHED = ".unfinished"
# The workers of a run that was killed hold its lock for a moment longer.
LOCK_SECONDS = 5.0


def flush_to_disk(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power cut.

    Args:
        path: a file or folder that is there. Where the system opens no folder (Windows), or its file system cannot
            flush one (some network file systems), the names in it are left to the system.

    Raises:
        OSError: it cannot be opened or written.
    """
    is_folder = path.is_dir()
    if os.name == "nt" and is_folder:
        return
    # Windows flushes only what is open for writing.
    descriptor = os.open(str(path), os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def publish(unfinished: Path, final: Path) -> None:
    """Give a whole file, or a folder of whole files, its final name, in one step that cannot be half done.

    Args:
        unfinished: what is complete; a folder holds no folders.
        final: the name, on the same file system; a file that has it is replaced, its folder made if need be.

    Raises:
        OSError: it cannot be renamed, or not be written to disk.
    """
    if unfinished.is_dir():
        for child in unfinished.iterdir():
            flush_to_disk(child)
    flush_to_disk(unfinished)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(str(unfinished), str(final))
    flush_to_disk(final.parent)


@contextlib.contextmanager
def write_whole(dest: Path, names: Sequence[str]) -> Iterator[list[IO[str]]]:
    r"""Open text files (UTF-8, ``\n`` ends) to be written together; publish them if the block ends well.

    Args:
        dest: the destination of the preparation, an existing folder.
        names: paths of the files, relative to ``dest``.

    Yields:
        One open file per name. A block that raises publishes nothing.
    """
    folder = dest / UNFINISHED
    folder.mkdir(exist_ok=True)
    unfinished = [folder / name.replace("/", "+") for name in names]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(open(path, "w", encoding="utf-8", newline="\n")) for path in unfinished]
    for path, name in zip(unfinished, names):
        publish(path, dest / name)


def clear_unfinished(dest: Path) -> None:
    """Remove what an interrupted run left unfinished, if anything.

    Args:
        dest: the destination; it need not exist.

    Raises:
        OSError: it cannot be removed, also not after some 3 seconds.
    """
    folder = dest / UNFINISHED
    for patience in (0.1, 0.5, 2.0, None):
        try:
            if folder.exists():
                shutil.rmtree(str(folder))
            return
        except OSError:
            # The fairseq-preprocess of a run that was killed may write its last files at this very moment.
            if patience is None:
                raise
            time.sleep(patience)


def write_json(dest: Path, name: str, content: Any) -> None:
    """Write indented JSON with sorted keys, all or nothing.

    Args:
        dest: an existing folder.
        name: of the file in it.
        content: what JSON can hold.

    Raises:
        OSError: it cannot be written.
    """
    with write_whole(dest, [name]) as (file,):
        file.write(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> Iterator[str]:
    r"""Read a text file that this package wrote (UTF-8, ends are ``\n`` and nothing else).

    Args:
        path: of the file.

    Yields:
        Each line without its end.
    """
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n")


def count_lines(path: Path) -> int:
    r"""Number of lines of a text file that this package wrote.

    Args:
        path: of the file.

    Returns:
        The number of its ``\n``.
    """
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def _lock(descriptor: int) -> bool:
    """Lock an open folder; False if another process has kept it locked for :data:`LOCK_SECONDS`."""
    import fcntl  # not on the path of an import of this package: Windows has none

    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        except OSError as error:
            # Some network file systems know no locks; there the user must not start two runs at once.
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return True
            raise


@contextlib.contextmanager
def sole_user(dest: Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it however the process ends.

    Args:
        dest: the folder, which exists. On Windows it is not held: there the user must not start two runs at once.

    Yields:
        None.

    Raises:
        PreparationError: another process holds it.
    """
    if os.name == "nt":
        yield
        return
    descriptor = os.open(str(dest), os.O_RDONLY)
    try:
        if not _lock(descriptor):
            raise PreparationError(f"another selfkd-prepare is at work in {dest}")
        yield
    finally:
        os.close(descriptor)
