"""Self-knowledge distillation for fairseq (Hahn and Choi, RANLP 2019, arXiv 1908.01851).

``--user-dir selfkd_fairseq`` imports this module, which registers the criterion ``self_kd``, the models and
architectures, the task ``bptt_language_modeling`` and the optimizer ``nt_asgd``. Without fairseq installed only
:mod:`selfkd_fairseq.core` (pure PyTorch) is of use.
"""

import importlib
import importlib.util

from .version import __version__

__all__ = ["__version__"]

if importlib.util.find_spec("fairseq") is not None:
    # fairseq imports tasks/ and models/ of a user dir by itself, but never criterions/ and optim/. Importing all of
    # them here makes `import selfkd_fairseq` enough for scripts too; a second import registers nothing.
    _parts = "one_line_errors", "checkpoints", "checked_inputs", "nan_search", "criterions", "models", "optim", "tasks"
    for _part in _parts:
        importlib.import_module(f"{__name__}.{_part}")
