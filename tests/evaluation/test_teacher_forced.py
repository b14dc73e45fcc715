"""Scores of tokens, from a model whose probabilities are written down here."""

import numpy as np
import pytest
import torch

from selfkd_fairseq.evaluation.teacher_forced import score_tokens, sum_by_sentence

PAD = 1
# Next-word probabilities of 4 words, for each input word 0, 2 and 3 (1 is padding).
NEXT = {0: [0.1, 0.0, 0.2, 0.7], 2: [0.5, 0.0, 0.3, 0.2], 3: [0.25, 0.0, 0.6, 0.15]}


class Bigrams(torch.nn.Module):
    """Probabilities that depend on the last word alone; has a parameter, as every model."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.tensor([NEXT.get(word, [0.25] * 4) for word in range(4)]))

    def forward(self, src_tokens):
        assert not torch.is_grad_enabled()
        return (self.table[src_tokens].log(), None)

    def get_normalized_probs(self, net_output, log_probs):
        assert log_probs
        return net_output[0]

    def get_targets(self, sample, net_output):
        return sample["target"]


def batch(rows):
    """A batch of (id, input words, targets), padded on the right."""
    width = max(len(words) for _, words, _ in rows)
    inputs, targets = (torch.tensor([list(row[k]) + [PAD] * (width - len(row[k])) for row in rows]) for k in (1, 2))
    return {"id": torch.tensor([row[0] for row in rows]), "net_input": {"src_tokens": inputs}, "target": targets}


def test_tokens_come_in_the_order_of_the_text_without_padding():
    batches = [
        batch([(2, [0, 3], [3, 2]), (0, [2], [0])]),
        batch([(1, [3, 0, 2], [3, 0, 2])]),
        batch([(0, [3], [0])]),  # the same item once more: what follows in it
    ]
    # (input, target) of item 0, then 1, then 2
    pairs = [(2, 0), (3, 0), (3, 3), (0, 0), (2, 2), (0, 3), (3, 2)]
    found = score_tokens(Bigrams(), batches, PAD)
    np.testing.assert_allclose(found.nll, [-np.log(NEXT[a][b]) for a, b in pairs], rtol=1e-6)
    np.testing.assert_allclose(found.confidence, [max(NEXT[a]) for a, _ in pairs], rtol=1e-6)
    assert found.correct.tolist() == [int(np.argmax(NEXT[a])) == b for a, b in pairs]
    assert found.nll.dtype == found.confidence.dtype == np.float64


def test_sums_of_sentences():
    sums = sum_by_sentence(np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 3, 0, 1]))
    assert sums.tolist() == [0.0, 7.0, 0.0, 8.0]


def test_sums_are_in_double_precision():
    values = np.full(1_000_000, 0.1)
    assert sum_by_sentence(values, np.array([1_000_000]))[0] == pytest.approx(100_000, rel=1e-10)
