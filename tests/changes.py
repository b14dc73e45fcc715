"""What statements change in fairseq and torch: ``python -m tests.changes STATEMENT ...`` prints a JSON list for each.

It holds the paths of what was added, removed or replaced since the start, in a process that by then has imported
fairseq and its commands. Looked at are the attributes of each of their modules, of the classes, functions and objects
in these, and the items of the containers. What replaces an equal number or text is no change.
"""

from __future__ import annotations

import collections
import importlib
import json
import sys
import types
import warnings
from typing import Any, Iterator

COMMANDS = ("train", "generate", "interactive", "validate", "eval_lm", "preprocess", "hydra_train")
PACKAGES = ("fairseq", "fairseq_cli", "torch", "builtins", "argparse", "pickle")
PLAIN = (str, bytes, int, float, complex, bool, type(None))
CALLED = (types.FunctionType, types.MethodType, staticmethod, classmethod, property)
# What these do when they are called.
CALL = ("__code__", "__defaults__", "__kwdefaults__", "__closure__", "__dict__", "__func__", "__wrapped__", "fget")


def _is_theirs(module: Any) -> bool:
    return str(module).split(".")[0] in PACKAGES


def _label(item: Any) -> str:
    return item if isinstance(item, str) else f"{getattr(item, '__module__', '')}.{getattr(item, '__name__', item)}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What can be replaced inside a value, by the end of its path."""
    if isinstance(value, types.ModuleType):
        yield from ((f".{name}", part) for name, part in vars(value).items())
    elif isinstance(value, dict):
        yield from ((f"[{_label(key)}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f"[{_label(part)}]", part) for part in value)
    elif isinstance(value, types.CellType):
        yield from [] if value == types.CellType() else [(".cell", value.cell_contents)]
    elif isinstance(value, CALLED):
        yield from ((f".{name}", getattr(value, name)) for name in CALL if getattr(value, name, None) is not None)
    elif _is_theirs(value.__module__ if isinstance(value, type) else type(value).__module__):
        yield from ((f".{name}", part) for name, part in dict(getattr(value, "__dict__", {})).items())


def picture(modules: dict[str, types.ModuleType]) -> dict[str, Any]:
    """Path -> value of all there is to look at; the values are kept, so that no other takes their place in memory."""
    found: dict[str, Any] = {}
    seen = set()
    waiting = collections.deque([("sys.excepthook", sys.excepthook), *modules.items()])
    while waiting:
        path, value = waiting.popleft()
        found[path] = value
        if isinstance(value, PLAIN) or (isinstance(value, types.ModuleType) and path not in modules):
            continue
        if id(value) in seen and not isinstance(value, tuple):  # of the same constants Python makes one tuple
            continue
        seen.add(id(value))
        if isinstance(value, type):
            path = f"{value.__module__}.{value.__qualname__}"
        waiting += [(path + end, part) for end, part in _parts(value)]
    return found


def _is_same(one: Any, two: Any) -> bool:
    # methods and tuples may be made anew for each look; what is in them has a path of its own
    return one is two or (type(one) is type(two) and isinstance(one, (*PLAIN, tuple, types.MethodType)) and one == two)


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The paths of two pictures that differ, but for what lies inside of a value that does."""
    absent = object()
    found: list[str] = []
    for path in sorted({**before, **after}):
        new = after.get(path, absent)
        if isinstance(new, types.ModuleType) and path not in before:
            continue  # a module that was loaded meanwhile
        inside = any(path.startswith((f"{outer}.", f"{outer}[")) for outer in found[-1:])
        if not inside and not _is_same(before.get(path, absent), new):
            found.append(path)
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for command in COMMANDS:
        importlib.import_module(f"fairseq_cli.{command}")
    loaded = {name: module for name, module in sys.modules.items() if _is_theirs(name)}
    start = picture(loaded)
    for statement in sys.argv[1:]:
        exec(statement)
        print(json.dumps(changes(start, picture(loaded))))
