"""The loss of self-knowledge distillation from features and the output matrix, without ever holding an (N, V) tensor.

One pass over chunks of tokens gives every sum, the most probable words and the gradients of h, W and b, which are taken
in the forward pass. With ``z_i = W h_i + b``, ``p_i = softmax(z_i)`` and the label-smoothed target s,

    dL/dz_ik = (1 - alpha) (p_ik - s_ik) + alpha dL_SKD/dz_ik

What label smoothing adds to every word alike is a correction of rank one. What the distillation term adds is in
:mod:`.fused_sparse_divergence` and :mod:`.fused_full_divergence`. With the support ``full`` what W says depends on the
target word alone: on a CPU tokens are taken in the order of their targets, and each distinct target word of a chunk
gets its row once (:mod:`.fused_full_targets`).

Result and gradients are those of :mod:`selfkd_fairseq.core.reference_loss`, the equations those of ``docs/method.md``.
"""

import math
from typing import Any, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .arguments import at_least_float32, numbers_at_hand
from .chunk_passes import make_passes
from .compiled_rows import Sums
from .fused_divergence import DivergenceInputs, project
from .half_products import product
from .options import SelfKDOptions
from .reference_loss import SelfKDLoss, Statistics
from .supports import SUPPORTS

__all__ = ["autocast_dtype", "fused_self_kd_loss"]


class ChunkTokens(NamedTuple):
    """Bounds of the number of tokens of a chunk.

    Attributes:
        least: at least so many.
        least_of_width: and so many that what is held of them is this many times a row (d,) in float16, for each chunk
            reads and writes (V, d) matrices, too.
        most: at most so many.
    """

    least: int
    least_of_width: float
    most: int


# Measured on 2 cores: fewer tokens starve the matrix products, more leave the cache. A GPU wants larger products.
CHUNK_BYTES = {"cpu": 48 << 20, "cuda": 384 << 20}
CHUNK_TOKENS = {"cpu": ChunkTokens(16, 0.0, 512), "cuda": ChunkTokens(16, 3.0, 1 << 20)}


class Gradients(NamedTuple):
    """Accumulators of the gradients of the loss, None where none is needed. float32 or better.

    Attributes:
        features: (N, d).
        weight: (V, d).
        bias: (V,).
    """

    features: Optional[Tensor]
    weight: Optional[Tensor]
    bias: Optional[Tensor]


