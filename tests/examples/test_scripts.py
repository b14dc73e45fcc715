"""The shell scripts of a checkout: their error lines, and what they pass on. Nothing is downloaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path):
    """The scripts and the requirements in a folder with a space in its name."""
    folder = tmp_path / "my checkout"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copy(ROOT / "requirements.txt", folder)
    return folder


def run(script, *arguments, cwd, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "CC", "CXX") and k[:4] != "PIP_"}
    return subprocess.run(
        ["bash", str(script), *arguments], cwd=cwd, env={**environment, **variables}, text=True, capture_output=True,
        check=False, timeout=120,
    )  # fmt: skip


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def finished_environment(checkout):
    """A .venv that looks complete; its python writes its folder, module path and arguments to `calls`."""
    venv = checkout / ".venv"
    python = f'case "$*" in *pip*) exit 0;; esac\necho "$PWD|${{PYTHONPATH:-}}|$*" >> "{checkout}/calls"\n'
    executable(venv / "bin" / "python", python)
    (venv / "pyvenv.cfg").write_text(f"command = python3.11 -m venv {venv}\n")
    requirements = (checkout / "requirements.txt").read_bytes()
    checksum = subprocess.run(["cksum"], input=requirements, capture_output=True, check=True).stdout.decode()
    (venv / "requirements.stamp").write_text(checksum)


def test_missing_interpreter(checkout):
    done = run("scripts/setup.sh", cwd=checkout, PYTHON="no-such-python")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "setup.sh: PYTHON=no-such-python is not a command\n"
    assert not (checkout / ".venv").exists()


def test_old_interpreter(checkout):
    old = executable(checkout / "old python", 'case "$1" in --version) echo Python 3.10.4;; *) exit 1;; esac\n')
    done = run("scripts/setup.sh", cwd=checkout, PYTHON=str(old))
    assert done.returncode == 1
    assert done.stderr == f"setup.sh: PYTHON={old} is Python 3.10.4; 3.11 or newer is needed\n"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the scripts refuse this Python")
def test_no_compiler(checkout):
    tools = checkout / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "grep"):
        (tools / name).symlink_to(shutil.which(name))
    done = run("scripts/setup.sh", cwd=checkout, PYTHON=sys.executable, PATH=str(tools))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no C compiler" in done.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the scripts refuse this Python")
@pytest.mark.skipif(shutil.which("g++") is None, reason="the scripts refuse a machine without g++")
def test_failing_pip_names_the_log_and_a_second_call_goes_on(checkout):
    (checkout / "requirements.txt").write_text("# build\nno-such-requirement==1.0\n\n# run\n")
    offline = {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    first = run("scripts/setup.sh", cwd=checkout, **offline)
    log = checkout / ".venv" / "setup.log"
    assert first.returncode == 1
    assert first.stderr.splitlines()[-1].startswith("setup.sh: failed (code 1): installing torch")
    assert first.stderr.splitlines()[-1].endswith(f"The whole log: {log}")
    assert "No matching distribution found for no-such-requirement" in log.read_text()
    assert "making" in first.stdout
    second = run("scripts/setup.sh", cwd=checkout, **offline)
    assert second.returncode == 1
    assert "completing" in second.stdout
    assert "making" not in second.stdout


def test_complete_environment_is_reused_until_the_requirements_change(checkout):
    finished_environment(checkout)
    done = run(checkout / "scripts" / "setup.sh", cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"[setup] {checkout / '.venv'} is up to date\n"
    with open(checkout / "requirements.txt", "a") as requirements:
        requirements.write("another==1.0\n")
    changed = run(checkout / "scripts" / "setup.sh", cwd="/", PYTHON="no-such-python")
    assert changed.returncode == 1


def test_environment_of_a_checkout_that_was_moved_is_not_reused(checkout):
    finished_environment(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    assert run(moved / "scripts" / "setup.sh", cwd="/", PYTHON="no-such-python").returncode == 1


def test_test_script_passes_arguments_on(checkout):
    finished_environment(checkout)
    assert run(checkout / "scripts" / "test.sh", "-k", "two words", cwd="/").returncode == 0
    folder, _, arguments = (checkout / "calls").read_text().strip().split("|")
    assert (folder, arguments) == (str(checkout), "-m pytest -k two words")


def test_demo_script_stays_in_the_folder_of_its_caller(checkout, tmp_path):
    finished_environment(checkout)
    assert run(checkout / "scripts" / "demo.sh", "--output", "here", cwd=tmp_path, PYTHONPATH="mine").returncode == 0
    folder, path, arguments = (checkout / "calls").read_text().strip().split("|")
    assert (folder, path) == (str(tmp_path), f"{checkout}:mine")
    assert arguments == "-m examples.synonyms.demo --output here"


def test_demo_help_needs_no_environment(checkout):
    done = run("scripts/demo.sh", "--help", cwd=checkout)
    assert done.returncode == 0
    assert "--seed" in done.stdout
    assert not (checkout / ".venv").exists()
