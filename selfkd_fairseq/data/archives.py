"""Archives: a member is read as a stream, and none is ever unpacked, so no archive can write anywhere."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any, Iterator, cast

from .errors import PreparationError

_TAR_ENDS = (".tgz", ".tar.gz")
_BLOCK = 1 << 20
_LARGEST_MEMBER = 1 << 40
# What the readers make of damaged, cut, encrypted or otherwise odd archives.
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError,
    OverflowError, RuntimeError,
)  # fmt: skip


def _kind(archive: Path) -> str:
    return "tar" if archive.name.endswith(_TAR_ENDS) else "zip"


@contextlib.contextmanager
def _damage_in_one_line(archive: Path) -> Iterator[None]:
    """In place of any of the exceptions of a damaged archive, a PreparationError."""
    kind = f"{_kind(archive)} archive"
    try:
        yield
    except OSError as error:
        # A wrong offset, bad bzip2 data, no gzip file (that one has no number); anything else is the disk's.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise PreparationError(f"{archive}: damaged {kind} ({error})") from None
    except _DAMAGE as error:
        raise PreparationError(f"{archive}: damaged {kind} ({error or type(error).__name__})") from None


def _no_member(archive: Path, member: str) -> PreparationError:
    return PreparationError(f"{archive} has no {member} in it; is it the archive of something else?")


@contextlib.contextmanager
def _open_zip_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(archive) as file:
        if member not in file.namelist():
            raise _no_member(archive, member)
        with file.open(member) as stream:
            yield io.BufferedReader(cast(Any, stream), _BLOCK)


def _members(archive: Path, file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tar archive.

    Raises:
        PreparationError: a member is said to be larger than any corpus: tarfile would skip so many bytes one block
            after the other, there or not.
    """
    for entry in file:
        if entry.size > _LARGEST_MEMBER:
            raise PreparationError(f"{archive}: damaged tar archive (a member of {entry.size} bytes)")
        yield entry


@contextlib.contextmanager
def _open_tar_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    # As a stream ("r|") nothing is sought, and a link stays a link: tarfile would have to look for its target.
    with gzip.open(archive, "rb") as packed, tarfile.open(fileobj=packed, mode="r|", bufsize=_BLOCK) as file:
        for entry in _members(archive, file):
            if entry.isfile() and _plain(entry.name) == member:
                yield io.BufferedReader(cast(Any, file.extractfile(entry)), _BLOCK)
                return
    raise _no_member(archive, member)


def _plain(name: str) -> str:
    """``./a/b`` and ``a/b`` are one name."""
    return str(PurePosixPath(name))


@contextlib.contextmanager
def open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open one file inside an archive for reading.

    Args:
        archive: a gzipped tar file if its name ends in ``.tgz`` or ``.tar.gz``, otherwise a zip file.
        member: full name of the file inside.

    Yields:
        Its bytes. The checksum that a zip archive has of them is compared when the last one is read; a tar archive
        has one checksum for all, see :func:`check_archive`.

    Raises:
        PreparationError: the archive is damaged, or has no such member. Also in place of any of the exceptions of
            a damaged archive that comes out of the block.
        OSError: the archive cannot be read.
    """
    opened = _open_tar_member if _kind(archive) == "tar" else _open_zip_member
    with _damage_in_one_line(archive), opened(archive, member) as stream:
        yield stream


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


def _refuse_way_out(archive: Path, name: str, target: str = "") -> None:
    if _leads_out(name) or _leads_out(target):
        arrow = f" -> {target}" if target else ""
        raise PreparationError(f"{archive} holds a file that would be written outside of its folder: {name}{arrow}")


def check_archive(archive: Path) -> None:
    """Look through a whole archive: its names, and its checksum if it has one for all (a gzipped tar file).

    Nothing here would follow a name that leads out of the archive's folder; an archive with one is refused
    nevertheless, because it cannot be what it is taken for.

    Args:
        archive: as of :func:`open_member`.

    Raises:
        PreparationError: it is damaged or cut, or a name or the target of a link leads out of its folder.
        OSError: it cannot be read.
    """
    with _damage_in_one_line(archive):
        if _kind(archive) == "zip":
            with zipfile.ZipFile(archive) as file:
                for name in file.namelist():
                    _refuse_way_out(archive, name)
            return
        with gzip.open(archive, "rb") as packed:
            with tarfile.open(fileobj=packed, mode="r|", bufsize=_BLOCK) as tar:
                for entry in _members(archive, tar):
                    _refuse_way_out(archive, entry.name, entry.linkname if entry.islnk() or entry.issym() else "")
            while packed.read(_BLOCK):  # gzip compares its checksum with the last byte, and tar may end before
                pass
