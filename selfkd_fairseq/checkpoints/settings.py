"""Settings of a checkpoint that fairseq would run as Python.

torch's safe mode keeps the pickle of a checkpoint from running code, but some settings of fairseq's models, tasks
or criterions are texts that go through ``eval`` when these are built from a checkpoint: ``adaptive_softmax_cutoff`` of
a Transformer, ``decoder_attention`` of an LSTM, and more. What fairseq-train writes there are literals. Other Python
can do anything, so only these expressions are accepted: literals, sums and small products as in
``[(512, 3)] * 4``, and what names of files and models look like to Python, words joined by ``. / - +`` or commas.
"""

from __future__ import annotations

import argparse
import ast
import math
import re
import warnings
from typing import Any, Iterator

from omegaconf import OmegaConf

__all__ = ["runs", "why_refused"]

# The parts of the settings of a training from which fairseq's other commands build something.
_BUILT = ("model", "task", "criterion")
# Names of files, folders and projects, which fairseq never evaluates and which may look like a call: "runs(2)/kd".
_PLAIN_TEXT = re.compile(
    r"data|checkpoint_suffix|wandb_project|aim_repo|(train|valid|test)pref"
    r"|(.*_)?(from|codes|vocab|vocab_bpe|merges|json|yaml|lexicon)|.*(dir|file|path|dict|dictionary|model|checkpoint)"
)
# A checkpoint of fairseq-train has a thousand. A few nested lists that share their items can stand for 2**40.
_MOST_VALUES = 100_000
# Deeper expressions than such a text can hold would overflow the stack of Python 3.8 itself.
_LONGEST_EXPRESSION = 100_000
_LARGEST = 10_000_000  # all that is multiplied
_HARMLESS = (
    *(ast.Expression, ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Name, ast.Attribute, ast.expr_context),
    *(ast.UnaryOp, ast.UAdd, ast.USub, ast.BinOp, ast.Add, ast.Sub, ast.Div, ast.FloorDiv, ast.Mult),
)


def why_refused(state: dict[str, Any]) -> str | None:
    """Say why fairseq must not see the settings of a checkpoint.

    Args:
        state: a checkpoint, as ``torch.load`` or fairseq's ``load_checkpoint_to_cpu`` returns it.

    Returns:
        The end of a sentence that begins with the name of the file, in one line: a setting of the model, the task or
        the criterion is an expression that can run something, is made of bytes, or refers to another text (``${...}``;
        fairseq resolves these before it writes a checkpoint), or the settings hold more values than any training
        has. None if there is no reason.
    """
    settings = state.get("cfg")
    if OmegaConf.is_config(settings):
        settings = OmegaConf.to_container(settings, resolve=False)
    parts = [settings.get(name) for name in _BUILT] if isinstance(settings, dict) else [settings]
    try:
        for _ in _values([settings, state.get("args")]):  # fairseq copies all of it
            pass
        for name, value in _values([*parts, state.get("args")]):
            refers = isinstance(value, str) and "${" in value
            if refers or (runs(value) and not (isinstance(value, str) and _PLAIN_TEXT.fullmatch(name))):
                shown = ascii(name[:80])[1:-1] or "cfg"
                return f"is refused: fairseq would run what its setting {shown} says as Python"
    except _TooManyValues:
        return f"is refused: its settings hold more than {_MOST_VALUES:,} values"
    return None


class _TooManyValues(Exception):
    pass


def _values(settings: Any) -> Iterator[tuple[str, Any]]:
    """Each value that is no container, with the name of the setting that it stands in."""
    waiting = [("", settings)]
    count = 0
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            yield name, value
            continue
        count += 1 + len(value)
        if count > _MOST_VALUES:
            raise _TooManyValues
        if isinstance(value, dict):
            inside = [(key if isinstance(key, str) else name, inner) for key, inner in value.items()]
        else:
            inside = [(name, inner) for inner in value]
        waiting += reversed(inside)


def runs(value: Any) -> bool:
    """Whether ``eval`` could run something by a value, or take memory or time without bound.

    Args:
        value: what would be given to ``eval``.

    Returns:
        False for what ``eval`` takes for no expression, and for the expressions named at the top of this module. True
        for any other text, and for bytes of each kind, in which no setting is written.
    """
    if not isinstance(value, str):
        return _holds_bytes(value)
    # As eval does it, and from the str: bytes may name an encoding, which eval of a str does not heed.
    source = value.lstrip(" \t")
    if len(source) > _LONGEST_EXPRESSION:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd spellings, on stderr
            tree = compile(source, "setting", "eval", ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError):  # no expression, nor can eval make one of it
        return False
    except (MemoryError, RecursionError):  # eval might come further
        return True
    if not all(map(_is_harmless, ast.walk(tree))):
        return True
    products: list[float] = []
    try:
        _size(tree, products)
    except RecursionError:
        return True
    return sum(products) > _LARGEST


def _holds_bytes(value: Any) -> bool:
    """``eval`` takes all that shows its memory: bytes, bytearray, arrays."""
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _is_harmless(node: ast.AST) -> bool:
    """Of a node by itself: those inside it are asked on their own."""
    if isinstance(node, ast.Dict):
        return None not in node.keys  # {**x} asks x for its keys and values
    return isinstance(node, _HARMLESS)


def _size(node: ast.AST, products: list[float]) -> float:
    """No integer that comes of the expression is larger, and no sequence longer; infinity where a name can be either.

    The same of every product within it goes to ``products``.
    """
    if isinstance(node, ast.Constant):
        if isinstance(node.value, int):
            return max(1, abs(node.value))
        return max(1, len(node.value)) if isinstance(node.value, (str, bytes)) else 1
    sizes = [_size(inner, products) for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.expr)]
    if isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.Dict)):
        return max(1, len(sizes))
    if isinstance(node, ast.Name):
        return math.inf
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        products.append(math.prod(sizes))
        return products[-1]
    return max(1, sum(sizes))
