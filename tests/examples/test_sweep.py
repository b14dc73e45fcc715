"""The comparison of the Multi30k example from raw files to the table: as the README has it, with little data."""

import gzip
import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from hydra.core.override_parser.types import Quote, QuotedString

from selfkd_fairseq.cli import compare, prepare
from tests.fairseq_setup import LONG, ROOT, own_tensors

EXAMPLE = ROOT / "examples" / "translation" / "multi30k"
LINES = {"train": 400, "val": 40, "test_2016_flickr": 40}
OVERRIDES = [
    "common.cpu=true", "optimization.max_epoch=2", "dataset.max_tokens=500", "+model.encoder_layers=1",
    "+model.decoder_layers=1", "checkpoint.keep_last_epochs=1",
]  # fmt: skip
NAME = "TARGET & co, #1 = [a] {b} (c) 'é' \"ü\" $HOME \\ ~ *"  # of folders
SEEDS = ("1", "2") if LONG else ("1",)
RUNS = [f"{system}/{seed}" for seed in SEEDS for system in ("label_smoothing", "self_kd")]  # in this order


@pytest.fixture(scope="module")
def prepared(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    raw = folder / "raw"
    raw.mkdir()
    for stem, count in LINES.items():
        for language in ("en", "de"):
            name = f"{stem}.{language}.gz"
            with gzip.open(shared_data / "multi30k" / name, "rt", encoding="utf-8") as whole:
                text = "".join(itertools.islice(whole, count))
            (raw / name).write_bytes(gzip.compress(text.encode("utf-8")))
    flags = ["--source", "en", "--target", "de", "--bpe-merges", "300"]
    assert prepare.main(["multi30k", *flags, "--raw", str(raw), "--dest", str(folder / NAME)]) == 0
    return folder / NAME


def start(log, *command):
    """A command in a process group of its own, so that all of it can be killed at once."""
    programs = os.path.dirname(sys.executable)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with open(log, "a", encoding="utf-8") as file:
        return subprocess.Popen(
            [*map(str, command), *OVERRIDES, f"common.seed={','.join(SEEDS)}"],
            cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def finish(process, log):
    assert process.wait(timeout=500) == 0, log.read_text()[-3000:]


def models(sweep):
    return {run: own_tensors(torch.load(sweep / run / "checkpoints" / "checkpoint_best.pt")["model"]) for run in RUNS}


def test_killed_and_started_again_it_ends_with_the_same_table(prepared, tmp_path, capsys):
    """The table is made of the checkpoints: those of the sweep that was killed equal those of one that was not."""
    log, whole, killed = tmp_path / "log", tmp_path / "whole", tmp_path / NAME
    sweep = ["bash", EXAMPLE / "sweep.sh", prepared, killed]
    first, second = (killed / run / "checkpoints" for run in RUNS[:2])

    process = start(log, *sweep)
    deadline = time.monotonic() + 200
    while not (second / "checkpoint1.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not any((killed / run).exists() for run in RUNS[2:])
    written = (first / "checkpoint_last.pt").stat().st_mtime_ns
    finish(start(log, *sweep), log)
    assert (first / "checkpoint_last.pt").stat().st_mtime_ns == written  # finished: not trained again

    hydra = ["fairseq-hydra-train", "--config-dir", EXAMPLE / "config", "--config-name", "multi30k", "-m"]
    data = QuotedString(f"{prepared}/bin", Quote.single).with_quotes()
    finish(start(log, *hydra, f"task.data={data}", f"hydra.sweep.dir={whole}"), log)
    expected = models(whole)
    for run, parameters in models(killed).items():
        assert all(torch.equal(value, parameters[name]) for name, value in expected[run].items()), run

    flags = ["--references", prepared / "raw" / "test.de", "--lowercase", "--output", tmp_path / "comparison"]
    runs = [killed / run for run in RUNS]
    capsys.readouterr()
    assert compare.main([*map(str, runs), "--baseline", "label_smoothing", *map(str, flags)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows if row and row[0] == "self_kd"] == [["self_kd", x] for x in ("mean", *SEEDS)]
    assert {file.name for file in (tmp_path / "comparison").iterdir()} == {
        "table.md", "table.csv", "comparison.json", "scores.png", "calibration.png", "curves.png", "alpha.png",
        "soft_target.png", "soft_target_words.png",
    }  # fmt: skip
