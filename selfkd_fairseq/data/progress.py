"""Progress bars on stderr."""

from __future__ import annotations

import sys
from typing import Any


def progress_bar(**options: Any) -> Any:
    """A tqdm bar with rate and time left, that writes to a log file only now and then.

    Args:
        **options: as of ``tqdm.tqdm``.

    Returns:
        A ``tqdm.tqdm`` on stderr.
    """
    from tqdm import tqdm  # here, so that a call that has nothing to do does not wait for the import

    return tqdm(mininterval=0.1 if sys.stderr.isatty() else 10.0, **options)
