"""The list of datasets."""

import gzip
import hashlib

import pytest

from selfkd_fairseq.data.datasets import DATASETS, MULTI30K, PTB, WIKITEXT_2, WIKITEXT_103, find_dataset
from selfkd_fairseq.data.errors import PreparationError

LANGUAGE_MODELLING = [PTB, WIKITEXT_2, WIKITEXT_103]


def test_file_names_are_those_of_the_repository():
    settings = MULTI30K.make_settings({"source": "en", "target": "cs"})
    stems = ("train", "val", "test_2016_flickr")
    assert MULTI30K.published_names(settings) == [f"{stem}.{lang}.gz" for stem in stems for lang in ("en", "cs")]


def test_unknown_dataset_names_the_known_ones():
    assert find_dataset("multi30k") is MULTI30K
    with pytest.raises(PreparationError) as error:
        find_dataset("multi31k")
    assert str(error.value) == (
        "unknown dataset 'multi31k'; known: iwslt14, iwslt15, multi30k, ptb, wikitext-103, wikitext-2, wmt14, wmt16"
    )


def test_each_name_is_the_key():
    assert len(DATASETS) == 8
    assert all(dataset.name == name for name, dataset in DATASETS.items())


def test_a_file_for_each_split():
    for dataset in LANGUAGE_MODELLING:
        assert set(dataset.files) == {"train", "valid", "test"}
        assert len(set(dataset.files.values())) == 3


@pytest.mark.parametrize("dataset", LANGUAGE_MODELLING, ids=lambda dataset: dataset.name)
def test_each_published_file_can_be_checked(dataset):
    settings = dataset.make_settings({})
    assert set(dataset.published_names(settings)) == set(dataset.sha256)
    assert dataset.base_url.startswith("https://")


def test_checksums_are_those_of_the_real_files(shared_data):
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (shared_data / "multi30k").glob("*.gz")
    }
    assert len(found) == 6
    assert found == dict(MULTI30K.sha256)


def test_checksums_of_the_penn_treebank_are_those_of_the_real_files_unzipped(shared_data):
    files = list((shared_data / "ptb").glob("*.gz"))
    assert len(files) == 3
    texts = {path.name[: -len(".gz")]: gzip.decompress(path.read_bytes()) for path in files}
    assert {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()} == dict(PTB.sha256)
    assert {split: texts[name].count(b"\n") for split, name in PTB.files.items()} == dict(PTB.lines)
