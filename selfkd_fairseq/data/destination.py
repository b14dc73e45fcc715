"""The destination folder: whose it is, what it was begun with, and whether it is finished."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Mapping

from .errors import PreparationError
from .files import UNFINISHED

# Written first: marks the folder as ours and binds it to its settings.
BEGUN = "selfkd-prepare.json"
# Written last: marks the preparation as complete.
STAMP = "stamp.json"
# Where downloads go unless the user says otherwise.
DOWNLOAD = "download"


def check_place(dest: Path, raw: Path, downloaded: bool) -> None:
    """Refuse a destination that cannot be used, whatever it holds. Both paths must be resolved.

    Args:
        dest: the destination.
        raw: the folder of raw files.
        downloaded: whether ``raw`` is where downloads go (then it may be ``dest/download``).

    Raises:
        PreparationError: ``dest`` is or lies in ``raw``, downloads would mix with results, or fairseq could not
            take the path.
    """
    what = "--download-dir" if downloaded else "--raw"
    if dest == raw or raw in dest.parents:
        raise PreparationError(f"--dest {dest} must not be, or lie in, the {what} folder {raw}")
    if downloaded and dest in raw.parents and raw != dest / DOWNLOAD:
        raise PreparationError(f"--download-dir {raw} must lie outside --dest, or be {dest / DOWNLOAD}")
    if os.pathsep in str(dest):
        raise PreparationError(f"--dest {dest} has a {os.pathsep!r} in it, where fairseq would cut the path in two")


def _read_record(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        record = None
    parts = ("settings", "inputs", "versions")
    if not isinstance(record, dict) or not all(isinstance(record.get(part), dict) for part in parts):
        raise PreparationError(f"{path} is damaged; remove that folder or choose another --dest")
    return record


def read_begun(dest: Path) -> dict[str, Any] | None:
    """Find out what the preparation in a folder was begun with.

    Args:
        dest: the folder.

    Returns:
        Settings and input, as they were recorded; None if ``dest`` is absent or empty.

    Raises:
        PreparationError: ``dest`` holds something that ``selfkd-prepare`` did not make.
    """
    if dest.is_dir():
        if not (dest / BEGUN).is_file() and any(child.name != UNFINISHED for child in dest.iterdir()):
            raise PreparationError(f"--dest {dest} is not empty and not made by selfkd-prepare; it is left untouched")
    elif dest.exists():
        raise PreparationError(f"--dest {dest} is not a folder")
    return _read_record(dest / BEGUN)


def read_stamp(dest: Path) -> dict[str, Any] | None:
    """Read the stamp of a finished preparation.

    Args:
        dest: the destination; it need not exist.

    Returns:
        Settings, inputs, versions and the numbers of the result; None if the preparation is not finished.

    Raises:
        PreparationError: the stamp is damaged.
    """
    return _read_record(dest / STAMP)


def check_same(dest: Path, what: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to mix two preparations in one folder.

    Args:
        dest: the destination.
        what: "settings", "input" or "versions", for the message.
        there: what ``dest`` was begun with.
        here: what is asked for now.

    Raises:
        PreparationError: they differ; the message names each difference.
    """
    differences = [
        f"{name} is {_shown(there.get(name))} there and {_shown(here.get(name))} here"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if differences:
        raise PreparationError(
            f"{dest} was begun with other {what}: {'; '.join(differences)} (remove it or choose another --dest)"
        )


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, str) and len(value) == 64:  # a SHA-256: its start is enough to tell two apart
        return f"{value[:12]}..."
    return json.dumps(value)
