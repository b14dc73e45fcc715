"""Soft targets over every word, for the support ``full`` of the fused loss, a chunk of tokens at a time.

What the matrix W says depends on the target word alone, so on a CPU tokens are taken in the order of their targets and
each distinct word of a chunk gets its row once: one (U, V, d) matrix product for U <= N distinct words in all, and no
memory beyond the buffers of a chunk. A GPU would have to be waited for to know U: there each token has its row. The
equations are those of ``docs/method.md``.
"""

import math
from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .arguments import numbers_at_hand, word_ids, word_mask
from .compiled_rows import FullRows
from .geometry import SIMILARITIES, Products
from .half_products import product
from .options import SelfKDOptions
from .soft_targets import effective_temperature, make_shuffle
from .supports import largest

__all__ = ["FullChunk", "FullTargets", "expectations"]


def expectations(probs: Tensor, values: Tensor) -> Tensor:
    """Sums over the words of probabilities times values.

    Args:
        probs: (C, V).
        values: (C, V), of the same dtype; overwritten, perhaps.

    Returns:
        (C,); no gradient flows.
    """
    if numbers_at_hand(values):  # on a CPU twice as fast as products of rows
        return values.mul_(probs).sum(dim=1)
    return torch.bmm(probs.unsqueeze(1), values.unsqueeze(2)).view(-1)


class FullChunk(NamedTuple):
    """Soft targets of a chunk of C tokens; no gradient.

    Attributes:
        probs: (C, V) q; a buffer that the next chunk overwrites.
        target_prob: (C,) soft-target probabilities of the target words.
        entropy: (C,) of q, in nats.
        measure: (C,) sums of the distances (or cosines) of the target and every other word of its support.
        num_pairs: () int64, number of those of the tokens that count; 0 where W is not read.
    """

    probs: Tensor
    target_prob: Tensor
    entropy: Tensor
    measure: Tensor
    num_pairs: Tensor


