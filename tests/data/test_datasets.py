"""The list of datasets."""

import hashlib

import pytest

from selfkd_fairseq.data.datasets import DATASETS, MULTI30K, find_dataset
from selfkd_fairseq.data.errors import PreparationError


def test_file_names_are_those_of_the_repository():
    assert MULTI30K.file_name("train", "en") == "train.en.gz"
    assert MULTI30K.file_name("valid", "cs") == "val.cs.gz"
    assert MULTI30K.file_name("test", "de") == "test_2016_flickr.de.gz"


def test_unknown_dataset_names_the_known_ones():
    assert find_dataset("multi30k") is MULTI30K
    with pytest.raises(PreparationError, match="unknown dataset 'multi31k'; known: multi30k"):
        find_dataset("multi31k")


def test_each_name_is_the_key_and_has_a_file_for_each_split():
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert set(dataset.stems) == {"train", "valid", "test"}
        assert len(set(dataset.stems.values())) == 3


def test_checksums_are_those_of_the_real_files(shared_data):
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (shared_data / "multi30k").glob("*.gz")
    }
    assert len(found) == 6
    assert found == dict(MULTI30K.sha256)
