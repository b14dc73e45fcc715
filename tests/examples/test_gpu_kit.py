"""``scripts/gpu.sh`` without a GPU: what it would run, and how it is called."""

import os
import subprocess

import pytest

from tests.fairseq_setup import ROOT

UNSET = ("MULTI30K", "PTB", "WHEELS", "NAMES", "SEEDS", "JOBS")


def gpu(*arguments, **environment):
    command = ["bash", str(ROOT / "scripts" / "gpu.sh"), *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True)


def test_a_dry_run_names_every_command_and_leaves_nothing(tmp_path):
    output = tmp_path / "out"
    done = gpu(output, "--dry-run", MULTI30K="/data/multi30k", PTB="/data/ptb")
    assert done.returncode == 0, done.stderr
    names = [line.split(":")[0].split()[1] for line in done.stdout.splitlines()]
    assert names == [
        "tests", "benchmark-float16", "benchmark-bfloat16", "benchmark-float32",
        "multi30k-fp16", "ptb-fp16", "multi30k-amp", "ptb-amp", "multi30k-bf16", "study", "study-valid", "study-test",
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


def test_the_study_can_be_cut(tmp_path):
    done = gpu(tmp_path / "out", "study", "--dry-run", MULTI30K="/data", NAMES="both both_alone", SEEDS="4", JOBS="2")
    study = done.stdout.splitlines()[0].replace("\\", "")
    assert "JOBS=2 SEEDS=4 NAMES=both both_alone bash" in study
    assert study.endswith(f"/search.sh /data {tmp_path}/out/runs")
    with open(ROOT / "examples" / "translation" / "multi30k" / "search.tsv") as rows:
        names = {line.split("\t")[0] for line in rows}
    usual = gpu(tmp_path / "out", "study", "--dry-run", MULTI30K="/data").stdout.splitlines()[0].replace("\\", "")
    assert {*usual.split("NAMES=")[1].split(" bash ")[0].split()} <= names


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("out", "--fast"), ("out", "other")])
def test_a_wrong_call_shows_how_it_is_called(arguments):
    done = gpu(*arguments)
    assert done.returncode == 2 and done.stderr.startswith("All that only a GPU can show") and not done.stdout
