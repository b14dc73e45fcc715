"""Binarised data and dictionaries that are damaged or do not fit the checkpoint: one line each, no result."""

import random
import shutil
import struct

import pytest

from selfkd_fairseq.cli import evaluate
from tests import fairseq_setup
from tests.hostile.commands import (
    FAIRSEQ_COMMANDS,
    ON_DATA,
    TRAIN_STREAM,
    TRAIN_TRANSFORMER,
    refused,
    refused_by_fairseq,
)
from tests.language_model import TASK, TINY_ZAREMBA

EVALUATE = ["selfkd-evaluate"]
SIDES = ["test.src-tgt.src", "test.src-tgt.tgt"]


def copied(data, folder, name, change):
    """A copy of the data with one file changed."""
    shutil.copytree(data, folder)
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    return folder


def doubled(content):
    return content + content


def zeroed(content):
    return bytes(len(content))


def filled(content):
    return b"\xff" * len(content)


BIN = {
    **{f"cut at {length}": lambda content, length=length: content[:length] for length in (1, 2, 34, 91)},
    "cut 1 before the end": lambda content: content[:-1],
    "cut a word before the end": lambda content: content[:-2],
    "one byte more": lambda content: content + b"\0",
    "twice as long": doubled,
    "zeros": zeroed,
    "zeros in the middle": lambda content: content[:60] + bytes(60) + content[120:],
    "words of no dictionary": filled,
    "one word of no dictionary": lambda content: content[:50] + struct.pack("<H", 64) + content[52:],
}
IDX = {
    **{f"cut at {length}": lambda content, length=length: content[:length] for length in (0, 1, 8, 9, 17, 25, 26, 60)},
    "cut 1 before the end": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "twice as long": doubled,
    "zeros": zeroed,
    "zeros after the mark": lambda content: content[:9] + bytes(len(content) - 9),
    "another mark": filled,
    "another version": lambda content: content[:9] + struct.pack("<Q", 2) + content[17:],
    "another type of words": lambda content: content[:17] + b"\5" + content[18:],
    "words that are no integers": lambda content: content[:17] + b"\6" + content[18:],
    "an unknown type of words": lambda content: content[:17] + b"\x63" + content[18:],
    "a sentence too many": lambda content: content[:18] + struct.pack("<Q", 13) + content[26:],
    "more sentences than atoms": lambda content: content[:18] + b"\xff" * 8 + content[26:],
    "a negative length": lambda content: content[:26] + struct.pack("<i", -3) + content[30:],
    "other lengths": lambda content: content[:26] + content[30:34] + content[26:30] + content[34:],
    "an offset beyond the end": lambda content: content[:-8] + struct.pack("<q", 1 << 40),
}
CASES = [*[("bin", name) for name in BIN], *[("idx", name) for name in IDX]]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("end", "damage"), CASES)
def test_a_damaged_split_is_one_line(transformer, tiny_translation, tmp_path, capsys, side, end, damage):
    change = {"bin": BIN, "idx": IDX}[end][damage]
    data = copied(tiny_translation, tmp_path / "data", f"{side}.{end}", change)
    (message,) = refused(capsys, transformer, data, tmp_path / "out", EVALUATE).values()
    assert message.startswith(str(data / side)) and "damaged" in message


@pytest.mark.parametrize(("end", "damage"), CASES)
def test_a_damaged_stream_is_one_line(stream_model, tiny_language_model, tmp_path, capsys, end, damage):
    change = {"bin": BIN, "idx": IDX}[end][damage]
    data = copied(tiny_language_model, tmp_path / "data", f"test.{end}", change)
    (message,) = refused(capsys, stream_model, data, tmp_path / "out", EVALUATE).values()
    assert message.startswith(str(data / "test.")) and "damaged" in message


SHORT = [("bin", 0), ("bin", 91), ("idx", 0), ("idx", 60)]


def cut(length):
    return lambda content: content[:length]


@pytest.mark.parametrize(("end", "length"), SHORT)
@pytest.mark.parametrize("name", FAIRSEQ_COMMANDS)
def test_a_split_cut_short_is_one_line_of_fairseq(
    transformer, tiny_translation, tmp_path, capsys, monkeypatch, name, end, length
):
    split = {"fairseq-train": "train", "fairseq-validate": "valid", "fairseq-generate": "test"}[name]
    file = f"{split}.src-tgt.tgt.{end}"
    data = copied(tiny_translation, tmp_path / "data", file, cut(length))
    arguments = TRAIN_TRANSFORMER if name == "fairseq-train" else [*FAIRSEQ_COMMANDS[name], transformer]
    message = refused_by_fairseq(capsys, monkeypatch, name, data, *arguments, "--num-workers", "0")
    assert message.startswith(f"{data / file} is damaged")


@pytest.mark.parametrize(("end", "length"), SHORT)
@pytest.mark.parametrize("name", ["fairseq-train", "fairseq-eval-lm"])
def test_a_stream_cut_short_is_one_line_of_fairseq(
    stream_model, tiny_language_model, tmp_path, capsys, monkeypatch, name, end, length
):
    file = f"{'train' if name == 'fairseq-train' else 'test'}.{end}"
    data = copied(tiny_language_model, tmp_path / "data", file, cut(length))
    arguments = TRAIN_STREAM if name == "fairseq-train" else ["--path", stream_model, "--batch-size", "1"]
    message = refused_by_fairseq(capsys, monkeypatch, name, data, *arguments)
    assert message.startswith(f"{data / file} is damaged")


