"""Which package brings the module ``fairseq``: on the package registry there are several, of different names."""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata

__all__ = ["NOT_INSTALLED", "fairseq_versions", "require_fairseq"]

NOT_INSTALLED = (
    "fairseq is not installed; on Linux with Python 3.11 or 3.12: pip install ve-fairseq; elsewhere: see Install in "
    "README.md"
)


def fairseq_versions() -> dict[str, str]:
    """Name -> version of each installed package that brings ``fairseq``, whatever its name; as a rule one."""
    found = {}
    for package in metadata.distributions():  # packages_distributions() came with Python 3.10
        if "fairseq" in (package.read_text("top_level.txt") or "").split():
            found[package.metadata["Name"]] = package.version
    return found


def require_fairseq(program: str) -> None:
    """End the program with status 1 and one line if there is no ``fairseq``, before anything imports it.

    Args:
        program: name of the command.
    """
    if importlib.util.find_spec("fairseq") is None:
        sys.exit(f"{program}: error: {NOT_INSTALLED}")
