"""Folders of any name: what the scripts of the examples pass on, as hydra and fairseq read it."""

import os
import shutil
import string
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.fairseq_setup import ROOT, fairseq_settings

EXAMPLES = ROOT / "examples"
MULTI30K = EXAMPLES / "translation" / "multi30k"
PTB = EXAMPLES / "language_model" / "ptb"
ALL = "a" + string.punctuation.replace("/", "").replace(":", "") + " \té日 b"
NAMES = [
    ALL,
    ALL[::-1],
    "TARGET & PREPARED, x=[1,2] #'é'",
    "$HOME $(touch made) `touch made` {a,b}",
    "two\nlines",
    '"quoted" \\" \\\\" \\\\',
    "choice(1,2)",
]
REFUSED = ["${x}", "a${oc.env:HOME}b", "\\'", "a\\\\'b"]
STUB = """#!/bin/bash
if [ "$1" = -c ]; then exec "$REAL_PYTHON" "$@"; fi
printf '%s\\0' "${0##*/}" "$@" END >> "$CALLS"
case ${0##*/} in
    fairseq-hydra-train) mkdir -p "$SWEEP/a/1/checkpoints"; touch "$SWEEP/a/1/checkpoints/checkpoint_best.pt" ;;
    fairseq-generate) mkdir -p "${@:$# - 1:1}" ;; # before --cpu, which is the last word
esac
"""


@pytest.fixture
def bash(tmp_path):
    """Runs a script with programs on the PATH that only tell their words: (what came of it, their command lines)."""
    for name in ("fairseq-hydra-train", "fairseq-train", "fairseq-generate", "fairseq-eval-lm", "python"):
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(STUB)
        (tmp_path / "bin" / name).chmod(0o755)
    calls = tmp_path / "calls"

    def run(script, *arguments, sweep="", cwd=tmp_path):
        calls.write_bytes(b"")
        variables = {"CALLS": str(calls), "SWEEP": str(sweep), "REAL_PYTHON": sys.executable}
        environment = {**os.environ, **variables, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", script, *map(str, arguments)],
            env=environment,
            cwd=cwd,
            text=True,
            capture_output=True,
            check=False,
        )
        return done, [call.split("\0") for call in calls.read_text().split("\0END\0")[:-1]]

    return run


def prepared_folder(folder):
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "test.en-de.en.idx").touch()
    return folder


def value(words, flag):
    return words[words.index(flag) + 1]


@pytest.mark.parametrize("name", NAMES)
def test_sweep(name, bash, tmp_path):
    folder = tmp_path / name
    prepared, sweep = prepared_folder(folder / "prepared"), folder / name
    # relative, as users type
    done, calls = bash(MULTI30K / "sweep.sh", f"./{name}/prepared", f"{name}/{name}", "common.cpu=true", sweep=sweep)
    assert (done.returncode, done.stderr) == (0, "")
    assert not [*tmp_path.rglob("made")]
    train, generate, evaluate, score = calls

    assert train[-1] == "common.cpu=true"
    overrides = [word for word in train if word.split("=")[0] in ("common.user_dir", "task.data", "hydra.sweep.dir")]
    parser = OverridesParser.create()
    ((job,),) = BasicSweeper.split_arguments(parser.parse_overrides(overrides), None)  # as each job gets them
    with initialize_config_dir(str(MULTI30K / "config"), version_base="1.1"):  # as fairseq has it
        config = compose("multi30k", job, return_hydra_config=True)
    assert config.task.data == f"{prepared}/bin"
    assert config.hydra.sweep.dir == str(sweep)
    assert config.common.user_dir == str(ROOT / "selfkd_fairseq")

    run = sweep / "a" / "1"
    checkpoint = str(run / "checkpoints" / "checkpoint_best.pt")
    assert generate[1] == evaluate[3] == f"{prepared}/bin"
    assert value(generate, "--path") == value(evaluate, "--path") == checkpoint
    assert value(generate, "--results-path") == value(evaluate, "--results-path") == f"{run}/results.unfinished"
    assert score[3] == f"{run}/results.unfinished/generate-test.txt" and value(score, "--target-lang") == "de"
    assert value(score, "--references") == f"{prepared}/raw/test.de"
    assert value(score, "--tokenised-references") == f"{prepared}/tok/test.de"
    assert (run / "results" / "scores.txt").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_fairseq_reads_the_path_as_it_is(name, bash, tmp_path):
    """Its own quoting: of such names only those that the scripts refuse come back as another."""
    for script, arguments in ((MULTI30K, ["self_kd"]), (PTB, ["zaremba_small", "self_kd"])):
        done, (call,) = bash(script / "train.sh", *arguments, f"{name}/bin", f"{tmp_path / name}/run")
        assert (done.returncode, done.stderr) == (0, "")
        config = fairseq_settings(*call[1:])
        assert config.task.data == f"{name}/bin"
        assert config.checkpoint.save_dir == f"{tmp_path / name}/run" and os.path.isdir(config.checkpoint.save_dir)