def test_the_second_part_of_a_split(tiny_language_model, tmp_path, capsys, monkeypatch):
    data = copied(tiny_language_model, tmp_path / "data", "train.bin", lambda content: content)
    shutil.copy(data / "train.idx", data / "train1.idx")
    (data / "train1.bin").write_bytes(b"\5\0")
    message = refused_by_fairseq(capsys, monkeypatch, "fairseq-train", data, *TRAIN_STREAM)
    assert message == f"{data / 'train1.bin'} is damaged: it has 2 bytes, and {data / 'train1.idx'} says 2756"


def test_a_split_without_a_sentence(tiny_language_model, tmp_path, capsys, monkeypatch):
    data = copied(tiny_language_model, tmp_path / "data", "valid.bin", cut(0))
    (data / "valid.idx").write_bytes((data / "valid.idx").read_bytes()[:18] + bytes(8))
    message = refused_by_fairseq(capsys, monkeypatch, "fairseq-train", data, *TRAIN_STREAM)
    assert message == f"{data / 'valid.idx'} is empty: it has no sentence"


def test_sentences_without_an_end_are_data_for_fairseq(tiny_language_model, tmp_path):
    data = copied(tiny_language_model, tmp_path / "data", "train.bin", lambda content: b"\5\0" * (len(content) // 2))
    assert (fairseq_setup.build(data, *TASK, *TINY_ZAREMBA).task.dataset("train").tokens == 5).all()


@pytest.mark.parametrize("end", ["idx", "bin"])
@pytest.mark.parametrize("side", SIDES)
def test_any_changed_byte_is_one_line_or_another_text(transformer, tiny_translation, tmp_path, capsys, side, end):
    """A word may become another word of the dictionary; all else is noticed."""
    data = copied(tiny_translation, tmp_path / "data", f"{side}.{end}", lambda content: content)
    file, out, rng = data / f"{side}.{end}", tmp_path / "out", random.Random(3)
    whole = file.read_bytes()
    for position in rng.sample(range(len(whole)), 12):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ rng.choice([1, 255])]) + whole[position + 1 :])
        status = evaluate.main([str(data), "--path", str(transformer), "--results-path", str(out), "--cpu"])
        err = capsys.readouterr().err
        assert (status, err.count("\n")) == (1, 1) or ((status, err) == (0, "") and end == "bin"), (position, err)
        assert status == 0 or str(data) in err


@pytest.mark.parametrize("missing", ["test.src-tgt.src.bin", "test.src-tgt.tgt.bin", "test.src-tgt.src.idx"])
@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_file_is_one_line(transformer, tiny_translation, tmp_path, capsys, missing, folder):
    data = copied(tiny_translation, tmp_path / "data", missing, lambda content: content)
    (data / missing).unlink()
    if folder:
        (data / missing).mkdir()
    (message,) = refused(capsys, transformer, data, tmp_path / "out", EVALUATE).values()
    assert str(data) in message


DICTIONARIES = {
    "Incorrect dictionary format": {
        "a word without a count": lambda content: content + b"word\n",
        "a count that is no number": lambda content: content + b"word x\n",
        "an empty line": lambda content: content + b"\n",
        "a count of 5,000 digits": lambda content: content + b"word " + b"9" * 5000 + b"\n",
        "zeros": zeroed,
        "terminal control": lambda content: content + b"\x1b[2J\x1b[31mword\n",
    },
    "Incorrect encoding": {"not UTF-8": filled},
    "Duplicate word": {"a word twice": lambda content: content + content.splitlines(True)[0]},
    "was trained with a dictionary of 64 words": {
        "smaller": lambda content: b"".join(content.splitlines(True)[:9]),
        "larger": lambda content: content + b"new 1\n",
        "nothing": lambda content: b"",
    },
}


@pytest.mark.parametrize("name", ["dict.src.txt", "dict.tgt.txt"])
@pytest.mark.parametrize(
    ("reason", "change"),
    [
        pytest.param(reason, change, id=name)
        for reason, changes in DICTIONARIES.items()
        for name, change in changes.items()
    ],
)
def test_another_dictionary_is_one_line(transformer, tiny_translation, tmp_path, capsys, name, reason, change):
    data = copied(tiny_translation, tmp_path / "data", name, change)
    for message in refused(capsys, transformer, data, tmp_path / "out", ON_DATA).values():
        assert reason in message and str(data) in message and message.isprintable()


OTHER_SIZES = {"smaller": 9, "larger": 61}


@pytest.mark.parametrize("size", OTHER_SIZES)
@pytest.mark.parametrize("name", FAIRSEQ_COMMANDS)
def test_a_dictionary_of_another_size_is_one_line_of_fairseq(
    transformer, tiny_translation, tmp_path, capsys, monkeypatch, name, size
):
    """A training opens the data before the checkpoint, and finds words beyond a smaller dictionary there."""
    data = tmp_path / "data"
    shutil.copytree(tiny_translation, data)
    for side in ("src", "tgt"):
        words = (data / f"dict.{side}.txt").read_text().splitlines()
        (data / f"dict.{side}.txt").write_text("\n".join([*words, "new 1"][: OTHER_SIZES[size]]) + "\n")
    message = refused_by_fairseq(capsys, monkeypatch, name, data, *FAIRSEQ_COMMANDS[name], transformer)
    if (name, size) == ("fairseq-train", "smaller"):
        assert (
            message.startswith(f"{data}/valid.src-tgt.src.bin has a word 6") and ", and the dictionary 13 " in message
        )
    else:
        own = OTHER_SIZES[size] + 4
        reason = f"was trained with a dictionary of 64 words and the data has one of {own}: binarise the data "
        assert message.startswith(f"{transformer} {reason}")
