"""Which words soft targets lie on: the target, its nearest words in the embedding space, or all others."""

from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor

from ..core.options import SelfKDOptions
from ..core.soft_targets import soft_targets
from ..core.supports import nearest_words
from ..criterions.output_embedding import find_output_embedding
from .trained_embedding import soft_targets_of
from .trained_model import TrainedModel

__all__ = ["GROUPS", "WordShares", "word_shares_of"]

# The nearest words of the target, by rank from 1: first and last of each group.
_RANKS = {"nearest": (1, 1), "nearest 2-10": (2, 10), "nearest 11-100": (11, 100)}
GROUPS = ("target", *_RANKS, "others")
CHUNK_BYTES = 32 << 20  # of one (chunk, V) tensor in float32


class WordShares:
    """Adds up, batch by batch, how much probability a model and its soft targets give to each group of words.

    Without dropout, as in validation: with the teacher ``self`` the model itself is the teacher. The nearest words are
    those of :func:`~selfkd_fairseq.core.supports.nearest_words`, whatever the similarity and the control of the soft
    targets, so that those of a control are seen to lie elsewhere.

    Args:
        weight: (V, d), the output embedding matrix, any float dtype; no gradient flows.
        options: how the soft targets are made; assumed checked.
        excluded: word ids in [0, V) that are in no support except as the target, and nobody's nearest word.
    """

    def __init__(self, weight: Tensor, options: SelfKDOptions, excluded: Sequence[int]) -> None:
        self.weight = weight.detach()
        self.options = options
        self.excluded = excluded
        self.tokens = 0
        self.sums = {
            name: torch.zeros(len(GROUPS), dtype=torch.float64, device=weight.device)
            for name in ("soft_targets", "model")
        }

    @torch.no_grad()
    def add(self, lprobs: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            lprobs: (N, V) log-probabilities of the model, on the device of the matrix.
            target: (N,) int64 word ids in [0, V), without padding.
        """
        size = max(1, CHUNK_BYTES // (4 * lprobs.size(1)))
        for of_model, words in zip(lprobs.split(size), target.split(size)):
            q = soft_targets(of_model, self.weight, words, self.options, self.excluded, teacher_scores=of_model)
            of_targets = torch.zeros_like(of_model, dtype=q.probs.dtype).scatter_add_(1, q.indices, q.probs)
            distinct, inverse = words.unique(return_inverse=True)
            count = min(_RANKS["nearest 11-100"][1], self.weight.size(0) - 1)
            near = nearest_words(self.weight, distinct, count, self.excluded)[inverse]
            for name, probs in (("soft_targets", of_targets), ("model", of_model.exp())):
                self.sums[name] += self._by_group(probs.double(), words, near)
        self.tokens += target.numel()

    def _by_group(self, probs: Tensor, target: Tensor, near: Tensor) -> Tensor:
        """(groups,) sums over the tokens of probs (N, V); ``near``: (N, n) words by rank."""
        column = target.unsqueeze(1)
        none = near == column  # near V the row ends with the word itself and excluded words
        for word in self.excluded:
            none |= near == word
        by_rank = probs.gather(1, near).masked_fill(none, 0.0).sum(dim=0)
        sums = [probs.gather(1, column).sum(), *(by_rank[low - 1 : high].sum() for low, high in _RANKS.values())]
        return torch.stack([*sums, probs.sum() - sum(sums)])

    def means(self) -> dict[str, dict[str, float]]:
        """Of all batches so far, at least one token.

        Returns:
            ``soft_targets`` and ``model``, each group -> share of the probability, means over the tokens that add up
            to 1.
        """
        return {name: dict(zip(GROUPS, (sums / self.tokens).tolist())) for name, sums in self.sums.items()}


def word_shares_of(trained: TrainedModel) -> WordShares | None:
    """What counts the words of a training with ``self_kd``.

    Args:
        trained: a loaded checkpoint.

    Returns:
        A counter that has seen no batch; None where the training had no soft targets.

    Raises:
        ValueError: an option of the soft targets is out of its range.
        UnsupportedModelError: the model has no plain output matrix.
    """
    options = soft_targets_of(trained.settings.criterion)
    if options is None:
        return None
    dictionary = trained.task.target_dictionary
    weight = find_output_embedding(trained.model).weight
    return WordShares(weight, options, (dictionary.pad(), dictionary.bos()))