def default_chunk_size(num_tokens: int, weight: Tensor, bytes_of_a_logit: int) -> int:
    """Tokens at a time: as many as keep what is held of their logits within a fixed number of bytes, in even chunks.

    Args:
        num_tokens: N, at least 0.
        weight: (V, d); a CPU wants smaller chunks than a GPU.
        bytes_of_a_logit: held for each token and word.

    Returns:
        Tokens of a chunk, at least 1; the last chunk may have fewer.
    """
    kind = weight.device.type if weight.device.type in CHUNK_BYTES else "cuda"
    bounds = CHUNK_TOKENS[kind]
    least = max(bounds.least, int(bounds.least_of_width * 2 * weight.size(1) / bytes_of_a_logit))
    most = min(bounds.most, max(least, CHUNK_BYTES[kind] // (weight.size(0) * bytes_of_a_logit)))
    chunks = max(1, -(-num_tokens // most))
    return max(1, -(-num_tokens // chunks))


class _Pass:
    """One forward pass over the chunks: sums, statistics and, where needed, gradients."""

    def __init__(self, features: Tensor, label_smoothing: float, inputs: DivergenceInputs):
        self.features, self.label_smoothing, self.inputs = features, label_smoothing, inputs
        self.weight, self.bias, self.target, self.dtype = inputs.weight, inputs.bias, inputs.target, inputs.dtype
        self.smoothing_of_others = label_smoothing / (self.weight.size(0) - 1)
        if label_smoothing > 0:
            self.sum_of_rows = self.weight.sum(dim=0, dtype=self.dtype)
            self.sum_of_features = features.sum(dim=0, dtype=self.dtype)
        self.of_smoothing = self._smooth()
        # |dL/dz| is at most this. In float16 what is multiplied is scaled by a power of two that brings it near the
        # largest number, so that the smallest shares are not lost; the trainer's own loss scale is not known yet.
        bound = (1.0 - inputs.alpha) + inputs.alpha * max(1.0, inputs.options.student_temperature)
        self.scale = 2.0 ** (14 - math.ceil(math.log2(bound))) if features.dtype == torch.float16 else 1.0

    def run(self, needs: Tuple[bool, bool, bool]) -> Tuple[SelfKDLoss, Gradients]:
        """Return the result, without autograd history, and the gradients of its ``loss`` that are needed."""
        h, w, dtype, alpha = self.features, self.weight, self.dtype, self.inputs.alpha
        new = torch.zeros if h.size(0) == 0 else torch.empty  # the first chunk overwrites
        grads = Gradients(
            new(h.shape, dtype=dtype, device=h.device) if needs[0] else None,
            new(w.shape, dtype=dtype, device=w.device) if needs[1] else None,
            torch.zeros(w.size(0), dtype=dtype, device=w.device) if needs[2] else None,
        )
        wants_gradient = any(gradient is not None for gradient in grads)
        on_target = (1.0 - alpha) * (1.0 - self.label_smoothing - self.smoothing_of_others)
        passes = make_passes(self.inputs, on_target, self.scale, wants_gradient)
        size = self.inputs.chunk_size
        logits = torch.empty(size, w.size(0), dtype=h.dtype, device=h.device)
        sums = torch.zeros(len(Sums._fields), dtype=dtype, device=h.device)
        num_pairs = torch.zeros((), dtype=torch.long, device=h.device)
        for start in range(0, h.size(0), size):
            tokens = slice(start, start + size)
            z = project(h[tokens], w, self.bias, logits[: h[tokens].size(0)])
            of_tokens, pairs, dz = passes.run(z, tokens)
            if wants_gradient:
                self._backward_products(dz, tokens, grads)
            rows, keep = torch.stack(of_tokens), self.inputs.kept(tokens)
            sums = sums + (rows if keep is None else rows.masked_fill(~keep, 0.0)).sum(dim=1)
            num_pairs = num_pairs + pairs
        total = Sums(*sums.unbind())
        num_tokens = self._num_tokens()
        ce = self._cross_entropy(total, num_tokens.to(dtype), grads)
        loss = torch.add((1.0 - alpha) * ce, total.skd_loss, alpha=alpha)
        statistics = Statistics(
            num_tokens, total.n_correct.long(), total.target_prob, total.entropy, total.measure, num_pairs
        )
        return SelfKDLoss(loss, ce, total.nll, total.skd_loss, statistics), grads

    def _num_tokens(self) -> Tensor:
        keep = self.inputs.keep
        return torch.full((), self.target.numel(), device=self.target.device) if keep is None else keep.sum()

    def _backward_products(self, dz: Tensor, tokens: slice, grads: Gradients) -> None:
        """Add the products of dL/dz (C, V), which is scaled and in the dtype of the features."""
        h, back, keep = self.features[tokens], 1.0 / self.scale, self.inputs.kept(tokens)
        if grads.bias is not None and keep is None:
            grads.bias.add_(dz.sum(dim=0, dtype=self.dtype), alpha=back)
        elif grads.bias is not None and keep is not None:
            bias = grads.bias.unsqueeze(1)
            product(bias, dz.t(), keep.to(dz.dtype).unsqueeze(1), bias, back)
        if grads.features is not None:
            product(grads.features[tokens], dz, self.weight, self.of_smoothing[0], back)
        if grads.weight is not None:  # tokens that do not count have features of 0
            product(grads.weight, dz.t(), h, self.of_smoothing[1] if tokens.start == 0 else grads.weight, back)

    def _smooth(self) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """What label smoothing adds to each row of the gradients of h (d,) and of W (d,), alike for every word."""
        if self.label_smoothing == 0:
            return None, None
        constant = -(1.0 - self.inputs.alpha) * self.smoothing_of_others
        return constant * self.sum_of_rows, constant * self.sum_of_features

    def _cross_entropy(self, total: Sums, num_tokens: Tensor, grads: Gradients) -> Tensor:
        """L_CE, and what label smoothing adds to the gradient of the bias."""
        eps, eps_i = self.label_smoothing, self.smoothing_of_others
        if eps == 0:
            return total.nll.clone()
        sum_of_logits = self.sum_of_features.dot(self.sum_of_rows)
        if self.bias is not None:
            sum_of_logits = sum_of_logits + num_tokens * self.bias.sum(dtype=self.dtype)
        if grads.bias is not None:
            grads.bias.sub_((1.0 - self.inputs.alpha) * eps_i * num_tokens)
        of_every_word = torch.sub(sum_of_logits, total.lse, alpha=self.weight.size(0))
        return torch.sub((1.0 - eps - eps_i) * total.nll, of_every_word, alpha=eps_i)


class _FusedSelfKDLoss(torch.autograd.Function):
    """Differentiable in features, weight and bias through the first output alone, and once."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Optional[Tensor], label_smoothing: float,
        inputs: DivergenceInputs,
    ) -> Tuple[Tensor, ...]:  # fmt: skip
        needs = ctx.needs_input_grad[:3]
        # The caller has chosen the dtypes; autocast must not take distances in half precision.
        with torch.autocast(device_type=features.device.type, enabled=False):
            result, grads = _Pass(features.detach(), label_smoothing, inputs).run(needs)
        ctx.save_for_backward(*grads)
        ctx.dtypes = [None if x is None else x.dtype for x in (features, weight, bias)]
        outputs = (*result[:4], *result.statistics)
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, grad_loss: Optional[Tensor], *_: Any) -> Tuple[Optional[Tensor], ...]:
        if torch.is_grad_enabled():  # create_graph: the gradients were taken in the forward pass, and have no graph
            raise RuntimeError(
                'the fused loss of self_kd has no second derivative (create_graph=True): use implementation="reference"'
            )
        if grad_loss is None:
            return (None,) * 5
        # The usual upstream gradient of 1 needs no pass over W.
        is_one = numbers_at_hand(grad_loss) and grad_loss.item() == 1.0

        def scaled(gradient: Tensor, dtype: torch.dtype) -> Tensor:
            if is_one:
                return gradient.to(dtype)
            # In one pass, and cast last: a loss scale for half precision has been multiplied in by then.
            return torch.mul(gradient, grad_loss, out=torch.empty_like(gradient, dtype=dtype))

        gradients = zip(ctx.saved_tensors, ctx.dtypes)
        return (*(None if g is None else scaled(g, dtype) for g, dtype in gradients), None, None)


def fused_self_kd_loss(
    features: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    target: Tensor,
    *,
    alpha: float,
    options: SelfKDOptions,
    label_smoothing: float,
    excluded: Sequence[int],
    chunk_size: Optional[int],
    neighbours: Optional[Tensor],
    generator: Optional[torch.Generator],
    teacher_features: Optional[Tensor],
    paired: bool,
    keep: Optional[Tensor],
    compile_passes: bool,
) -> SelfKDLoss:
    """The fused path behind :func:`selfkd_fairseq.core.self_kd_loss`, which checks the arguments.

    Gradients flow from ``loss`` alone. Under autocast the matrix products run in the autocast dtype; sums and the
    softmax are float32 or better always.

    Args:
        features: (N, d), any float dtype; gradients flow.
        weight: (V, d) of that dtype; gradients flow, but not through the soft targets.
        bias: (V,) of that dtype, or None; gradients flow.
        target: (N,) int64 in [0, V), none of them ignored but by ``keep``.
        alpha: weight of L_SKD, in [0, 1].
        options: how the soft targets are made and compared with the model.
        label_smoothing: eps of L_CE, in [0, 1).
        excluded: word ids that are in no support except as the target.
        chunk_size: tokens at a time; None: chosen by V and device.
        neighbours: (V, n) int64 for the support ``nearest``, or None.
        generator: CPU generator for the support ``random``; None: torch's own.
        teacher_features: (N, d) of another pass, in the dtype of ``features``; None where no option needs it.
            No gradient flows.
        paired: whether rows 2 i and 2 i + 1 are one token in two passes, each of them the teacher of the other. Its
            logits are made once then, for both uses.
        keep: (N,) bool, False for tokens that do not count, whose features must be 0; None: all count.
        compile_passes: whether ``torch.compile`` makes the passes over the logits.

    Returns:
        :class:`SelfKDLoss`: sums in nats over the tokens that count, float32 or better.

    Raises:
        ValueError: the support ``random`` has fewer words to draw from than it needs.
    """
    embedding = weight.detach()
    if not torch.is_grad_enabled():  # autograd would still say that a parameter needs its gradient
        features, weight, bias = features.detach(), embedding, None if bias is None else bias.detach()
    low_precision = autocast_dtype(features.device.type)
    if low_precision is not None and features.dtype != torch.float64:
        features, weight = features.to(low_precision), weight.to(low_precision)
        bias = None if bias is None else bias.to(low_precision)
        teacher_features = None if teacher_features is None else teacher_features.to(low_precision)
    teacher_features = None if teacher_features is None else teacher_features.detach()
    num_tokens, dtype = target.numel(), at_least_float32(features.dtype)
    if chunk_size is None:
        # On a CPU what counts is the one tensor that lies in the cache, on a GPU all that is held.
        held = dtype.itemsize
        if not numbers_at_hand(target):
            held = _bytes_held(features.dtype, dtype, options, compile_passes, paired)
        chunk_size = default_chunk_size(num_tokens, weight, held)
    chunk_size = min(chunk_size, max(1, num_tokens))
    chunk_size += chunk_size % 2 if paired else 0
    if SUPPORTS[options.support] is None and numbers_at_hand(target):  # every sum is the same in any order
        order = target.argsort(stable=True)  # what is paired stays together
        features, target = features.index_select(0, order), target[order]
        teacher_features = None if teacher_features is None else teacher_features.index_select(0, order)
    inputs = DivergenceInputs(
        embedding, weight.detach(), None if bias is None else bias.detach(), target, teacher_features, paired, alpha,
        options, tuple(excluded), neighbours, generator, chunk_size, dtype, keep, compile_passes,
    )  # fmt: skip
    loss, ce_loss, nll_loss, skd_loss, *statistics = _FusedSelfKDLoss.apply(
        features, weight, bias, label_smoothing, inputs
    )
    return SelfKDLoss(loss, ce_loss, nll_loss, skd_loss, Statistics(*statistics))


def _bytes_held(low: torch.dtype, dtype: torch.dtype, options: SelfKDOptions, compiled: bool, paired: bool) -> int:
    """Of the tensors (C, V) of a chunk, for each token and word: logits in the dtype ``low``, all else in ``dtype``."""
    is_full = SUPPORTS[options.support] is None
    has_teacher = is_full and options.needs_teacher_pass
    if compiled:
        return low.itemsize * (1 + has_teacher) + dtype.itemsize * (is_full and options.reads_embedding) // (1 + paired)
    held = 1 + (has_teacher and not paired)
    if is_full:
        held += 2 + (low != dtype) + (options.student_temperature != 1)
    return low.itemsize + held * dtype.itemsize


def autocast_dtype(device: str) -> Optional[torch.dtype]:
    """The dtype that autocast would take for a matrix product.

    Args:
        device: type of the device, ``"cpu"`` or ``"cuda"``.

    Returns:
        The dtype; None where autocast is off.
    """
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
