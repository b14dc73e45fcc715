"""``selfkd-neighbours`` as a command, on checkpoints that fairseq's trainer wrote."""

import csv
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.trainer import Trainer

from selfkd_fairseq.cli import neighbours as command
from tests import definition, fairseq_setup

FILES = ["neighbours.csv", "neighbours.md", "neighbours.png"]
OWN_SOFT_TARGETS = ["--skd-teacher", "embedding", "--skd-temperature", "0.75"]
OWN_SOFT_TARGETS += ["--skd-temperature-scale", "absolute", "--skd-min-target-prob", "0.2"]


def save(data, path, *flags):
    """A checkpoint as fairseq-train writes it, after one update."""
    setup = fairseq_setup.build(data, *flags)
    trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
    trainer.begin_epoch(1)
    trainer.train_step([fairseq_setup.batches(setup)[0]])
    trainer.consolidate_optimizer()
    trainer.save_checkpoint(str(path), {"train_iterator": {"epoch": 1, "iterations_in_epoch": 1}, "val_loss": 1.0})
    return path


@pytest.fixture(scope="module")
def translation(tiny_translation, tmp_path_factory):
    """A Transformer trained with self_kd and soft targets that are not the defaults."""
    checkpoint = save(
        tiny_translation, tmp_path_factory.mktemp("translation") / "model.pt", *fairseq_setup.TINY_TRANSFORMER,
        "--share-all-embeddings", "--criterion", "self_kd", *OWN_SOFT_TARGETS,
    )  # fmt: skip
    return SimpleNamespace(checkpoint=checkpoint, data=tiny_translation)


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def expected_rows(checkpoint, data, matrix, words, count, **soft):
    """(word, neighbour, rank, distance, distance / RMS, q nearest, q full) in numpy, from the files themselves."""
    weight = torch.load(checkpoint, weights_only=True)["model"][matrix].double().numpy()
    entries = [line.rsplit(" ", 1)[0] for line in data.read_text(encoding="utf-8").splitlines()]
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *entries]
    rms = np.sqrt(2 * np.mean(np.sum((weight - weight.mean(axis=0)) ** 2, axis=1)))
    space, rows = definition.Space(weight), []
    for target in map(symbols.index, words):
        token = definition.Token(target, excluded=frozenset({0, 1}))
        q_nearest, q_full = (
            definition.row_of(token, space, definition.Options(support, count, **soft)).probs
            for support in ("nearest", "full")
        )
        for rank, k in enumerate([target, *definition.nearest(weight, target, count, {0, 1})]):
            distance = np.sqrt(np.sum((weight[target] - weight[k]) ** 2))
            numbers = [distance, distance / rms, q_nearest[k], q_full[k]]
            rows.append([symbols[target], symbols[k], rank, *(pytest.approx(x, rel=1e-4, abs=1e-6) for x in numbers)])
    return rows


def written_rows(folder):
    with open(folder / "neighbours.csv", newline="", encoding="utf-8") as file:
        return [
            [row["word"], row["neighbour"], int(row["rank"]),
             *(float(row[name]) for name in ("distance", "distance / RMS", "q nearest", "q full"))]
            for row in csv.DictReader(file)
        ]  # fmt: skip


