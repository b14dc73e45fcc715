"""Compare the outcomes of the same tests in several runs, the last of which is the one that is judged.

    python compare_outcomes.py NAME=JUNIT.xml NAME=JUNIT.xml ...

Prints Markdown: how many tests of each module pass in each run, then the tests that do not pass in every run, grouped
by what became of them and why.

Exit status: 0 if every test that passes in some run passes in the last, 1 if not, 2 if a file cannot be used.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from typing import Dict, NamedTuple, Sequence

KINDS = {"failure": "failed", "error": "failed", "skipped": "skipped"}
REASON_LENGTH = 80


class Outcome(NamedTuple):
    """Of one test in one run.

    Attributes:
        kind: passed, failed, skipped or absent.
        reason: the first line of the message, or "".
    """

    kind: str
    reason: str = ""


ABSENT = Outcome("absent")
Run = Dict[str, Outcome]


def read_run(path: str) -> Run:
    """The outcome of each test of a JUnit XML file, by ``module::Class::test``.

    Raises:
        ElementTree.ParseError: the file is not XML.
        OSError: it cannot be read.
        ValueError: it holds no test.
    """
    run: Run = {}
    for case in ElementTree.parse(path).iter("testcase"):
        owner, name = case.get("classname", ""), case.get("name", "")
        # tests.module.Class; a module that could not be imported has no owner and is the test itself
        place = [*owner.split("."), name] if owner else name.split(".")
        test = "::".join(place[1:] if place[0] == "tests" else place)
        told = [child for child in case if child.tag in KINDS]
        # A test with subtests has several entries: one that failed decides.
        outcome = Outcome(KINDS[told[0].tag], _first_line(told[0].get("message"))) if told else Outcome("passed")
        if test not in run or run[test].kind != "failed":
            run[test] = outcome
    if not run:
        raise ValueError(f"{path} holds no test")
    return run


def _first_line(message: str | None) -> str:
    return ((message or "").strip().splitlines() or [""])[0][:REASON_LENGTH]


def lost_tests(runs: dict[str, Run]) -> list[str]:
    """The tests that pass in some run, but not in the last."""
    last = list(runs.values())[-1]
    passed = {test for run in runs.values() for test, outcome in run.items() if outcome.kind == "passed"}
    return sorted(test for test in passed if last.get(test, ABSENT).kind != "passed")


def report(runs: dict[str, Run]) -> str:
    """Markdown of the comparison.

    Args:
        runs: by their names; each test of any of them is counted.
    """
    tests = sorted({test for run in runs.values() for test in run})
    sizes = Counter(test.split("::")[0] for test in tests)
    heads = ["module", "tests", *(f"passed {name}" for name in runs)]
    lines = [_row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
    for module in [*sizes, "all"]:
        members = tests if module == "all" else [test for test in tests if test.split("::")[0] == module]
        passed = [sum(run.get(test, ABSENT).kind == "passed" for test in members) for run in runs.values()]
        lines.append(_row([module, len(members), *passed]))
    for what, members in sorted(_not_passed(runs, tests).items()):
        lines += ["", f"{what}: {len(members)}", "", *(f"- {test}" for test in members)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _not_passed(runs: dict[str, Run], tests: Sequence[str]) -> dict[str, list[str]]:
    """The tests that do not pass in every run, by what became of them and why."""
    groups: dict[str, list[str]] = {}
    for test in tests:
        outcomes = [run.get(test, ABSENT) for run in runs.values()]
        kinds = {outcome.kind for outcome in outcomes}
        if kinds == {"passed"}:
            continue
        in_each = [f"{outcome.kind} {name}" for name, outcome in zip(runs, outcomes)]
        what = f"{kinds.pop()} in every run" if len(kinds) == 1 else ", ".join(in_each)
        reason = next((outcome.reason for outcome in outcomes if outcome.reason), "no reason given")
        groups.setdefault(f"{what.capitalize()} ({reason})", []).append(test)
    return groups


def main(arguments: Sequence[str]) -> int:
    """Print the comparison and return the exit status."""
    try:
        runs = {name: read_run(path) for name, path in (argument.split("=", 1) for argument in arguments)}
    except (OSError, ValueError, ElementTree.ParseError) as error:
        print(f"compare_outcomes.py: {error}", file=sys.stderr)
        return 2
    print(report(runs), end="")
    lost = lost_tests(runs)
    for test in lost:
        print(f"compare_outcomes.py: {test} passes in another run, but not {list(runs)[-1]}", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
