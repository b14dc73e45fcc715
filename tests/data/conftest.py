"""Fixtures of the data tests."""

import pytest

from selfkd_fairseq.data import binarisation, files
from tests.data import corpus, wiki
from tests.data.quick_preprocess import quick_preprocess


@pytest.fixture
def quick_steps(monkeypatch):
    """Spare a test of the text steps fairseq-preprocess and the waiting for the disk; tests/smoke has both."""
    monkeypatch.setattr(binarisation, "run_preprocess", quick_preprocess)
    monkeypatch.setattr(files, "flush_to_disk", lambda path: None)  # matters to a power cut, not to a kill


@pytest.fixture
def raw(tmp_path):
    """A folder with a small English-German corpus."""
    corpus.write_corpus(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def wikitext(tmp_path):
    """The archive of a small corpus like WikiText."""
    return wiki.write_archive(tmp_path / "raw.zip")


@pytest.fixture
def dest(tmp_path):
    """A destination that is not there yet."""
    return tmp_path / "dest"
