"""``selfkd-prepare`` as a user types it, with the real fairseq-preprocess."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.data.corpus import COUNTS, read, tree, write_corpus
from tests.fairseq_setup import ROOT

COMMAND = [sys.executable, "-m", "selfkd_fairseq.cli.prepare"]
PAIR = ["multi30k", "--source", "en", "--target", "de"]
# The scripts take the first Python that they find: this one.
PROGRAMS = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": PROGRAMS}


def options(raw, dest):
    return ["--raw", str(raw), "--dest", str(dest), "--bpe-merges", "60", "--workers", "2"]


def start(*command, cwd):
    return subprocess.Popen(
        [*map(str, command)], cwd=cwd, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # What runs in the background of a script inherits that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finish(process):
    """(exit status, stdout, last line of stderr)"""
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out, err.splitlines()[-1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with ``raw`` and, prepared from it without an interruption, ``a clean, long name``."""
    folder = tmp_path_factory.mktemp("prepare")
    write_corpus(folder / "raw")
    dest = folder / "a clean, long name"
    status, out, last = finish(start(*COMMAND, *PAIR, *options("raw", dest.name), cwd=folder))  # relative paths
    assert (status, out) == (0, f"{dest / 'bin'}\n"), last
    assert last.endswith(f"ready: fairseq-train {dest / 'bin'}")
    return folder, dest


def test_fairseq_loads_the_result(corpus):
    from fairseq.tasks.translation import TranslationConfig, TranslationTask

    _, dest = corpus
    config = TranslationConfig(data=str(dest / "bin"), source_lang="en", target_lang="de", dataset_impl="mmap")
    task = TranslationTask.setup_task(config)
    assert task.source_dictionary == task.target_dictionary
    words = {word for lang in ("en", "de") for line in read(dest / "bpe" / f"train.{lang}") for word in line.split()}
    padding = -(len(words) + 4) % 8  # fairseq rounds up to a multiple of 8
    assert len(task.source_dictionary) == len(words) + 4 + padding
    for split, count in COUNTS.items():
        task.load_dataset(split)
        pairs = task.datasets[split]
        assert len(pairs) == count
        text = {language: read(dest / "bpe" / f"{split}.{language}") for language in ("en", "de")}
        for index in range(count):
            for key, language in (("source", "en"), ("target", "de")):
                tokens = pairs[index][key]
                assert tokens[-1] == task.source_dictionary.eos()
                if split == "train":  # in the others some subwords may be unknown
                    assert task.source_dictionary.string(tokens) == text[language][index]
                assert len(tokens) == len(text[language][index].split()) + 1


def test_second_call_says_so_and_does_nothing_also_through_the_script(corpus, tmp_path):
    folder, dest = corpus
    before = {path: path.stat().st_mtime_ns for path in dest.rglob("*")}
    script = start(ROOT / "scripts" / "prepare_multi30k.sh", *options(folder / "raw", dest), cwd=tmp_path)
    status, out, last = finish(script)
    assert (status, out) == (0, f"{dest / 'bin'}\n")
    assert last == f"selfkd-prepare: nothing to do, already prepared: fairseq-train {dest / 'bin'}"
    assert {path: path.stat().st_mtime_ns for path in dest.rglob("*")} == before


@pytest.mark.parametrize(("name", "arguments", "dest"), [("multi30k", PAIR, "multi30k.en-de"), ("ptb", ["ptb"], "ptb")])
def test_script_prefers_the_environment_of_the_checkout(tmp_path, name, arguments, dest):
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / f"prepare_{name}.sh", tmp_path / "scripts")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$PYTHONPATH" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        [str(tmp_path / "scripts" / f"prepare_{name}.sh"), "--workers", "1", "--raw", "a b"],
        cwd="/", env={"PATH": os.environ["PATH"]}, text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("|") == [
        str(tmp_path), "-m", "selfkd_fairseq.cli.prepare", *arguments, "--dest", f"{tmp_path}/data-bin/{dest}",
        "--workers", "1", "--raw", "a b", "",
    ]  # fmt: skip


def wait_for(path, process):
    end = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert path.exists(), process.communicate()


def test_killed_during_fairseq_preprocess_then_interrupted_then_completed(corpus, tmp_path):
    folder, clean = corpus
    dest = tmp_path / "dest"
    call = [*COMMAND, *PAIR, *options(folder / "raw", dest)]
    process = start(*call, cwd=folder)
    wait_for(dest / ".unfinished" / "fairseq-preprocess.log", process)
    process.kill()  # fairseq-preprocess itself lives on as an orphan
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (dest / "bin").exists()
    (dest / ".unfinished" / "fairseq-preprocess.log").unlink()
    process = start(*call, cwd=folder)
    wait_for(dest / ".unfinished" / "fairseq-preprocess.log", process)
    process.send_signal(signal.SIGINT)
    status, out, last = finish(process)
    assert (status, out, last) == (130, "", "selfkd-prepare: interrupted; the same command goes on from here")
    assert not (dest / "bin").exists()
    status, out, _ = finish(start(*call, cwd=folder))
    assert (status, out) == (0, f"{dest / 'bin'}\n")
    assert tree(dest) == tree(clean)
