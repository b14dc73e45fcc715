"""Exact soft targets for the support ``full`` of the fused loss, a chunk of distinct target words at a time.

q depends on the target word alone, so tokens are taken in the order of their targets and each distinct word of a chunk
gets its row of q once: one (U, V, d) matrix product for U <= N distinct words in all, and no memory beyond two chunks.
The equations are those of ``docs/method.md``.
"""

import math
from typing import NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from .supports import centred

__all__ = ["ExactChunk", "ExactTargets"]


class ExactChunk(NamedTuple):
    """Exact soft targets of a chunk of C tokens.

    Attributes:
        probs: (C, V) q; a buffer that the next chunk overwrites.
        target_prob: () sum of the soft-target probabilities of the target words.
        distance: () sum of the distances of the targets to every other word of their supports.
        num_pairs: () int64, number of those distances.
    """

    probs: Tensor
    target_prob: Tensor
    distance: Tensor
    num_pairs: Tensor


class ExactTargets:
    """The embedding space, ready for distances from any word to all others.

    Args:
        embedding: (V, d) output embedding matrix, any float dtype; no gradient flows.
        temperature: (), tau', above 0.
        min_target_prob: floor m in [0, 1].
        excluded: word ids that get no probability except as the target.
        chunk_size: most tokens of a chunk.
        dtype: of q, float32 or float64.
    """

    def __init__(
        self,
        embedding: Tensor,
        temperature: Tensor,
        min_target_prob: float,
        excluded: Sequence[int],
        chunk_size: int,
        dtype: torch.dtype,
    ):
        # In units of tau'. Rows less their mean have the same distances, and their products do not cancel.
        self.rows = (centred(embedding) / temperature).to(dtype)
        self.square_norms = self.rows.pow(2).sum(dim=1)
        self.temperature, self.floor = temperature.to(dtype), min_target_prob
        self.excluded_ids = torch.tensor(excluded, dtype=torch.long, device=embedding.device)
        self.buffers = tuple(self.rows.new_empty(chunk_size, self.rows.size(0)) for _ in range(2))

    def chunk(self, target: Tensor) -> ExactChunk:
        """Soft targets of a chunk of tokens.

        Args:
            target: (C,) int64, in order, so that equal ones are neighbours; C at most the chunk size.

        Returns:
            :class:`ExactChunk`; its ``probs`` are good until the next call.
        """
        words, inverse, counts = target.unique_consecutive(return_inverse=True, return_counts=True)
        probs, target_prob, distance = self._distinct(words)
        counts = counts.to(probs.dtype)
        # Every word but the target and the excluded ones; a target that is itself excluded takes nothing away.
        target_is_excluded = (target.unsqueeze(1) == self.excluded_ids).any(dim=1)
        others = self.rows.size(0) - 1 - self.excluded_ids.numel()
        return ExactChunk(
            torch.index_select(probs, 0, inverse, out=self.buffers[0][: target.numel()]),
            counts.dot(target_prob),
            counts.dot(distance) * self.temperature,
            others * target.numel() + target_is_excluded.sum(),
        )

    def _distinct(self, words: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Rows q of U words (U, V), q of each word itself (U,), and the sum of its distances in units of tau' (U,).

        ``sqrt(|w_t|^2 + |w_k|^2 - 2 w_t . w_k)`` in place: few passes over the chunk, no new memory.
        """
        column, floor = words.unsqueeze(1), self.floor
        distances, probs = (buffer[: words.numel()] for buffer in self.buffers)
        torch.addmm(self.square_norms, self.rows[words], self.rows.t(), alpha=-2.0, out=distances)
        distances.add_(self.square_norms[words].unsqueeze(1)).clamp_min_(0.0).sqrt_()
        distances.scatter_(1, column, 0.0).index_fill_(1, self.excluded_ids, 0.0)
        distance = distances.sum(dim=1)
        distances.neg_().index_fill_(1, self.excluded_ids, -math.inf).scatter_(1, column, 0.0)
        torch.softmax(distances, dim=1, out=probs)
        target_prob = probs.gather(1, column)
        below_floor = target_prob < floor
        scale = torch.where(below_floor, (1.0 - floor) / (1.0 - target_prob), torch.ones_like(target_prob))
        target_prob = torch.where(below_floor, torch.full_like(target_prob, floor), target_prob)
        probs.mul_(scale).scatter_(1, column, target_prob)
        return probs, target_prob.squeeze(1), distance
