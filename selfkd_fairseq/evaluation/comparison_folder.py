"""The output folder of a comparison: whose it is, and how it comes to its place whole."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Callable

from .comparison_report import PROGRAM
from .errors import ComparisonError

RECORD = "comparison.json"
FILES = frozenset(
    {
        *(RECORD, "table.md", "table.csv", "scores.png", "calibration.png", "curves.png", "alpha.png"),
        *("soft_target.png", "soft_target_words.png"),
    }
)


def _is_ours(folder: Path) -> bool:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("program") == PROGRAM


def check_place(output: Path) -> None:
    """Refuse a place where the result must not go: only an empty folder and an earlier result are replaced.

    Args:
        output: what the user gave; it need not exist.

    Raises:
        ComparisonError: something else is there.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise ComparisonError(f"--output {output} is not a folder")
    names = {child.name for child in output.iterdir()}
    if names and not _is_ours(output):
        raise ComparisonError(f"--output {output} is not empty and not made by {PROGRAM}; it is left untouched")
    foreign = sorted(names - FILES)
    if foreign:
        raise ComparisonError(f"--output {output} holds {foreign[0]}, which {PROGRAM} did not make: move it away")


def write_folder(output: Path, write: Callable[[Path], None]) -> None:
    """Make a folder, whole or not at all; one that :func:`check_place` allows is replaced.

    Args:
        output: the folder.
        write: puts the files into the folder that it is given.

    Raises:
        ComparisonError: see :func:`check_place`.
        OSError: it cannot be written.
    """
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=str(output.parent)) as beside:
        unfinished, earlier = Path(beside) / "unfinished", Path(beside) / "earlier"
        unfinished.mkdir()
        write(unfinished)
        check_place(output)  # again: the work took its time
        if not output.exists():
            os.rename(str(unfinished), str(output))
            return
        os.rename(str(output), str(earlier))
        try:
            os.rename(str(unfinished), str(output))
        except BaseException:
            os.rename(str(earlier), str(output))
            raise
