"""L_SKD of the fused loss over every word, a chunk at a time, in the buffers of the logits and of their softmax.

Equations: ``docs/method.md``.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor

from .compiled_rows import Sums, compiled, full_rows
from .fused_divergence import Chunk, Divergence, DivergenceInputs, Terms, project
from .fused_full_targets import FullTargets, expectations
from .half_products import product

__all__ = ["FullDivergence"]


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
