"""The call of fairseq-preprocess, what is made of its failures, and the reading of what it wrote."""

import array
import struct
import sys

import pytest

from selfkd_fairseq.data import binarisation, binarised_index
from selfkd_fairseq.data.errors import PreparationError
from tests.data.corpus import tree
from tests.data.quick_preprocess import quick_preprocess

OPTIONS = ["--only-source", *(f"--{split}pref=../../text/{split}" for split in ("train", "valid", "test"))]
OPTIONS = " ".join(OPTIONS).replace("=", " ").split()


@pytest.fixture
def dest(tmp_path):
    """A destination with three sentences in each text."""
    folder = tmp_path / "dest"
    (folder / "text").mkdir(parents=True)
    for split in ("train", "valid", "test"):
        (folder / "text" / split).write_text("a b <unk>\n\nc\n")
    return folder


def binarise(dest, workers=1, complete=lambda folder: None):
    binarisation.binarise(dest, ["text/train"], OPTIONS, workers, complete)


def use_program(monkeypatch, path, text):
    """Have a script run in place of the Python that would run fairseq-preprocess."""
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_the_command(dest, tmp_path, monkeypatch):
    use_program(
        monkeypatch, tmp_path / "program", 'printf "%s|" "$PWD" "$@" > preprocess.log; cp preprocess.log seen\n'
    )
    binarise(dest, workers=1)
    assert (dest / "bin" / "seen").read_text().split("|")[:-1] == [
        str(dest / ".unfinished" / "bin"), "-m", "fairseq_cli.preprocess", *OPTIONS, "--destdir", ".", "--workers", "1",
    ]  # fmt: skip


def test_result_is_completed_before_it_appears(dest, monkeypatch):
    def complete(folder):
        assert not (dest / "bin").exists()
        (folder / "codes").write_text("more")

    monkeypatch.setattr(binarisation, "run_preprocess", quick_preprocess)
    binarise(dest, complete=complete)
    stems = {f"{split}.{end}" for split in ("train", "valid", "test") for end in ("bin", "idx")}
    assert set(tree(dest / "bin")) == {"dict.txt", "codes"} | stems
    # a, b, c and the four of fairseq
    assert binarisation.dictionary_types(dest / "bin" / "dict.txt") == 7
    assert binarised_index.read_header(dest / "bin" / "train.idx").sentences == 3


def test_nothing_appears_if_the_result_is_refused(dest, monkeypatch):
    def complete(folder):
        raise PreparationError("no good")

    monkeypatch.setattr(binarisation, "run_preprocess", quick_preprocess)
    with pytest.raises(PreparationError, match="no good"):
        binarise(dest, complete=complete)
    assert not (dest / "bin").exists()


@pytest.mark.parametrize(("size", "cores", "expected"), [(100, 8, 1), (5 << 20, 8, 6), (5 << 20, 2, 2)])
def test_small_texts_get_few_processes(dest, monkeypatch, size, cores, expected):
    (dest / "text" / "train").write_text("x" * 99 + "\n" + "y" * (size - 101) + "\n")
    seen = []

    def note(folder, options, workers):
        seen.append(workers)
        quick_preprocess(folder, options, workers)

    monkeypatch.setattr(binarisation, "run_preprocess", note)
    binarise(dest, cores)
    assert seen == [expected]


def test_failure_shows_the_last_line_and_publishes_nothing(dest, tmp_path, monkeypatch):
    use_program(monkeypatch, tmp_path / "program", 'echo "Traceback"; echo "ValueError: no such thing" >&2; exit 3\n')
    with pytest.raises(PreparationError) as error:
        binarise(dest)
    assert "fairseq-preprocess failed with exit status 3: ValueError: no such thing" in str(error.value)
    assert "Traceback" not in str(error.value)
    assert not (dest / "bin").exists()
    log = str(error.value).split("(all of it: ")[1][:-1]
    with open(log) as file:
        assert file.read() == "Traceback\nValueError: no such thing\n"


def test_failure_without_a_word(dest, tmp_path, monkeypatch):
    use_program(monkeypatch, tmp_path / "program", "kill -9 $$\n")
    with pytest.raises(PreparationError, match="failed with exit status -9: no output"):
        binarise(dest)


def test_leftovers_of_an_earlier_run_do_not_get_in(dest, monkeypatch):
    monkeypatch.setattr(binarisation, "run_preprocess", quick_preprocess)
    binarise(dest)
    clean = tree(dest / "bin")
    (dest / "bin").rename(dest / ".unfinished" / "bin")
    (dest / ".unfinished" / "bin" / "train1.bin").write_text("old")
    binarise(dest)
    assert tree(dest / "bin") == clean


@pytest.mark.parametrize(("code", "kind"), [(8, "H"), (9, "I"), (4, "i")])
def test_reading_counts_tokens_and_special_words(tmp_path, code, kind):
    ids = [4, 3, 2, 2, 70 if kind == "H" else 70_000, 3, 3, 2] * 200_000  # more than one block
    (tmp_path / "train.bin").write_bytes(array.array(kind, ids).tobytes())
    (tmp_path / "train.idx").write_bytes(struct.pack("<9sQBQ", b"MMIDIDX\x00\x00", 1, code, 600_000) + b"sizes")
    found = binarisation.read_binary(tmp_path / "train")
    assert (found.sentences, found.tokens) == (600_000, 1_600_000)
    assert found.special == (0, 0, 600_000, 600_000)


INDEX = struct.pack("<9sQBQ2i2q", b"MMIDIDX\x00\x00", 1, 8, 2, 3, 1, 0, 6)


def test_an_index_says_where_each_sentence_lies(tmp_path):
    (tmp_path / "train.idx").write_bytes(INDEX)
    assert binarised_index.read_header(tmp_path / "train.idx") == ("<u2", 2)
    lengths, offsets = binarised_index.read_sentences(tmp_path / "train.idx")
    assert (lengths.tolist(), offsets.tolist()) == ([3, 1], [0, 6])
    assert lengths.dtype == offsets.dtype == "int64"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (INDEX[:25], "or no index"),
        (b"X" + INDEX[1:], "or no index"),
        (INDEX[:9] + struct.pack("<Q", 2) + INDEX[17:], "version 2 of the format"),
        (INDEX[:17] + b"\x63" + INDEX[18:], "tokens of type 99"),
    ],
    ids=["cut", "another mark", "another version", "another type"],
)
def test_a_damaged_header_is_one_line(tmp_path, content, reason):
    (tmp_path / "train.idx").write_bytes(content)
    (tmp_path / "train.bin").write_bytes(b"")
    for read in (binarised_index.read_header, binarised_index.read_sentences):
        with pytest.raises(PreparationError, match=f"train.idx is damaged.*{reason}"):
            read(tmp_path / "train.idx")
    with pytest.raises(PreparationError):
        binarisation.read_binary(tmp_path / "train")


@pytest.mark.parametrize("content", [INDEX[:-1], INDEX + b"\0", INDEX[:18] + b"\xff" * 8 + INDEX[26:]], ids=len)
def test_an_index_of_another_size_than_its_header_says(tmp_path, content):
    (tmp_path / "train.idx").write_bytes(content)
    with pytest.raises(PreparationError, match=r"train.idx is damaged: \d+ bytes, and \d+ sentences in its header"):
        binarised_index.read_sentences(tmp_path / "train.idx")
