"""Which destinations are refused."""

import json

import pytest

from selfkd_fairseq.data import destination
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.files import UNFINISHED
from tests.data.corpus import tree


class TestPlace:
    def test_apart_is_fine(self, tmp_path):
        destination.check_place(tmp_path / "dest", tmp_path / "raw", downloaded=False)
        destination.check_place(tmp_path / "dest", tmp_path / "raw", downloaded=True)
        destination.check_place(tmp_path / "dest", tmp_path / "dest" / "download", downloaded=True)
        # Only whole names count: /a/rawest does not lie in /a/raw.
        destination.check_place(tmp_path / "rawest", tmp_path / "raw", downloaded=False)

    @pytest.mark.parametrize("dest", ["raw", "raw/dest", "raw/a/b"])
    @pytest.mark.parametrize("downloaded", [False, True])
    def test_in_the_raw_folder(self, tmp_path, dest, downloaded):
        option = "--download-dir" if downloaded else "--raw"
        with pytest.raises(PreparationError, match=f"must not be, or lie in, the {option} folder"):
            destination.check_place(tmp_path / dest, tmp_path / "raw", downloaded)

    @pytest.mark.parametrize("folder", ["raw", "bin", UNFINISHED, "download/more"])
    def test_downloads_among_the_results(self, tmp_path, folder):
        with pytest.raises(PreparationError, match="must lie outside --dest"):
            destination.check_place(tmp_path / "dest", tmp_path / "dest" / folder, downloaded=True)

    def test_path_that_fairseq_would_cut(self, tmp_path):
        with pytest.raises(PreparationError, match="fairseq would cut the path"):
            destination.check_place(tmp_path / "a:b", tmp_path / "raw", downloaded=False)


class TestOwner:
    def test_absent_empty_or_barely_begun(self, tmp_path):
        assert destination.read_begun(tmp_path / "absent") is None
        assert destination.read_begun(tmp_path) is None
        (tmp_path / UNFINISHED).mkdir()
        assert destination.read_begun(tmp_path) is None

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "stamp.json", "bin"])
    def test_anything_else_in_it(self, tmp_path, name):
        (tmp_path / name).write_text("{}")
        with pytest.raises(PreparationError, match="not empty and not made by selfkd-prepare"):
            destination.read_begun(tmp_path)
        assert tree(tmp_path) == {name: b"{}"}

    def test_file(self, tmp_path):
        (tmp_path / "dest").write_text("x")
        with pytest.raises(PreparationError, match="is not a folder"):
            destination.read_begun(tmp_path / "dest")

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": {}}', "\ud800"])
    def test_damaged_record(self, tmp_path, content):
        (tmp_path / destination.BEGUN).write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(PreparationError, match="is damaged"):
            destination.read_begun(tmp_path)

    def test_record(self, tmp_path):
        record = {"settings": {"a": 1}, "inputs": {}, "versions": {}}
        (tmp_path / destination.BEGUN).write_text(json.dumps(record))
        assert destination.read_begun(tmp_path) == record
        assert destination.read_stamp(tmp_path) is None
        (tmp_path / destination.STAMP).write_text(json.dumps(record))
        assert destination.read_stamp(tmp_path) == record


class TestSame:
    def test_equal(self, tmp_path):
        destination.check_same(tmp_path, "settings", {"a": 1, "b": True}, {"b": True, "a": 1})

    def test_each_difference_is_named(self, tmp_path):
        there = {"bpe_merges": 10, "lowercase": True, "source": "en", "x.gz": "0" * 64}
        here = {"bpe_merges": 20, "lowercase": False, "source": "en", "y.gz": "1" * 64}
        with pytest.raises(PreparationError) as error:
            destination.check_same(tmp_path, "settings", there, here)
        message = str(error.value)
        assert message.startswith(f"{tmp_path} was begun with other settings: ")
        assert "bpe_merges is 10 there and 20 here" in message
        assert "lowercase is true there and false here" in message
        assert "x.gz is 000000000000... there and absent here" in message
        assert "y.gz is absent there and 111111111111... here" in message
        assert "source" not in message
        assert "\n" not in message
