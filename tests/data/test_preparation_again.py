"""A second call with the same destination, and calls that are refused."""

import gzip
import sys
from importlib import metadata

import pytest

from selfkd_fairseq.data import files, preparation
from selfkd_fairseq.data.errors import PreparationError
from tests.data.corpus import prepare, state, tree, write_side

pytestmark = pytest.mark.usefixtures("quick_steps")


class TestSecondCall:
    def test_same_arguments_do_nothing_and_import_nothing_heavy(self, raw, dest, monkeypatch):
        prepare(raw, dest)
        before = state(dest)
        for module in ("sacremoses", "subword_nmt", "subword_nmt.learn_bpe", "subword_nmt.apply_bpe", "tqdm"):
            monkeypatch.setitem(sys.modules, module, None)  # an import now fails
        lines = []
        assert prepare(raw, dest, workers=3, report=lines.append) == dest / "bin"
        assert lines == [f"nothing to do, already prepared: fairseq-train {dest / 'bin'}"]
        assert state(dest) == before

    def test_raw_files_may_be_gone_and_tools_updated(self, raw, dest, monkeypatch):
        prepare(raw, dest)
        before = state(dest)
        (raw / "train.en.gz").unlink()
        monkeypatch.setattr(preparation, "tool_versions", lambda tools: {"sacremoses": "99"})
        prepare(raw, dest)
        assert state(dest) == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"lowercase": False}, "lowercase is true there and false here"),
            ({"bpe_merges": 61}, "bpe_merges is 60 there and 61 here"),
            ({"bpe_vocabulary_threshold": 2}, "bpe_vocabulary_threshold is 0 there and 2 here"),
            ({"source": "de", "target": "en"}, 'source is "en" there and "de" here; target is "de" there'),
        ],
    )
    @pytest.mark.parametrize("finished", [True, False])
    def test_other_settings_are_refused(self, raw, dest, change, message, finished):
        prepare(raw, dest)
        if not finished:
            (dest / "stamp.json").unlink()
        before = state(dest)
        with pytest.raises(PreparationError) as error:
            prepare(raw, dest, **change)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert state(dest) == before

    @pytest.mark.parametrize("finished", [True, False])
    def test_other_input_is_refused(self, raw, dest, finished):
        prepare(raw, dest)
        if not finished:
            (dest / "stamp.json").unlink()
        before = state(dest)
        write_side(raw, "val.de", ["Anderer Text."] * 7)
        with pytest.raises(PreparationError, match=r"begun with other input: val.de.gz is \w{12}\.\.\. there and"):
            prepare(raw, dest)
        assert state(dest) == before

    def test_unfinished_work_of_other_versions_is_refused(self, raw, dest, monkeypatch):
        prepare(raw, dest)
        (dest / "stamp.json").unlink()
        (dest / "bin" / "dict.en.txt").unlink()
        before = state(dest)
        monkeypatch.setattr(preparation, "tool_versions", lambda tools: {"sacremoses": "99"})
        with pytest.raises(PreparationError, match='sacremoses is ".*" there and "99" here'):
            prepare(raw, dest)
        assert state(dest) == before

    def test_lost_parts_are_made_again(self, raw, dest):
        prepare(raw, dest)
        clean = tree(dest)
        for name in ("tok/train.de", "bpe/codes", "bpe/test.en"):
            (dest / name).unlink()
        (dest / "bin").rename(dest.parent / "moved")
        prepare(raw, dest)
        assert tree(dest) == clean


