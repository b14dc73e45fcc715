"""What the fused loss does to the logits of a chunk of tokens: it takes their sums, and writes dL/dz in their place.

Three ways with the same numbers: operations of torch; compiled ones where a few words share probability; compiled ones
where every word does. Equations: ``docs/method.md``. The loop over the chunks, and the products that give the gradients
of h, W and b: :mod:`.fused_linear_loss`.
"""

from typing import Any, Optional, Sequence, Tuple, Type

import torch
from torch import Tensor

from .arguments import word_ids, word_mask
from .compiled_rows import Sums, compiled, read_rows, write_rows
from .fused_divergence import Chunk, Divergence, DivergenceInputs, Terms
from .fused_full_divergence import FullDivergence
from .fused_sparse_divergence import SparseDivergence, SupportWords, sparse_terms
from .options import SelfKDOptions
from .supports import SUPPORTS, largest

__all__ = ["ChunkPasses", "make_passes"]


class ChunkPasses:
    """Passes over the logits of one chunk after the other.

    Args:
        inputs: see :class:`~.fused_divergence.DivergenceInputs`.
        on_target: what L_CE takes from the target's share of dL/dz, beyond what it takes from every word alike.
        scale: of dL/dz.
        wants_gradient: whether dL/dz is read.
    """

    def __init__(self, inputs: DivergenceInputs, on_target: float, scale: float, wants_gradient: bool):
        self.inputs, self.on_target, self.scale, self.wants_gradient = inputs, on_target, scale, wants_gradient
        self.dtype = inputs.dtype
        self.excluded_ids = word_ids(inputs.excluded, inputs.target.device)
        of_support = FullDivergence if SUPPORTS[inputs.options.support] is None else SparseDivergence
        self.divergence: Divergence = of_support(inputs)

    def run(self, z: Tensor, tokens: slice) -> Tuple[Sums, Tensor, Tensor]:
        """Read the logits of a chunk.

        Args:
            z: (C, V) logits, in the dtype of the features; overwritten.
            tokens: which of the N.

        Returns:
            :class:`~.compiled_rows.Sums` of each token, (C,), in nats, of those that do not count too; () int64, the
            number of pairs (see :class:`~.fused_divergence.Terms`); and ``scale`` times dL/dz (C, V) in the dtype of
            the features, but for what L_CE takes from every word alike. The last holds nothing where no gradient is
            wanted. No autograd history.
        """
        raise NotImplementedError

    def _weights(self) -> Tensor:
        """For a compiler, which takes numbers as constants."""
        weights = torch.full((2,), self.inputs.alpha, dtype=self.dtype, device=self.inputs.target.device)
        weights[1:].fill_(self.on_target)
        return weights

    def _predicted(self, z: Tensor, column: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """The largest logit (C,), its word (C,), and the n most probable words that may be in the support (C, n).

        One search serves both: the columns that are left out are put aside for it and put back.
        """
        options = self.inputs.options
        aside = self.excluded_ids.expand(z.size(0), -1)
        if options.normalise == "support":  # the words are chosen beside the target
            aside = torch.cat([aside, column], dim=1)
        kept = z.gather(1, aside)
        z.scatter_(1, aside, -float("inf"))
        best, words = largest(z, options.support_size)  # one word is that of argmax, as in the reference
        z.scatter_(1, aside, kept)
        best, of_best = torch.cat([best, kept], dim=1), torch.cat([words, aside], dim=1)
        best_logit = best.amax(dim=1)
        # Of equal logits the first word, as argmax takes it, whichever of them was put aside.
        best_word = of_best.masked_fill(best != best_logit.unsqueeze(1), z.size(1) - 1).amin(dim=1)
        return best_logit, best_word, words


class _Eager(ChunkPasses):
    """Any support, an operation of torch after the other."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        shape = (self.inputs.chunk_size, self.inputs.weight.size(0))
        self.probs = torch.empty(shape, dtype=self.dtype, device=self.inputs.target.device)

    def run(self, z: Tensor, tokens: slice) -> Tuple[Sums, Tensor, Tensor]:
        target, probs = self.inputs.target[tokens], self.probs[: z.size(0)]
        column = target.unsqueeze(1)
        predicted = None
        if self.inputs.options.support == "predicted":
            best_logit, best_word, predicted = self._predicted(z, column)
        else:
            best_logit, best_word = (x.squeeze(1) for x in largest(z, 1))
        best_logit, target_logit = (x.to(self.dtype) for x in (best_logit, z.gather(1, column).squeeze(1)))
        logits = self.divergence.prepared(z, best_logit)
        torch.softmax(logits, dim=1, dtype=self.dtype, out=probs)
        # logsumexp less the largest logit: of differences, so that an offset of all logits costs no precision.
        excess = -probs.gather(1, best_word.unsqueeze(1)).squeeze(1).log()
        chunk = Chunk(tokens, logits, probs, best_logit, best_word, excess, predicted, self.inputs.kept(tokens))
        term = self.divergence.add(chunk, self.wants_gradient)
        dz = probs
        if self.wants_gradient:
            if term.gradient is not None:
                if self.divergence.share_of_probs != 1:
                    probs.mul_(self.divergence.share_of_probs)
                probs.scatter_add_(1, *term.gradient)
            probs.scatter_add_(1, column, torch.full_like(column, -self.on_target, dtype=self.dtype))
            if z.dtype != self.dtype:
                dz = torch.mul(probs, self.scale, out=z)
        read = best_logit, best_word, excess
        return _sums_of_tokens(read, target, target_logit, term), term.num_pairs, dz


def _sums_of_tokens(read: Tuple[Tensor, Tensor, Tensor], target: Tensor, target_logit: Tensor, term: Terms) -> Sums:
    """From largest logit, its word, and logsumexp less it, (C,) each; all in the dtype of the last."""
    best_logit, best_word, excess = read
    return Sums(
        excess + (best_logit - target_logit), excess + best_logit, (best_word == target).to(excess.dtype), term.loss,
        term.target_prob, term.entropy, term.measure,
    )  # fmt: skip


def sparse_rows(
    words: SupportWords, target_logit: Tensor, read: Tuple[Tensor, Tensor, Tensor], keep: Optional[Tensor],
    weights: Tensor, options: SelfKDOptions, excluded: Sequence[int], scale: float,
) -> Tuple[Sums, Tensor, Tensor, Tensor]:  # fmt: skip
    """All that is made of C tokens once their logits have been read, for a compiler to fuse.

    Args:
        words: see :class:`~.fused_sparse_divergence.SupportWords`.
        target_logit: (C,) in the dtype of the features.
        read: what :func:`~.compiled_rows.read_rows` gives first: largest logit, its word, logsumexp less it, (C,) each.
        keep: (C,) bool, False for tokens that do not count; None: all do.
        weights: (n,) of two numbers: alpha, and what the label-smoothed cross-entropy takes from the target's share.
        options: of a sparse support, checked.
        excluded: word ids that are in no support except as the target.
        scale: of dL/dz.

    Returns:
        :class:`~.compiled_rows.Sums`, in nats, of each token, no sums; () int64, the number of pairs; (C, K), ``scale``
        times dL/dz of ``words.shares_of``; (C,), exp(z less this) is ``scale`` times dL/dz of all other words. In the
        dtype of ``weights``; no gradient flows.
    """
    (best_logit, _, excess), (alpha, on_target) = read, weights.unbind()
    term = sparse_terms(words, best_logit, excess, keep, alpha, options, excluded)
    assert term.gradient is not None
    shift, values = best_logit + excess, term.gradient[1]
    share = 1.0 - alpha if options.normalise == "support" else torch.ones_like(alpha)
    of_words = share * (words.logits.to(shift.dtype) - shift.unsqueeze(1)).exp()
    is_target = words.shares_of == words.shares_of[:, :1]
    # The target may stand in a column of its support once more: with the same value.
    values = scale * (of_words + values - on_target * is_target)
    values = torch.where(is_target, values[:, :1], values)
    of_tokens = _sums_of_tokens(read, words.indices[:, 0], target_logit.to(shift.dtype), term)
    return of_tokens, term.num_pairs, values, shift - (share * scale).clamp_min(1e-30).log()


class _CompiledSparse(ChunkPasses):
    """A few words of each token: its logits are read once, and once more where dL/dz is written over them."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.weights = self._weights()
        # Where the one most probable word is asked for, it is found while the logits are read.
        options = self.inputs.options
        is_found = options.support_size == 1 and options.normalise == "vocabulary"
        self.predicts = options.support == "predicted" and not is_found
        self.unpredicted: Optional[Tuple[Tensor, Tensor]] = None
        if options.support == "predicted" and is_found and self.inputs.excluded:
            self.unpredicted = self.excluded_ids, word_mask(self.excluded_ids, self.inputs.weight.size(0))

    def run(self, z: Tensor, tokens: slice) -> Tuple[Sums, Tensor, Tensor]:
        assert isinstance(self.divergence, SparseDivergence)
        inputs, keep = self.inputs, self.inputs.kept(tokens)
        keep = None if keep is None else keep.clone()  # a compiler would tell views by where they begin
        column = inputs.target[tokens].unsqueeze(1)
        predicted = self._predicted(z, column)[2] if self.predicts else None
        best_logit, best_word, excess, best_allowed = compiled(read_rows)(z, self.unpredicted, self.dtype)
        read = best_logit, best_word, excess
        predicted = best_allowed if predicted is None else predicted
        words = self.divergence.words_of(Chunk(tokens, z, None, *read, predicted, keep))
        target_logit = z.gather(1, column).squeeze(1)
        of_tokens, num_pairs, values, shift = compiled(sparse_rows)(
            words, target_logit, read, keep, self.weights, inputs.options, inputs.excluded, self.scale
        )
        if self.wants_gradient:
            compiled(write_rows)(z, shift)
            z.scatter_(1, words.shares_of, values.to(z.dtype))
        return of_tokens, num_pairs, z


class _CompiledFull(ChunkPasses):
    """Every word, in one compiled function."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.weights = self._weights()

    def run(self, z: Tensor, tokens: slice) -> Tuple[Sums, Tensor, Tensor]:
        assert isinstance(self.divergence, FullDivergence)
        return self.divergence.add_compiled(z, tokens, self.weights, self.scale, self.wants_gradient)


def make_passes(inputs: DivergenceInputs, on_target: float, scale: float, wants_gradient: bool) -> ChunkPasses:
    """The passes for the support at hand, compiled if the inputs say so.

    Args:
        inputs: see :class:`~.fused_divergence.DivergenceInputs`.
        on_target: as :class:`ChunkPasses` takes it, and so the rest.
        scale: of dL/dz.
        wants_gradient: whether dL/dz is read.

    Returns:
        :class:`ChunkPasses`, before the first chunk.
    """
    passes: Type[ChunkPasses] = _Eager
    if inputs.compiled:
        passes = _CompiledFull if SUPPORTS[inputs.options.support] is None else _CompiledSparse
    return passes(inputs, on_target, scale, wants_gradient)
