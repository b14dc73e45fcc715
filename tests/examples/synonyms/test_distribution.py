"""True next-word distributions and the measures, against counts and sums done by hand."""

import math
from collections import Counter

import pytest

from examples.synonyms.distribution import PositionScore, average, next_word_distributions, score_position
from examples.synonyms.grammar import Meaning, NounPhrase, translations

# each sentence with how many of 20 translators chose it
VOTES = {"a b c": 6, "a b d": 3, "a e": 5, "f b c": 4, "a": 2}


def counted(prefix):
    """Brute force: the next words of those of the 20 sentences that begin with the prefix."""
    ballot = [text.split() + ["</s>"] for text, votes in VOTES.items() for _ in range(votes)]
    counts = Counter(sentence[len(prefix)] for sentence in ballot if sentence[: len(prefix)] == prefix)
    return {word: count / sum(counts.values()) for word, count in counts.items()}


@pytest.mark.parametrize("reference", list(VOTES))
def test_next_word_distributions_equal_a_count(reference):
    reference = reference.split()
    probabilities = {tuple(text.split()): votes / 20 for text, votes in VOTES.items()}
    actual = next_word_distributions(probabilities, reference)
    assert len(actual) == len(reference) + 1
    for position, distribution in enumerate(actual):
        assert distribution == pytest.approx(counted(reference[:position]))


def test_the_article_is_marginalised_over_the_nouns_to_come():
    meaning = Meaning(NounPhrase("the", None, "man", False), "sees", NounPhrase("the", None, "box", False))
    distributions = next_word_distributions(translations(meaning), "der Mann sieht die Schachtel .".split())
    # Kiste 0.5 and Schachtel 0.2 are feminine, Kasten 0.3 is masculine
    expected = [
        {"der": 1}, {"Mann": 1}, {"sieht": 1}, {"die": 0.7, "den": 0.3}, {"Kiste": 5 / 7, "Schachtel": 2 / 7},
        {".": 1}, {"</s>": 1},
    ]  # fmt: skip
    assert distributions == [pytest.approx(distribution) for distribution in expected]


def test_a_wrong_reference_is_refused():
    with pytest.raises(ValueError, match="a c"):
        next_word_distributions({("a", "b"): 1.0}, ["a", "c"])


def test_score_of_an_ambiguous_position():
    truth = {"Auto": 0.75, "Wagen": 0.25}
    model = {"Auto": math.log(0.5), "Wagen": math.log(0.25), "Apfel": math.log(0.125)}
    score = score_position(truth, model, "Wagen")
    assert score.kl == pytest.approx(0.75 * math.log(1.5))  # + 0.25 log 1
    assert score.nll == pytest.approx(math.log(4))
    assert score.reference_prob == pytest.approx(0.25)
    assert score.other_correct_prob == pytest.approx(0.5)
    assert score.wrong_prob == pytest.approx(0.25)
    assert score.ambiguous


def test_score_of_an_unambiguous_position():
    score = score_position({".": 1.0}, {".": math.log(0.8)}, ".")
    assert score.kl == pytest.approx(-math.log(0.8))
    assert score.other_correct_prob == 0
    assert score.wrong_prob == pytest.approx(0.2)
    assert not score.ambiguous


def test_average_takes_the_probabilities_over_ambiguous_positions_only():
    measured = average(
        [
            PositionScore(0.5, 1.0, 0.4, 0.5, 0.1, True),
            PositionScore(0.1, 2.0, 0.2, 0.5, 0.3, True),
            PositionScore(0.3, 0.3, 0.7, 0.0, 0.3, False),
        ]
    )
    assert measured.kl == pytest.approx(0.3)
    assert measured.kl_ambiguous == pytest.approx(0.3)
    assert measured.nll == pytest.approx(1.1)
    assert measured.reference_prob == pytest.approx(0.3)
    assert measured.other_correct_prob == pytest.approx(0.5)
    assert measured.wrong_prob == pytest.approx(0.2)
    assert (measured.positions, measured.ambiguous_positions) == (3, 2)


def test_average_without_ambiguous_positions():
    measured = average([PositionScore(0.3, 0.3, 0.7, 0.0, 0.3, False)])
    assert measured.kl == pytest.approx(0.3)
    assert math.isnan(measured.other_correct_prob)
