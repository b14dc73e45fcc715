"""scripts/test_environments.sh with interpreters that only say what they were asked: nothing is installed."""

import os
import shutil
import subprocess

import pytest

PYTHON = """#!/bin/sh
case "$*" in
    -c*) echo {version} ;;
    "-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip"*) echo "$@" ; exit {pip_status} ;;
    "-m pytest"*) shift 2; printf 'argument: %s\\n' "$@"; echo "==== {result} ===="; exit {pytest_status} ;;
    -) echo "{version}.9 | fairseq 0 | 2 | 1 | 1 | 2 | 26" ;;
esac
"""


@pytest.fixture
def checkout(root, tmp_path):
    folder = tmp_path / "my checkout"
    shutil.copytree(root / "scripts", folder / "scripts")
    shutil.copy(root / "requirements.txt", folder)
    return folder


def interpreter(folder, version, pip_status=0, pytest_status=0, result="3 passed, 1 skipped in 2.50s"):
    path = folder / f"python{version}"
    path.write_text(
        PYTHON.format(version=version, pip_status=pip_status, pytest_status=pytest_status, result=result),
        encoding="utf-8",
    )
    path.chmod(0o755)
    return str(path)


def run(checkout, *arguments, **variables):
    """The status, the lines on stderr and the rows of the table, by name."""
    absent = {f"PYTHON_3_{minor}": "no-such-python" for minor in (8, 10, 11, 12, 13)}
    done = subprocess.run(
        ["bash", "scripts/test_environments.sh", *arguments], cwd=checkout, env={**os.environ, **absent, **variables},
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    table = [line.strip("| ").split(" | ", 1) for line in done.stdout.splitlines() if line.startswith("|")]
    return done.returncode, done.stderr.splitlines(), dict(table), done.stdout


def test_what_is_missing_is_not_a_failure(checkout):
    other = interpreter(checkout, "3.9")
    passing = interpreter(checkout, "3.12")
    status, errors, table, output = run(checkout, PYTHON_3_10=other, PYTHON_3_12=passing)
    assert (status, errors) == (0, [])
    assert list(table) == ["environment", "---", "py38", "py310", "py311", "py312", "py313"]
    assert table["py38"].endswith("not run: no-such-python is missing or not Python 3.8")
    assert table["py310"].endswith(f"not run: {other} is missing or not Python 3.10")
    assert table["py312"] == "3.12.9 | fairseq 0 | 2 | 1 | 1 | 2 | 26 | 3 passed, 1 skipped in 2.50s"
    assert "==== 3 passed" in output
    assert not (checkout / ".venv-py38").exists()


def test_fairseq_comes_last_and_alone_where_its_dependencies_cannot_be_had(checkout):
    assert run(checkout, "py38", PYTHON_3_8=interpreter(checkout, "3.8"))[0] == 0
    upgrade, requirements, fairseq = (checkout / ".venv-py38" / "install.log").read_text().splitlines()
    assert upgrade.endswith("--upgrade pip")
    assert requirements.endswith("scripts/environments/py38.txt")
    assert fairseq.endswith("--no-deps fairseq==0.12.2")


def test_arguments_go_to_pytest(checkout):
    output = run(checkout, "py38", "--", "-k", "two words", PYTHON_3_8=interpreter(checkout, "3.8"))[3]
    assert [line for line in output.splitlines() if line.startswith("argument")] == [
        "argument: -k",
        "argument: two words",
    ]
    assert "python -m pytest -k two words" in output


def test_a_failure_does_not_stop_the_others(checkout):
    python38 = interpreter(checkout, "3.8", pytest_status=1, result="2 failed, 1 passed in 1.00s")
    python310 = interpreter(checkout, "3.10", pip_status=1)
    python311 = interpreter(checkout, "3.11", pytest_status=4, result="no summary")
    python312 = interpreter(checkout, "3.12")
    status, errors, table, _ = run(
        checkout, PYTHON_3_8=python38, PYTHON_3_10=python310, PYTHON_3_11=python311, PYTHON_3_12=python312
    )
    assert status == 1
    assert len(errors) == 1  # what pip said last
    assert table["py38"].endswith("| 2 failed, 1 passed in 1.00s")
    assert table["py310"].endswith("| could not be made: .venv-py310/install.log")
    assert table["py311"].endswith("| broken off: .venv-py311/test.log")
    assert table["py312"].endswith("| 3 passed, 1 skipped in 2.50s")


def test_unknown_name(checkout):
    status, errors, _, _ = run(checkout, "py27")
    assert status == 2
    assert errors == [
        "test_environments.sh: no environment is named py27; there are py38 py310 py311 py312 py313. "
        "Arguments for pytest come after --"
    ]
