"""The searches of the examples, with programs that only tell how they were called."""

import os
import subprocess

import pytest

from tests.fairseq_setup import ROOT

MULTI30K = ROOT / "examples" / "translation" / "multi30k"
PTB = ROOT / "examples" / "language_model" / "ptb"
STUB = """#!/bin/bash
words=("${0##*/}" "$@")
value() { local i; for i in "${!words[@]}"; do if [ "${words[i]}" = "$1" ]; then echo "${words[i + 1]}"; fi; done; }
echo "${words[*]}" >> "$CALLS"
case "${words[*]}" in
    fairseq-train*) mkdir -p "$(value --save-dir)" ;;
    *average_checkpoints*) touch "$(value --output)" ;;
    *cli.evaluate*)
        mkdir -p "$(value --results-path)"
        touch "$(value --results-path)/evaluate-$(value --gen-subset).json" ;;
    fairseq-generate*) touch "$(value --results-path)/generate-$(value --gen-subset).txt" ;;
esac
if [[ "${words[*]}" = *"$FAILS"* ]]; then exit 1; fi
"""


@pytest.fixture
def search(tmp_path):
    """Runs the search of a corpus with rows a and b: (exit status, lines of the programs that it called)."""
    for program in ("fairseq-train", "fairseq-generate", "python"):
        (tmp_path / "bin" / program).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / program).write_text(STUB)
        (tmp_path / "bin" / program).chmod(0o755)
    rows, calls = tmp_path / "rows.tsv", tmp_path / "calls"

    def run(corpus, *flags, fails="no such word", **variables):
        model = "tied_small\t" if corpus == PTB else ""
        rows.write_text(f"# name\tflags\na\t{model}--lr 1 --clip-norm 2\nb\t{model}\nc\t{model}--lr 3\n")
        calls.write_text("")
        environment = {
            **os.environ,
            "CALLS": str(calls),
            "FAILS": fails,
            "ROWS": str(rows),
            "NAMES": "a b",
            **variables,
        }
        environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        command = ["bash", str(corpus / "search.sh"), str(tmp_path / "data"), str(tmp_path / "runs"), *flags]
        done = subprocess.run(command, env=environment, text=True, capture_output=True)
        return done.returncode, calls.read_text().splitlines()

    return run


def value(line, flag):
    """Of a flag given twice the last one, as fairseq takes it."""
    return line.rsplit(f" {flag} ", 1)[1].split()[0]


def trained(calls):
    return [line.split("/runs/")[1].split("/checkpoints")[0] for line in calls if line.startswith("fairseq-train")]


@pytest.mark.parametrize("corpus", [MULTI30K, PTB], ids=["multi30k", "ptb"])
def test_every_row_with_one_seed_before_the_next_seed_and_nothing_twice(corpus, search, tmp_path):
    status, calls = search(corpus, "--cpu", "--lr", "9", SEEDS="1 2")
    assert status == 0 and trained(calls) == ["a/1", "b/1", "a/2", "b/2"]
    trainings = [line for line in calls if line.startswith("fairseq-train")]
    for line, run in zip(trainings, trained(calls)):
        assert value(line, "--log-file").endswith(f"/runs/{run}/log.json") and value(line, "--seed") == run[-1]
    for line, own in zip(trainings, ("--lr 1 --clip-norm 2", "")):  # the flags of the row, then those of the caller
        found = line.rsplit({MULTI30K: " nll_loss", PTB: "/log.json"}[corpus], 1)[1]
        assert found.split() == f"{own} --cpu --lr 9".split()
    assert {path.name for path in (tmp_path / "runs" / "b" / "2" / "results").iterdir()} >= {"evaluate-valid.json"}
    assert all("--gen-subset valid" in line for line in calls if "--gen-subset" in line)
    assert search(corpus, "--cpu", "--lr", "9", SEEDS="1 2") == (0, [])


@pytest.mark.parametrize("corpus", [MULTI30K, PTB], ids=["multi30k", "ptb"])
def test_the_test_set_can_be_looked_at_later(corpus, search, tmp_path):
    search(corpus)
    results = tmp_path / "runs" / "a" / "1" / "results"
    before = {path.name for path in results.iterdir()}
    status, calls = search(corpus, SPLITS="valid test")
    assert status == 0 and {value(line, "--gen-subset") for line in calls if "--gen-subset" in line} == {"test"}
    after = {"evaluate-test.json", "generate-test.txt"} if corpus == MULTI30K else {"evaluate-test.json"}
    assert {path.name for path in results.iterdir()} == before | after
    assert search(corpus, SPLITS="valid test") == (0, [])


@pytest.mark.parametrize("corpus", [MULTI30K, PTB], ids=["multi30k", "ptb"])
def test_several_at_a_time_do_the_same(corpus, search):
    one_by_one = search(corpus, "--cpu", SEEDS="1 2")[1]
    status, calls = search(corpus, "--cpu", SEEDS="3 4", JOBS="3")
    for other, seed in (("3", "1"), ("4", "2")):
        calls = [line.replace(f"/{other}/", f"/{seed}/").replace(f"--seed {other}", f"--seed {seed}") for line in calls]
    assert status == 0 and sorted(calls) == sorted(one_by_one)


@pytest.mark.parametrize("corpus", [MULTI30K, PTB], ids=["multi30k", "ptb"])
@pytest.mark.parametrize("fails", ["fairseq-train", "--gen-subset test"])
def test_what_failed_is_done_again_and_no_other(fails, corpus, search, tmp_path):
    status, _ = search(corpus, fails=fails, SPLITS="valid test")
    results = tmp_path / "runs" / "a" / "1" / "results"
    assert status != 0 and not (results / "evaluate-test.json").exists()
    assert (results / "evaluate-valid.json").exists() == (fails != "fairseq-train")
    status, calls = search(corpus, SPLITS="valid test")
    assert status == 0 and (results / "evaluate-test.json").exists()
    repeated = [line for line in calls if "/runs/a/" in line and "--gen-subset valid" in line]
    assert bool(repeated) == (fails == "fairseq-train")


def test_the_mean_is_of_as_many_epochs_as_are_kept(search):
    calls = search(MULTI30K, LAST_EPOCHS="10")[1]
    assert value(calls[0], "--keep-last-epochs") == "10"
    assert value(calls[1], "--last-epochs") == "10"
