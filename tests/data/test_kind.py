"""What every kind of dataset has in common: settings from options."""

import pytest

from selfkd_fairseq.data.datasets import MULTI30K, PTB
from selfkd_fairseq.data.errors import UsageError
from selfkd_fairseq.data.kind import by_split

PAIR = {"source": "en", "target": "de"}


def test_defaults_are_those_of_the_dataset():
    assert vars(PTB.make_settings({})) == {"dataset": "ptb"}
    assert vars(MULTI30K.make_settings(PAIR)) == {
        "dataset": "multi30k", "source": "en", "target": "de", "lowercase": True, "bpe_merges": 10000,
        "bpe_vocabulary_threshold": 0,
    }  # fmt: skip


def test_options_win_over_defaults():
    settings = MULTI30K.make_settings({**PAIR, "lowercase": False, "bpe_merges": 5, "bpe_vocabulary_threshold": 7})
    assert (settings.lowercase, settings.bpe_merges, settings.bpe_vocabulary_threshold) == (False, 5, 7)


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "--source, --target"), ({"source": "en"}, "--target"), ({"target": "de", "bpe_merges": 3}, "--source")],
)
def test_missing_options_are_named(given, message):
    with pytest.raises(UsageError) as error:
        MULTI30K.make_settings(given)
    assert str(error.value) == f"the following arguments are required: {message}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PAIR, "--source, --target"),
        ({"lowercase": True}, "--lowercase"),
        ({"lowercase": False}, "--no-lowercase"),
        ({"bpe_merges": 0, "bpe_vocabulary_threshold": 0}, "--bpe-merges, --bpe-vocabulary-threshold"),
    ],
)
def test_options_of_another_kind_are_named(given, message):
    with pytest.raises(UsageError) as error:
        PTB.make_settings(given)
    assert str(error.value) == f"ptb takes no {message}"


def test_numbers_for_the_user():
    assert by_split({"train": 103227021, "valid": 5}) == "train 103,227,021, valid 5"
