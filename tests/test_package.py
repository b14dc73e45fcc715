"""Packaging and layout."""

import itertools
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import setuptools
from packaging.requirements import Requirement

import selfkd_fairseq


def test_core_needs_neither_fairseq_nor_omegaconf(root, tmp_path):
    # A meta-path finder that hides them, as on a machine where they are not installed.
    script = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'fairseq', 'fairseq_cli', 'omegaconf', 'hydra'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import torch\n"
        "from selfkd_fairseq.core import self_kd_loss_from_logits\n"
        "loss = self_kd_loss_from_logits(torch.zeros(2, 4), torch.eye(4), torch.tensor([1, 2]), alpha=0.5).loss\n"
        "print(round(loss.item(), 4))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, text=True, capture_output=True, check=False)
    # 2 ln 4, less half the entropies of two soft targets of sigmoid(sqrt 2 / sqrt 1.5) and the rest, 0.5507 each
    assert done.stdout.strip() == "2.2219", done.stderr


# Modules of the standard library that Python on Windows does not have.
POSIX_ONLY = "crypt fcntl grp nis ossaudiodev posix pty pwd readline resource spwd syslog termios tty"


def test_every_module_imports_without_what_windows_lacks(root):
    # Asked of this package's own imports alone: other packages have ways of their own on Windows.
    script = (
        "import builtins, importlib, pkgutil, sys\n"
        "real, missing = builtins.__import__, set(sys.argv[1].split())\n"
        "def on_windows(name, globals=None, *rest, **named):\n"
        "    if name.split('.')[0] in missing and (globals or {}).get('__name__', '').startswith('selfkd_fairseq'):\n"
        "        raise ModuleNotFoundError(f'{globals[\"__name__\"]} imports {name}')\n"
        "    return real(name, globals, *rest, **named)\n"
        "builtins.__import__ = on_windows\n"
        "import selfkd_fairseq\n"
        "for module in pkgutil.walk_packages(selfkd_fairseq.__path__, 'selfkd_fairseq.'):\n"
        "    importlib.import_module(module.name)\n"
        "    print(module.name)\n"
    )
    command = [sys.executable, "-c", script, POSIX_ONLY]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    files = [path.relative_to(root).with_suffix("") for path in (root / "selfkd_fairseq").rglob("*.py")]
    modules = {".".join(path.parts) for path in files if path.name != "__init__"}
    assert modules <= set(done.stdout.split())


def test_versions_agree(root):
    assert re.fullmatch(r"\d+\.\d+\.\d+", selfkd_fairseq.__version__)
    listed = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=root, text=True, capture_output=True, check=True
    )
    assert listed.stdout.strip().splitlines()[-1] == selfkd_fairseq.__version__
    assert f"## {selfkd_fairseq.__version__}" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture
def requirements(root, monkeypatch):
    """The pins of requirements.txt, the ranges of setup.py, and the ranges of its extra "fairseq"."""
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    said = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: said.update(arguments))
    runpy.run_path(str(root / "setup.py"))
    texts = (
        [x for x in lines if x and not x.startswith("#")],
        said["install_requires"],
        said["extras_require"]["fairseq"],
    )
    return [[Requirement(text) for text in part] for part in texts]


def test_pins_satisfy_the_ranges(requirements):
    pins, ranges, fairseq = requirements
    assert all(len(p.specifier) == 1 and str(p.specifier).startswith("==") for p in pins)
    versions = {p.name.lower(): str(p.specifier)[2:] for p in pins}
    assert {"torch", "sacrebleu"} <= {r.name for r in ranges}
    for requirement in ranges + [r for r in fairseq if r.name != "fairseq"]:  # that is for Python below 3.11 only
        assert requirement.specifier.contains(versions[requirement.name.lower()]), requirement


def test_one_fairseq_for_each_machine_and_none_by_force(requirements):
    pins, ranges, fairseq = requirements
    assert not [r.name for r in ranges if "fairseq" in r.name]
    wheels = {("3.11", "linux", "x86_64"), ("3.12", "linux", "x86_64")}
    for place in itertools.product(
        ("3.8", "3.10", "3.11", "3.12", "3.13"), ("linux", "darwin", "win32"), ("x86_64", "aarch64", "arm64")
    ):
        marker = dict(zip(("python_version", "sys_platform", "platform_machine"), place))
        taken = [r.name for r in fairseq if r.marker.evaluate(marker)]
        old = place[0] in ("3.8", "3.10")
        assert taken == (["fairseq"] if old else ["ve-fairseq"] if place in wheels else ["fairseq-fixed"]), place
        if not old:
            assert [p.name for p in pins if "fairseq" in p.name and p.marker.evaluate(marker)] == taken


def test_the_wheel_of_fairseq_is_the_pinned_one_and_has_a_checksum(root, requirements):
    text = (root / "scripts" / "environments" / "fairseq_wheel.txt").read_text(encoding="utf-8")
    wheel, *checksums = re.sub("(?m)^#.*$", "", text).replace("\\\n", "").split()
    assert wheel in [f"{p.name}{p.specifier}" for p in requirements[0]]
    assert len(checksums) == 2 and all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", checksum) for checksum in checksums)


def test_wheel_holds_every_module_and_the_console_command(root, tmp_path):
    import zipfile

    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    source = tmp_path / "source"  # a copy, because setuptools leaves a build folder in the tree that it builds
    shutil.copytree(root / "selfkd_fairseq", source / "selfkd_fairseq")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(root / name, source)
    subprocess.run(command, cwd=source, text=True, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(root)) for path in (root / "selfkd_fairseq").rglob("*.py")}
    assert modules <= names
    assert not any(name.startswith(("tests/", "examples/")) for name in names)
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    assert b"selfkd-prepare = selfkd_fairseq.cli.prepare:main" in zipfile.ZipFile(wheel).read(entry_points)
