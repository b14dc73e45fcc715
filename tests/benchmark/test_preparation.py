"""The benchmark of the preparation: its text, and what it measures."""

import csv
import sys
from collections import Counter

import pytest

from selfkd_fairseq.benchmark import preparation
from selfkd_fairseq.cli.benchmark import main

# Holds 80 MB in a child of its own for a second.
HUNGRY = "import subprocess, sys; subprocess.run([sys.executable, '-c', {!r}], check=True)".format(
    "import time; held = bytearray(80_000_000); time.sleep(1)"
)


def words(folder):
    return Counter(word for path in folder.iterdir() for word in path.read_text(encoding="utf-8").lower().split())


def test_corpus_is_what_selfkd_prepare_takes(tmp_path):
    preparation.write_corpus(tmp_path / "a", 400)
    lines = {path.name: path.read_text(encoding="utf-8").count("\n") for path in (tmp_path / "a").iterdir()}
    stems = {"europarl-v7.de-en": 180, "commoncrawl.de-en": 180, "news-commentary-v12.de-en": 40}
    stems["newstest2014.en-de"] = 100
    assert lines == {f"{stem}.{language}": count for stem, count in stems.items() for language in ("en", "de")}
    preparation.write_corpus(tmp_path / "b", 400)
    assert words(tmp_path / "a") == words(tmp_path / "b")


def test_more_text_has_more_different_words(tmp_path):
    for pairs in (200, 2000):
        preparation.write_corpus(tmp_path / str(pairs), pairs)
    few, many = (words(tmp_path / str(pairs)) for pairs in (200, 2000))
    assert 2 < len(many) / len(few) < 10
    assert few.most_common(1)[0][1] > 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_memory_and_time_of_children_count(monkeypatch):
    monkeypatch.setattr(preparation, "_SECONDS_BETWEEN_LOOKS", 0.05)
    found = preparation.watch([sys.executable, "-c", HUNGRY])
    assert 80e6 < found.bytes == found.bytes_before < 200e6
    assert found.seconds > 1
    assert 0 < found.cpu_seconds < found.seconds


def test_failure_is_told():
    with pytest.raises(RuntimeError, match="failed: the reason"):
        preparation.watch([sys.executable, "-c", "import sys; sys.exit('the reason')"])


def test_command_writes_table_and_csv(tmp_path, capsys, monkeypatch):
    found = iter(
        [preparation.Measurement(10.0, 15.0, 2**29, 2**28), preparation.Measurement(95.0, 140.0, 2**30, 2**28)]
    )
    monkeypatch.setattr(preparation, "measure", lambda raw, merges, workers: next(found))
    arguments = "--parts preparation --pairs 200 2000 --workers 2 --bpe-merges 7".split()
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    assert f"written: {tmp_path / 'preparation_cpu.csv'}" in capsys.readouterr().out
    with (tmp_path / "preparation_cpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["pairs"], row["time / first"], row["memory / first"], row["MiB"]) for row in rows] == [
        ("200", "1.00", "1.00", "512"), ("2000", "9.50", "2.00", "1024"),
    ]  # fmt: skip
    assert {row["bpe merges"] for row in rows} == {"7"} and {row["workers"] for row in rows} == {"2"}


@pytest.mark.parametrize(
    "arguments, needed",
    [("--pairs 20 199", "at least 200 pairs"), ("--workers 0", "at least 1"), ("--bpe-merges 0", "at least 1")],
)
def test_bad_numbers(arguments, needed, capsys):
    with pytest.raises(SystemExit) as error:
        main(["--parts", "preparation", *arguments.split()])
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument {arguments.split()[0]}: " in line and needed in line
