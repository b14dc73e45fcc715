"""Which words soft targets lie on: the target, its nearest words in the embedding space, or all others."""

from __future__ import annotations

import math
from typing import Sequence

import torch
from torch import Tensor

from ..core.options import SelfKDOptions
from ..core.soft_targets import soft_targets
from ..core.supports import Support, make_support, nearest_words
from ..criterions.output_embedding import UnsupportedModelError, find_output_embedding
from .runs import NEAREST_WORDS, WORD_GROUPS
from .trained_embedding import soft_targets_of
from .trained_model import TrainedModel

__all__ = ["WordShares", "word_shares_of"]

CHUNK_BYTES = 32 << 20  # of one (chunk, V) tensor in float32, but for a large V:
LEAST_CHUNK = 128


class WordShares:
    """Adds up, batch by batch, how much probability a model and its soft targets give to each group of words.

    Without dropout, as in validation: with the teacher ``self`` the model itself is the teacher. The nearest words are
    those by Euclidean distance (:func:`~selfkd_fairseq.core.supports.nearest_words`), whatever the similarity and the
    control of the soft targets, so that those of a control are seen to lie elsewhere.

    Args:
        weight: (V, d), the output embedding matrix, any float dtype; no gradient flows.
        options: how the soft targets are made; assumed checked.
        excluded: word ids in [0, V) that are in no support except as the target, and nobody's nearest word.
        seed: of the words that the support ``random`` draws.
    """

    def __init__(self, weight: Tensor, options: SelfKDOptions, excluded: Sequence[int], seed: int = 1) -> None:
        self.weight = weight.detach()
        self.options = options
        self.excluded = excluded
        self.generator = torch.Generator().manual_seed(seed)
        self.tokens = 0
        self.sums = {
            name: torch.zeros(len(WORD_GROUPS), dtype=torch.float64, device=weight.device)
            for name in ("soft_targets", "model")
        }

    @torch.no_grad()
    def add(self, lprobs: Tensor, target: Tensor, rows: Tensor) -> None:
        """Count a batch.

        Args:
            lprobs: (N', V) log-probabilities of the model, on the device of the matrix.
            target: (N',) int64 word ids in [0, V).
            rows: (N,) int64, which of them count.
        """
        distinct, inverse = target[rows].unique(return_inverse=True)
        count = max(last for _, last in NEAREST_WORDS.values())
        near = nearest_words(self.weight, distinct, min(count, self.weight.size(0) - 1), self.excluded)
        size = max(LEAST_CHUNK, CHUNK_BYTES // (4 * lprobs.size(1)))
        for of_chunk, words in zip(rows.split(size), inverse.split(size)):
            of_model, column = lprobs[of_chunk], target[of_chunk]
            q = soft_targets(
                of_model, self.weight, column, self.options, self.excluded, None, self.generator, of_model
            )  # fmt: skip
            of_targets = torch.zeros_like(of_model, dtype=q.probs.dtype).scatter_add_(1, q.indices, q.probs)
            # Near V the row of a word ends with the word itself and excluded words, which are marked.
            by_rank = make_support(column, near[words], self.excluded)
            for name, probs in (("soft_targets", of_targets), ("model", of_model.exp())):
                self.sums[name] += _by_group(probs, by_rank)
        self.tokens += rows.numel()

    def means(self) -> dict[str, dict[str, float]] | None:
        """Of all batches so far, at least one token.

        Returns:
            ``soft_targets`` and ``model``, each group -> share of the probability, means over the tokens that add up
            to 1; None where one is no number.
        """
        means = {name: dict(zip(WORD_GROUPS, (sums / self.tokens).tolist())) for name, sums in self.sums.items()}
        numbers = all(math.isfinite(share) for groups in means.values() for share in groups.values())
        return means if numbers else None


def _by_group(probs: Tensor, by_rank: Support) -> Tensor:
    """(groups,) sums over the tokens of probs (N, V); ``by_rank``: the target of each and its nearest words."""
    of_ranks = probs.gather(1, by_rank.indices).masked_fill(~by_rank.valid, 0.0).sum(dim=0, dtype=torch.float64)
    sums = torch.stack([of_ranks[0], *(of_ranks[first : last + 1].sum() for first, last in NEAREST_WORDS.values())])
    return torch.cat([sums, (probs.sum(dtype=torch.float64) - sums.sum()).view(1)])


def word_shares_of(trained: TrainedModel) -> WordShares | None:
    """What counts the words of a training with ``self_kd``.

    Args:
        trained: a loaded checkpoint.

    Returns:
        A counter that has seen no batch; None where the training had no soft targets, or none that this version would
        make of its settings and its model.
    """
    criterion = trained.settings.criterion
    try:
        options = soft_targets_of(criterion)
        if options is None or criterion.skd_alpha == 0:
            return None
        weight = find_output_embedding(trained.model).weight
        options.check(vocabulary_size=weight.size(0))
    except (UnsupportedModelError, ValueError):
        return None
    dictionary = trained.task.target_dictionary
    return WordShares(weight, options, (dictionary.pad(), dictionary.bos()), trained.settings.common.seed)
