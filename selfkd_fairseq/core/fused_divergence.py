"""L_SKD of the fused loss, chunk by chunk: its sums, and what it adds to the gradient of the logits.

    L_SKD = T^2 sum_i KL(q_i || pT_i)        pT_i = softmax(z_i / T), over all words or over the words of the support
    dL_SKD/dz_ik = T (pT_ik - q_ik)

Equations: ``docs/method.md``; the loss around it: :mod:`.fused_linear_loss`.
"""

import math
from typing import NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from .compiled_rows import Sums, compiled, full_rows
from .fused_full_targets import FullTargets, expectations
from .geometry import SIMILARITIES
from .half_products import product
from .options import SelfKDOptions
from .soft_targets import (
    effective_temperature,
    entropy,
    make_shuffle,
    shuffled_words,
    sparse_soft_targets,
)
from .supports import SUPPORTS, Choice, mark_support

__all__ = [
    "Chunk",
    "Divergence",
    "DivergenceInputs",
    "FullDivergence",
    "SparseDivergence",
    "SupportWords",
    "Terms",
    "make_divergence",
    "project",
    "sparse_terms",
]


class DivergenceInputs(NamedTuple):
    """What L_SKD is made of, checked; no gradient flows through any of it.

    Attributes:
        embedding: (V, d), the output matrix as the soft targets see it: not cast by autocast.
        weight: (V, d), the same in the dtype of the features.
        bias: (V,) in that dtype, or None.
        target: (N,) int64.
        teacher_features: (N, d) of the teacher's pass, or None.
        paired: whether tokens 2 i and 2 i + 1 are one in two passes, each the teacher of the other; chunks are even.
        alpha: weight of the term.
        options: how soft targets are made and compared.
        excluded: word ids in [0, V) that are in no support except as the target.
        neighbours: (V, n) int64 or None.
        generator: of the support ``random``.
        chunk_size: most tokens of a chunk.
        dtype: to compute in, float32 or float64.
        keep: (N,) bool, False for tokens that do not count; None: all do.
        compiled: whether the passes over the logits are those of :mod:`.compiled_rows`.
    """

    embedding: Tensor
    weight: Tensor
    bias: Optional[Tensor]
    target: Tensor
    teacher_features: Optional[Tensor]
    paired: bool
    alpha: float
    options: SelfKDOptions
    excluded: Sequence[int]
    neighbours: Optional[Tensor]
    generator: Optional[torch.Generator]
    chunk_size: int
    dtype: torch.dtype
    keep: Optional[Tensor] = None
    compiled: bool = False

    def kept(self, tokens: slice) -> Optional[Tensor]:
        """``keep`` of a chunk.

        Args:
            tokens: which of the N.

        Returns:
            (C,) bool, or None.
        """
        return None if self.keep is None else self.keep[tokens]


class Chunk(NamedTuple):
    """The model's side of a chunk of C tokens.

    Attributes:
        tokens: which of the N.
        z: (C, V) logits, as :meth:`Divergence.prepared` leaves them; may be overwritten.
        probs: (C, V) softmax of them, float32 or better as all that follows; becomes dL/dz but for what L_CE takes
            from it. None in compiled passes, which write no such tensor.
        best_logit: (C,) the largest.
        best_word: (C,) int64, its word.
        excess: (C,) logsumexp(z) less the largest logit.
        predicted: (C, n) int64, words of the support ``predicted``; None with others.
        keep: (C,) bool, False for tokens that do not count; None: all do.
    """

    tokens: slice
    z: Tensor
    probs: Optional[Tensor]
    best_logit: Tensor
    best_word: Tensor
    excess: Tensor
    predicted: Optional[Tensor]
    keep: Optional[Tensor]


