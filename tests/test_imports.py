"""Who may import whom: the rooms of the package, from what needs nothing to what needs most."""

import ast

from tests.fairseq_setup import ROOT

PACKAGE = "selfkd_fairseq"
# Room -> the rooms that its modules may import, anywhere; "" is the package itself, for the sake of register().
ROOMS = {
    "version": set(),
    "common": set(),
    "core": set(),
    "data": {"common", "version"},
    "checkpoints": {"common", "data"},
    "models": set(),
    "optim": set(),
    "criterions": {"core", "models"},
    "tasks": {"models", "optim"},
    "compatibility": set(),
    "": {"version", "checkpoints", "compatibility", "hardening"},  # and criterions, models, optim, tasks by their names
    "runs": {"", "version", "common", "data"},
    "evaluation": {"", "common", "checkpoints", "core", "criterions", "data", "tasks"},
    "hardening": {"common", "checkpoints", "data", "evaluation"},
    "benchmark": {"version", "core", "tasks", "runs"},
    "cli": {"", "common", "checkpoints", "hardening", "core", "data", "runs", "evaluation", "benchmark"},
}
TRAINING = {"fairseq", "fairseq_cli", "omegaconf", "hydra"}
# What a room must do without, when one of its modules is imported.
FOREIGN = {"core": TRAINING | {"numpy"}, "data": TRAINING | {"torch"}, "checkpoints": {"fairseq", "fairseq_cli"}}
MODULES = sorted(path.relative_to(ROOT / PACKAGE) for path in (ROOT / PACKAGE).rglob("*.py"))


def imported(path):
    """Absolute names of what a module imports, and whether it does so when it is imported itself."""
    tree = ast.parse((ROOT / PACKAGE / path).read_text(encoding="utf-8"))
    inside = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
    folder = [PACKAGE, *path.parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{start}.{alias.name}" if start == PACKAGE else start for alias in node.names]
        else:
            continue
        yield from ((name, id(node) not in inside) for name in names)


def room(name):
    """The room of a name of the package."""
    first = f"{name}.".split(".")[1]
    return first if first in ROOMS else ""


def room_of(path):
    return path.parts[0] if len(path.parts) > 1 else path.stem.replace("__init__", "")


def test_every_module_has_a_room():
    assert {room_of(path) for path in MODULES} == set(ROOMS)


def test_imports_point_one_way():
    wrong = []
    for path in MODULES:
        here = room_of(path)
        for name, at_once in imported(path):
            if name.split(".")[0] == PACKAGE:
                allowed = room(name) in {here, *ROOMS[here]}
            else:
                allowed = not at_once or name.split(".")[0] not in FOREIGN.get(here, ())
            wrong += [] if allowed else [f"{path} imports {name}"]
    assert wrong == []


def test_no_room_is_above_itself():
    """But for the package itself, whose register() imports what it registers when it is called."""
    left = {name: {other for other in others if other != ""} for name, others in ROOMS.items()}
    while left:
        ready = {name for name, others in left.items() if not others & left.keys()}
        assert ready, f"these import each other: {sorted(left)}"
        left = {name: others for name, others in left.items() if name not in ready}