class TestRefusals:
    """Bad input and bad places: one line, and nothing is written."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"source": "en", "target": "en"}, "--source and --target are the same language, en"),
            ({"target": "it"}, "multi30k has no language 'it'; it has en, de, fr, cs"),
            ({"bpe_merges": -1}, "--bpe-merges must be at least 1, not -1"),
            ({"bpe_merges": 0}, "--bpe-merges must be at least 1, not 0"),
            ({"bpe_vocabulary_threshold": -1}, "--bpe-vocabulary-threshold must be at least 0, not -1"),
            ({"workers": 0}, "--workers must be at least 1, not 0"),
        ],
    )
    def test_settings(self, raw, dest, change, message):
        with pytest.raises(PreparationError) as error:
            prepare(raw, dest, **change)
        assert str(error.value) == message
        assert not dest.exists()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("train.en.gz", None, "lacks train.en.gz"),
            ("train.de.gz", gzip.compress(b"ein Satz\n" * 50, mtime=0)[:-9], "train.de.gz: truncated gzip file"),
            ("val.de.gz", b"kein gzip\n" * 7, "val.de.gz: damaged gzip file"),
            ("val.en.gz", gzip.compress(b"caf\xe9\n" * 7, mtime=0), "val.en.gz: line 1 is not valid UTF-8"),
            ("test_2016_flickr.de.gz", b"", "test_2016_flickr.de.gz: the file is empty"),
            ("test_2016_flickr.de.gz", gzip.compress(b"\n \n" * 3, mtime=0), "flickr.de.gz: all 6 lines are blank"),
            ("train.de.gz", gzip.compress(b"ein Satz\n" * 49, mtime=0), "train.de.gz has 49 lines"),
        ],
    )
    def test_raw_files(self, raw, dest, name, content, message):
        if content is None:
            (raw / name).unlink()
        else:
            (raw / name).write_bytes(content)
        before = state(raw)
        with pytest.raises(PreparationError) as error:
            prepare(raw, dest)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert not dest.exists()
        assert state(raw) == before

    def test_different_lengths_name_both_sides(self, raw, dest):
        write_side(raw, "val.en", ["one"] * 9)
        with pytest.raises(PreparationError, match=r"val.en.gz has 9 lines, .*val.de.gz has 7 lines"):
            prepare(raw, dest)

    def test_destination_with_something_else(self, raw, dest):
        dest.mkdir()
        (dest / "thesis.txt").write_text("mine")
        before = state(dest)
        with pytest.raises(PreparationError, match="is not empty and not made by selfkd-prepare"):
            prepare(raw, dest)
        assert state(dest) == before

    def test_destination_in_the_raw_folder_also_through_a_link(self, raw, tmp_path):
        before = state(raw)
        (tmp_path / "link").symlink_to(raw)
        for place in (raw, raw / "dest", tmp_path / "link" / "dest", tmp_path / "link"):
            with pytest.raises(PreparationError, match="must not be, or lie in, the --raw folder"):
                prepare(raw, place)
        assert state(raw) == before

    def test_destination_below_a_file(self, raw, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(OSError, match="Not a directory"):
            prepare(raw, tmp_path / "file" / "dest")

    def test_destination_at_work(self, raw, dest, monkeypatch):
        monkeypatch.setattr(files, "LOCK_SECONDS", 0.2)
        dest.mkdir()
        with files.sole_user(dest), pytest.raises(PreparationError, match="another selfkd-prepare is at work"):
            prepare(raw, dest)
        assert tree(dest) == {}

    def test_raw_file_that_changes_under_the_hands(self, raw, dest, monkeypatch):
        inspect = preparation.inspect_files

        def inspect_then_change(*arguments):
            found = inspect(*arguments)
            write_side(raw, "train.de", ["nur", "drei", "Zeilen"])
            return found

        monkeypatch.setattr(preparation, "inspect_files", inspect_then_change)
        with pytest.raises(PreparationError, match="train.de.gz was changed during the preparation"):
            prepare(raw, dest)
        assert not (dest / "tok").exists()

    def test_missing_tool(self, raw, dest, monkeypatch):
        def version(name):
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(preparation.metadata, "version", version)
        with pytest.raises(PreparationError, match="sacremoses is not installed"):
            prepare(raw, dest)
        assert not dest.exists()

    def test_missing_fairseq(self, raw, dest, monkeypatch):
        monkeypatch.setattr(preparation, "fairseq_versions", dict)
        with pytest.raises(PreparationError, match="fairseq is not installed; .* pip install ve-fairseq"):
            prepare(raw, dest)
        assert not dest.exists()
