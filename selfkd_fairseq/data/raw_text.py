"""Raw corpus files: finding, checking and reading them."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from .errors import PreparationError

# What some reader or other (str.splitlines, universal newlines) takes for an end of line.
_LINE_BREAKS = {ord(mark): " " for mark in "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}


@dataclass(frozen=True)
class RawFile:
    """A raw file that was read from end to end.

    Args:
        path: where it is.
        sha256: hex digest of the file as it lies on the disk (compressed, if it is).
        lines: number of sentences, blank ones included.
        blank: number of blank sentences.
    """

    path: Path
    sha256: str
    lines: int
    blank: int


def find_raw_file(folder: Path, name: str) -> Path | None:
    """``folder/name`` (a ``.gz`` name) or the same without ``.gz``; None if neither is a file."""
    for candidate in (folder / name, folder / name[: -len(".gz")]):
        if candidate.is_file():
            return candidate
    return None


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of the bytes of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_sentences(path: Path) -> Iterator[str]:
    """Sentences of a raw file, gzip if the name ends so; only ``\\n`` ends a sentence (``\\r\\n`` ends count too).

    A byte order mark at the start is dropped. U+2028, U+0085, form feeds and the like stay in their sentence.

    Raises:
        PreparationError: the file is truncated or damaged, or is not UTF-8 (the message has the line number).
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield text[:-1].rstrip("\r") if text.endswith("\n") else text.rstrip("\r")
    except UnicodeDecodeError as error:
        raise PreparationError(f"{path}: line {number} is not valid UTF-8 ({error.reason})") from None
    except EOFError:
        raise PreparationError(f"{path}: truncated gzip file") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise PreparationError(f"{path}: damaged gzip file ({error})") from None


def one_line(sentence: str) -> str:
    """The sentence with a space for each character that some program takes for an end of line."""
    return sentence.translate(_LINE_BREAKS)


def inspect_raw_file(path: Path) -> RawFile:
    """Read a raw file from end to end.

    Raises:
        PreparationError: as :func:`read_sentences`.
        OSError: the file cannot be read.
    """
    lines = blank = 0
    for sentence in read_sentences(path):
        lines += 1
        blank += not sentence.strip()
    return RawFile(path, sha256_of(path), lines, blank)


def check_pair(source: RawFile, target: RawFile) -> None:
    """Refuse two sides that cannot be a parallel corpus.

    Raises:
        PreparationError: a side is empty or all blank, or the sides differ in their number of lines.
    """
    for side in (source, target):
        if side.lines == side.blank:
            state = f"all {side.lines} lines are blank" if side.lines else "the file is empty"
            raise PreparationError(f"{side.path}: {state}")
    if source.lines != target.lines:
        raise PreparationError(
            f"the two sides differ in length: {source.path} has {source.lines} lines, "
            f"{target.path} has {target.lines} lines"
        )
