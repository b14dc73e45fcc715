"""The last step of a translation dataset; the others are looked at in test_preparation."""

import pytest

from selfkd_fairseq.data import binarisation
from selfkd_fairseq.data.datasets import MULTI30K
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.kind import Work
from selfkd_fairseq.data.translation.steps import binarise_text
from tests.data import corpus
from tests.data.quick_preprocess import quick_preprocess

SPLITS = ("train", "valid", "test")


@pytest.fixture
def work(tmp_path):
    """Work at a destination with three sentences in each file of bpe/."""
    folder = tmp_path / "dest"
    (folder / "bpe").mkdir(parents=True)
    (folder / "bpe" / "codes").write_text("#version: 0.2\na b\n")
    for split in SPLITS:
        for language in ("en", "de"):
            (folder / "bpe" / f"{split}.{language}").write_text(f"a b@@ {language}\n\nc\n")
    return Work(folder, corpus.settings(), {}, 1, lambda line: None, MULTI30K)


def test_result(work, monkeypatch):
    monkeypatch.setattr(binarisation, "run_preprocess", quick_preprocess)
    binarise_text(work)
    binary = work.dest / "bin"
    assert {path.name for path in binary.iterdir()} == {"dict.en.txt", "dict.de.txt", "bpe.codes"} | {
        f"{split}.en-de.{language}.{end}" for split in SPLITS for language in ("en", "de") for end in ("bin", "idx")
    }
    assert (binary / "bpe.codes").read_text() == "#version: 0.2\na b\n"
    # a, b@@, c, de, en and the four of fairseq
    assert binarisation.dictionary_types(binary / "dict.de.txt") == 9


def test_lost_sentences_are_noticed(work, monkeypatch):
    def lossy(folder, options, workers):
        quick_preprocess(folder, options, workers)
        index = folder / "valid.en-de.de.idx"
        index.write_bytes(index.read_bytes().replace(b"\x03" + bytes(7), b"\x02" + bytes(7)))

    monkeypatch.setattr(binarisation, "run_preprocess", lossy)
    with pytest.raises(PreparationError, match="made 2 sentences of 3 in valid.de"):
        binarise_text(work)
    assert not (work.dest / "bin").exists()
