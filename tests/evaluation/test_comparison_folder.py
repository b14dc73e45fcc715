"""The output folder comes whole or not at all, and nothing of the user's is lost."""

import os

import pytest

from selfkd_fairseq.evaluation.comparison_folder import check_place, write_folder
from selfkd_fairseq.evaluation.errors import ComparisonError

OURS = '{"program": "selfkd-compare"}'


def write(text):
    def write_files(folder):
        (folder / "comparison.json").write_text(OURS)
        (folder / "table.md").write_text(text)

    return write_files


def test_folder_is_made_and_replaced_as_a_whole(tmp_path):
    output = tmp_path / "not yet" / "there"
    write_folder(output, write("one"))
    (output / "alpha.png").touch()
    inode = os.stat(output).st_ino
    write_folder(output, write("two"))
    assert sorted(os.listdir(output)) == ["comparison.json", "table.md"] and os.stat(output).st_ino != inode
    assert (output / "table.md").read_text() == "two" and os.listdir(output.parent) == ["there"]
    (tmp_path / "plain").mkdir()
    assert os.stat(output).st_mode == os.stat(tmp_path / "plain").st_mode


def test_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out", write("x"))
    assert (tmp_path / "out" / "table.md").exists()


def test_failure_leaves_everything_as_it_was(tmp_path):
    output = tmp_path / "out"

    def fail(folder):
        write("new")(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(output, fail)
    assert os.listdir(tmp_path) == []
    write_folder(output, write("old"))
    with pytest.raises(KeyboardInterrupt):
        write_folder(output, fail)
    assert os.listdir(tmp_path) == ["out"] and (output / "table.md").read_text() == "old"


def test_earlier_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    output = tmp_path / "out"
    write_folder(output, write("old"))
    rename = os.rename

    def fail_once(source, target):
        if source.endswith("unfinished"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(OSError, match="No space"):
        write_folder(output, write("new"))
    assert os.listdir(tmp_path) == ["out"] and (output / "table.md").read_text() == "old"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": "x"}, "is not empty and not made by selfkd-compare"),
        ({"comparison.json": "{}"}, "not made by selfkd-compare"),
        ({"comparison.json": "["}, "not made by selfkd-compare"),
        ({"comparison.json": OURS, "notes.txt": "x"}, "holds notes.txt, which selfkd-compare did not make"),
    ],
)
def test_folders_of_others_are_refused(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ComparisonError, match=message):
        check_place(tmp_path)
    with pytest.raises(ComparisonError, match=message):
        write_folder(tmp_path, write("x"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_file_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ComparisonError, match="is not a folder"):
        check_place(tmp_path / "out")