def test_table_and_files(translation, tmp_path, capsys):
    output = tmp_path / "deeper" / "out"
    status, out, err = run(
        capsys, translation.checkpoint, "--data", translation.data, "--output", output, "--words", "t3", "t11", "t3",
        "</s>", "--count", 3,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert sorted(os.listdir(output)) == FILES
    dictionary = translation.data / "dict.tgt.txt"
    expected = expected_rows(
        translation.checkpoint, dictionary, "decoder.output_projection.weight", ["t3", "t11", "</s>"], 3,
        temperature=0.75, temperature_scale="absolute", min_target_prob=0.2,
    )  # fmt: skip
    assert written_rows(output) == expected
    table, notes = out.split("\n\n")
    assert [line.split()[:3] for line in table.splitlines()[1:]] == [[*row[:2], str(row[2])] for row in expected]
    assert "support predicted of 1" in notes and "temperature 0.75 absolute (as a distance 0.75)" in notes
    assert "support nearest of 3; q full: with the exact support full" in notes and "floor of 0.2" in notes
    report = (output / "neighbours.md").read_text(encoding="utf-8")
    assert report.count("\n| ") == 2 + len(expected) and "q full: with the exact support full" in report
    assert (output / "neighbours.png").read_bytes().startswith(b"\x89PNG")
    # Frequencies are those of the dictionary file, which does not count </s>.
    frequencies = dict(line.rsplit(" ", 1) for line in dictionary.read_text(encoding="utf-8").splitlines())
    with open(output / "neighbours.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert row["frequency"] == frequencies.get(row["neighbour"], "")


def test_options_win_over_the_training(translation, tmp_path, capsys):
    status, out, _ = run(
        capsys, translation.checkpoint, "--data", translation.data, "--output", tmp_path, "--words", "t5",
        "--skd-temperature", 2, "--skd-temperature-scale", "relative", "--skd-min-target-prob", 0,
    )  # fmt: skip
    assert status == 0 and "temperature 2 relative" in out
    assert written_rows(tmp_path) == expected_rows(
        translation.checkpoint, translation.data / "dict.tgt.txt", "encoder.embed_tokens.weight", ["t5"], 8,
        temperature=2.0, min_target_prob=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("similarity", ["gaussian", "cosine"])
def test_similarity_of_the_command_line(similarity, translation, tmp_path, capsys):
    status, out, _ = run(
        capsys, translation.checkpoint, "--data", translation.data, "--output", tmp_path, "--words", "t5", "</s>",
        "--skd-similarity", similarity, "--skd-temperature", 0.5, "--skd-temperature-scale", "relative",
    )  # fmt: skip
    assert status == 0 and similarity in out
    assert written_rows(tmp_path) == expected_rows(
        translation.checkpoint, translation.data / "dict.tgt.txt", "encoder.embed_tokens.weight", ["t5", "</s>"], 8,
        temperature=0.5, similarity=similarity, min_target_prob=0.2,
    )  # fmt: skip


def test_what_the_matrix_alone_says_of_a_model_with_a_teacher_of_its_own(tiny_translation, tmp_path, capsys):
    """Four times -D^2 / (2 tau^2) is that of half of tau."""
    checkpoint = save(
        tiny_translation, tmp_path / "model.pt", *fairseq_setup.TINY_TRANSFORMER, "--criterion", "self_kd",
        *OWN_SOFT_TARGETS, "--skd-teacher", "self", "--skd-support", "predicted", "--skd-normalise", "support",
        "--skd-student-temperature", "2", "--skd-control", "shuffled", "--skd-similarity", "gaussian",
        "--skd-embedding-weight", "4",
    )  # fmt: skip
    status, *_ = run(capsys, checkpoint, "--data", tiny_translation, "--output", tmp_path / "out", "--words", "t5")
    assert status == 0
    assert written_rows(tmp_path / "out") == expected_rows(
        checkpoint, tiny_translation / "dict.tgt.txt", "decoder.output_projection.weight", ["t5"], 8,
        temperature=0.375, temperature_scale="absolute", min_target_prob=0.2, similarity="gaussian",
    )  # fmt: skip


def test_language_model_of_another_criterion(tiny_language_model, tmp_path, capsys):
    checkpoint = save(
        tiny_language_model, tmp_path / "model.pt", *fairseq_setup.TINY_LSTM_LM, "--criterion", "cross_entropy"
    )
    output = tmp_path / "out"
    output.mkdir()
    (output / "neighbours.csv").write_text("an older one")
    status, out, err = run(
        capsys, checkpoint, "--data", tiny_language_model, "--output", output, "--most-frequent", 4, "--count", 2
    )
    assert (status, err) == (0, "") and "It was not trained with self_kd." in out
    dictionary = tiny_language_model / "dict.txt"
    lines = [line.rsplit(" ", 1) for line in dictionary.read_text(encoding="utf-8").splitlines()]
    words = [word for word, _ in sorted(lines, key=lambda line: -int(line[1]))[:4]]
    assert written_rows(output) == expected_rows(checkpoint, dictionary, "decoder.fc_out.weight", words, 2)
    assert sorted(os.listdir(output)) == FILES


def test_characters_without_a_glyph_are_a_note(translation, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(translation.data, data)
    for file in data.glob("dict.*.txt"):
        file.write_text(file.read_text(encoding="utf-8").replace("t3 ", "日本 "), encoding="utf-8")
    status, out, err = run(
        capsys, translation.checkpoint, "--data", data, "--output", tmp_path / "out", "--words", "日本"
    )
    assert status == 0 and "日本" in out and err.count("\n") == 1
    assert err.startswith("selfkd-neighbours: note: matplotlib's font lacks 2 characters (日本)")


def with_dictionary(data, folder, edit):
    """A copy of the data with other dictionaries."""
    shutil.copytree(data, folder)
    for file in folder.glob("dict.*.txt"):
        file.write_text(edit(file.read_text(encoding="utf-8")), encoding="utf-8")
    return folder


def test_bad_input_is_one_line_and_writes_nothing(translation, tiny_language_model, tmp_path, capsys):
    checkpoint, data = translation.checkpoint, translation.data
    (tmp_path / "text.pt").write_text("text")
    torch.save({"no": "model"}, tmp_path / "other.pt")
    torch.save({"model": {}, "cfg": Path("x")}, tmp_path / "unsafe.pt")
    smaller = with_dictionary(data, tmp_path / "smaller", lambda text: "".join(text.splitlines(True)[:9]))
    segmented = with_dictionary(data, tmp_path / "segmented", lambda text: text.replace("t3 ", "t3@@ "))
    cases = {
        f"error: not in {data / 'dict.tgt.txt'}: T3 日本\n": [checkpoint, data, "--words", "t1", "T3", "日本"],
        "dict.tgt.txt: t3 (the text is segmented by BPE": [checkpoint, segmented, "--words", "t3"],
        "was trained with a dictionary of 64 words and": [checkpoint, smaller],
        "No such file or directory (": [tmp_path / "absent.pt", data],
        f"{tmp_path / 'absent'} is not a folder of binarised data": [checkpoint, tmp_path / "absent"],
        "holds no binarised pair of languages": [checkpoint, tiny_language_model],
        "text.pt is damaged, or not a checkpoint": [tmp_path / "text.pt", data],
        "other.pt is not a checkpoint of fairseq-train: it holds no model": [tmp_path / "other.pt", data],
        "unsafe.pt holds pathlib": [tmp_path / "unsafe.pt", data],
        "--count must be less than the 64 words of the dictionary": [checkpoint, data, "--count", 64],
        "temperature must be above 0 and finite, got 0.0": [checkpoint, data, "--skd-temperature", 0],
        "min_target_prob must be in [0, 1], got 2.0": [checkpoint, data, "--skd-min-target-prob", 2],
    }
    for message, (path, folder, *more) in cases.items():
        status, out, err = run(capsys, path, "--data", folder, "--output", tmp_path / "out", *more)
        assert (status, out, err.count("\n")) == (1, "", 1) and message in err, err
        assert err.startswith("selfkd-neighbours: error: ") and not (tmp_path / "out").exists()
    status, out, err = run(capsys, checkpoint, "--data", data, "--output", tmp_path / "text.pt")
    assert (status, out, err.count("\n")) == (1, "", 1) and "File exists" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--count 0", "a whole number of at least 1 is needed, got '0'"),
        ("--words a --most-frequent 3", "not allowed with"),
        ("--skd-temperature-scale other", "invalid choice"),
    ],
)
def test_bad_options_are_one_line_and_status_2(capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        command.main(["model.pt", "--data", "data", "--output", "out", *options.split()])
    captured = capsys.readouterr()
    assert (caught.value.code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert captured.err.startswith("selfkd-neighbours: error: ") and message in captured.err