class Terms(NamedTuple):
    """What a chunk of C tokens adds to the sums, token by token: those that do not count, too.

    Attributes:
        loss: (C,) T^2 KL(q || pT), in nats.
        target_prob: (C,) q of the target.
        entropy: (C,) of q, in nats.
        measure: (C,) sum of the distances (or cosines) of the target and every other word of the support.
        num_pairs: () int64, how many those are over the tokens that count; 0 where W is not read.
        gradient: of a sparse support: (C, K) words, the target first, and (C, K) what the term adds to their dL/dz.
    """

    loss: Tensor
    target_prob: Tensor
    entropy: Tensor
    measure: Tensor
    num_pairs: Tensor
    gradient: Optional[Tuple[Tensor, Tensor]] = None


class Divergence:
    """L_SKD and its statistics, a chunk of tokens at a time.

    Args:
        inputs: see :class:`DivergenceInputs`.
    """

    def __init__(self, inputs: DivergenceInputs):
        self.inputs = inputs
        self.student_temperature = inputs.options.student_temperature

    @property
    def share_of_probs(self) -> float:
        """Of p in dL/dz where a sparse support adds nothing; the target's label-smoothed share is left out."""
        return 1.0 - self.inputs.alpha if self.inputs.options.normalise == "support" else 1.0

    def prepared(self, z: Tensor, best_logit: Tensor) -> Tensor:
        """The logits as :meth:`add` wants them, before the softmax is taken of them.

        Args:
            z: (C, V) in the dtype of the features; may be overwritten, but not where that is of half precision.
            best_logit: (C,) the largest, float32 or better.

        Returns:
            (C, V): ``z`` itself, or with ``full`` ``z`` less the largest, in the dtype of ``best_logit``.
        """
        return z

    def add(self, chunk: Chunk, wants_gradient: bool) -> Terms:
        """Sums of a chunk. With the support ``full`` ``chunk.probs`` become (1 - alpha) p + alpha dL_SKD/dz.

        Args:
            chunk: of tokens in the order of ``inputs.target``.
            wants_gradient: whether it is read afterwards.

        Returns:
            :class:`Terms` of the chunk.
        """
        raise NotImplementedError


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


