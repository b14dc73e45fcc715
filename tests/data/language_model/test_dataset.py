"""Where the raw texts of language-model datasets may be, and which are odd."""

import gzip
import zipfile

import pytest

from selfkd_fairseq.data import inputs
from selfkd_fairseq.data.datasets import PTB, WIKITEXT_2, WIKITEXT_103
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.kind import Settings
from tests.data.wiki import COUNTS, write_archive, write_files

SETTINGS = Settings("any")


def places(dataset, raw):
    return {split: str(text) for split, text in dataset.find(SETTINGS, raw).items()}


class TestPlaces:
    @pytest.mark.parametrize("compress", [False, True])
    def test_three_files(self, tmp_path, compress):
        end = ".gz" if compress else ""
        raw = write_files(tmp_path / "raw", "ptb.{}.txt", compress)
        assert places(PTB, raw) == {split: f"{raw}/ptb.{split}.txt{end}" for split in COUNTS}
        raw = write_files(tmp_path / "wiki", compress=compress)
        assert places(WIKITEXT_2, raw) == {split: f"{raw}/wiki.{split}.tokens{end}" for split in COUNTS}

    def test_archive_by_itself_under_any_name(self, wikitext):
        assert places(WIKITEXT_2, wikitext) == {s: f"{wikitext}, wikitext-2/wiki.{s}.tokens" for s in COUNTS}
        assert places(WIKITEXT_103, wikitext)["test"] == f"{wikitext}, wikitext-103/wiki.test.tokens"

    def test_archive_in_a_folder_is_taken_before_loose_files(self, tmp_path):
        raw = write_files(tmp_path / "raw")
        path = write_archive(raw / "wikitext-2-v1.zip")
        assert places(WIKITEXT_2, raw)["train"] == f"{path}, wikitext-2/wiki.train.tokens"
        assert places(WIKITEXT_103, raw)["train"] == f"{raw}/wiki.train.tokens"

    def test_missing_files_are_named(self, tmp_path):
        raw = write_files(tmp_path / "raw", "ptb.{}.txt")
        (raw / "ptb.valid.txt").unlink()
        with pytest.raises(PreparationError) as error:
            PTB.find(SETTINGS, raw)
        assert str(error.value) == f"--raw {raw} lacks ptb.valid.txt (plain or .gz)"
        with pytest.raises(PreparationError) as error:
            WIKITEXT_2.find(SETTINGS, raw)
        assert str(error.value) == (
            f"--raw {raw} lacks wiki.train.tokens, wiki.valid.tokens, wiki.test.tokens (plain or .gz), "
            "and wikitext-2-v1.zip in place of them all"
        )

    def test_no_folder(self, wikitext, tmp_path):
        for dataset, raw in ((PTB, wikitext), (WIKITEXT_2, tmp_path / "absent.zip")):
            with pytest.raises(PreparationError, match=f"--raw {raw} is not a folder"):
                dataset.find(SETTINGS, raw)


class TestRefusals:
    def inspect(self, raw, dataset=PTB):
        lines = []
        inputs.inspect_files(dataset, SETTINGS, raw, lines.append)
        return [line for line in lines if line.startswith("warning")]

    @pytest.fixture
    def raw(self, tmp_path):
        return write_files(tmp_path / "raw", "ptb.{}.txt")

    def test_texts_of_other_lengths_get_a_warning_each(self, raw):
        found = self.inspect(raw)
        assert f"warning: {raw}/ptb.train.txt has 60 lines, the published text 42,068" in found
        assert f"warning: {raw}/ptb.valid.txt has 11 lines, the published text 3,370" in found
        assert len(found) == 6  # and as many of their SHA-256

    @pytest.mark.parametrize("word", ["<s>", "<pad>", "</s>"])
    def test_words_that_fairseq_keeps_for_itself(self, raw, word):
        (raw / "ptb.test.txt").write_text(f" good <unk>\n\n the {word} end \n")
        with pytest.raises(PreparationError, match=f"ptb.test.txt: line 3 has the word {word}, which fairseq keeps"):
            self.inspect(raw)

    @pytest.mark.parametrize(("text", "message"), [("", "the file is empty"), (" \n\n", "all 2 lines are blank")])
    def test_no_words(self, raw, text, message):
        (raw / "ptb.valid.txt").write_text(text)
        with pytest.raises(PreparationError, match=f"ptb.valid.txt: {message}"):
            self.inspect(raw)

    def test_damaged_files(self, raw):
        (raw / "ptb.test.txt").unlink()
        (raw / "ptb.test.txt.gz").write_bytes(gzip.compress(b" a b \n" * 9)[:-9])
        with pytest.raises(PreparationError, match="ptb.test.txt.gz: truncated gzip file"):
            self.inspect(raw)
        (raw / "ptb.train.txt").write_bytes(b"caf\xe9\n")
        with pytest.raises(PreparationError, match="ptb.train.txt: line 1 is not valid UTF-8"):
            self.inspect(raw)

    def test_archives(self, wikitext, tmp_path):
        with pytest.raises(PreparationError, match="raw.zip has no wikitext-103/wiki.train.tokens in it"):
            self.inspect(wikitext, WIKITEXT_103)
        lacking = write_archive(tmp_path / "lacking.zip", without=["test"])
        with pytest.raises(PreparationError, match="lacking.zip has no wikitext-2/wiki.test.tokens in it"):
            self.inspect(lacking, WIKITEXT_2)
        wikitext.write_bytes(wikitext.read_bytes()[:-50])
        with pytest.raises(PreparationError, match="raw.zip: damaged zip archive"):
            self.inspect(wikitext, WIKITEXT_2)
        with zipfile.ZipFile(tmp_path / "latin.zip", "w") as archive:
            archive.writestr("wikitext-2/wiki.train.tokens", b"caf\xe9\n")
        message = "latin.zip, wikitext-2/wiki.train.tokens: line 1 is not valid UTF-8"
        with pytest.raises(PreparationError, match=message):
            self.inspect(tmp_path / "latin.zip", WIKITEXT_2)
