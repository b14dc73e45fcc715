"""The shell scripts of a checkout: their error lines, and what they pass on. Nothing is downloaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WHEEL = Path("scripts", "environments", "fairseq_wheel.txt")


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


def stub_python(checkout, wheel_fits, python_h=True):
    """An interpreter that installs nothing: it writes its arguments and the variables that fairseq reads to `calls`."""
    include = checkout / "include"
    include.mkdir()
    if python_h:
        (include / "Python.h").touch()
    return executable(
        checkout / "stub python",
        f"""case "$*" in *"-m pip"*)
    echo "CUDA_HOME=${{CUDA_HOME-unset}} READTHEDOCS=${{READTHEDOCS-unset}} $*" >> "{checkout}/calls" ;;
esac
case "$*" in
    "-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo "command = -m venv $3" > "$3/pyvenv.cfg" ;;
    *--only-binary*) exit {int(not wheel_fits)} ;;
    *sysconfig*) echo "{include}" ;;
esac
""",
    )


def tools(folder, *names):
    """What setup.sh calls, in a folder that can be the whole PATH, and compilers of these names."""
    folder.mkdir()
    for name in ("bash", "cat", "cksum", "cp", "cut", "dirname", "grep", "mkdir", "rm", "sed", "sleep", "tail"):
        (folder / name).symlink_to(shutil.which(name))
    for name in names:
        executable(folder / name, "")
    return str(folder)


def installed(checkout):
    """What pip was asked to install, one call a line, without the options that every call has."""
    calls = (checkout / "calls").read_text().splitlines()
    assert all(call.startswith("CUDA_HOME=unset READTHEDOCS=unset -m pip ") for call in calls)
    return [call.split("--progress-bar off ")[1] for call in calls if " install " in call]


# fairseq's setup.py asks whether they are set at all, not what they hold
@pytest.mark.parametrize("value", ["/usr/local/cuda", ""])
def test_fairseq_is_a_wheel_where_one_fits_and_needs_no_compiler(checkout, value):
    python, path = stub_python(checkout, wheel_fits=True, python_h=False), tools(checkout / "tools")
    done = run("scripts/setup.sh", cwd=checkout, PYTHON=str(python), PATH=path, CUDA_HOME=value, READTHEDOCS=value)
    assert (done.returncode, done.stderr) == (0, "")
    build, rest = (checkout / ".venv" / f"{name}-requirements.txt" for name in ("build", "run"))
    assert installed(checkout) == [
        f"--only-binary :all: --no-deps -r {checkout / WHEEL}", f"-r {build}", f"--no-build-isolation -r {rest}",
    ]  # fmt: skip
    everything = (checkout / "requirements.txt").read_text().splitlines()
    left_out = [line for line in everything if line not in rest.read_text().splitlines()]
    assert [line.split("==")[0] for line in left_out] == ["ve-fairseq", "fairseq-fixed"]
    assert "torch==" in build.read_text() and "fairseq==" not in build.read_text()


@pytest.mark.parametrize("value", ["/usr/local/cuda", ""])
def test_fairseq_is_compiled_where_no_wheel_fits(checkout, value):
    python, path = stub_python(checkout, wheel_fits=False), tools(checkout / "tools", "gcc", "g++")
    done = run("scripts/setup.sh", cwd=checkout, PYTHON=str(python), PATH=path, CUDA_HOME=value, READTHEDOCS=value)
    assert (done.returncode, done.stderr) == (0, "")
    assert installed(checkout)[-1] == "--no-build-isolation --no-deps fairseq-fixed==0.12.3.1"
    assert "compiling fairseq" in done.stdout


@pytest.mark.parametrize(
    ("compilers", "python_h", "missing"),
    [([], True, "no C compiler"), (["cc"], True, "no C++ compiler"), (["gcc", "c++"], False, "no Python.h")],
)
def test_what_compiling_needs_is_told_before_anything_large_is_downloaded(checkout, compilers, python_h, missing):
    python, path = stub_python(checkout, False, python_h), tools(checkout / "tools", *compilers)
    done = run("scripts/setup.sh", cwd=checkout, PYTHON=str(python), PATH=path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr and "no wheel of fairseq" in done.stderr
    assert installed(checkout) == [f"--only-binary :all: --no-deps -r {checkout / WHEEL}"]


def test_an_environment_of_before_does_not_keep_the_other_fairseq(checkout):
    python, path = stub_python(checkout, wheel_fits=True), tools(checkout / "tools")
    run("scripts/setup.sh", cwd=checkout, PYTHON=str(python), PATH=path)
    calls = (checkout / "calls").read_text().splitlines()
    (removal,) = [number for number, call in enumerate(calls) if "uninstall --yes ve-fairseq fairseq-fixed" in call]
    assert removal < min(number for number, call in enumerate(calls) if " install " in call)


def test_the_environment_can_have_another_place(checkout):
    python, path, venv = stub_python(checkout, True), tools(checkout / "tools"), checkout / "another place"
    done = run("scripts/setup.sh", cwd=checkout, PYTHON=str(python), PATH=path, SETUP_VENV=str(venv))
    assert (done.returncode, done.stderr) == (0, "")
    assert (venv / "requirements.stamp").exists() and not (checkout / ".venv").exists()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the scripts refuse this Python")
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


def test_test_script_runs_all_and_counts_lines_on_request(checkout):
    finished_environment(checkout)
    for flags in ((), ("--coverage",)):
        assert run(checkout / "scripts" / "test.sh", *flags, cwd="/").returncode == 0
    plain, counted = (call.split("|")[2] for call in (checkout / "calls").read_text().splitlines())
    assert plain.startswith("-m pytest -n auto ")
    assert counted == plain.replace("pytest ", "pytest --cov --cov-report=term ", 1)


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
