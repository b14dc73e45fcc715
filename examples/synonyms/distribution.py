"""The true next-word distribution of a sentence, and how far a model's is from it.

Everything is measured along one reference translation of each source sentence (teacher forcing). At each position the
truth follows from the enumeration of all translations: those that begin with the reference's prefix, weighted with
their probabilities, vote for their next word. The end of the sentence is a word too.
"""

import math
from typing import Dict, Iterable, List, NamedTuple, Sequence, Tuple

__all__ = ["END_OF_SENTENCE", "Measurement", "PositionScore", "average", "next_word_distributions", "score_position"]

END_OF_SENTENCE = "</s>"


class PositionScore(NamedTuple):
    """One position: probabilities of a model beside the true ones.

    Attributes:
        kl: KL(truth || model) in nats.
        nll: -log of the model's probability of the reference word, in nats.
        reference_prob: the model's probability of the reference word.
        other_correct_prob: the model's total probability of the correct words other than the reference word.
        wrong_prob: the model's probability of all other words.
        ambiguous: whether more than one word is correct.
    """

    kl: float
    nll: float
    reference_prob: float
    other_correct_prob: float
    wrong_prob: float
    ambiguous: bool


class Measurement(NamedTuple):
    """Means over positions. The probabilities are means over the ambiguous positions only."""

    kl: float
    kl_ambiguous: float
    nll: float
    reference_prob: float
    other_correct_prob: float
    wrong_prob: float
    positions: int
    ambiguous_positions: int


def next_word_distributions(
    translations: Dict[Tuple[str, ...], float], reference: Sequence[str]
) -> List[Dict[str, float]]:
    """True distribution of the next word after each prefix of the reference.

    Args:
        translations: every correct sentence -> its probability.
        reference: one of them.

    Returns:
        ``len(reference) + 1`` dictionaries word -> probability (each sums to 1, no zeros), one for each word of the
        reference and one for the end of the sentence.

    Raises:
        ValueError: the reference is not one of the translations.
    """
    if tuple(reference) not in translations:
        raise ValueError(f"not a correct translation: {' '.join(reference)}")
    alive = translations
    result = []
    for position in range(len(reference) + 1):
        mass: Dict[str, float] = {}
        for sentence, probability in alive.items():
            word = sentence[position] if position < len(sentence) else END_OF_SENTENCE
            mass[word] = mass.get(word, 0.0) + probability
        total = math.fsum(mass.values())
        result.append({word: probability / total for word, probability in mass.items()})
        if position < len(reference):
            word = reference[position]
            alive = {s: p for s, p in alive.items() if position < len(s) and s[position] == word}
    return result


def score_position(truth: Dict[str, float], model: Dict[str, float], reference: str) -> PositionScore:
    """Compare a model with the truth at one position.

    Args:
        truth: correct word -> probability, all above 0.
        model: natural logarithm of the model's probability of (at least) every correct word.
        reference: the word of the reference, one of the correct words.

    Raises:
        KeyError: the model has no entry for a correct word.
    """
    kl = math.fsum(p * (math.log(p) - model[word]) for word, p in truth.items())
    others = math.fsum(math.exp(model[word]) for word in truth if word != reference)
    own = math.exp(model[reference])
    return PositionScore(kl, -model[reference], own, others, max(0.0, 1.0 - own - others), len(truth) > 1)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def average(scores: Sequence[PositionScore]) -> Measurement:
    """Means over positions; nan where there is no position to average over."""
    ambiguous = [score for score in scores if score.ambiguous]
    return Measurement(
        kl=_mean(s.kl for s in scores),
        kl_ambiguous=_mean(s.kl for s in ambiguous),
        nll=_mean(s.nll for s in scores),
        reference_prob=_mean(s.reference_prob for s in ambiguous),
        other_correct_prob=_mean(s.other_correct_prob for s in ambiguous),
        wrong_prob=_mean(s.wrong_prob for s in ambiguous),
        positions=len(scores),
        ambiguous_positions=len(ambiguous),
    )
