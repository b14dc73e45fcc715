"""What the fused loss does to the logits of a chunk of tokens: it takes their sums, and writes dL/dz in their place.

Three ways with the same numbers: operations of torch; compiled ones where a few words share probability; compiled ones
where every word does. Equations: ``docs/method.md``. The loop over the chunks, and the products that give the gradients
of h, W and b: :mod:`.fused_linear_loss`.
"""

import math
from typing import Any, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .arguments import word_ids
from .compiled_rows import compiled, read_rows, write_rows
from .fused_divergence import Chunk, DivergenceInputs, FullDivergence, Terms, make_divergence
from .supports import SUPPORTS

__all__ = ["ChunkPasses", "Sums", "make_passes"]


class Sums(NamedTuple):
    """What is summed over the tokens that count, in float32 or better: () each; of a chunk's tokens (C,) each.

    Attributes:
        nll: negative log-likelihood of the target, in nats.
        lse: logsumexp of the logits.
        n_correct: whether the most probable word is the target.
        skd_loss: T^2 KL(q || pT), in nats.
        target_prob: q of the target.
        entropy: of q, in nats.
        measure: distances (or cosines) of the target and every other word of the support.
    """

    nll: Tensor
    lse: Tensor
    n_correct: Tensor
    skd_loss: Tensor
    target_prob: Tensor
    entropy: Tensor
    measure: Tensor


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
        self.divergence = make_divergence(inputs)

    def run(self, z: Tensor, tokens: slice) -> Tuple[Sums, Tensor, Tensor]:
        """Read the logits of a chunk.

        Args:
            z: (C, V) logits, in the dtype of the features; overwritten.
            tokens: which of the N.

        Returns:
            :class:`Sums` of each token, (C,), in nats, of those that do not count too; () int64, the number of pairs
            (see :class:`~.fused_divergence.Terms`); and ``scale`` times dL/dz (C, V) in the dtype of the features, but
            for what L_CE takes from every word alike. The last holds nothing where no gradient is wanted. No autograd
            history.
        """
        raise NotImplementedError

    def _keep(self, tokens: slice) -> Optional[Tensor]:
        return None if self.inputs.keep is None else self.inputs.keep[tokens]

    def _of_tokens(self, chunk: Chunk, target: Tensor, target_logit: Tensor, term: Terms) -> Sums:
        return Sums(
            chunk.excess + (chunk.best_logit - target_logit), chunk.excess + chunk.best_logit,
            (chunk.best_word == target).to(self.dtype), term.loss, term.target_prob, term.entropy, term.measure,
        )  # fmt: skip

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
        # For one word max, as in the reference: of equal logits it takes the same one as argmax.
        best, words = z.max(dim=1, keepdim=True) if options.support_size == 1 else z.topk(options.support_size, dim=1)
        z.scatter_(1, aside, kept)
        candidates = torch.cat([best[:, :1], kept], dim=1)
        candidate_words = torch.cat([words[:, :1], aside], dim=1)
        best_logit, position = candidates.max(dim=1)
        return best_logit, candidate_words.gather(1, position.unsqueeze(1)).squeeze(1), words


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
            best_logit, best_word = z.max(dim=1)
        torch.softmax(z, dim=1, dtype=self.dtype, out=probs)
        best_logit, target_logit = (x.to(self.dtype) for x in (best_logit, z.gather(1, column).squeeze(1)))
        # logsumexp less the largest logit: of differences, so that an offset of all logits costs no precision.
        excess = -probs.gather(1, best_word.unsqueeze(1)).squeeze(1).log()
        chunk = Chunk(tokens, z, probs, best_logit, best_word, excess, predicted, self._keep(tokens))
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
        return self._of_tokens(chunk, target, target_logit, term), term.num_pairs, dz


class _CompiledSparse(ChunkPasses):
    """A few words of each token: its logits are read once, and once more where dL/dz is written over them."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        # Where the one most probable word is asked for, it is found while the logits are read.
        options = self.inputs.options
        self.left_out: Optional[Tensor] = None
        self.predicts = options.support == "predicted"
        if self.predicts and options.support_size == 1 and options.normalise == "vocabulary":
            self.predicts = False
            self.left_out = torch.zeros(self.inputs.weight.size(0), dtype=torch.bool, device=self.inputs.target.device)
            self.left_out.index_fill_(0, self.excluded_ids, True)

    def run(self, z: Tensor, tokens: slice) -> Tuple[Sums, Tensor, Tensor]:
        target = self.inputs.target[tokens]
        column = target.unsqueeze(1)
        target_logit = z.gather(1, column).squeeze(1).to(self.dtype)
        predicted = self._predicted(z, column)[2] if self.predicts else None
        best_logit, best_word, excess, best_allowed = compiled(read_rows)(z, self.left_out, self.dtype)
        predicted = best_allowed if predicted is None else predicted
        chunk = Chunk(tokens, z, None, best_logit, best_word, excess, predicted, self._keep(tokens))
        term = self.divergence.add(chunk, self.wants_gradient)
        if self.wants_gradient and term.gradient is not None:
            words, values = term.gradient
            values[:, 0] -= self.on_target
            share, shift = self.divergence.share_of_probs, best_logit + excess
            of_words = share * (z.gather(1, words).to(self.dtype) - shift.unsqueeze(1)).exp()
            # The target may stand in a column of its support once more: with the same value.
            values = self.scale * (of_words + values)
            values = torch.where(words == column, values[:, :1], values)
            compiled(write_rows)(z, shift - math.log(max(share * self.scale, 1e-300)))
            z.scatter_(1, words, values.to(z.dtype))
        return self._of_tokens(chunk, target, target_logit, term), term.num_pairs, z


class _CompiledFull(ChunkPasses):
    """Every word, in one compiled function."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        weights = torch.full((2,), self.inputs.alpha, dtype=self.dtype, device=self.inputs.target.device)
        weights[1:].fill_(self.on_target)
        self.weights = weights

    def run(self, z: Tensor, tokens: slice) -> Tuple[Sums, Tensor, Tensor]:
        assert isinstance(self.divergence, FullDivergence)
        terms, num_pairs = self.divergence.add_compiled(z, tokens, self.weights, self.scale, self.wants_gradient)
        correct = (terms.best_word == self.inputs.target[tokens]).to(self.dtype)
        of_tokens = Sums(terms.nll, terms.lse, correct, terms.loss, terms.target_prob, terms.entropy, terms.measure)
        return of_tokens, num_pairs, z


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
    passes = _Eager
    if inputs.compiled:
        passes = _CompiledFull if SUPPORTS[inputs.options.support] is None else _CompiledSparse
    return passes(inputs, on_target, scale, wants_gradient)
