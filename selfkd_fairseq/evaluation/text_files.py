"""Text files that a user names: UTF-8, one sentence a line, packed with gzip or not."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path

from .errors import ScoringError

STDIN = Path("-")


def read_text(path: Path) -> str:
    """Read a text file from end to end.

    Args:
        path: of the file, which is unpacked if its name ends in ``.gz``; ``-`` is stdin.

    Returns:
        The text; its ends of line are as they are in the file.

    Raises:
        ScoringError: it is not UTF-8, or a damaged .gz.
        OSError: it cannot be read.
    """
    content = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    try:
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ScoringError(f"{path}, line {line}: not UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ScoringError(f"{path}: not a whole .gz file") from error


def read_sentences(path: Path) -> list[str]:
    """The lines of a text file. Only a line feed ends a line, as for sacreBLEU and selfkd-prepare.

    Args:
        path: as of :func:`read_text`.

    Returns:
        The lines without their ends; what follows the last end is a line too unless it is empty.

    Raises:
        ScoringError: it is not UTF-8, or a damaged .gz.
        OSError: it cannot be read.
    """
    lines = read_text(path).split("\n")
    return lines if lines[-1] else lines[:-1]
