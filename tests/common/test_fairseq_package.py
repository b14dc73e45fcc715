"""fairseq under any of its names, and without it."""

import subprocess
import sys

import pytest

from selfkd_fairseq.common.fairseq_package import NOT_INSTALLED, fairseq_versions

# As on a machine where fairseq is not installed.
WITHOUT = """
import importlib.util, runpy, sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"fairseq", "fairseq_cli"}:
            raise ModuleNotFoundError(name)
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "fairseq" else find_spec(name, *rest)
sys.meta_path.insert(0, Hide())
sys.argv = [MODULE, "--help"]
runpy.run_module("selfkd_fairseq.cli." + MODULE, run_name="__main__")
"""
NEED_FAIRSEQ = {"average_checkpoints", "benchmark", "evaluate", "neighbours"}


def install(site, name, version, *modules):
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if modules:
        (folder / "top_level.txt").write_text("".join(f"{module}\n" for module in modules))


@pytest.mark.parametrize("name", ["fairseq", "fairseq-fixed", "ve-fairseq", "a-fork"])
def test_whichever_package_brings_fairseq_is_found(tmp_path, monkeypatch, name):
    install(tmp_path, name, "0.12.9", "fairseq", "fairseq_cli")
    install(tmp_path, "selfkd_fairseq", "1", "selfkd_fairseq")
    install(tmp_path, "no-modules-named", "1")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert fairseq_versions() == {name: "0.12.9"}


def test_no_package_brings_fairseq(tmp_path, monkeypatch):
    install(tmp_path, "torch", "2.13.0", "torch")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert fairseq_versions() == {}


def test_every_command_works_without_fairseq_or_says_that_it_is_missing(root):
    commands = {p.stem for p in (root / "selfkd_fairseq" / "cli").glob("*.py") if "\ndef main(" in p.read_text("utf-8")}
    assert commands > NEED_FAIRSEQ
    for command in sorted(commands):
        done = subprocess.run(
            [sys.executable, "-c", f"MODULE = {command!r}\n{WITHOUT}"], cwd=root, text=True, capture_output=True,
            check=False,
        )  # fmt: skip
        program = f"selfkd-{command.replace('_', '-')}"
        if command in NEED_FAIRSEQ:
            assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{program}: error: {NOT_INSTALLED}\n")
        else:
            assert (done.returncode, done.stderr) == (0, "") and program in done.stdout
