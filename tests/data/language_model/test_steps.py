"""The check that a binarised text is the text."""

import pytest

from selfkd_fairseq.data.binarisation import BinaryText
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.language_model.steps import check_binary

# 10 words, 2 of them <unk>, in 3 lines
COUNTS = {"lines": 3, "words": 10, "unk": 2, "types": 7}
WHOLE = {"sentences": 3, "tokens": 13, "special": (0, 0, 3, 2)}


def check(split, **changes):
    check_binary(split, BinaryText(**{**WHOLE, **changes}), COUNTS)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_whole(split):
    check(split)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentences": 2}, "made 2 sentences of 3 in train"),
        ({"tokens": 12}, "made 12 tokens of 13 in train"),
        ({"special": (0, 0, 4, 2)}, "made 4 </s> of 3 in train"),
        ({"special": (1, 0, 3, 2)}, "made 1 <s> of 0 in train"),
        ({"special": (0, 5, 3, 2)}, "made 5 <pad> of 0 in train"),
        ({"special": (0, 0, 3, 3)}, "made 3 <unk> of 2 in train"),
    ],
)
def test_each_difference_is_an_error(changes, message):
    with pytest.raises(PreparationError) as error:
        check("train", **changes)
    assert str(error.value) == f"fairseq-preprocess {message}"


def test_words_of_other_splits_may_be_unknown():
    check("valid", special=(0, 0, 3, 9))
