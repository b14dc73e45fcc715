"""``selfkd-compare`` as a command: sacreBLEU's own numbers, the output folder, messages, exit status."""

import csv
import gzip
import json
import os
import random
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from sacremoses import MosesDetokenizer

from selfkd_fairseq.cli import compare as command
from tests.evaluation.run_folders import (
    PROVENANCE,
    evaluation,
    generate_output,
    language_model,
    training_log,
    write_run,
)
from tests.fairseq_setup import run as run_console_command

WORDS = "ein mann mit einem hut sieht den hund . frau gras straße ? rot".split()
COUNT = 50


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two systems, two seeds of one and three of the other, and untokenised references."""
    folder = tmp_path_factory.mktemp("sweep")
    rng = random.Random(2)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(4, 15))) for _ in range(COUNT)]
    lengths = [len(reference.split()) + 1 for reference in references]
    hypotheses = {}
    for system, seed in [("base", 1), ("base", 2), ("kd", 1), ("kd", 2), ("kd", 3)]:
        kept = 0.8 if system == "kd" else 0.75
        hypotheses[system, seed] = [
            " ".join(word if rng.random() < kept else rng.choice(WORDS) for word in reference.split())
            for reference in references
        ]
        sums = [length * rng.uniform(1, 3) for length in lengths]
        write_run(
            folder / system / str(seed),
            evaluation(seed, lengths, sums),
            generate_output(hypotheses[system, seed], references),
            training_log([5, 4, 3], 0.1 if system == "kd" else None),
            {**PROVENANCE, "commit": "7ra1n1n9"} if seed == 1 else None,
        )
    plain = [f"{reference[0].upper()}{reference[1:]}" for reference in references]
    with gzip.open(folder / "references.de.gz", "wt", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in plain))
    return SimpleNamespace(folder=folder, hypotheses=hypotheses, references=plain)


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def arguments_of(sweep, output, *more):
    runs = [str(path) for path in sorted(sweep.folder.glob("*/?"))]
    references = ["--references", str(sweep.folder / "references.de.gz")]
    return [*runs, "--baseline", "base", "--output", str(output), *references, "--samples", "100", "--seed", "9", *more]


@pytest.fixture(scope="module")
def result(sweep, tmp_path_factory):
    """The command as a user would call it, in a process of its own."""
    output = tmp_path_factory.mktemp("result") / "out"
    line = [sys.executable, "-m", "selfkd_fairseq.cli.compare", *arguments_of(sweep, output, "--lowercase")]
    done = subprocess.run(line, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(output=output, stdout=done.stdout, stderr=done.stderr)


def test_table_alone_on_stdout_and_notes_on_stderr(result):
    assert result.stderr == "selfkd-compare: note: kd, seed 3: base has no run of seed 3: no test\n"
    titles, *rows = result.stdout.splitlines()
    assert titles.startswith("system       seed  ") and len(rows) == 2 + 5
    assert [row.split()[:2] for row in rows[2:]] == [
        ["base", "1"],
        ["base", "2"],
        ["kd", "1"],
        ["kd", "2"],
        ["kd", "3"],
    ]


def test_output_folder(result):
    names = ["alpha.png", "comparison.json", "curves.png", "scores.png", "soft_target.png", "table.csv", "table.md"]
    assert sorted(os.listdir(result.output)) == names
    assert os.listdir(result.output.parent) == ["out"]
    content = json.loads((result.output / "comparison.json").read_text(encoding="utf-8"))
    row, _, _, without_record, _ = content["runs"]
    of_base, of_kd = (system["nll_difference"] for system in content["systems"])
    assert of_base is of_kd is None  # base has no run of the third seed of kd
    assert set(content["runs"][2]["nll_difference"]) == {"value", "low", "high"}
    assert row["training_provenance"]["commit"] == "7ra1n1n9" and without_record["training_provenance"] is None
    assert row["evaluation"]["provenance"] == PROVENANCE and row["evaluation"]["checkpoint"]["num_updates"] == 7
    assert content["scoring"]["references"]["path"].endswith("references.de.gz")
    assert content["scoring"]["lowercase"] is True and content["resampling"]["samples"] == 100
    assert "--lowercase" in content["provenance"]["command"]
    page = (result.output / "table.md").read_text(encoding="utf-8")
    assert "commit 7ra1n1n9; python 3.11.7, torch 2.13.0; a processor" in page
    assert "training: criterion self_kd, model m; not recorded (no provenance.json)" in page
    assert "test.en-de.de.bin `eeeeeeeeeeee`" in page and "`selfkd-evaluate 'a b'`" in page
    for name in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (result.output / name).is_file()
    with open(result.output / "table.csv", encoding="utf-8", newline="") as file:
        for found, run in zip(list(csv.DictReader(file))[2:], content["runs"]):
            assert float(found["bleu"]) == run["scores"]["bleu"]
    assert all(content["signatures"][name] in page for name in ("bleu", "chrf2", "ter", "bleu_tokenised"))


def test_scores_and_p_values_are_those_of_sacrebleus_command_line(sweep, result, tmp_path, monkeypatch):
    # Made without the code under test: files of plain text, and sacreBLEU's own command on them.
    monkeypatch.setenv("SACREBLEU_SEED", "9")
    monkeypatch.setenv("NO_COLOR", "1")
    detokeniser = MosesDetokenizer(lang="de")
    files = [tmp_path / name for name in ("base", "kd", "references")]
    texts = [[detokeniser.detokenize(line.split()) for line in sweep.hypotheses[name, 2]] for name in ("base", "kd")]
    for path, lines in zip(files, [*texts, sweep.references]):
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    flags = ["-m", "bleu", "chrf", "-lc", "--chrf-lowercase", "-w", "4"]
    printed = run_console_command(
        "sacrebleu", files[2], "-i", *files[:2], *flags, "-f", "text", "--paired-bs", "--paired-bs-n", "100"
    ).stdout
    theirs = re.findall(r"│ +(\d+\.\d{4}) \(", printed)
    content = json.loads((result.output / "comparison.json").read_text(encoding="utf-8"))
    ours = {(row["system"], row["seed"]): row for row in content["runs"]}
    assert theirs == [
        f"{ours[system, 2]['scores'][metric]:.4f}" for system in ("base", "kd") for metric in ("bleu", "chrf2")
    ]
    p_values = ours["kd", 2]["p_values"]
    assert re.findall(r"\(p = ([\d.]+)\)", printed) == [f"{p_values[metric]:.4f}" for metric in ("bleu", "chrf2")]


def test_same_numbers_again_and_an_earlier_result_is_replaced(sweep, result, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    status, out, _ = run(capsys, *arguments_of(sweep, output, "--lowercase"))
    assert (status, out) == (0, result.stdout)
    assert (output / "table.csv").read_bytes() == (result.output / "table.csv").read_bytes()
    (output / "alpha.png").write_bytes(b"")
    name = f"other={sweep.folder / 'kd' / '1'}"
    status, out, _ = run(capsys, name, "--baseline", "other", "--output", output, "--test", "randomisation")
    assert status == 0 and out.splitlines()[2].split()[:2] == ["other", "1"]
    assert (output / "alpha.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((output / "comparison.json").read_text())["resampling"]["samples"] == 10000


def test_language_models(tmp_path, capsys):
    for system, sums in (("base", (2, 3, 8)), ("kd", (2, 3, 7))):
        language_model(tmp_path / system / "1", 1, sums)
    output = tmp_path / "out"
    runs = [tmp_path / system / "1" for system in ("base", "kd")]
    status, out, err = run(capsys, *runs, "--baseline", "base", "--output", output)
    assert status == 0 and out.splitlines()[0].split()[:3] == ["system", "seed", "ppl"]
    assert err == "selfkd-compare: note: some runs of base, kd have no log.json: they are not in the learning curves\n"
    assert sorted(os.listdir(output)) == ["comparison.json", "scores.png", "table.csv", "table.md"]
    status, out, err = run(capsys, *runs, "--baseline", "base", "--output", output, "--references", "x")
    assert (status, out) == (1, "") and "--references goes with translations" in err


def test_bad_input_is_one_line_and_nothing_is_written(sweep, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    (tmp_path / "two").write_text("a\nb\n")
    kd, output = sweep.folder / "kd" / "1", tmp_path / "out"
    failures = {
        "absent does not exist": [tmp_path / "absent", "--output", output],
        "mine is not empty and not made by selfkd-compare": [kd, "--output", tmp_path / "mine"],
        "no system is called 'base': there are kd": [kd, "--output", output],
        "are both base with seed 1": [f"base={kd}", f"base={kd}", "--output", output],
        "50 hypotheses, but 2 references": [f"base={kd}", "--output", output, "--references", tmp_path / "two"],
        "No such file or directory": [f"base={kd}", "--output", output, "--references", tmp_path / "absent"],
        "results/evaluate-valid.json is missing": [kd, "--output", output, "--gen-subset", "valid"],
        "takes the name of a file": [f"base={kd}", "--output", output, "--tokenised-references", "-"],
    }
    (kd / "checkpoints").mkdir()
    (kd / "checkpoints" / "checkpoint_last.pt").touch()
    for message, arguments in failures.items():
        status, out, err = run(capsys, *arguments, "--baseline", "base")
        assert (status, out) == (1, ""), message
        assert err.startswith("selfkd-compare: error: ") and err.count("\n") == 1 and message in err, (message, err)
    assert sorted(os.listdir(tmp_path)) == ["mine", "two"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--baseline b --output o", "the following arguments are required: [NAME=]RUN"),
        ("run --output o", "--baseline"),
        ("run --baseline b", "--output"),
        ("run --baseline b --output o --seed 0", "a whole number of at least 1 is needed, got '0'"),
        ("run --baseline b --output o --samples x", "a whole number of at least 1 is needed, got 'x'"),
        ("run --baseline b --output o --test t", "invalid choice: 't'"),
    ],
)
def test_bad_options_are_one_line_and_status_2(capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        command.main(options.split())
    captured = capsys.readouterr()
    assert (caught.value.code, captured.out) == (2, "")
    assert captured.err.startswith("selfkd-compare: error: ") and captured.err.count("\n") == 1
    assert message in captured.err


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0 and "selfkd-compare multirun/multi30k/*/*" in capsys.readouterr().out
