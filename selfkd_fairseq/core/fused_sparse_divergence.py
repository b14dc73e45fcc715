"""L_SKD of the fused loss over the few words of a support, a chunk at a time: the gradient is a few numbers a token.

Equations: ``docs/method.md``.
"""

import math
from typing import NamedTuple, Optional, Sequence, Union

import torch
from torch import Tensor

from .compiled_rows import compiled
from .fused_divergence import Chunk, Divergence, DivergenceInputs, Terms
from .geometry import SIMILARITIES
from .options import SelfKDOptions
from .soft_targets import effective_temperature, entropy, make_shuffle, shuffled_words, sparse_soft_targets
from .supports import SUPPORTS, Choice, mark_support

__all__ = ["SparseDivergence", "SupportWords", "sparse_terms"]


class SupportWords(NamedTuple):
    """What the soft targets of C tokens read of the large tensors, for the K words of each support, the target first.

    Attributes:
        indices: (C, K) int64, the words.
        shares_of: (C, K) int64, the words that get their shares: others with the control ``shuffled``.
        logits: (C, K) of these, in the dtype of the features.
        rows: (C, K, d) of W that the similarities are taken of; None where W is not read.
        centre: (d,), see :class:`~.geometry.Measure`; None where it is not needed.
        temperature: () tau'; None where W is not read.
        teacher_scores: (C, K) z0 of ``indices``, for the teacher ``self``, else None.
    """

    indices: Tensor
    shares_of: Tensor
    logits: Tensor
    rows: Optional[Tensor]
    centre: Optional[Tensor]
    temperature: Optional[Tensor]
    teacher_scores: Optional[Tensor]


def sparse_terms(
    words: SupportWords, best_logit: Tensor, excess: Tensor, keep: Optional[Tensor], alpha: Union[float, Tensor],
    options: SelfKDOptions, excluded: Sequence[int],
) -> Terms:  # fmt: skip
    """L_SKD of C tokens over the few words of their supports.

    Args:
        words: see :class:`SupportWords`.
        best_logit: (C,) the largest logit, float32 or better, and so is the result.
        excess: (C,) logsumexp of the logits less the largest.
        keep: (C,) bool, False for tokens that do not count; None: all do.
        alpha: weight of the term, a number or (). A compiler takes a number as a constant.
        options: of a sparse support, checked.
        excluded: word ids that are in no support except as the target.

    Returns:
        :class:`Terms`, in nats, of each token, no sums; no gradient flows.
    """
    dtype, temperature, is_within = excess.dtype, options.student_temperature, options.normalise == "support"
    support, measures = mark_support(words.indices, excluded), None
    if words.rows is not None:
        measures = SIMILARITIES[options.similarity].measure.of_rows(words.rows, words.centre)
    q = sparse_soft_targets(support, options, dtype, measures, words.temperature, words.teacher_scores)
    below_best = (words.logits.to(dtype) - best_logit.unsqueeze(1)).masked_fill(~q.valid, 0.0)
    if is_within:
        scores = (below_best / temperature).masked_fill(~q.valid, -math.inf)
        lprobs = torch.log_softmax(scores, dim=1).masked_fill(~q.valid, 0.0)
        shares = temperature * (q.probs - lprobs.exp().masked_fill(~q.valid, 0.0))
    else:
        lprobs, shares = below_best - excess.unsqueeze(1), q.probs
    h = entropy(q.probs)
    loss = temperature**2 * (-(q.probs * lprobs).sum(dim=1) - h)
    if measures is None:
        measure, num_pairs = torch.zeros_like(h), torch.zeros((), dtype=torch.long, device=h.device)
    else:
        others = q.valid[:, 1:]
        measure = measures[:, 1:].masked_fill(~others, 0.0).sum(dim=1).to(dtype)
        num_pairs = (others if keep is None else others & keep.unsqueeze(1)).sum()
    return Terms(loss, q.probs[:, 0], h, measure, num_pairs, (words.shares_of, -alpha * shares))


class SparseDivergence(Divergence):
    """Over the few words of a support, normalised over all words (T is 1 then) or over those of the support.

    Args:
        inputs: see :class:`DivergenceInputs`.
    """

    def __init__(self, inputs: DivergenceInputs):
        super().__init__(inputs)
        options = inputs.options
        self.words: Optional[Tensor] = None
        words_of = SUPPORTS[options.support]
        if options.support != "predicted" and words_of is not None:  # whose words come from the logits of each chunk
            choice = Choice(
                None, inputs.embedding, inputs.target, options.support_size, inputs.excluded,
                neighbours=inputs.neighbours, generator=inputs.generator,
            )  # fmt: skip
            self.words = words_of(choice)
        embedding = inputs.embedding
        temperature = compiled(effective_temperature) if inputs.compiled else effective_temperature
        self.temperature = temperature(embedding, options) if options.reads_embedding else None
        self.centre = SIMILARITIES[options.similarity].measure.centre(embedding) if options.reads_embedding else None
        self.shuffle = make_shuffle(options, embedding.size(0), inputs.excluded, embedding.device)

    def add(self, chunk: Chunk, wants_gradient: bool) -> Terms:
        """See :meth:`Divergence.add`.

        Args:
            chunk: of tokens in the order of ``inputs.target``.
            wants_gradient: not read: what the term adds to the gradient is a few numbers.

        Returns:
            :class:`Terms` of the chunk.
        """
        alpha, options, excluded = self.inputs.alpha, self.inputs.options, self.inputs.excluded
        words = self.words_of(chunk)
        return sparse_terms(words, chunk.best_logit, chunk.excess, chunk.keep, alpha, options, excluded)

    def words_of(self, chunk: Chunk) -> SupportWords:
        """What of the large tensors the soft targets of a chunk read.

        Args:
            chunk: of tokens in the order of ``inputs.target``.

        Returns:
            :class:`SupportWords`; no gradient flows.
        """
        inputs = self.inputs
        options, tokens = inputs.options, chunk.tokens
        chosen = chunk.predicted if self.words is None else self.words[tokens]
        assert chosen is not None
        indices = torch.cat([inputs.target[tokens].unsqueeze(1), chosen], dim=1)
        rows_of, shares_of = shuffled_words(indices, options, self.shuffle)
        rows = inputs.embedding[rows_of] if options.reads_embedding else None
        teacher_scores = None
        if inputs.paired:
            partners = torch.arange(indices.size(0), device=indices.device) ^ 1
            teacher_scores = chunk.z[partners.unsqueeze(1), indices].to(inputs.dtype)
        elif inputs.teacher_features is not None:
            teacher_scores = self._teacher_scores(inputs.teacher_features[tokens], indices)
        return SupportWords(
            indices, shares_of, chunk.z.gather(1, shares_of), rows, self.centre, self.temperature, teacher_scores
        )  # fmt: skip

    def _teacher_scores(self, features: Tensor, indices: Tensor) -> Tensor:
        """z0 (C, K) of the words of a support: a few products, no row over the vocabulary."""
        inputs = self.inputs
        scores = torch.bmm(inputs.weight[indices], features.unsqueeze(2)).squeeze(2).to(inputs.dtype)
        return scores if inputs.bias is None else scores + inputs.bias[indices].to(inputs.dtype)
