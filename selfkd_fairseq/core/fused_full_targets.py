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

__all__ = ["FullChunk", "FullTargets"]


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
            teacher_logits: (C, V) in the dtype of q, for the teacher ``self``, else None; overwritten.
            keep: (C,) bool, False for tokens whose pairs do not count; None: all do.

        Returns:
            :class:`FullChunk`; its ``probs`` are good until the next call.
        """
        pairs = self.num_pairs(target, keep)
        if teacher_logits is not None:
            teacher_logits.div_(self.options.student_temperature)
            if self.products is None:
                return self._of_tokens(teacher_logits, target, torch.zeros_like(teacher_logits[:, 0]), pairs)
        words, inverse = target, None
        if numbers_at_hand(target):
            words, inverse = target.unique_consecutive(return_inverse=True)
        rows, measure = self._rows(words)
        if teacher_logits is not None:
            of_tokens = self._spread(rows, inverse, self.buffers[1])
            scores = teacher_logits.add_(of_tokens, alpha=self.options.embedding_weight)
            return self._of_tokens(scores, target, self._spread(measure, inverse), pairs)
        probs, *of_words = self._distribution(rows, words, self.buffers[1][: words.numel()])
        target_prob, entropy, measure = (self._spread(x, inverse) for x in (*of_words, measure))
        return FullChunk(self._spread(probs, inverse, self.buffers[0]), target_prob, entropy, measure, pairs)

    @staticmethod
    def _spread(of_words: Tensor, inverse: Optional[Tensor], buffer: Optional[Tensor] = None) -> Tensor:
        """What belongs to distinct words, for the tokens that they are the targets of."""
        if inverse is None:
            return of_words
        return torch.index_select(of_words, 0, inverse, out=None if buffer is None else buffer[: inverse.numel()])

    def _of_tokens(self, scores: Tensor, target: Tensor, measure: Tensor, num_pairs: Tensor) -> FullChunk:
        """Q from the scores (C, V) of each token, which are overwritten."""
        probs, target_prob, entropy = self._distribution(scores, target, self.buffers[0][: target.numel()])
        return FullChunk(probs, target_prob, entropy, measure, num_pairs)

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
        """Scores by W of U words, (U, V) in the first buffer, and the sum of the measures of each (U,)."""
        out = self.buffers[0][: words.numel()]
        if self.products is None:
            return out.zero_(), out.new_zeros(words.numel())
        column, of_itself = words.unsqueeze(1), self.similarity.measure.of_itself
        measures = self.similarity.measure.by_products(self.products, words, out).scatter_(1, column, of_itself)
        if self.shuffle is not None and self.options.control == "shuffled_rows":
            measures = out.copy_(self.shuffle.columns(measures, words))
        measure = measures.scatter_(1, column, 0.0).index_fill_(1, self.excluded_ids, 0.0).sum(dim=1)
        assert self.temperature is not None
        return self.similarity.score(measures.scatter_(1, column, of_itself), self.temperature), measure

    def _distribution(self, scores: Tensor, words: Tensor, out: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """The q of rows of scores (R, V) and their targets (R,): q in ``out``, q of the targets and entropies (R,)."""
        column, floor = words.unsqueeze(1), self.options.min_target_prob
        target_score = scores.gather(1, column)
        scores.index_fill_(1, self.excluded_ids, -math.inf).scatter_(1, column, target_score)
        best = scores.max(dim=1, keepdim=True)
        torch.softmax(scores, dim=1, out=out)
        # Scores less the largest one, so that an offset of all costs no precision; 0 where q is 0 and they are -inf.
        scores.sub_(best.values).index_fill_(1, self.excluded_ids, 0.0).scatter_(1, column, target_score - best.values)
        log_of_best = out.gather(1, best.indices).log()
        target_prob = out.gather(1, column)
        log_target_prob = target_score - best.values + log_of_best
        negentropy_of_all = torch.bmm(out.unsqueeze(1), scores.unsqueeze(2)).squeeze(2) + log_of_best
        negentropy_of_others = negentropy_of_all - target_prob * log_target_prob
        entropy = torch.special.entr(target_prob) - negentropy_of_others
        if floor > 0:
            below_floor, rest = target_prob < floor, 1.0 - target_prob
            scale = torch.where(below_floor, (1.0 - floor) / rest, torch.ones_like(target_prob))
            target_prob = torch.where(below_floor, torch.full_like(target_prob, floor), target_prob)
            out.mul_(scale).scatter_(1, column, target_prob)
            # q log q of the others, all scaled alike: scale (p log p + p log scale)
            negentropy_of_others = scale * negentropy_of_others + torch.special.xlogy(scale * rest, scale)
            entropy = torch.special.entr(target_prob) - negentropy_of_others
        if self.shuffle is not None and self.options.control == "shuffled":
            out.copy_(self.shuffle.columns(out, words))
        return out, target_prob.squeeze(1), entropy.squeeze(1)
