"""What the console commands share: how they end when nobody reads what they print, as before ``| head``."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys

import pytest

from selfkd_fairseq.cli import benchmark
from tests.fairseq_setup import ROOT

COMMANDS = dict(re.findall(r'"(selfkd-[\w-]+)=([\w.]+):main"', (ROOT / "setup.py").read_text(encoding="utf-8")))
NO_READER = 141  # 128 + SIGPIPE
OUTPUT = "H-0\t-0.5\tein hund\nT-0\tein hund\nGenerate test with beam=5: BLEU4 = 1.0\n"
SCORE = [sys.executable, "-m", COMMANDS["selfkd-score"], "--target-lang", "de"]


@pytest.fixture
def unread(monkeypatch):
    """Call it with stdout or stderr: that stream becomes a pipe whose reader is gone."""
    streams = []

    def close(name):
        reader, writer = os.pipe()
        os.close(reader)
        streams.append(os.fdopen(writer, "w"))
        monkeypatch.setattr(sys, name, streams[-1])

    yield close
    monkeypatch.undo()
    for stream in streams:
        stream.close()  # fails where something was left in the buffer: Python would complain of that at its end


def end_of(command, *arguments):
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(COMMANDS[command]).main([*arguments])
    return caught.value.code


def test_all_commands_are_known():
    modules = {path.stem for path in (ROOT / "selfkd_fairseq" / "cli").glob("*.py")}
    assert {module.rsplit(".", 1)[1] for module in COMMANDS.values()} == modules - {
        "__init__", "command", "text_options",
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_works_where_its_errors_become_one_line(command):
    main = inspect.getsource(importlib.import_module(COMMANDS[command]).main)
    assert "return run_command(" in main


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_reads_the_help(command, unread, capfd):
    unread("stdout")
    assert end_of(command, "--help") == NO_READER
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_reads_the_errors(command, unread):
    unread("stderr")
    assert end_of(command, "--no-such-option") == NO_READER


def test_nobody_reads_the_benchmark(unread, tmp_path, capfd):
    unread("stdout")
    with pytest.raises(SystemExit) as caught:
        benchmark.main(["--parts", "loss", "--sizes", "8,200,8", "--rounds", "1", "--output", str(tmp_path)])
    assert caught.value.code == NO_READER
    assert "Broken pipe" not in capfd.readouterr().err


def test_what_the_package_prints_goes_the_same_way():
    """No other module prints to a reader that may be gone; one_line_errors prints in fairseq's own commands."""
    printing = {
        path.name
        for path in (ROOT / "selfkd_fairseq").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id == "print")
        or (isinstance(node, ast.Attribute) and node.attr == "stdout" and getattr(node.value, "id", "") == "sys")
    }
    assert printing == {"command.py", "one_line_errors.py"}


def test_process_that_nobody_reads_ends_without_a_word(tmp_path):
    """To the end of the interpreter, which looks once more into its buffers."""
    (tmp_path / "output").write_text(OUTPUT)
    reader, writer = os.pipe()
    os.close(reader)
    arguments = {"stdout": [str(tmp_path / "output")], "stderr": [str(tmp_path / "absent")]}
    processes = {
        (stream, unbuffered): subprocess.Popen(
            [*SCORE, *arguments[stream]], cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer},
        )
        for stream in arguments
        for unbuffered in (("", "1") if stream == "stdout" else ("",))
    }  # fmt: skip
    os.close(writer)
    for case, process in processes.items():
        printed = b"".join(text or b"" for text in process.communicate(timeout=120))
        assert (process.returncode, printed) == (NO_READER, b""), case


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            SCORE, input=OUTPUT, text=True, stdout=full, stderr=subprocess.PIPE, check=False, cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "selfkd-score: error: No space left on device\n")
