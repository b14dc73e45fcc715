"""Archives: a member is read as a stream, and none is ever unpacked, so no archive can write anywhere."""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Iterator, cast

from .errors import PreparationError

# What the reader of zip files makes of damaged, cut, encrypted or otherwise odd ones.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, OverflowError, RuntimeError,
)  # fmt: skip


@contextlib.contextmanager
def open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open one file inside a zip archive for reading.

    Args:
        archive: the zip file.
        member: full name of the file inside.

    Yields:
        Its bytes. The checksum that the archive has of them is compared when the last one is read.

    Raises:
        PreparationError: the archive is damaged, or has no such member. Also in place of any of the exceptions of
            a damaged archive that comes out of the block.
        OSError: the archive cannot be read.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            if member not in file.namelist():
                raise PreparationError(f"{archive} has no {member} in it; is it the archive of something else?")
            with file.open(member) as stream:
                yield io.BufferedReader(cast(Any, stream), 1 << 20)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a wrong offset, bad bzip2 data; anything else is the disk's
            raise
        raise PreparationError(f"{archive}: damaged zip archive ({error})") from None
    except _DAMAGE as error:
        raise PreparationError(f"{archive}: damaged zip archive ({error or type(error).__name__})") from None
