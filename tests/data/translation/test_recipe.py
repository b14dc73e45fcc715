"""Which pairs are kept: the conditions of Moses's clean-corpus-n.perl."""

import pytest

from selfkd_fairseq.data.translation.recipe import SUBWORDS, TOKENS, Cleaning, Recipe


def words(number):
    return " ".join(["w"] * number)


@pytest.mark.parametrize(
    ("source", "target", "kept"),
    [
        (words(175), words(175), True),
        (words(176), words(175), False),
        (words(175), words(176), False),
        (words(3), words(2), True),
        (words(2), words(3), True),
        (words(31), words(20), False),
        (words(20), words(31), False),
        ("", words(1), False),
        (words(1), "", False),
        ("x" * 1000, "y", True),
        ("x" * 1001, "y", False),
        ("y z", "z " + "x" * 1001, False),
    ],
)
def test_bounds(source, target, kept):
    assert Cleaning(TOKENS, longest=175, ratio=1.5).keeps(source, target) is kept


@pytest.mark.parametrize(("pair", "kept"), [(("a", words(999)), True), (("", "a"), False), (("a", ""), False)])
def test_without_bounds_only_blank_sides_count(pair, kept):
    assert Cleaning(TOKENS).keeps(*pair) is kept


def cleaned(of, held_out):
    recipe = Recipe({}, Cleaning(of), held_out)
    return [
        (split, stage)
        for stage in (TOKENS, SUBWORDS)
        for split in ("train", "valid", "test")
        if recipe.cleaning_of(split, stage)
    ]


def test_what_is_cleaned_and_when():
    assert cleaned(TOKENS, None) == cleaned(TOKENS, 23) == [("train", TOKENS)]
    assert cleaned(SUBWORDS, None) == [("train", SUBWORDS)]
    assert cleaned(SUBWORDS, 100) == [("train", SUBWORDS), ("valid", SUBWORDS)]
