"""The call of fairseq-preprocess: what is made of its failures. tests/smoke has the real one at work."""

import sys

import pytest

from selfkd_fairseq.data import binarisation
from selfkd_fairseq.data.errors import PreparationError
from tests.data.corpus import STEMS, quick_preprocess, tree


@pytest.fixture
def dest(tmp_path):
    """A destination with three sentences in each file of bpe/."""
    folder = tmp_path / "dest"
    (folder / "bpe").mkdir(parents=True)
    (folder / "bpe" / "codes").write_text("#version: 0.2\na b\n")
    for split in STEMS:
        for language in ("en", "de"):
            (folder / "bpe" / f"{split}.{language}").write_text(f"a b@@ {language}\n\nc\n")
    return folder


def use_program(monkeypatch, path, text):
    """Have a script run in place of the Python that would run fairseq-preprocess."""
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_result(dest, monkeypatch):
    monkeypatch.setattr(binarisation, "_run_preprocess", quick_preprocess)
    binarisation.binarise(dest, "en", "de", workers=1)
    names = {path.name for path in (dest / "bin").iterdir()}
    assert names == {"dict.en.txt", "dict.de.txt", "bpe.codes"} | {
        f"{split}.en-de.{language}.{end}" for split in STEMS for language in ("en", "de") for end in ("bin", "idx")
    }
    assert (dest / "bin" / "bpe.codes").read_text() == "#version: 0.2\na b\n"
    # a, b@@, c, de, en and the four of fairseq
    assert binarisation.dictionary_types(dest / "bin", "de") == 9


@pytest.mark.parametrize(("size", "cores", "expected"), [(100, 8, 1), (5 << 20, 8, 6), (5 << 20, 2, 2)])
def test_small_texts_get_few_processes(dest, monkeypatch, size, cores, expected):
    (dest / "bpe" / "train.de").write_text("x" * 99 + "\n" + "y" * (size - 101) + "\n")
    seen = []

    def note(folder, source, target, workers):
        seen.append(workers)
        quick_preprocess(folder, source, target, workers)

    monkeypatch.setattr(binarisation, "_run_preprocess", note)
    binarisation.binarise(dest, "en", "de", cores)
    assert seen == [expected]


def test_failure_shows_the_last_line_and_publishes_nothing(dest, tmp_path, monkeypatch):
    use_program(monkeypatch, tmp_path / "program", 'echo "Traceback"; echo "ValueError: no such thing" >&2; exit 3\n')
    with pytest.raises(PreparationError) as error:
        binarisation.binarise(dest, "en", "de", 1)
    assert "fairseq-preprocess failed with exit status 3: ValueError: no such thing" in str(error.value)
    assert "Traceback" not in str(error.value)
    assert not (dest / "bin").exists()
    log = str(error.value).split("(all of it: ")[1][:-1]
    with open(log) as file:
        assert file.read() == "Traceback\nValueError: no such thing\n"


def test_failure_without_a_word(dest, tmp_path, monkeypatch):
    use_program(monkeypatch, tmp_path / "program", "kill -9 $$\n")
    with pytest.raises(PreparationError, match="failed with exit status -9: no output"):
        binarisation.binarise(dest, "en", "de", 1)


def test_lost_sentences_are_noticed(dest, monkeypatch):
    def lossy(folder, source, target, workers):
        quick_preprocess(folder, source, target, workers)
        index = folder / "valid.en-de.de.idx"
        index.write_bytes(index.read_bytes().replace(b"\x03" + bytes(7), b"\x02" + bytes(7)))

    monkeypatch.setattr(binarisation, "_run_preprocess", lossy)
    with pytest.raises(PreparationError, match="made 2 sentences of 3 in valid.de"):
        binarisation.binarise(dest, "en", "de", 1)
    assert not (dest / "bin").exists()


def test_leftovers_of_an_earlier_run_do_not_get_in(dest, monkeypatch):
    monkeypatch.setattr(binarisation, "_run_preprocess", quick_preprocess)
    binarisation.binarise(dest, "en", "de", 1)
    clean = tree(dest / "bin")
    (dest / "bin").rename(dest / ".unfinished" / "bin")
    (dest / ".unfinished" / "bin" / "train1.en-de.en.bin").write_text("old")
    binarisation.binarise(dest, "en", "de", 1)
    assert tree(dest / "bin") == clean
