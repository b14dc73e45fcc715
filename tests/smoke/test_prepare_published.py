"""``selfkd-prepare`` on IWSLT and WMT, on small archives of the same inner layout; once with the real preprocess."""

import json
from dataclasses import replace

import pytest
import sacrebleu

from selfkd_fairseq.cli.prepare import main
from selfkd_fairseq.data import binarisation, datasets
from tests.data import published
from tests.data.corpus import read
from tests.data.quick_preprocess import quick_preprocess
from tests.data.server import serve


def arguments(made, dest, *more):
    source, target = made.languages
    return [made.name, "--source", source, "--target", target, "--dest", str(dest), "--bpe-merges", "60", *more]


def check(made, dest, captured):
    assert captured.out == f"{dest / 'bin'}\n"
    assert "pairs: train " in captured.err.splitlines()[-1]
    stamp = json.loads((dest / "stamp.json").read_text())
    for split, count in stamp["pairs"].items():
        for language in made.languages:
            assert len(read(dest / "bpe" / f"{split}.{language}")) == count > 0


def test_iwslt14_from_its_archive_loads_in_fairseq(tmp_path, capsys):
    from fairseq.tasks.translation import TranslationConfig, TranslationTask

    made, dest = published.corpus("iwslt14", train=40, test=2), tmp_path / "dest"
    raw = made.write(tmp_path / "raw")
    assert main(arguments(made, dest, "--raw", str(raw / "de-en.tgz"), "--workers", "2")) == 0
    check(made, dest, capsys.readouterr())
    config = TranslationConfig(data=str(dest / "bin"), source_lang="de", target_lang="en", dataset_impl="mmap")
    task = TranslationTask.setup_task(config)
    assert task.source_dictionary != task.target_dictionary
    task.load_dataset("train")
    pairs = task.datasets["train"]
    for index, lines in enumerate(zip(read(dest / "bpe" / "train.de"), read(dest / "bpe" / "train.en"))):
        assert task.source_dictionary.string(pairs[index]["source"]) == lines[0]
        assert task.target_dictionary.string(pairs[index]["target"]) == lines[1]


@pytest.mark.parametrize("name", list(published.PAIRS))
def test_download(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(binarisation, "run_preprocess", quick_preprocess)
    made, dest = published.corpus(name, train=70, test=3), tmp_path / "dest"
    made.write_sacrebleu(tmp_path / "cache")
    for test_set, _ in made.test_sets:
        monkeypatch.setattr(sacrebleu.DATASETS[test_set], "_outdir", str(tmp_path / "cache" / test_set))
    dataset = datasets.DATASETS[name]
    unknown = {file: None for file in made.files}
    monkeypatch.setitem(datasets.DATASETS, name, replace(dataset, sha256=unknown))
    with serve() as server:
        server.files = {file: content for file, content in made.files.items() if not file.startswith("news")}
        assert main(arguments(made, dest, "--base-url", server.url, "--workers", "1")) == 0
    check(made, dest, capsys.readouterr())
    assert main(arguments(made, dest, "--base-url", "http://127.0.0.1:9/x")) == 0
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["iwslt14", "wmt16"])
def test_bad_input_is_one_line(name, tmp_path, capsys):
    made, dest = published.corpus(name, train=30, test=2), tmp_path / "dest"
    raw = made.write(tmp_path / "raw")
    archive = next(file for file in made.files if file.endswith(".tgz"))
    (raw / archive).write_bytes(made.files[archive][:-20])
    assert main(arguments(made, dest, "--raw", str(raw))) == 1
    *before, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"selfkd-prepare: error: {raw / archive}: damaged tar archive")
    assert before == [f"selfkd-prepare: checking the raw files in {raw}"]
    assert not dest.exists()
