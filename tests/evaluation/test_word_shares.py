"""How much probability lies on which words, against a count token by token of the restated definition."""

import numpy as np
import pytest
import torch

from selfkd_fairseq.core.options import SelfKDOptions, options_of_teacher
from selfkd_fairseq.evaluation import word_shares
from selfkd_fairseq.evaluation.word_shares import GROUPS, WordShares
from tests import definition

EXCLUDED = (0, 1)
SETTINGS = {
    "embedding": {},
    "full": {"support": "full", "temperature": 0.5},
    "self": {"teacher": "self"},
    "self without the matrix": {"teacher": "self", "embedding_weight": 0.0},
    "uniform": {"support": "full", "control": "uniform"},
    "within": {"normalise": "support", "support_size": 4, "min_target_prob": 0.0},
}


def batch(words, tokens):
    generator = torch.Generator().manual_seed(words)
    weight = torch.randn(words, 5, generator=generator, dtype=torch.float64)
    lprobs = torch.randn(tokens, words, generator=generator, dtype=torch.float64).log_softmax(1)
    return weight, lprobs, torch.randint(2, words, (tokens,), generator=generator)


def by_hand(weight, lprobs, target, options):
    """Means over the tokens of the two distributions, each over the groups of words."""
    space = definition.Space(weight.numpy())
    restated = definition.Options(**options._asdict())
    sums = {name: np.zeros(len(GROUPS)) for name in ("soft_targets", "model")}
    for row, word in zip(lprobs.numpy(), target.tolist()):
        token = definition.Token(word, row, row, frozenset(EXCLUDED))
        others = [k for k in np.argsort(space.distances(word)) if k != word and k not in EXCLUDED]
        place = {word: 0, **{k: 1 if r == 1 else 2 if r <= 10 else 3 for r, k in enumerate(others[:100], 1)}}
        for name, probs in (("soft_targets", definition.row_of(token, space, restated).probs), ("model", np.exp(row))):
            for k, prob in enumerate(probs):
                sums[name][place.get(k, 4)] += prob / len(target)
    return {name: dict(zip(GROUPS, found)) for name, found in sums.items()}


@pytest.mark.parametrize("words", [8, 150])  # fewer words than the groups have places; more
@pytest.mark.parametrize("name", SETTINGS)
def test_shares_are_those_of_the_definition(name, words, monkeypatch):
    options = options_of_teacher(SETTINGS[name])
    weight, lprobs, target = batch(words, tokens=11)
    expected = by_hand(weight, lprobs, target, options)
    monkeypatch.setattr(word_shares, "CHUNK_BYTES", 4 * words * 3)  # three tokens at a time
    counted = WordShares(weight, options, EXCLUDED)
    counted.add(lprobs[:4], target[:4])
    counted.add(lprobs[4:], target[4:])
    found = counted.means()
    assert list(found) == ["soft_targets", "model"]
    for key, shares in found.items():
        assert list(shares) == list(GROUPS) and sum(shares.values()) == pytest.approx(1)
        assert shares == pytest.approx(expected[key], abs=1e-12), key


def test_shares_of_rows_in_another_order_lie_elsewhere():
    weight, lprobs, target = batch(150, tokens=40)
    options = SelfKDOptions(support="full", temperature=0.05, min_target_prob=0.5)
    near = {}
    for control in ("none", "shuffled"):
        counted = WordShares(weight, options._replace(control=control), EXCLUDED)
        counted.add(lprobs, target)
        near[control] = counted.means()["soft_targets"]["nearest"]
    assert near["none"] > 5 * near["shuffled"]
