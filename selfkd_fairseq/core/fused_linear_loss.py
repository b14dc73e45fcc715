"""The loss of self-knowledge distillation from features and the output matrix, without ever holding an (N, V) tensor.

One pass over chunks of tokens gives every sum, the most probable words and the gradients of h, W and b, which are taken
in the forward pass. With ``z_i = W h_i + b``, ``p_i = softmax(z_i)`` and the label-smoothed target s,

    dL/dz_ik = (1 - alpha) (p_ik - s_ik) + alpha dL_SKD/dz_ik

What label smoothing adds to every word alike is a correction of rank one. What the distillation term adds is in
:mod:`.fused_divergence`. With the support ``full`` what W says depends on the target word alone: tokens are taken in
the order of their targets, and each distinct target word of a chunk gets its row once (:mod:`.fused_full_targets`).

Result and gradients are those of :mod:`selfkd_fairseq.core.reference_loss`, the equations those of ``docs/method.md``.
"""

from typing import Any, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .arguments import at_least_float32
from .fused_divergence import Chunk, DivergenceInputs, make_divergence, project
from .options import SelfKDOptions
from .reference_loss import SelfKDLoss, Statistics
from .supports import SUPPORTS

__all__ = ["autocast_dtype", "fused_self_kd_loss"]

# Measured on 2 cores: fewer tokens starve the matrix products, more leave the cache. A GPU wants larger products.
CHUNK_BYTES = {"cpu": 48 << 20, "cuda": 256 << 20}
CHUNK_TOKENS = {"cpu": 512, "cuda": 1 << 20}


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


