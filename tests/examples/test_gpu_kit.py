"""``scripts/gpu.sh`` without a GPU: what it would run, and how it is called."""

import os
import subprocess

import pytest

from tests.fairseq_setup import ROOT


def gpu(*arguments, **environment):
    command = ["bash", str(ROOT / "scripts" / "gpu.sh"), *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if name not in ("MULTI30K", "PTB", "WHEELS")}
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True)


def test_a_dry_run_names_every_command_and_leaves_nothing(tmp_path):
    output = tmp_path / "out"
    done = gpu(output, "--dry-run", MULTI30K="/data/multi30k", PTB="/data/ptb")
    assert done.returncode == 0, done.stderr
    names = [line.split(":")[0].split()[1] for line in done.stdout.splitlines()]
    assert names == [
        "tests", "benchmark-float16", "benchmark-bfloat16", "benchmark-float32",
        "multi30k-fp16", "ptb-fp16", "multi30k-amp", "ptb-amp", "multi30k-bf16", "study",
    ]  # fmt: skip
    assert all("--device cuda" in line for line in done.stdout.splitlines() if line.startswith("[gpu] benchmark"))
    assert not output.exists() and not (ROOT / ".venv-gpu").exists()


def test_parts_are_picked_and_those_without_data_say_so(tmp_path):
    done = gpu(tmp_path / "out", "trainings", "study", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "[gpu] trainings: neither MULTI30K nor PTB is given, passed over",
        "[gpu] study: MULTI30K is not given, passed over",
    ]
    ptb = gpu(tmp_path / "out", "trainings", "--dry-run", PTB="/data/ptb").stdout.splitlines()
    assert [line.split(":")[0] for line in ptb] == ["[gpu] ptb-fp16", "[gpu] ptb-amp"]


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("out", "--fast"), ("out", "other")])
def test_a_wrong_call_shows_how_it_is_called(arguments):
    done = gpu(*arguments)
    assert done.returncode == 2 and done.stderr.startswith("All that only a GPU can show") and not done.stdout
