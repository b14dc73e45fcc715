"""What fairseq gives to ``eval`` must be a literal, or so near to one that it runs nothing.

Some settings of fairseq's models, tasks and criterions are texts that it evaluates, such as ``encoder_layers`` of
``fconv``. Those of a checkpoint are checked when it is loaded; this is for programs that read a checkpoint by
themselves and let fairseq build the model. It cannot tell these texts from those of a command line: there, what is an
expression of another kind must be written out, ``[(16, 3)] * 2`` for ``[(16, 3) for _ in range(2)]``.

Not covered: the ``eval`` of other plugins, and of modules of fairseq that are imported after :func:`install
<selfkd_fairseq.hardening.install>`.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any

from ..checkpoints.damage import RunningSetting
from ..checkpoints.settings import runs
from .stand_ins import stand_in

__all__ = ["eval_harmless", "evaluate_literals_alone"]


def eval_harmless(source: Any, *namespaces: Any) -> Any:
    """Stand in for ``eval`` in fairseq's modules.

    Args:
        source: what ``eval`` takes.
        *namespaces: what else it takes; without them the names of a text are unknown, those of builtins too.

    Returns:
        Its value.

    Raises:
        RunningSetting: it could run something (:func:`selfkd_fairseq.checkpoints.settings.runs`).
        Exception: whatever ``eval`` raises; a name is a NameError.
    """
    if runs(source):
        raise RunningSetting(f"fairseq would run {ascii(source)[:100]} as Python: refused")
    return builtins.eval(source, *(namespaces or ({"__builtins__": {}},)))


def evaluate_literals_alone() -> None:
    """Give the modules of fairseq that are loaded :func:`eval_harmless`; a second call adds those loaded meanwhile.

    A name of a module goes before the builtin of that name. So this holds for ``fairseq.utils.eval_bool`` and the like
    whoever imported them and when, and for models that call ``eval`` themselves.
    """
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "fairseq":
            stand_in(module, "eval", lambda _: eval_harmless)
