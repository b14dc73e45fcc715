"""What docstrings must say beyond what ruff and pydoclint check: errors, shapes and units. Sources are only parsed."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Iterator

import pytest

PACKAGE = Path(__file__).parents[1] / "selfkd_fairseq"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name == "__init__.py" or path.name[0] != "_")
FOLDERS_WITH_SHAPES = ("core", "criterions", "models", "optim")
SIZE = r"(?:\.\.\.|[A-Z]'?(?: [*+] [A-Z1])?|d|n|layers|width)"
SHAPE = re.compile(rf"\(\)|\({SIZE},\)|\({SIZE}(?:, {SIZE})+\)|\bscalar\b|\bany shape\b")
LOSS = re.compile(r"(?:\b|_)(?:loss|losses|nll|entropy|log-likelihood)(?:\b|_)", re.IGNORECASE)
SECTION = re.compile(r"^(Args|Returns|Raises):\n((?:    .*\n|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"^    \*{0,2}(\w+):((?:.*\n)(?:     .*\n|\n)*)", re.MULTILINE)


def docstring(node: ast.FunctionDef | ast.ClassDef) -> str:
    return inspect.cleandoc(ast.get_docstring(node, clean=False) or "") + "\n"


def public_functions(body: list[ast.stmt], of_class: str = "") -> Iterator[tuple[ast.FunctionDef, str]]:
    """Each public function and method with its docstring, and behind it that of the class."""
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name[0] != "_":
            yield from public_functions(node.body, docstring(node))
        if isinstance(node, ast.FunctionDef) and (node.name == "__init__" or node.name[0] != "_"):
            yield node, docstring(node) + of_class


def raised(node: ast.AST) -> Iterator[str]:
    """Names of the exceptions that a function makes and raises, without those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise):
            made = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            name = made.attr if isinstance(made, ast.Attribute) else getattr(made, "id", "")
            if name[:1].isupper() and name != "NotImplementedError":
                yield name
        if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield from raised(child)


def names_tensor(annotation: ast.expr | None) -> bool:
    nodes = ast.walk(annotation) if annotation else ()
    return any("Tensor" in (getattr(node, "id", None), getattr(node, "attr", None)) for node in nodes)


def missing(node: ast.FunctionDef, text: str, folder: str) -> Iterator[str]:
    """What ``text`` lacks, one after the other; a method whose docstring refers to the base class's lacks nothing."""
    if text.startswith(("See :class:", "See :meth:")):
        return
    sections = {"Args": "", "Returns": "", "Raises": text.split("\n")[0] if text.startswith("Raise ") else ""}
    for title, body in SECTION.findall(text):
        sections[title] += body
    yield from (name for name in raised(node) if not re.search(rf"\b{name}\b", sections["Raises"]))
    if folder in FOLDERS_WITH_SHAPES:
        said, arguments = dict(ENTRY.findall(sections["Args"])), node.args
        for arg in [*arguments.args, *arguments.kwonlyargs, *filter(None, [arguments.vararg, arguments.kwarg])]:
            if names_tensor(arg.annotation) and not SHAPE.search(said.get(arg.arg, "")):
                yield f"shape of {arg.arg}"
        if names_tensor(node.returns) and not SHAPE.search(sections["Returns"] or text):
            yield "shape of the result"
    if folder == "core" and not isinstance(node.returns, ast.Constant) and LOSS.search(f"{node.name} {text}"):
        units = {"nats": r"\bnats\b", "sum or mean": r"\b(sums?|means?)\b"}
        yield from (unit for unit, pattern in units.items() if not re.search(pattern, text))


def complaints(source: str, folder: str) -> list[str]:
    functions = public_functions(ast.parse(source).body)
    return [f"{node.name}: {what}" for node, text in functions for what in missing(node, text, folder)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_errors_shapes_and_units_are_documented(path: Path) -> None:
    assert complaints(path.read_text("utf-8"), path.relative_to(PACKAGE).parts[0]) == []


GOOD = '''
def nll(x: Tensor, y: Tensor | None) -> Tensor:
    """The loss.

    Args:
        x: (N, V) logits.
        y: (N,) int64, or None.

    Returns:
        A scalar, the sum over tokens in nats.

    Raises:
        ValueError: shapes do not fit.
    """
    def inner():
        raise TypeError
    raise ValueError("no")
'''


@pytest.mark.parametrize(
    ("old", "new", "folder", "expected"),
    [
        ("", "", "core", []),
        ("(N, V) ", "", "data", []),
        ("def nll", "def _nll", "core", []),
        ("    raise ValueError", "    raise errors.KeyError", "data", ["nll: KeyError"]),
        ("        ValueError: shapes", "        OSError: shapes", "data", ["nll: ValueError"]),
        ("(N, V) ", "(logits) ", "optim", ["nll: shape of x"]),
        ("(N,) ", "", "core", ["nll: shape of y"]),
        ("A scalar, the", "The", "models", ["nll: shape of the result"]),
        ("nats", "bits", "core", ["nll: nats"]),
        ("the sum over", "over", "core", ["nll: sum or mean"]),
    ],
)
def test_what_is_missing_is_found(old: str, new: str, folder: str, expected: list[str]) -> None:
    assert complaints(GOOD.replace(old, new, 1), folder) == expected