class FullDivergence(Divergence):
    """Over every word, at any temperature of the student.

    Args:
        inputs: see :class:`DivergenceInputs`.
    """

    def __init__(self, inputs: DivergenceInputs):
        super().__init__(inputs)
        self.targets = FullTargets(
            inputs.embedding, inputs.options, inputs.excluded, inputs.chunk_size, inputs.dtype, inputs.compiled,
            inputs.paired,
        )  # fmt: skip
        shape, device = (inputs.chunk_size, inputs.embedding.size(0)), inputs.target.device
        self.softened = self.teacher_logits = self.below_best = None
        if self.student_temperature != 1 and not inputs.compiled:
            self.softened = torch.empty(shape, dtype=inputs.dtype, device=device)
        if inputs.weight.dtype != inputs.dtype and not inputs.compiled:
            self.below_best = torch.empty(shape, dtype=inputs.dtype, device=device)
        self.gradient = None
        if inputs.paired and inputs.compiled:  # the logits of a token are read for the other pass, too
            self.gradient = torch.empty(shape, dtype=inputs.weight.dtype, device=device)
        if inputs.teacher_features is not None:
            # Compiled passes read them as they read those of the model; the others work on them in place.
            dtype = inputs.weight.dtype if inputs.compiled else inputs.dtype
            self.teacher_logits = torch.empty(shape, dtype=dtype, device=device)

    def prepared(self, z: Tensor, best_logit: Tensor) -> Tensor:
        """See :meth:`Divergence.prepared`: a sum over V words of large logits would lose what tells them apart.

        Args:
            z: (C, V) in the dtype of the features; overwritten, but not where that is of half precision.
            best_logit: (C,) the largest, float32 or better.

        Returns:
            (C, V), ``z`` less the largest.
        """
        out = z if self.below_best is None else self.below_best[: z.size(0)]
        return torch.sub(z, best_logit.unsqueeze(1), out=out)

    def add(self, chunk: Chunk, wants_gradient: bool) -> Terms:
        """See :meth:`Divergence.add`.

        Args:
            chunk: of tokens in the order of ``inputs.target``.
            wants_gradient: whether ``chunk.probs`` is read afterwards.

        Returns:
            :class:`Terms` of the chunk.
        """
        inputs, temperature, below_best = self.inputs, self.student_temperature, chunk.z
        assert chunk.probs is not None
        q = self.targets.chunk(inputs.target[chunk.tokens], self._teacher_logits(below_best, chunk.tokens), chunk.keep)
        excess, softened = chunk.excess, None
        if self.softened is not None:
            below_best.div_(temperature)
            softened = torch.softmax(below_best, dim=1, out=self.softened[: below_best.size(0)])
            excess = -softened.gather(1, chunk.best_word.unsqueeze(1)).squeeze(1).log()
        expected = expectations(q.probs, below_best)
        if wants_gradient and inputs.alpha > 0:
            if softened is None:
                chunk.probs.sub_(q.probs, alpha=inputs.alpha)
            else:
                chunk.probs.mul_(1.0 - inputs.alpha).add_(softened.sub_(q.probs), alpha=inputs.alpha * temperature)
        loss = temperature**2 * (excess - expected - q.entropy)
        return Terms(loss, q.target_prob, q.entropy, q.measure, q.num_pairs)

    def add_compiled(
        self, z: Tensor, tokens: slice, weights: Tensor, scale: float, wants_gradient: bool
    ) -> Tuple[Sums, Tensor, Tensor]:
        """As :meth:`add`, and all else that the loss wants to know of a chunk, in compiled passes.

        Args:
            z: (C, V) logits, in the dtype of the features; may be overwritten.
            tokens: which of the N.
            weights: (n,) two numbers, as :func:`~.compiled_rows.full_rows` takes them.
            scale: of the gradient.
            wants_gradient: whether it is.

        Returns:
            :class:`~.compiled_rows.Sums`, in nats, of each token, no sums; () int64 the number of pairs; and (C, V)
            ``scale`` times dL/dz, if the gradient is wanted.
        """
        target = self.inputs.target[tokens].clone()  # a compiler would tell views by where they begin
        teacher_logits = self._teacher_logits(z, tokens)
        rows = self.targets.rows_of_tokens(target, teacher_logits)
        dz = None if self.gradient is None else self.gradient[: z.size(0)]
        terms = compiled(full_rows)(z, rows, self.inputs.options, weights, scale, wants_gradient, out=dz)
        return terms, self.targets.num_pairs(target, self.inputs.kept(tokens)), z if dz is None else dz

    def _teacher_logits(self, z: Tensor, tokens: slice) -> Optional[Tensor]:
        """z0 (C, V) of the teacher ``self``, of pairs z itself; None where there is none.

        For passes that are not compiled they are in the dtype of the computation, and less the largest of each token.
        """
        inputs = self.inputs
        if inputs.paired:
            return z
        if self.teacher_logits is None:
            return None
        assert inputs.teacher_features is not None
        logits = self.teacher_logits[: z.size(0)]
        if inputs.compiled:
            return project(inputs.teacher_features[tokens], inputs.weight, inputs.bias, logits)
        bias = None if inputs.bias is None else inputs.bias.to(inputs.dtype)
        product(logits, inputs.teacher_features[tokens], inputs.weight.t(), bias)
        return logits.sub_(logits.amax(dim=1, keepdim=True))


def project(features: Tensor, weight: Tensor, bias: Optional[Tensor], out: Tensor) -> Tensor:
    """Logits of a chunk.

    Args:
        features: (C, d).
        weight: (V, d) of the same dtype.
        bias: (V,) or None.
        out: (C, V) of that dtype, overwritten.

    Returns:
        ``out``, (C, V); no gradient flows.
    """
    if bias is None:
        return torch.mm(features, weight.t(), out=out)
    return torch.addmm(bias, features, weight.t(), out=out)


def make_divergence(inputs: DivergenceInputs) -> Divergence:
    """The term for the support at hand.

    Args:
        inputs: see :class:`DivergenceInputs`.

    Returns:
        A :class:`Divergence`, before the first chunk.
    """
    return FullDivergence(inputs) if SUPPORTS[inputs.options.support] is None else SparseDivergence(inputs)
