"""What docstrings must say beyond what ruff and pydoclint check: sections, errors, shapes, units and sources.

pydoclint compares the sections of a docstring with the code and passes over a docstring that has none; here whatever is
public and takes arguments must have them. The modules are only parsed.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Iterator, NamedTuple, Union

import pytest

PACKAGE = Path(__file__).parents[1] / "selfkd_fairseq"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name == "__init__.py" or path.name[0] != "_")

SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):\n((?:    .*\n|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"^    \*{0,2}(\w+):((?:.*\n)(?:     .*\n|\n)*)", re.MULTILINE)

ARRAYS = {"Tensor", "ndarray", "State"}  # State, of the recurrent models: tensors
SIZE = r"(?:\.\.\.|[A-Z]'?(?: [*+] [A-Z1])?|1|d|n|layers|width)"
SHAPE = re.compile(rf"(?<!\w)\(\)|\({SIZE},\)|\({SIZE}(?:, {SIZE})+\)|\bscalar\b|\bany shape\b")

LOSS = re.compile(r"(?:\b|_)(?:loss|losses|nll|entropy|log-likelihood)(?:\b|_)", re.IGNORECASE)
CORE_UNITS = {"nats": r"\bnats\b", "sum or mean": r"\b(?:sums?|means?)\b"}
LOSS_UNITS = {"nats or bits": r"\b(?:nats|bits)\b", "sum or mean": r"\b(?:sums?|means?|per token)\b"}
# What a result is, and what the docstring must then say of its unit.
RESULTS = (
    (LOSS, LOSS_UNITS),
    (re.compile(r"\btime\b(?! steps?\b)|_seconds\b", re.IGNORECASE), {"seconds": r"\bseconds\b"}),
    (re.compile(r"\bmemory\b|_bytes\b", re.IGNORECASE), {"bytes": r"\bbytes\b"}),
    (
        re.compile(r"\b(?:scores?|accuracy|BLEU|chrF|calibration error)\b", re.IGNORECASE),
        {"percent or fraction": r"\bpercent\b|\bfraction\b|\bunits are those of\b"},
    ),
)
FOLDERS_WITH_UNITS = ("benchmark", "criterions", "evaluation", "models", "optim", "tasks")

PUBLISHED = r"\b(?:19|20)\d\d\b|\barXiv \d{4}\.\d{4,5}\b|\bdocs/method\.md\b"
FAIRSEQ = rf"{PUBLISHED}|\bfairseq\b"  # for what only connects a published part to it
SOURCES = {"core": PUBLISHED, "optim": PUBLISHED, "criterions": FAIRSEQ, "models": FAIRSEQ, "tasks": FAIRSEQ}

Definition = Union[ast.FunctionDef, ast.ClassDef]


class Documented(NamedTuple):
    """A public function or class, its docstring (of a constructor the class's too), and whether it is in a class."""

    node: Definition
    text: str
    in_class: bool


def docstring(node: Definition | ast.Module) -> str:
    return inspect.cleandoc(ast.get_docstring(node, clean=False) or "") + "\n"


def documented(body: list[ast.stmt], of_class: str | None = None) -> Iterator[Documented]:
    """All that is public, but special methods and functions inside functions."""
    in_class = of_class is not None
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name[0] != "_":
            yield Documented(node, docstring(node), in_class)
            yield from documented(node.body, docstring(node))
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            yield Documented(node, docstring(node) + (of_class or ""), in_class)
        elif isinstance(node, ast.FunctionDef) and node.name[0] != "_":
            yield Documented(node, docstring(node), in_class)


def sections_of(text: str) -> dict[str, str]:
    sections = dict.fromkeys(("Args", "Attributes", "Returns", "Yields", "Raises"), "")
    for title, body in SECTION.findall(text):
        sections[title] += body
    sections["Raises"] += text.split("\n")[0] if text.startswith("Raise ") else ""
    sections["Returns"] += sections["Yields"]
    return sections


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


def arguments_of(node: ast.FunctionDef, is_method: bool) -> list[ast.arg]:
    static = any(getattr(decorator, "id", "") == "staticmethod" for decorator in node.decorator_list)
    named = [*node.args.posonlyargs, *node.args.args][1 if is_method and not static else 0 :]
    return [*named, *node.args.kwonlyargs, *filter(None, [node.args.vararg, node.args.kwarg])]


def has_result(node: ast.FunctionDef) -> bool:
    is_none = isinstance(node.returns, ast.Constant) and node.returns.value is None
    return node.returns is not None and not is_none and getattr(node.returns, "id", "") != "NoReturn"


def holds_array(annotation: ast.expr | None) -> bool:
    nodes = ast.walk(annotation) if annotation else ()
    return any(not ARRAYS.isdisjoint((getattr(node, "id", None), getattr(node, "attr", None))) for node in nodes)


def lacking(text: str, units: dict[str, str]) -> Iterator[str]:
    yield from (unit for unit, pattern in units.items() if not re.search(pattern, text))


def missing_units(name: str, text: str, result: str, folder: str) -> Iterator[str]:
    """The core is strict: it returns sums in nats. Elsewhere it is the result that matters, without names in code."""
    if folder == "core" and LOSS.search(f"{name} {text}"):
        yield from lacking(text, CORE_UNITS)
    if folder in FOLDERS_WITH_UNITS:
        about = f"{name} " + re.sub(r"``.*?``|:\w+:`.*?`", "", result)
        for quantity, units in RESULTS:
            if quantity.search(about):
                yield from lacking(text, units)


def missing_in_function(found: Documented, node: ast.FunctionDef, folder: str) -> Iterator[str]:
    sections, arguments = sections_of(found.text), arguments_of(node, found.in_class)
    said = dict(ENTRY.findall(sections["Args"]))
    if arguments and not sections["Args"]:
        yield "Args"
    if arguments and has_result(node) and not sections["Returns"]:
        yield "Returns"
    yield from (name for name in raised(node) if not re.search(rf"\b{name}\b", sections["Raises"]))
    for argument in arguments:
        entry = said.get(argument.arg, "")
        if holds_array(argument.annotation) and not SHAPE.search(entry):
            yield f"shape of {argument.arg}"
        if folder in FOLDERS_WITH_UNITS and argument.arg in ("loss", "nll"):
            yield from lacking(entry, LOSS_UNITS)
    result = sections["Returns"] or found.text
    if holds_array(node.returns) and not SHAPE.search(result):
        yield "shape of the result"
    if has_result(node):
        yield from missing_units(node.name, found.text, result, folder)


def generated_constructor(node: ast.ClassDef) -> bool:
    makers = [*node.bases, *(getattr(decorator, "func", decorator) for decorator in node.decorator_list)]
    return not {"NamedTuple", "dataclass"}.isdisjoint(getattr(maker, "id", "") for maker in makers)


def has_help(default: ast.expr | None) -> bool:
    """An option with a help text, or fairseq's own under another name (``II``)."""
    if not isinstance(default, ast.Call):
        return False
    return getattr(default.func, "id", "") == "II" or any(keyword.arg == "metadata" for keyword in default.keywords)


def missing_in_class(found: Documented, node: ast.ClassDef) -> Iterator[str]:
    """A field is described in the docstring of the class, in a string behind it, or in the help of its option."""
    said = dict(ENTRY.findall("".join(sections_of(found.text)[title] for title in ("Args", "Attributes"))))
    for field, behind in zip(node.body, [*node.body[1:], None]):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name, constant = field.target.id, behind.value if isinstance(behind, ast.Expr) else None
        text = said.get(name, str(constant.value) if isinstance(constant, ast.Constant) else "")
        if holds_array(field.annotation) and not SHAPE.search(text):
            yield f"shape of {name}"
        elif generated_constructor(node) and not text and not has_help(field.value):
            yield f"field {name}"


def missing_source(found: Documented, of_module: str, folder: str) -> Iterator[str]:
    """The module's source will do, but for what fairseq knows by a name, unless that refers to the module's."""
    made_by = (getattr(decorator, "func", decorator) for decorator in found.node.decorator_list)
    registered = any(getattr(maker, "id", "").startswith("register_") for maker in made_by)
    text = found.text + ("" if registered and "See the module's docstring" not in found.text else of_module)
    if folder in SOURCES and not found.in_class and not re.search(SOURCES[folder], text):
        yield "source"


def complaints(code: str, folder: str) -> list[str]:
    module = ast.parse(code)
    found: list[str] = []
    for each in documented(module.body):
        lacks = [*missing_source(each, docstring(module), folder)]
        if isinstance(each.node, ast.ClassDef):
            lacks += missing_in_class(each, each.node)
        else:
            lacks += missing_in_function(each, each.node, folder)
        found += [f"{each.node.name}: {what}" for what in lacks]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_are_complete(path: Path) -> None:
    assert complaints(path.read_text("utf-8"), path.relative_to(PACKAGE).parts[0]) == []


GOOD = '''
"""A loss of Author (2019)."""

class Parts(NamedTuple):
    """Of a batch.

    Attributes:
        x: (N, V) logits.
    """

    x: Tensor
    y: np.ndarray
    """(N,) word ids."""
    name: str
    """Of the batch."""
    option: int = field(default=1, metadata={"help": "what it does"})

class Task:
    """A task.

    Args:
        size: of a batch.
    """

    def __init__(self, size: int):
        self.size = size

    def _private(self, x: Tensor) -> Tensor:
        """One line is enough."""

    def __getitem__(self, index: int) -> Tensor:
        """Here too."""

    @property
    def length(self) -> int:
        """And here: no arguments."""

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
    def inner(z):
        raise TypeError
    raise ValueError("no")

def check(nll: float) -> None:
    """Refuse infinity.

    Args:
        nll: mean, in bits.
    """

@register_model("model")
class Model:
    """A model (arXiv 1908.01851)."""

def measure(work: Any) -> Any:
    """Do it.

    Args:
        work: what to do.

    Yields:
        Time in seconds, memory in bytes, the accuracy in percent.
    """

def train(times: int) -> NoReturn:
    """Go on.

    Args:
        times: how often.
    """
'''

ALL = ("Args", "Returns", "shape of the result")
OF_MODULE = ("Parts", "Task", "nll", "check", "measure", "train")


def test_complete_docstrings_pass() -> None:
    assert [complaints(GOOD, folder) for folder in ("core", "models", "evaluation", "data")] == [[], [], [], []]


@pytest.mark.parametrize(
    ("old", "new", "folder", "expected"),
    [
        ("    Args:\n        x: (N, V)", "    x (N, V)", "cli", ["nll: Args", "nll: shape of x", "nll: shape of y"]),
        ("    Args:\n        size: of a batch.\n", "", "data", ["__init__: Args"]),
        ("_private(self, x: Tensor)", "public(self, x: int)", "data", [f"public: {what}" for what in ALL]),
        ("    Args:\n        work: what to do.\n", "", "data", ["measure: Args"]),
        ("    Yields:\n", "    So:\n", "data", ["measure: Returns"]),
        ("-> NoReturn", "-> int", "data", ["train: Returns"]),
        ("    raise ValueError", "    raise errors.KeyError", "data", ["nll: KeyError"]),
        ("        ValueError: shapes", "        OSError: shapes", "data", ["nll: ValueError"]),
        ("        x: (N, V) logits.\n        y", "        x: (logits).\n        y", "benchmark", ["nll: shape of x"]),
        ("(N,) int64", "int64", "tasks", ["nll: shape of y"]),
        ("A scalar, the", "The", "cli", ["nll: shape of the result"]),
        ('        x: (N, V) logits.\n    "', '        x: logits.\n    "', "evaluation", ["Parts: shape of x"]),
        ('    """(N,) word ids."""\n', "", "evaluation", ["Parts: shape of y"]),
        ('    """Of the batch."""\n', "", "data", ["Parts: field name"]),
        ("in nats", "in bits", "core", ["nll: nats"]),
        ("the sum over tokens in nats", "in nats", "core", ["nll: sum or mean"]),
        ("the sum over tokens in nats", "for tokens", "evaluation", ["nll: nats or bits", "nll: sum or mean"]),
        ("mean, in bits", "of a token", "tasks", ["check: nats or bits", "check: sum or mean"]),
        ("in seconds", "of it", "benchmark", ["measure: seconds"]),
        ("in bytes", "of it", "benchmark", ["measure: bytes"]),
        ("in percent", "of it", "evaluation", ["measure: percent or fraction"]),
        ("in percent", "of it", "data", []),
        ("Author (2019)", "an author", "optim", [f"{name}: source" for name in OF_MODULE]),
        ("Author (2019)", "fairseq's", "models", []),
        (" (arXiv 1908.01851)", "", "models", ["Model: source"]),
        ("(arXiv 1908.01851)", "See the module's docstring", "models", []),
    ],
)
def test_what_is_missing_is_found(old: str, new: str, folder: str, expected: list[str]) -> None:
    assert old in GOOD
    assert complaints(GOOD.replace(old, new, 1), folder) == expected
