"""The demo: what it does to its output folder, and one run of every step."""

import csv
import json
import subprocess
import sys

import pytest

from examples.synonyms.demo import claim_output, main

SYSTEMS = ["cross_entropy", "label_smoothing", "self_kd", "self_kd_shuffled"]


def test_a_folder_of_someone_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "thesis.pt").write_text("precious")
    with pytest.raises(SystemExit, match="--output"):
        main(["--output", str(tmp_path), "--quick"])
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "thesis.pt"]


@pytest.mark.parametrize("name", ["12:30", "${x}", "\\'"])
def test_a_folder_that_fairseq_cannot_name_is_refused(tmp_path, name):
    with pytest.raises(SystemExit, match="--output"):
        claim_output(tmp_path / name)
    assert not [*tmp_path.iterdir()]


def test_an_earlier_run_is_removed_and_a_running_one_is_not(tmp_path):
    folder = tmp_path / "new" / "output"
    with claim_output(folder):
        (folder / "runs").mkdir()
        (folder / "table.md").write_text("old")
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(SystemExit, match="another run"):
            claim_output(folder)
        assert (folder / "table.md").read_text() == "old"
    with claim_output(folder):
        assert sorted(path.name for path in folder.iterdir()) == [".synonyms-demo", "notes.txt"]


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory, request):
    output = tmp_path_factory.mktemp("demo") / "with space"
    done = subprocess.run(
        [sys.executable, "-m", "examples.synonyms.demo", "--quick", "--seed", "2", "--output", str(output)],
        cwd=request.config.rootpath, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return output, done


def test_quick_run_ends_with_table_and_figure(quick_run):
    output, done = quick_run
    assert (output / "table.md").read_text(encoding="utf-8") in done.stdout
    for name in ("table.md", "curves.png", "commands.sh"):
        assert str(output / name) in done.stdout
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "commands.sh").read_text().count("fairseq-train ") == len(SYSTEMS)


def test_quick_run_prints_nothing_but_progress_and_table(quick_run):
    assert quick_run[1].stderr == ""


def test_measured_nll_is_the_one_that_fairseq_logged(quick_run):
    """Two independent computations on the validation set: fairseq's own validation, and the demo's own reading."""
    output, _ = quick_run
    with open(output / "table.csv", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["system"] for row in rows] == ["truth", *SYSTEMS]
    for row in rows[1:]:
        log = (output / "runs" / row["system"] / "log.json").read_text(encoding="utf-8")
        records = [json.loads(line) for line in log.splitlines() if line.startswith('{"')]
        valid = [record for record in records if "valid_loss" in record]
        best = min(valid, key=lambda record: float(record["valid_ppl"]))
        logged = float(best.get("valid_nll_loss", best["valid_loss"]))
        assert float(row["valid nll"]) == pytest.approx(logged, abs=0.0011)  # both are rounded to 3 decimals


def test_every_test_sentence_is_translated(quick_run):
    output, _ = quick_run
    for system in SYSTEMS:
        lines = (output / "runs" / system / "generate.out").read_text(encoding="utf-8").splitlines()
        assert sum(line.startswith("H-") for line in lines) == 30
