"""The corpus: a pure function of its seed, with disjoint splits, drawn with the stated probabilities."""

import random
from collections import Counter

import pytest

from examples.synonyms.corpus import Pair, draw_corpus, draw_translation, write_corpus
from examples.synonyms.grammar import Meaning, NounPhrase, translations

SIZES = {"test": 60, "valid": 40, "train": 200}


@pytest.fixture(scope="module")
def corpus():
    return draw_corpus(SIZES, seed=3)


def test_same_seed_same_corpus_other_seed_other_corpus(corpus):
    assert draw_corpus(SIZES, seed=3) == corpus
    assert draw_corpus(SIZES, seed=4)["train"] != corpus["train"]


def test_more_training_pairs_leave_the_other_splits_alone(corpus):
    larger = draw_corpus({**SIZES, "train": 300}, seed=3)
    assert (larger["test"], larger["valid"]) == (corpus["test"], corpus["valid"])
    assert larger["train"][:200] == corpus["train"]


def test_no_source_occurs_twice(corpus):
    assert {split: len(pairs) for split, pairs in corpus.items()} == SIZES
    sources = Counter(pair.source for pairs in corpus.values() for pair in pairs)
    assert max(sources.values()) == 1


def test_every_target_is_one_of_the_correct_translations(corpus):
    assert all(pair.target in translations(pair.meaning) for pairs in corpus.values() for pair in pairs)


def test_translations_are_drawn_with_their_probabilities():
    rng = random.Random(0)
    counts = Counter(draw_translation(rng, {("das", "Auto"): 0.6, ("der", "Wagen"): 0.4}) for _ in range(4000))
    assert sum(counts.values()) == 4000
    # four standard deviations of a binomial with p = 0.6
    assert counts["das", "Auto"] == pytest.approx(2400, abs=4 * (4000 * 0.6 * 0.4) ** 0.5)


def test_write_corpus(tmp_path):
    meaning = Meaning(NounPhrase("the", None, "man", False), "sees", NounPhrase("the", None, "woman", False))
    pairs = [
        Pair(meaning, ("a", "b", "."), ("x", "ä", ".")),
        Pair(meaning, ("c", "."), ("ä", ".")),
    ]
    write_corpus({"train": pairs, "test": pairs[1:]}, tmp_path, vocabulary=(".", "unseen", "x", "ä"))
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert written == {
        "train.en": "a b .\nc .\n",
        "train.de": "x ä .\nä .\n",
        "test.en": "c .\n",
        "test.de": "ä .\n",
        "dict.de.txt": ". 2\nä 2\nx 1\nunseen 0\n",
    }
