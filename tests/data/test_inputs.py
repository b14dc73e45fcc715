"""Where raw files come from."""

import gzip
import hashlib
from dataclasses import replace

import pytest

from selfkd_fairseq.data import inputs
from selfkd_fairseq.data.datasets import MULTI30K, WIKITEXT_2
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.kind import Settings
from tests.data import corpus, wiki
from tests.data.corpus import COUNTS, tree, write_corpus, write_side
from tests.data.server import serve

PAIR = corpus.settings()
SETTINGS = Settings("wikitext-2")


def test_all_missing_files_are_named(raw):
    (raw / "train.de.gz").unlink()
    (raw / "test_2016_flickr.en.gz").unlink()
    with pytest.raises(PreparationError) as error:
        MULTI30K.find(PAIR, raw)
    assert f"{raw} lacks train.de.gz, test_2016_flickr.en.gz (" in str(error.value)


def test_folder_that_is_none(tmp_path):
    with pytest.raises(PreparationError, match="absent is not a folder"):
        MULTI30K.find(PAIR, tmp_path / "absent")


def test_plain_files_do_too(tmp_path):
    write_corpus(tmp_path / "raw", compress=False)
    found = MULTI30K.find(PAIR, tmp_path / "raw")
    assert found["valid.de"].file.path == tmp_path / "raw" / "val.de"
    assert len(found) == 6


def test_files_that_are_not_the_published_ones_get_a_warning_each(raw):
    lines = []
    inputs.inspect_files(MULTI30K, PAIR, raw, lines.append)
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert len(warnings) == 6
    assert sum(f"{raw}/train.en.gz is not the published file" in line for line in warnings) == 1


def test_no_warning_for_published_files_and_for_files_without_a_published_checksum(raw):
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in raw.glob("*.en.gz")}
    lines = []
    found = inputs.inspect_files(replace(MULTI30K, sha256=sums), PAIR, raw, lines.append)
    assert lines == [f"checking the raw files in {raw}"]
    assert {split: found.texts[f"{split}.de"].lines for split in COUNTS} == COUNTS


def test_no_download_without_a_checksum():
    assert len(inputs.published_sums(MULTI30K, PAIR)) == 6
    with pytest.raises(PreparationError) as error:
        inputs.published_sums(MULTI30K, corpus.settings(target="fr"))
    assert "no SHA-256 is known for train.fr.gz, val.fr.gz, test_2016_flickr.fr.gz" in str(error.value)
    assert ".en.gz" not in str(error.value)


@pytest.mark.parametrize("url", ["", "raw", "/a/b", "file:///a/b", "ftp://host/a", "http://"])
def test_addresses_that_are_refused(url):
    with pytest.raises(PreparationError, match="--base-url must be an http or https address"):
        inputs.check_base_url(url)


def test_only_what_is_missing_is_downloaded(tmp_path):
    contents = {name: gzip.compress(name.encode(), mtime=0) for name in ("a.gz", "b.gz")}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (tmp_path / "a.gz").write_bytes(contents["a.gz"])
    with serve() as server:
        server.files = contents
        inputs.download_missing(MULTI30K, PAIR, sums, tmp_path, server.url + "/", lambda line: None)
        assert server.requests == [("/raw/b.gz", None)]
    assert tree(tmp_path) == contents


def test_another_file_in_the_download_folder_is_not_overwritten(tmp_path):
    (tmp_path / "a.gz").write_text("mine")
    with pytest.raises(PreparationError, match="a.gz is not the published file; remove it"):
        inputs.download_missing(MULTI30K, PAIR, {"a.gz": "0" * 64}, tmp_path, "http://127.0.0.1:9", lambda line: None)
    assert tree(tmp_path) == {"a.gz": b"mine"}


def test_a_file_without_a_published_sum_is_taken_as_it_is(tmp_path):
    lines = []
    with serve() as server:
        server.files = {"a.gz": b"new"}
        inputs.download_missing(MULTI30K, PAIR, {"a.gz": None}, tmp_path, server.url, lines.append)
        inputs.download_missing(MULTI30K, PAIR, {"a.gz": None}, tmp_path, server.url, lines.append)
        assert len(server.requests) == 1
    digest = hashlib.sha256(b"new").hexdigest()
    assert lines == [f"{server.url}/a.gz: no published SHA-256 is known; that of this download is {digest}"]
    assert tree(tmp_path) == {"a.gz": b"new"}


def test_sums_of_what_is_there(raw):
    sums = inputs.present_sums(MULTI30K, PAIR, raw)
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in raw.iterdir()}
    write_side(raw, "val.en", ["other"])
    assert inputs.present_sums(MULTI30K, PAIR, raw) != sums
    (raw / "val.en.gz").unlink()
    assert inputs.present_sums(MULTI30K, PAIR, raw) is None


class TestArchive:
    """One file that holds all texts."""

    def test_has_one_checksum(self, wikitext):
        found = inputs.inspect_files(WIKITEXT_2, SETTINGS, wikitext, lambda line: None)
        assert dict(found.sums) == {"wikitext-2-v1.zip": hashlib.sha256(wikitext.read_bytes()).hexdigest()}
        assert {split: text.lines for split, text in found.texts.items()} == wiki.COUNTS
        assert inputs.present_sums(WIKITEXT_2, SETTINGS, wikitext) == found.sums

    def test_that_is_not_the_published_one_gets_a_warning(self, wikitext):
        lines = []
        inputs.inspect_files(WIKITEXT_2, SETTINGS, wikitext, lines.append)
        assert sum(f"warning: {wikitext} is not the published file: SHA-256" in line for line in lines) == 1
        published = {"wikitext-2-v1.zip": hashlib.sha256(wikitext.read_bytes()).hexdigest()}
        lines.clear()
        inputs.inspect_files(replace(WIKITEXT_2, sha256=published, lines=wiki.COUNTS), SETTINGS, wikitext, lines.append)
        assert lines == [f"checking the raw files in {wikitext}"]

    def test_is_the_only_download(self):
        assert list(inputs.published_sums(WIKITEXT_2, SETTINGS)) == ["wikitext-2-v1.zip"]
