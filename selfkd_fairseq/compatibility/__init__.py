"""Mends without which the plugin does not work on a supported fairseq: one module a fault.

Each is made only where the fairseq that is installed has the fault; on ``fairseq-fixed`` 0.12.3 none is.
"""

import functools

from . import checkpoint_entries, unfused_encoder

__all__ = ["install"]


@functools.lru_cache(maxsize=None)
def install() -> None:
    """Mend the fairseq of this process; a second call changes nothing."""
    checkpoint_entries.keep_entries_of_tasks()
    unfused_encoder.switch_off_fused_layers()
