"""Self-knowledge distillation for fairseq (Hahn and Choi, RANLP 2019, arXiv 1908.01851).

``--user-dir selfkd_fairseq`` imports this module, which then registers the criterion ``self_kd``, the models and
architectures, the task ``bptt_language_modeling`` and the optimizer ``nt_asgd``. A script or a notebook calls
:func:`register`. Until fairseq is imported nothing of it is needed: :mod:`selfkd_fairseq.core` is pure PyTorch.
"""

import importlib
import os
import sys

from .version import __version__

__all__ = ["__version__", "register"]


def register() -> None:
    """Make fairseq know the parts of the plugin; a second call changes nothing.

    For scripts and notebooks: ``--user-dir`` alone does nothing where this package was imported before fairseq was.

    Beside its registries this changes two things: torch's safe mode takes what fairseq's own checkpoints hold, and a
    fairseq that lacks something that the parts need is mended (:mod:`selfkd_fairseq.compatibility`). With
    ``SELFKD_HARDENED=1`` in the environment it calls :func:`selfkd_fairseq.hardening.install`, too.
    """
    # fairseq imports tasks/ and models/ of a user dir by itself, but never criterions/ and optim/.
    for part in ("criterions", "models", "optim", "tasks"):
        importlib.import_module(f"{__name__}.{part}")
    from . import compatibility
    from .checkpoints import safe_globals

    safe_globals.allow_checkpoint_globals()
    compatibility.install()
    if os.environ.get("SELFKD_HARDENED") == "1":
        from . import hardening

        hardening.install()


if "fairseq" in sys.modules:
    register()
