"""Raw corpus files: finding, checking and reading them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Iterator, Mapping, cast

from .archives import open_member
from .errors import PreparationError
from .progress import progress_bar

# What some reader or other (str.splitlines, universal newlines) takes for an end of line.
_LINE_BREAKS = {ord(mark): " " for mark in "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}


@dataclass(frozen=True)
class RawFile:
    """A file as it was published, or a form of it that will do.

    Args:
        path: where it is.
        name: what its SHA-256 is recorded under.
        unzip: the SHA-256 is that of what this gzip file holds, for the file was published as plain text (and two
            gzip files of one text differ, in their dates if in nothing else).
    """

    path: Path
    name: str
    unzip: bool = False


@dataclass(frozen=True)
class Text:
    """Where raw sentences are, one a line.

    Args:
        file: plain text, gzip if its name ends in ``.gz``, or an archive (see :mod:`.archives`).
        member: full name of the text inside the archive; None if ``file`` is none.
        extract: line -> the sentence in it, or None if it has none; None where every line is a sentence.
    """

    file: RawFile
    member: str | None = None
    extract: Callable[[str], str | None] | None = None

    def __str__(self) -> str:
        return f"{self.file.path}, {self.member}" if self.member else str(self.file.path)


@dataclass(frozen=True)
class InspectedText:
    """A text that was read from end to end.

    Args:
        text: where it is.
        lines: number of sentences, blank ones included.
        sha256: hex digest of the text itself, out of whatever wraps it.
    """

    text: Text
    lines: int
    sha256: str


def _forms(folder: Path, name: str) -> Iterator[RawFile]:
    yield RawFile(folder / name, name)
    if name.endswith(".gz"):
        plain = name[: -len(".gz")]
        yield RawFile(folder / plain, plain)  # nobody can tell the published SHA-256 from this
    else:
        yield RawFile(folder / f"{name}.gz", name, unzip=True)


def find_raw_file(folder: Path, name: str) -> RawFile | None:
    """Look for a raw file, as it was published or in a form that will do.

    Args:
        folder: where to look.
        name: of the published file.

    Returns:
        The file of that name, or the same with, or without, ``.gz``; None if neither is a file.
    """
    return next((file for file in _forms(folder, name) if file.path.is_file()), None)


def find_raw_files(folder: Path, names: Mapping[str, str], instead: str | None = None) -> dict[str, RawFile]:
    """:func:`find_raw_file` for each of several.

    Args:
        folder: what the user gave as ``--raw``.
        names: any key -> name of a file.
        instead: name of a file that would have done in place of all of these, for the message.

    Returns:
        The same keys -> the files.

    Raises:
        PreparationError: there is no such folder, or files are missing; the message names all of them.
    """
    if not folder.is_dir():
        raise PreparationError(f"--raw {folder} is not a folder")
    found = {key: find_raw_file(folder, name) for key, name in names.items()}
    missing = [name for key, name in names.items() if found[key] is None]
    if missing:
        note = f", and {instead} in place of them all" if instead else ""
        raise PreparationError(f"--raw {folder} lacks {', '.join(missing)} (plain or .gz){note}")
    return {key: file for key, file in found.items() if file is not None}


@contextlib.contextmanager
def _open_text(text: Text) -> Iterator[IO[bytes]]:
    """The bytes of a text. The block may only read them: what a damaged file raises in it is translated."""
    path = text.file.path
    with contextlib.ExitStack() as stack:
        if text.member is not None:
            yield stack.enter_context(open_member(path, text.member))
        elif path.suffix != ".gz":
            yield stack.enter_context(open(path, "rb"))
        else:
            try:
                yield cast(IO[bytes], stack.enter_context(gzip.open(path, "rb")))
            except EOFError:
                raise PreparationError(f"{path}: truncated gzip file") from None
            except (gzip.BadGzipFile, zlib.error) as error:
                raise PreparationError(f"{path}: damaged gzip file ({error})") from None


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of the bytes of a file, read in pieces of 1 MiB.

    Args:
        path: of the file.

    Returns:
        64 hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return _sha256(file)


def fingerprint(file: RawFile) -> str:
    """The SHA-256 by which a raw file is known.

    Args:
        file: where it is.

    Returns:
        Hex digest of the bytes of the file, or of what it holds if the text was published plain.

    Raises:
        PreparationError: it must be unzipped for that, and is damaged.
        OSError: it cannot be read.
    """
    if not file.unzip:
        return sha256_of(file.path)
    with _open_text(Text(file)) as stream:
        return _sha256(stream)


def _decode(line: bytes, number: int, text: Text) -> str:
    try:
        sentence = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise PreparationError(f"{text}: line {number} is not valid UTF-8 ({error.reason})") from None
    return sentence[:-1].rstrip("\r") if sentence.endswith("\n") else sentence.rstrip("\r")


def read_sentences(text: Text, digest: Any = None) -> Iterator[str]:
    r"""Sentences of a raw text; only ``\n`` ends a sentence (``\r\n`` ends count too).

    A byte order mark at the start is dropped. U+2028, U+0085, form feeds and the like stay in their sentence.

    Args:
        text: where it is.
        digest: a hash of :mod:`hashlib`, which is fed every byte of the text.

    Yields:
        A sentence without its end, blank ones too.

    Raises:
        PreparationError: the file is truncated or damaged, or the text is not UTF-8 (the message has the line number).
        OSError: the file cannot be read.
    """
    with _open_text(text) as file:
        for number, line in enumerate(file, start=1):
            if digest is not None:
                digest.update(line)
            decoded = _decode(line, number, text)
            sentence = decoded if text.extract is None else text.extract(decoded)
            if sentence is not None:
                yield sentence


def one_line(sentence: str) -> str:
    """Make a sentence one line for any reader.

    Args:
        sentence: without the end of its line.

    Returns:
        The sentence with a space for each character that some program takes for an end of line.
    """
    return sentence.translate(_LINE_BREAKS)


def inspect_text(text: Text, reserved: Callable[[str], str | None] | None = None) -> InspectedText:
    """Read a raw text from end to end.

    Args:
        text: where it is.
        reserved: sentence -> what it has that fairseq keeps for itself, or None.

    Returns:
        The text with the number of its lines, of those that are blank, and its SHA-256.

    Raises:
        PreparationError: as :func:`read_sentences`; or it has something reserved, or no word at all.
        OSError: the file cannot be read.
    """
    lines = blank = 0
    digest = hashlib.sha256()
    # Nobody knows how many lines there are. A bar comes up only where this takes a while.
    sentences = progress_bar(
        iterable=read_sentences(text, digest), desc="check", unit="line", unit_scale=True, delay=5, leave=False
    )
    for sentence in sentences:
        lines += 1
        blank += not sentence.strip()
        found = reserved(sentence) if reserved is not None else None
        if found is not None:
            raise PreparationError(f"{text}: line {lines} has {found}, which fairseq keeps for itself")
    if lines == blank:
        raise PreparationError(f"{text}: " + (f"all {lines} lines are blank" if lines else "the file is empty"))
    return InspectedText(text, lines, digest.hexdigest())


def read_again(inspected: InspectedText) -> Iterator[str]:
    """Sentences of a text that was inspected before.

    Args:
        inspected: what :func:`inspect_text` gave.

    Yields:
        A sentence without its end, blank ones too.

    Raises:
        PreparationError: as :func:`read_sentences`; or, after the last sentence, the text is another one by now.
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    yield from read_sentences(inspected.text, digest)
    if digest.hexdigest() != inspected.sha256:
        raise PreparationError(f"{inspected.text} was changed during the preparation")