def default_chunk_size(vocabulary_size: int, num_tokens: int, device: torch.device, itemsize: int) -> int:
    """Tokens at a time: as many as keep a (chunk, V) tensor within a fixed number of bytes, in even chunks.

    Args:
        vocabulary_size: V.
        num_tokens: N, at least 0.
        device: of the tensors; a CPU wants smaller chunks than a GPU.
        itemsize: bytes of one number of the tensor.

    Returns:
        Tokens of a chunk, at least 1; the last chunk may have fewer.
    """
    kind = device.type if device.type in CHUNK_BYTES else "cuda"
    most = min(CHUNK_TOKENS[kind], max(16, CHUNK_BYTES[kind] // (vocabulary_size * itemsize)))
    chunks = max(1, -(-num_tokens // most))
    return max(1, -(-num_tokens // chunks))


class _Pass:
    """One forward pass over the chunks: sums, statistics and, where needed, gradients."""

    def __init__(self, features: Tensor, label_smoothing: float, inputs: DivergenceInputs):
        self.features, self.label_smoothing, self.inputs = features, label_smoothing, inputs
        self.weight, self.bias, self.target, self.dtype = inputs.weight, inputs.bias, inputs.target, inputs.dtype
        self.smoothing_of_others = label_smoothing / (self.weight.size(0) - 1)
        self.excluded_ids = torch.tensor(inputs.excluded, dtype=torch.long, device=features.device)
        zero = torch.zeros((), dtype=self.dtype, device=features.device)
        self.nll, self.lse = zero.clone(), zero.clone()
        self.n_correct = torch.zeros((), dtype=torch.long, device=features.device)
        self.divergence = make_divergence(inputs)

    def run(self, needs: Tuple[bool, bool, bool]) -> Tuple[SelfKDLoss, Gradients]:
        """Return the result, without autograd history, and the gradients of its ``loss`` that are needed."""
        h, w, dtype, alpha = self.features, self.weight, self.dtype, self.inputs.alpha
        grads = Gradients(
            torch.empty(h.shape, dtype=dtype, device=h.device) if needs[0] else None,
            torch.zeros(w.shape, dtype=dtype, device=w.device) if needs[1] else None,
            torch.zeros(w.size(0), dtype=dtype, device=w.device) if needs[2] else None,
        )
        size = self.inputs.chunk_size
        logits = torch.empty(size, w.size(0), dtype=h.dtype, device=h.device)
        probs = torch.empty(size, w.size(0), dtype=dtype, device=h.device)
        for start in range(0, h.size(0), size):
            tokens = slice(start, start + size)
            length = h[tokens].size(0)
            self._chunk(tokens, logits[:length], probs[:length], grads)
        ce, term = self._cross_entropy(grads), self.divergence
        loss = (1.0 - alpha) * ce + alpha * term.loss if alpha > 0 else ce
        num_tokens = torch.tensor(h.size(0), device=h.device)
        statistics = Statistics(
            num_tokens, self.n_correct, term.target_prob, term.entropy, term.measure, term.num_pairs
        )
        return SelfKDLoss(loss, ce, self.nll, term.loss, statistics), grads

    def _chunk(self, tokens: slice, logits: Tensor, probs: Tensor, grads: Gradients) -> None:
        """Sums of one chunk, and its share of the gradients but for what label smoothing adds to every word."""
        target, h = self.target[tokens], self.features[tokens]
        column = target.unsqueeze(1)
        z = project(h, self.weight, self.bias, logits).to(self.dtype)
        predicted = None
        if self.inputs.options.support == "predicted":
            best_logit, best_word, predicted = self._predicted(z, column)
        else:
            best_logit, best_word = z.max(dim=1)
        torch.softmax(z, dim=1, out=probs)
        # logsumexp less the largest logit: of differences, so that an offset of all logits costs no precision.
        excess = -probs.gather(1, best_word.unsqueeze(1)).squeeze(1).log()
        self.n_correct += (best_word == target).sum()
        self.nll += (excess + best_logit - z.gather(1, column).squeeze(1)).sum()
        self.lse += (excess + best_logit).sum()

        wanted = any(gradient is not None for gradient in grads)
        self.divergence.add(Chunk(tokens, z, probs, best_logit, best_word, excess, predicted), wanted)
        if wanted:
            # Less the label-smoothed target, but for what is the same for every word.
            on_target = -(1.0 - self.inputs.alpha) * (1.0 - self.label_smoothing - self.smoothing_of_others)
            probs.scatter_add_(1, column, torch.full_like(column, on_target, dtype=self.dtype))
            self._backward_products(probs, h, tokens, grads)

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

    def _backward_products(self, dz: Tensor, h: Tensor, tokens: slice, grads: Gradients) -> None:
        if grads.bias is not None:
            grads.bias.add_(dz.sum(dim=0))
        if h.dtype == self.dtype:
            if grads.features is not None:
                torch.mm(dz, self.weight, out=grads.features[tokens])
            if grads.weight is not None:
                grads.weight.addmm_(dz.t(), h)
            return
        # Half precision: every chunk is summed in float32, so that more chunks do not mean more rounding.
        scale = self._float16_scale(dz, h) if h.dtype == torch.float16 else 1.0
        low = (dz * scale).to(h.dtype) if h.dtype == torch.float16 else dz.to(h.dtype)
        if grads.features is not None:
            grads.features[tokens] = torch.mm(low, self.weight).to(self.dtype) / scale
        if grads.weight is not None:
            grads.weight.add_(torch.mm(low.t(), h).to(self.dtype) / scale)

    def _float16_scale(self, dz: Tensor, h: Tensor) -> Tensor:
        """A power of two that keeps small entries of dz above float16's underflow and both products below 30,000.

        These gradients are taken before the trainer's own loss scale is known, which comes with the upstream gradient.
        """
        size = dz.abs()
        bound = torch.maximum(size.sum(dim=0).max() * h.abs().max(), size.sum(dim=1).max() * self.weight.abs().max())
        return torch.exp2(torch.log2(3e4 / bound).floor()).clamp_max(2.0**14)

    def _cross_entropy(self, grads: Gradients) -> Tensor:
        """L_CE, and the gradient of the part of label smoothing that is the same for every word."""
        eps, eps_i = self.label_smoothing, self.smoothing_of_others
        if eps == 0:
            return self.nll
        num_tokens, vocabulary = self.features.size(0), self.weight.size(0)
        sum_of_rows = self.weight.sum(dim=0, dtype=self.dtype)
        sum_of_features = self.features.sum(dim=0, dtype=self.dtype)
        sum_of_logits = sum_of_features.dot(sum_of_rows)
        if self.bias is not None:
            sum_of_logits = sum_of_logits + num_tokens * self.bias.sum(dtype=self.dtype)
        constant = -(1.0 - self.inputs.alpha) * eps_i
        if grads.features is not None:
            grads.features.add_(sum_of_rows, alpha=constant)
        if grads.weight is not None:
            grads.weight.add_(sum_of_features, alpha=constant)
        if grads.bias is not None:
            grads.bias.add_(constant * num_tokens)
        return (1.0 - eps - eps_i) * self.nll + eps_i * (vocabulary * self.lse - sum_of_logits)


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
        # Clones, because one tensor may stand for two outputs (no label smoothing, say), of which only the first
        # has a gradient.
        outputs = (*(value.clone() for value in result[:4]), *result.statistics)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> Tuple[Optional[Tensor], ...]:
        if torch.is_grad_enabled():  # create_graph: the gradients were taken in the forward pass, and have no graph
            raise RuntimeError(
                'the fused loss of self_kd has no second derivative (create_graph=True): use implementation="reference"'
            )
        gradients = ctx.saved_tensors
        # On the CPU reading one number costs nothing, and the usual upstream gradient of 1 needs no pass over W.
        if grad_loss.device.type != "cpu" or grad_loss.item() != 1.0:
            gradients = tuple(None if g is None else g * grad_loss for g in gradients)
        # Cast last: a loss scale for half precision has been multiplied in by now.
        return (*(None if g is None else g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes)), None, None)


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
    neighbours: Optional[Tensor] = None,
    generator: Optional[torch.Generator] = None,
    teacher_features: Optional[Tensor] = None,
) -> SelfKDLoss:
    """The fused path behind :func:`selfkd_fairseq.core.self_kd_loss`, which checks the arguments.

    Gradients flow from ``loss`` alone. Under autocast the matrix products run in the autocast dtype; sums and the
    softmax are float32 or better always.

    Args:
        features: (N, d), any float dtype; gradients flow.
        weight: (V, d) of that dtype; gradients flow, but not through the soft targets.
        bias: (V,) of that dtype, or None; gradients flow.
        target: (N,) int64 in [0, V), none of them ignored.
        alpha: weight of L_SKD, in [0, 1].
        options: how the soft targets are made and compared with the model.
        label_smoothing: eps of L_CE, in [0, 1).
        excluded: word ids that are in no support except as the target.
        chunk_size: tokens at a time; None: chosen by V and device.
        neighbours: (V, n) int64 for the support ``nearest``, or None.
        generator: CPU generator for the support ``random``; None: torch's own.
        teacher_features: (N, d) of a pass without dropout, in the dtype of ``features``; None where no option needs it.
            No gradient flows.

    Returns:
        :class:`SelfKDLoss`: sums in nats over the N tokens, float32 or better.

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
        itemsize = torch.empty((), dtype=dtype).element_size()
        chunk_size = default_chunk_size(weight.size(0), num_tokens, features.device, itemsize)
    chunk_size = min(chunk_size, max(1, num_tokens))
    if SUPPORTS[options.support] is None:  # every sum is the same in any order
        order = target.argsort()
        features, target = features.index_select(0, order), target[order]
        teacher_features = None if teacher_features is None else teacher_features.index_select(0, order)
    inputs = DivergenceInputs(
        embedding, weight.detach(), None if bias is None else bias.detach(), target, teacher_features, alpha, options,
        tuple(excluded), neighbours, generator, chunk_size, dtype,
    )  # fmt: skip
    loss, ce_loss, nll_loss, skd_loss, *statistics = _FusedSelfKDLoss.apply(
        features, weight, bias, label_smoothing, inputs
    )
    return SelfKDLoss(loss, ce_loss, nll_loss, skd_loss, Statistics(*statistics))


def autocast_dtype(device: str) -> Optional[torch.dtype]:
    """The dtype that autocast would take for a matrix product.

    Args:
        device: type of the device, ``"cpu"`` or ``"cuda"``.

    Returns:
        The dtype; None where autocast is off.
    """
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4 and later
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if device == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
