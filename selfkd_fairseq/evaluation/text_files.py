"""Text files that a user names: UTF-8, one sentence a line, packed with gzip or not."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path

from .errors import ScoringError

STDIN = Path("-")


def read_text(path: Path) -> str:
    """All of a text file, unpacked if its name ends in ``.gz``; ``-`` is stdin.

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

    Raises:
        ScoringError, OSError: see :func:`read_text`.
    """
    lines = read_text(path).split("\n")
    return lines if lines[-1] else lines[:-1]
