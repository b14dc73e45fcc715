"""All-or-nothing writing, and the lock."""

import json
import multiprocessing
import os
import shutil
import sys
import threading

import pytest

from selfkd_fairseq.data import files
from selfkd_fairseq.data.errors import PreparationError
from tests.data.corpus import tree


def test_files_appear_together_when_the_block_ends(tmp_path):
    with files.write_whole(tmp_path, ["a/x.en", "a/x.de"]) as (first, second):
        first.write("eins\u2028\n")
        second.write("zwei\r\n")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x.en").read_bytes() == "eins\u2028\n".encode()
    assert (tmp_path / "a" / "x.de").read_bytes() == b"zwei\r\n"


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), files.write_whole(tmp_path, ["a", "b"]) as (first, second):
        first.write("new")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_text() == "old"
    assert not (tmp_path / "b").exists()
    files.clear_unfinished(tmp_path)
    assert tree(tmp_path) == {"a": b"old"}


def test_a_folder_is_published_whole(tmp_path):
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "x").write_text("1")
    files.publish(tmp_path / "draft", tmp_path / "sub" / "final")
    assert tree(tmp_path) == {"sub": None, "sub/final": None, "sub/final/x": b"1"}


def test_json_has_sorted_keys_and_reads_back(tmp_path):
    files.write_json(tmp_path, "r.json", {"b": "ä", "a": [1, None]})
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [1, None], "b": "ä"}
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


def test_lines_end_at_line_feeds_only(tmp_path):
    (tmp_path / "t").write_bytes("a\u2028b\r\n\nc".encode())
    assert list(files.read_lines(tmp_path / "t")) == ["a\u2028b\r", "", "c"]
    assert files.count_lines(tmp_path / "t") == 3


def test_unfinished_files_go_even_if_an_orphan_is_still_writing(tmp_path, monkeypatch):
    folder = tmp_path / files.UNFINISHED
    folder.mkdir()
    remove = shutil.rmtree
    calls = []

    def disturbed(path):
        calls.append(path)
        if len(calls) == 1:
            raise OSError(39, "Directory not empty")
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", disturbed)
    files.clear_unfinished(tmp_path)
    assert len(calls) == 2
    assert not folder.exists()


def hold(folder, held, release):
    with files.sole_user(folder):
        held.set()
        release.wait(20)


def test_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.2)
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    try:
        assert held.wait(10)
        with pytest.raises(PreparationError, match="another selfkd-prepare is at work"), files.sole_user(tmp_path):
            raise AssertionError("got in")
    finally:
        other.kill()
        other.join()
    with files.sole_user(tmp_path):  # the system let go of it
        pass
    assert tree(tmp_path) == {}


def test_a_lock_that_is_let_go_of_soon_is_waited_for(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(10)
    threading.Timer(0.3, release.set).start()
    with files.sole_user(tmp_path):
        assert release.is_set()
    other.join()


def test_windows_has_no_folders_to_flush_and_no_lock(tmp_path, monkeypatch):
    """It opens no folder, flushes only what is open for writing, and has no fcntl."""
    real = os.open

    def as_on_windows(path, flags):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        assert flags & os.O_RDWR
        return real(path, flags)

    monkeypatch.setattr(files.os, "open", as_on_windows)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with monkeypatch.context() as windows:
        windows.setattr(files.os, "name", "nt")
        (unfinished := tmp_path / "draft").write_text("1")
        with files.sole_user(tmp_path):
            files.publish(unfinished, tmp_path / "final")
    assert tree(tmp_path) == {"final": b"1"}
