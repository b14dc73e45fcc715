"""Text files that a user names: UTF-8, one sentence a line, packed with gzip or not.

As for :mod:`selfkd_fairseq.data.raw_text`, a byte-order mark and the carriage returns of Windows are no part of it.
"""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from pathlib import Path

from .errors import ScoringError

STDIN = Path("-")
BEFORE_END_OF_LINE = re.compile(r"\r+$", re.MULTILINE)


def read_text(path: Path) -> str:
    """Read a text file from end to end.

    Args:
        path: of the file, which is unpacked if its name ends in ``.gz``; ``-`` is stdin.

    Returns:
        The text; its ends of line are line feeds.

    Raises:
        ScoringError: it is not UTF-8, or a damaged .gz.
        OSError: it cannot be read.
    """
    content = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    try:
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ScoringError(f"{path}, line {line}: not UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ScoringError(f"{path}: not a whole .gz file") from error
    return BEFORE_END_OF_LINE.sub("", text)


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
