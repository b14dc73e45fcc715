"""Settings of a checkpoint that fairseq would run as Python.

torch's safe mode keeps the pickle of a checkpoint from running code, but some settings of fairseq's models, tasks
or criterions are texts that go through ``eval`` when these are built from a checkpoint: ``adaptive_softmax_cutoff`` of
a Transformer, ``decoder_attention`` of an LSTM, and more. What fairseq-train writes there are literals. A text
that calls a function can do anything.
"""

from __future__ import annotations

import argparse
import ast
import re
import warnings
from typing import Any, Iterator

from omegaconf import OmegaConf

__all__ = ["setting_that_runs"]

# The parts of the settings of a training from which fairseq's other commands build something.
_BUILT = ("model", "task", "criterion")
# Names of files, folders and projects, which fairseq never evaluates and which may look like a call: "runs(2)/kd".
_PLAIN_TEXT = re.compile(r"data|wandb_project|(.*_)?(dir|logdir|file|path|from_model)")


def setting_that_runs(state: dict[str, Any]) -> str | None:
    """Find a setting that would run something, before fairseq sees the settings.

    Args:
        state: a checkpoint, as ``torch.load`` or fairseq's ``load_checkpoint_to_cpu`` returns it.

    Returns:
        The name of the first setting of the model, the task or the criterion whose text is an expression with a call
        in it, or refers to another text (``${...}``; fairseq resolves these before it writes a checkpoint). None if
        there is none.
    """
    settings = state.get("cfg")
    if OmegaConf.is_config(settings):
        settings = OmegaConf.to_container(settings, resolve=False)
    parts = [settings.get(name) for name in _BUILT] if isinstance(settings, dict) else [settings]
    for name, text in _texts("", [*parts, state.get("args")]):
        if _runs(text) and not _PLAIN_TEXT.fullmatch(name):
            return name
    return None


def _texts(name: str, value: Any) -> Iterator[tuple[str, str | bytes]]:
    """Each text inside a value, with the name of the setting that it stands in. ``eval`` takes bytes, too."""
    if isinstance(value, (str, bytes)):
        yield name, value
    elif isinstance(value, argparse.Namespace):
        yield from _texts(name, vars(value))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(str(key), inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _texts(name, inner)


def _runs(text: str | bytes) -> bool:
    content = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    if b"${" in content:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd spellings, on stderr
            # As eval does it: leading blanks are dropped, anything else must be an expression.
            tree = compile(content.lstrip(b" \t"), "setting", "eval", ast.PyCF_ONLY_AST)
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # no expression, nor can eval make one of it
        return False
    return any(isinstance(node, ast.Call) for node in ast.walk(tree))
