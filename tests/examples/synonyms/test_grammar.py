"""The grammar: agreement and probabilities against sentences that were written by hand."""

import math
import random

import pytest

from examples.synonyms.corpus import draw_meaning
from examples.synonyms.grammar import Meaning, NounPhrase, english, german_vocabulary, most_probable, translations
from examples.synonyms.lexicon import ADJECTIVES, ADVERBS, NOUNS, VERBS


def words(text):
    return tuple(text.split())


HELPS = Meaning(NounPhrase("my", "angry", "girl", False), "helps", NounPhrase("the", "old", "farmer", False))
BUYS_NOW = Meaning(NounPhrase(None, "poor", "boy", True), "buys", NounPhrase("a", "new", "car", False), adverb="now")
SHOWS = Meaning(
    NounPhrase("this", None, "doctor", False), "shows", NounPhrase("my", "red", "clock", True),
    recipient=NounPhrase(None, "small", "child", True),
)  # fmt: skip
READS_THERE = Meaning(
    NounPhrase("a", "old", "woman", False), "reads", NounPhrase("this", None, "book", True),
    place=("in front of", NounPhrase("this", "huge", "hospital", False)), adverb="often",
)  # fmt: skip


def test_case_follows_the_verb_that_was_drawn_and_weak_nouns_decline():
    expected = {
        "mein wütendes Mädchen hilft dem alten Bauern .": 0.6 * 0.6 * 0.6,
        "mein wütendes Mädchen hilft dem alten Landwirt .": 0.6 * 0.6 * 0.4,
        "mein wütendes Mädchen unterstützt den alten Bauern .": 0.6 * 0.4 * 0.6,
        "mein wütendes Mädchen unterstützt den alten Landwirt .": 0.6 * 0.4 * 0.4,
        "mein zorniges Mädchen hilft dem alten Bauern .": 0.4 * 0.6 * 0.6,
        "mein zorniges Mädchen hilft dem alten Landwirt .": 0.4 * 0.6 * 0.4,
        "mein zorniges Mädchen unterstützt den alten Bauern .": 0.4 * 0.4 * 0.6,
        "mein zorniges Mädchen unterstützt den alten Landwirt .": 0.4 * 0.4 * 0.4,
    }
    assert translations(HELPS) == pytest.approx({words(text): p for text, p in expected.items()})


def test_article_and_ending_follow_the_gender_that_was_drawn_and_the_verb_stays_second():
    actual = translations(BUYS_NOW)
    # Jungen or Buben, kauft or erwirbt, Auto or Wagen, jetzt or nun, adverb after the verb or in front
    assert len(actual) == 32
    expected = {
        "arme Jungen kaufen jetzt ein neues Auto .": 0.7 * 0.7 * 0.6 * 0.6 * 0.7,
        "arme Buben erwerben nun einen neuen Wagen .": 0.3 * 0.3 * 0.4 * 0.4 * 0.7,
        "jetzt kaufen arme Jungen ein neues Auto .": 0.7 * 0.7 * 0.6 * 0.6 * 0.3,
        "nun erwerben arme Buben einen neuen Wagen .": 0.3 * 0.3 * 0.4 * 0.4 * 0.3,
    }
    for text, probability in expected.items():
        assert actual[words(text)] == pytest.approx(probability)
    for wrong in ("arme Jungen kaufen jetzt ein neuen Wagen .", "jetzt arme Jungen kaufen ein neues Auto ."):
        assert words(wrong) not in actual


def test_recipient_comes_first_in_the_dative_plural():
    expected = {"dieser Arzt zeigt kleinen Kindern meine roten Uhren .": 1.0}
    assert translations(SHOWS) == pytest.approx({words(text): p for text, p in expected.items()})


def test_place_is_a_dative_whose_article_depends_on_the_noun():
    actual = translations(READS_THERE)
    for text in (
        "eine alte Frau liest oft diese Bücher vor diesem riesigen Krankenhaus .",
        "häufig liest eine alte Frau diese Bücher vor dieser gewaltigen Klinik .",
    ):
        assert words(text) in actual
    assert len(actual) == 2 * 2 * 2 * 2


@pytest.mark.parametrize(
    ("meaning", "text"),
    [
        (HELPS, "my angry girl helps the old farmer ."),
        (BUYS_NOW, "poor boys buy a new car now ."),
        (SHOWS, "this doctor shows my red clocks to small children ."),
        (READS_THERE, "an old woman often reads these books in front of this huge hospital ."),
    ],
)
def test_english(meaning, text):
    assert " ".join(english(meaning)) == text


def test_english_determines_the_meaning():
    rng = random.Random(5)
    meanings = {}
    for _ in range(3000):
        meaning = draw_meaning(rng)
        assert meanings.setdefault(english(meaning), meaning) == meaning


def test_probabilities_sum_to_one_and_every_word_is_in_the_vocabulary():
    rng = random.Random(6)
    vocabulary = set(german_vocabulary())
    for _ in range(300):
        alternatives = translations(draw_meaning(rng))
        assert math.fsum(alternatives.values()) == pytest.approx(1.0, abs=1e-12)
        assert min(alternatives.values()) > 0
        assert {word for sentence in alternatives for word in sentence} <= vocabulary


def test_probabilities_of_every_entry_of_the_lexicon_sum_to_one():
    for table in (NOUNS, ADJECTIVES, VERBS, ADVERBS):
        for name, entry in table.items():
            assert math.fsum(p for p, _ in entry.german) == pytest.approx(1.0), name


def test_most_probable():
    assert most_probable({("b",): 0.4, ("a",): 0.4, ("c",): 0.2}) == ("a",)


def test_unknown_word_is_a_key_error():
    with pytest.raises(KeyError, match="unicorn"):
        translations(HELPS._replace(object=NounPhrase("a", None, "unicorn", False)))
