"""What a number depends on besides the settings: command, commit, versions, machine and data."""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Sequence

import torch

from ..common.fairseq_package import fairseq_versions
from ..data.raw_text import sha256_of
from ..version import __version__

__all__ = ["commit", "data_checksums", "machine", "provenance", "versions"]

PACKAGES = ("torch", "numpy", "sacrebleu", "sacremoses", "subword-nmt")
_PACKAGE = Path(__file__).resolve().parent


def versions() -> dict[str, str]:
    """Versions of Python, of this package, of fairseq and of each of :data:`PACKAGES` that is installed."""
    found = {"python": platform.python_version(), "selfkd_fairseq": __version__, **fairseq_versions()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """The hardware that does the work.

    Args:
        device: where it is done.

    Returns:
        ``device``, the name of the GPU or of the processor, and ``threads``, torch's number of CPU threads.
    """
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor,
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``+changes`` if its files were changed.

    None if it does not run from a checkout of its own, or if git is not there.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        # Fails where the package is merely installed below a checkout of something else.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD").strip() + ("+changes" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def data_checksums(folder: Path, splits: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the dictionaries of a binarised corpus and of the ``.bin`` files of some of its splits.

    Args:
        folder: what ``fairseq-preprocess`` made.
        splits: for example ``["train", "valid"]``; a split that is not there has no entry.

    Returns:
        File name -> SHA-256 (hex), in the order of the names.
    """
    patterns = ["dict*.txt", *(f"{split}.{rest}" for split in splits for rest in ("bin", "*.bin"))]
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return {file.name: sha256_of(file) for file in files}


def provenance(device: torch.device, data: Path | None = None, splits: Sequence[str] = ()) -> dict[str, Any]:
    """All of the above for the running process, ready for JSON.

    Args:
        device: where the work is done.
        data: folder of binarised data; None if there is none.
        splits: of ``data``, see :func:`data_checksums`.

    Returns:
        ``command`` (list, the program by its name alone), ``time`` (UTC, ISO 8601), ``commit``, ``versions``,
        ``device``, ``threads``, and with data ``data`` with ``sha256``.
    """
    result = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        **machine(device),
    }
    if data is not None:
        result["data"] = {"sha256": data_checksums(data, splits)}
    return result