class FullTargets:
    """What the soft targets of all chunks share: the matrix, ready for products, and two buffers.

    Args:
        embedding: (V, d) output embedding matrix, any float dtype; no gradient flows.
        options: of support ``full``, checked.
        excluded: word ids in [0, V) that get no probability except as the target.
        chunk_size: most tokens of a chunk.
        dtype: of q, float32 or float64.
        compiled: only :meth:`rows_of_tokens` will be asked for.
        paired: see :class:`~.compiled_rows.FullRows`.
    """

    def __init__(
        self,
        embedding: Tensor,
        options: SelfKDOptions,
        excluded: Sequence[int],
        chunk_size: int,
        dtype: torch.dtype,
        compiled: bool = False,
        paired: bool = False,
    ):
        device = embedding.device
        self.options = options
        self.excluded_ids = word_ids(excluded, device)
        self.similarity = SIMILARITIES[options.similarity]
        self.products: Optional[Products] = None
        self.temperature: Optional[Tensor] = None
        if options.reads_embedding:
            self.products = self.similarity.measure.products(embedding, dtype)
            self.temperature = effective_temperature(embedding, options, self.products.rms).to(dtype)
        self.shuffle = make_shuffle(options, embedding.size(0), excluded, device)
        number = (1 if self.products else 0) if compiled else 2
        shape = (chunk_size, embedding.size(0))
        if compiled and paired:
            shape = (chunk_size // 2, embedding.size(0))
        self.paired = paired
        self.buffers = [torch.empty(shape, dtype=dtype, device=device) for _ in range(number)]
        if compiled:
            self.left_out = word_mask(self.excluded_ids, embedding.size(0))

    def rows_of_tokens(self, target: Tensor, teacher_logits: Optional[Tensor]) -> FullRows:
        """What the soft targets of a chunk are made of, each token with a row of its own, its two passes with one.

        Args:
            target: (C,) int64; C is at most the chunk size.
            teacher_logits: (C, V), for the teacher ``self``, else None.

        Returns:
            :class:`~.compiled_rows.FullRows`, good until the next call.
        """
        dots = None
        if self.products is not None:
            rows, words = self.products.rows, target[::2] if self.paired else target
            dots = product(self.buffers[0][: words.numel()], rows[words], rows.t())
        return FullRows(
            target, self.left_out, dots, self.products, self.temperature, teacher_logits, self.shuffle, self.paired
        )

    def chunk(self, target: Tensor, teacher_logits: Optional[Tensor], keep: Optional[Tensor] = None) -> FullChunk:
        """Soft targets of a chunk of tokens.

        Args:
            target: (C,) int64; on a CPU in order, so that equal ones are neighbours. C is at most the chunk size.
            teacher_logits: (C, V) in the dtype of q, less the largest of each token, for the teacher ``self``, else
                None; overwritten, but if ``paired``, where rows 2 i and 2 i + 1 are each other's.
            keep: (C,) bool, False for tokens whose pairs do not count; None: all do.

        Returns:
            :class:`FullChunk`; its ``probs`` are good until the next call.
        """
        pairs = self.num_pairs(target, keep)
        words, inverse = target[::2] if self.paired else target, None
        if numbers_at_hand(target) and self.products is not None:
            words, inverse = words.unique_consecutive(return_inverse=True)
        rows, measure = self._rows(words)
        if teacher_logits is None:
            rows = rows.zero_() if self.products is None else rows
            probs, *of_words = self._distribution(rows, words, self.buffers[1][: words.numel()])
            target_prob, entropy, measure = (self._spread(x, inverse) for x in (*of_words, measure))
            return FullChunk(self._spread(probs, inverse, self.buffers[0]), target_prob, entropy, measure, pairs)
        measure = self._spread(measure, inverse)
        measure = measure.repeat_interleave(2) if self.paired else measure
        kept = self._kept_by_target(teacher_logits, target) if self.options.spares_target else None
        scores = self._gated(teacher_logits, rows, inverse)
        probs, target_prob, entropy = self._distribution(scores, target, self.buffers[0][: target.numel()], kept)
        return FullChunk(probs, target_prob, entropy, measure, pairs)

    def _gated(self, teacher_logits: Tensor, rows: Tensor, inverse: Optional[Tensor]) -> Tensor:
        """z0 / T + lambda s (C, V): of pairs in the second buffer, else over ``teacher_logits``."""
        softness, weight = 1.0 / self.options.student_temperature, self.options.embedding_weight
        reads_rows, half = self.products is not None, self.buffers[0].size(0) // 2
        if not self.paired:
            scores = teacher_logits if softness == 1 else teacher_logits.mul_(softness)
            return scores.add_(self._spread(rows, inverse, self.buffers[1]), alpha=weight) if reads_rows else scores
        scores = self.buffers[1][: teacher_logits.size(0)]
        spread = self._spread(rows.mul_(weight), inverse, self.buffers[0][half:]) if reads_rows else rows
        for mine, of_other in ((scores[::2], teacher_logits[1::2]), (scores[1::2], teacher_logits[::2])):
            if reads_rows:
                torch.add(spread, of_other, alpha=softness, out=mine)
            else:
                torch.mul(of_other, softness, out=mine)
        return scores

    def _kept_by_target(self, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """What the other pass gives to the targets, over the words that may have probability: (C, 1)."""
        column, out = target.unsqueeze(1), self.buffers[1][: target.numel()]  # which is free until the scores are made
        logits = torch.mul(teacher_logits, 1.0 / self.options.student_temperature, out=out)
        of_target = logits.gather(1, column)
        logits.index_fill_(1, self.excluded_ids, -math.inf).scatter_(1, column, of_target)
        kept = torch.softmax(logits, dim=1, out=out).gather(1, column)
        return kept.view(-1, 2).flip(1).view(-1, 1) if self.paired else kept

    @staticmethod
    def _spread(of_words: Tensor, inverse: Optional[Tensor], buffer: Optional[Tensor] = None) -> Tensor:
        """What belongs to distinct words, for the tokens that they are the targets of."""
        if inverse is None:
            return of_words
        return torch.index_select(of_words, 0, inverse, out=None if buffer is None else buffer[: inverse.numel()])

    def num_pairs(self, target: Tensor, keep: Optional[Tensor]) -> Tensor:
        """Count the pairs of a target and another word of its support.

        Args:
            target: (C,) int64.
            keep: (C,) bool, False for tokens that do not count; None: all do.

        Returns:
            () int64; 0 where W is not read.
        """
        if self.products is None:
            return torch.zeros((), dtype=torch.long, device=target.device)
        # Every word but the target and the excluded ones; a target that is itself excluded takes nothing away.
        target_is_excluded = (target.unsqueeze(1) == self.excluded_ids).any(dim=1)
        pairs = target_is_excluded + (self.products.rows.size(0) - 1 - self.excluded_ids.numel())
        return (pairs if keep is None else pairs * keep).sum()

    def _rows(self, words: Tensor) -> Tuple[Tensor, Tensor]:
        """Scores by W of U words, 0 for the word itself, and the sum of the measures of each (U,).

        They are (U, V) in the first buffer, which holds nothing where W is not read.
        """
        out = self.buffers[0][: words.numel()]
        if self.products is None:
            return out, out.new_zeros(words.numel())
        column, of_itself = words.unsqueeze(1), self.similarity.measure.of_itself
        measures = self.similarity.measure.by_products(self.products, words, out).scatter_(1, column, of_itself)
        if self.shuffle is not None and self.options.control == "shuffled_rows":
            measures = out.copy_(self.shuffle.columns(measures, words))
        measure = measures.scatter_(1, column, 0.0).index_fill_(1, self.excluded_ids, 0.0).sum(dim=1)
        assert self.temperature is not None
        scores = self.similarity.score(measures.scatter_(1, column, of_itself), self.temperature)
        return (scores if of_itself == 0 else scores.sub_(scores.gather(1, column))), measure

    def _distribution(
        self, scores: Tensor, words: Tensor, out: Tensor, kept: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """The q of rows of scores (R, V) and their targets (R,): q in ``out``, q of the targets and entropies (R,).

        The scores are overwritten; an offset of all of a row would cost precision. ``kept``: (R, 1), of the targets.
        """
        column, floor = words.unsqueeze(1), self.options.min_target_prob
        if kept is not None:
            return self._distribution_beside(scores, column, out, kept.clamp_min(floor))
        target_score = scores.gather(1, column)
        scores.index_fill_(1, self.excluded_ids, -math.inf).scatter_(1, column, target_score)
        best, best_word = largest(scores, 1)
        torch.softmax(scores, dim=1, out=out)
        log_of_sum = best - out.gather(1, best_word).log()
        target_prob = out.gather(1, column)
        # 0 where q is 0 and the score -inf
        scores.index_fill_(1, self.excluded_ids, 0.0).scatter_(1, column, target_score)
        negentropy_of_all = expectations(out, scores).unsqueeze(1) - log_of_sum
        negentropy_of_others = negentropy_of_all - target_prob * (target_score - log_of_sum)
        entropy = torch.special.entr(target_prob) - negentropy_of_others
        if floor > 0:
            below_floor, rest = target_prob < floor, 1.0 - target_prob
            scale = torch.where(below_floor, (1.0 - floor) / rest, torch.ones_like(target_prob))
            target_prob = torch.where(below_floor, torch.full_like(target_prob, floor), target_prob)
            out.mul_(scale).scatter_(1, column, target_prob)
            # q log q of the others, all scaled alike: scale (p log p + p log scale)
            negentropy_of_others = scale * negentropy_of_others + torch.special.xlogy(scale * rest, scale)
            entropy = torch.special.entr(target_prob) - negentropy_of_others
        return self._shuffled(out, words), target_prob.squeeze(1), entropy.squeeze(1)

    def _distribution_beside(
        self, scores: Tensor, column: Tensor, out: Tensor, target_prob: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """As :meth:`_distribution`, where the targets (R, 1) have ``target_prob`` (R, 1) whatever their scores are."""
        best, best_word = largest(scores.index_fill_(1, self.excluded_ids, -math.inf).scatter_(1, column, -math.inf), 1)
        is_alone = best == -math.inf  # and has the softmax of itself, where that of -inf alone would be NaN
        of_target = torch.zeros_like(best).masked_fill_(~is_alone, -math.inf)
        torch.softmax(scores.scatter_(1, column, of_target), dim=1, out=out)
        log_of_sum = best - out.gather(1, best_word).log()
        # 0 where q is 0 and the score -inf
        scores.index_fill_(1, self.excluded_ids, 0.0).scatter_(1, column, 0.0)
        entropy_of_others = log_of_sum - expectations(out, scores).unsqueeze(1)
        target_prob = target_prob.masked_fill(is_alone, 1.0)
        rest = 1.0 - target_prob
        out.mul_(rest).scatter_(1, column, target_prob)
        of_others = torch.where(is_alone, 0.0, torch.special.entr(rest) + rest * entropy_of_others)
        entropy = torch.special.entr(target_prob) + of_others
        return self._shuffled(out, column.squeeze(1)), target_prob.squeeze(1), entropy.squeeze(1)

    def _shuffled(self, probs: Tensor, words: Tensor) -> Tensor:
        """The q (R, V) themselves, with the control ``shuffled`` in another order of their words."""
        if self.shuffle is not None and self.options.control == "shuffled":
            probs.copy_(self.shuffle.columns(probs, words))
        return probs