@pytest.mark.parametrize("name", [*REFUSED, "12:30"])
def test_what_fairseq_would_not_take_is_refused_before_any_work(name, bash, tmp_path):
    folder, plain = tmp_path / name, tmp_path / "plain"
    prepared_folder(folder), prepared_folder(plain)
    checkpoint = folder / "checkpoint_best.pt"
    calls = [
        (MULTI30K / "sweep.sh", folder, plain), (MULTI30K / "sweep.sh", plain, folder),
        (MULTI30K / "evaluate.sh", folder, "x.pt", plain), (MULTI30K / "evaluate.sh", plain, checkpoint, plain),
    ]  # fmt: skip
    if name in REFUSED:  # fairseq-train and fairseq-eval-lm themselves take several, with a colon between them
        calls += [
            (MULTI30K / "evaluate.sh", plain, "x.pt", folder), (MULTI30K / "train.sh", "self_kd", folder, plain),
            (MULTI30K / "train.sh", "self_kd", plain, folder), (PTB / "evaluate.sh", folder, "x.pt"),
            (PTB / "evaluate.sh", plain, checkpoint), (PTB / "train.sh", "awd_lstm", "self_kd", folder, plain),
            (PTB / "train.sh", "awd_lstm", "self_kd", plain, folder),
        ]  # fmt: skip
    for script, *arguments in calls:
        done, called = bash(script, *arguments)
        assert (done.returncode, done.stdout, called) == (2, "", []), (script, arguments)
        assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"{script.name}: fairseq takes "), done.stderr
        assert name in done.stderr


def test_link_stands_in_for_a_refused_name(bash, tmp_path):
    prepared_folder(tmp_path / "12:30" / "prepared")
    (tmp_path / "link").symlink_to(tmp_path / "12:30")
    done, calls = bash(
        MULTI30K / "sweep.sh", "link/prepared", "link/sweep", "common.cpu=true", sweep=tmp_path / "link" / "sweep"
    )
    assert done.returncode == 0 and f"task.data='{tmp_path}/link/prepared/bin'" in calls[0]


def test_checkout_of_any_name(bash, tmp_path):
    checkout = tmp_path / ALL
    shutil.copytree(EXAMPLES / "translation", checkout / "examples" / "translation")
    shutil.copy(EXAMPLES / "paths.sh", checkout / "examples")
    prepared = prepared_folder(tmp_path / "prepared")
    done, calls = bash(
        checkout / "examples" / "translation" / "multi30k" / "sweep.sh", prepared, tmp_path / "sweep",
        "common.cpu=true", sweep=tmp_path / "sweep",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (override,) = [word for word in calls[0] if word.startswith("common.user_dir=")]
    assert OverridesParser.create().parse_override(override).value() == f"{checkout}/selfkd_fairseq"
    assert value(calls[0], "--config-dir") == f"{checkout}/examples/translation/multi30k/config"
    assert value(calls[1], "--user-dir") == f"{checkout}/selfkd_fairseq"
