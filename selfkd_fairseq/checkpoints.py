"""What a fairseq checkpoint may hold, so that ``torch.load`` keeps its safe (weights-only) mode.

From torch 2.6 on, ``torch.load`` refuses every pickled global that it does not know. A fairseq checkpoint
holds exactly one such global: ``argparse.Namespace`` (the legacy ``args`` entry, and task or model settings).
It is a plain holder of attributes, so allowing it lets no code run. Everything else stays refused, with
torch's own error.
"""

import argparse

import torch

CHECKPOINT_GLOBALS = (argparse.Namespace,)


def allow_checkpoint_globals() -> None:
    """Allow :data:`CHECKPOINT_GLOBALS` in weights-only loading, for this process.

    Older versions of torch (before 2.4) have no such list and nothing to allow.
    """
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals(list(CHECKPOINT_GLOBALS))


allow_checkpoint_globals()
