"""Download of single files: resumed, retried, checked."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable

from selfkd_fairseq.version import __version__

from .errors import PreparationError
from .files import publish
from .progress import progress_bar
from .raw_text import sha256_of

ATTEMPTS = 5
TIMEOUT_SECONDS = 30.0
USER_AGENT = f"selfkd-prepare/{__version__}"  # some servers turn away Python's own
_BLOCK = 1 << 16
_PASSING_STATES = {408, 425, 429}  # and every 5xx: the same request may succeed later


class _Passing(Exception):
    """A failure that may not happen again."""


def _open(url: str, part: Path) -> Any:
    """The response to a GET of what follows the bytes in ``part``; the server may answer with the whole file."""
    offset = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": USER_AGENT, **({"Range": f"bytes={offset}-"} if offset else {})}
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        message = f"HTTP {error.code} {error.reason}"
        if error.code == 416 and offset:  # more bytes there than the file has: they are of another file
            part.unlink()
            raise _Passing("the unfinished download does not fit, so it starts afresh") from None
        if error.code >= 500 or error.code in _PASSING_STATES:
            raise _Passing(message) from None
        raise PreparationError(f"cannot download {url}: {message}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(getattr(error, "reason", None) or error or type(error).__name__) from None


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read(_BLOCK)
        return block
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(f"the transfer broke off ({error or type(error).__name__})") from None


def _fetch(url: str, part: Path) -> bool:
    """Bring ``part`` to its full length.

    Returns:
        Whether bytes that were there before were kept.

    Raises:
        _Passing: the transfer failed; what has come is in ``part``.
    """
    offset = part.stat().st_size if part.exists() else 0
    with _open(url, part) as response:
        kept: bool = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        if response.status == 206 and not kept:
            part.unlink()
            raise _Passing("the server sent another part of the file than the one asked for")
        length = response.headers.get("Content-Length")
        start = offset if kept else 0
        total = start + int(length) if length and length.isdigit() else None
        bar = progress_bar(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, unit_divisor=1024)
        with open(part, "ab" if kept else "wb") as file, bar:
            for block in iter(lambda: _read(response), b""):
                file.write(block)
                bar.update(len(block))
    arrived = part.stat().st_size
    if total is not None and arrived < total:
        raise _Passing(f"the transfer broke off after {arrived} of {total} bytes")
    return kept


def download(url: str, path: Path, sha256: str | None, report: Callable[[str], None]) -> None:
    """Download ``url`` to ``path``, which appears only when it is whole and has the right checksum.

    Args:
        url: http or https.
        path: the folder is made if need be. What came of an unfinished download is in ``path`` + ``.part``, and
            is gone on from.
        sha256: hex digest that the file must have; None if it is unknown.
        report: takes one line for each attempt that failed, and one with the digest if that was unknown.

    Raises:
        PreparationError: the server refuses, all attempts failed, or the file is another one.
        OSError: ``path`` cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # A run killed between the last byte and the renaming leaves a whole .part behind.
            kept = part.exists() and sha256_of(part) == sha256 or _fetch(url, part)
            found = sha256_of(part)
            if sha256 is None:
                report(f"{url}: no published SHA-256 is known; that of this download is {found}")
            if sha256 in (found, None):
                publish(part, path)
                return
            part.unlink()
            if not kept:
                raise PreparationError(f"{url} is not the published file: SHA-256 {found}, published {sha256}")
            reason = "the continued download has a wrong SHA-256, so it starts afresh"
        except _Passing as error:
            reason = str(error)
        if attempt < ATTEMPTS:
            seconds = 2 ** (attempt - 1)
            report(f"{url}: {reason}; trying again in {seconds} s")
            time.sleep(seconds)
    raise PreparationError(f"cannot download {url}: {reason} (gave up after {ATTEMPTS} attempts)")
