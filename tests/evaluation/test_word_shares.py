"""How much probability lies on which words, against a count token by token of the restated definition."""

import math

import numpy as np
import pytest
import torch

from selfkd_fairseq.core.options import SelfKDOptions, options_of_teacher
from selfkd_fairseq.core.soft_targets import make_shuffle
from selfkd_fairseq.evaluation import word_shares
from selfkd_fairseq.evaluation.runs import WORD_GROUPS
from selfkd_fairseq.evaluation.word_shares import WordShares
from tests import definition

EXCLUDED = (0, 1)
SETTINGS = {
    "embedding": {},
    "full": {"support": "full", "temperature": 0.5},
    "self": {"teacher": "self"},
    "self without the matrix": {"teacher": "self", "embedding_weight": 0.0},
    "self, temperatures": {"teacher": "self", "student_temperature": 2.0, "temperature": 0.5},
    "nearest": {"support": "nearest", "support_size": 3, "similarity": "gaussian"},
    **{control: {"teacher": "self", "control": control} for control in ("uniform", "shuffled", "shuffled_rows")},
    "within": {"normalise": "support", "support_size": 4, "min_target_prob": 0.0},
}


def batch(words, tokens):
    generator = torch.Generator().manual_seed(words)
    weight = torch.randn(words, 5, generator=generator, dtype=torch.float64)
    lprobs = torch.randn(tokens, words, generator=generator, dtype=torch.float64).log_softmax(1)
    target = torch.randint(2, words, (tokens,), generator=generator)
    target[-1] = EXCLUDED[0]
    return weight, lprobs, target


def by_hand(weight, lprobs, target, options):
    """Means over the tokens of the two distributions, each over the groups of words."""
    space = definition.Space(weight.numpy())
    restated = definition.Options(**options._asdict())
    shuffle = make_shuffle(options, len(weight), EXCLUDED, weight.device)
    permutation = None if shuffle is None else shuffle.forth.tolist()
    sums = {name: np.zeros(len(WORD_GROUPS)) for name in ("soft_targets", "model")}
    for row, word in zip(lprobs.numpy(), target.tolist()):
        token = definition.Token(word, row, row, frozenset(EXCLUDED), permutation=permutation)
        others = [k for k in np.argsort(space.distances(word)) if k != word and k not in EXCLUDED]
        place = {word: 0, **{k: 1 if r == 1 else 2 if r <= 10 else 3 for r, k in enumerate(others[:100], 1)}}
        for name, probs in (("soft_targets", definition.row_of(token, space, restated).probs), ("model", np.exp(row))):
            for k, prob in enumerate(probs):
                sums[name][place.get(k, 4)] += prob / len(target)
    return {name: dict(zip(WORD_GROUPS, found)) for name, found in sums.items()}


@pytest.mark.parametrize("words", [8, 150])  # fewer words than the groups have places; more
@pytest.mark.parametrize("name", SETTINGS)
def test_shares_are_those_of_the_definition(name, words, monkeypatch):
    options = options_of_teacher(SETTINGS[name])
    weight, lprobs, target = batch(words, tokens=11)
    expected = by_hand(weight, lprobs, target, options)
    monkeypatch.setattr(word_shares, "CHUNK_BYTES", 4 * words * 3)  # three tokens at a time
    monkeypatch.setattr(word_shares, "LEAST_CHUNK", 1)
    counted = WordShares(weight, options, EXCLUDED)
    padded = torch.cat([torch.full_like(lprobs[:1], float("nan")), lprobs]), torch.cat([target[:1], target])
    counted.add(*padded, torch.arange(1, 5))
    counted.add(*padded, torch.arange(5, 12))
    found = counted.means()
    assert list(found) == ["soft_targets", "model"]
    for key, shares in found.items():
        assert list(shares) == list(WORD_GROUPS) and sum(shares.values()) == pytest.approx(1)
        assert shares == pytest.approx(expected[key], abs=1e-12), key


def shares_of(weight, lprobs, target, options):
    counted = WordShares(weight, options, EXCLUDED)
    counted.add(lprobs, target, torch.arange(len(target)))
    return counted.means()


def test_shares_of_rows_in_another_order_lie_elsewhere():
    weight, lprobs, target = batch(150, tokens=40)
    options = SelfKDOptions(support="full", temperature=0.05, min_target_prob=0.5)
    near = {}
    for control in ("none", "shuffled"):
        near[control] = shares_of(weight, lprobs, target, options._replace(control=control))["soft_targets"]["nearest"]
    assert near["none"] > 5 * near["shuffled"]


def test_words_drawn_by_chance_are_the_same_when_counted_again():
    weight, lprobs, target = batch(150, tokens=40)
    random = SelfKDOptions(support="random", support_size=5, temperature=5.0)
    found = shares_of(weight, lprobs, target, random)
    assert found == shares_of(weight, lprobs, target, random) and found["soft_targets"]["others"] > 0


def test_what_is_no_number_is_none():
    weight, lprobs, target = batch(8, tokens=3)
    weight[4] = math.inf
    assert shares_of(weight, lprobs, target, SelfKDOptions(support="full")) is None
