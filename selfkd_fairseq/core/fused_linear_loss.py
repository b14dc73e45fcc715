"""The loss of self-knowledge distillation from features and the output matrix, without ever holding an (N, V) tensor.

Two identities carry it. With ``z_i = W h_i + b``, ``p_i = softmax(z_i)`` and soft targets q that sum to 1,

    - sum_k q_ik log p_ik = logsumexp(z_i) - sum_k q_ik z_ik            sum_k q_ik z_ik = h_i . m_i + c_i
    dL/dz_ik = p_ik - (1 - alpha) s_ik - alpha q_ik                     m_i = sum_k q_ik w_k, c_i = sum_k q_ik b_k

where s is the label-smoothed target. So one pass over chunks of tokens gives every sum, the most probable words and
the gradients of h, W and b, which are taken in the forward pass. What label smoothing adds to every word alike is a
correction of rank one. With the support ``full`` q depends on the target word alone and is made once per distinct
target word of the batch (U <= N rows), also in chunks; its gradient to W is ``q^T (sum of h over the word's tokens)``.

Result and gradients are those of :mod:`selfkd_fairseq.core.reference_loss`.
"""

from typing import Any, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .reference_loss import SelfKDLoss, Statistics
from .soft_targets import effective_temperature, full_soft_targets, sparse_soft_targets
from .supports import SoftTargetOptions, at_least_float32, make_support, support_words

__all__ = ["fused_self_kd_loss"]

CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}


class _Plan(NamedTuple):
    """What one call of the loss is to do, checked."""

    alpha: float
    options: SoftTargetOptions
    label_smoothing: float
    excluded: Tuple[int, ...]
    chunk_size: int
    neighbours: Optional[Tensor]
    generator: Optional[torch.Generator]


class _Gradients(NamedTuple):
    """Gradients of the loss, None where the caller needs none. float32 or better."""

    features: Optional[Tensor]
    weight: Optional[Tensor]
    bias: Optional[Tensor]


def default_chunk_size(vocabulary_size: int, num_tokens: int, device: torch.device, itemsize: int) -> int:
    """Tokens at a time: as many as keep a (chunk, V) tensor within a fixed number of bytes, in even chunks."""
    most = max(16, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // (vocabulary_size * itemsize))
    chunks = max(1, -(-num_tokens // most))
    return max(1, -(-num_tokens // chunks))


class _Pass:
    """One forward pass over the chunks: sums, statistics and, where needed, gradients."""

    def __init__(self, features: Tensor, weight: Tensor, bias: Optional[Tensor], target: Tensor, plan: _Plan):
        self.features, self.weight, self.bias, self.target, self.plan = features, weight, bias, target, plan
        self.dtype = at_least_float32(features.dtype)
        self.temperature = effective_temperature(weight, plan.options).to(self.dtype)
        self.smoothing_of_others = plan.label_smoothing / (weight.size(0) - 1)
        self.excluded_ids = torch.tensor(plan.excluded, dtype=torch.long, device=target.device)
        zero = torch.zeros((), dtype=self.dtype, device=features.device)
        self.nll, self.lse, self.sparse_skd = zero.clone(), zero.clone(), zero.clone()
        self.target_prob, self.distance = zero.clone(), zero.clone()
        self.n_correct = torch.zeros((), dtype=torch.long, device=features.device)
        self.num_pairs = self.n_correct.clone()

    def run(self, needs: Tuple[bool, bool, bool]) -> Tuple[SelfKDLoss, _Gradients]:
        """Return the result, without autograd history, and the gradients of its ``loss`` that are needed."""
        h, w, dtype, plan = self.features, self.weight, self.dtype, self.plan
        grads = _Gradients(
            torch.empty(h.shape, dtype=dtype, device=h.device) if needs[0] else None,
            torch.zeros(w.shape, dtype=dtype, device=w.device) if needs[1] else None,
            torch.zeros(w.size(0), dtype=dtype, device=w.device) if needs[2] else None,
        )
        fixed_words = None
        if plan.options.support in ("nearest", "random"):
            fixed_words = support_words(
                None, w, self.target, plan.options, plan.excluded, plan.neighbours, plan.generator
            )
        logits = torch.empty(plan.chunk_size, w.size(0), dtype=h.dtype, device=h.device)
        probs = torch.empty(plan.chunk_size, w.size(0), dtype=dtype, device=h.device)
        for start in range(0, h.size(0), plan.chunk_size):
            tokens = slice(start, start + plan.chunk_size)
            size = h[tokens].size(0)
            words = None if fixed_words is None else fixed_words[tokens]
            self._chunk(tokens, logits[:size], probs[:size], words, grads)
        ce = self._cross_entropy(grads)
        skd = self.sparse_skd
        if plan.options.support == "full":
            skd = self.lse - self._full(grads)
        loss = (1.0 - plan.alpha) * ce + plan.alpha * skd if plan.alpha > 0 else ce
        num_tokens = torch.tensor(h.size(0), device=h.device)
        statistics = Statistics(num_tokens, self.n_correct, self.target_prob, self.distance, self.num_pairs)
        return SelfKDLoss(loss, ce, self.nll, skd, statistics), grads

    def _chunk(self, tokens: slice, logits: Tensor, probs: Tensor, words: Optional[Tensor], grads: _Gradients) -> None:
        """Sums of one chunk, and its share of the gradients but for what concerns all words or ``full`` targets."""
        plan, target = self.plan, self.target[tokens]
        h = self.features[tokens]
        if self.bias is None:
            torch.mm(h, self.weight.t(), out=logits)
        else:
            torch.addmm(self.bias, h, self.weight.t(), out=logits)
        z = logits.to(self.dtype)
        column = target.unsqueeze(1)
        target_logit = z.gather(1, column).squeeze(1)
        best_logit, best_word = z.max(dim=1)
        torch.softmax(z, dim=1, out=probs)
        lse = best_logit - probs.gather(1, best_word.unsqueeze(1)).squeeze(1).log()
        self.n_correct += (best_word == target).sum()
        self.nll += (lse - target_logit).sum()
        self.lse += lse.sum()

        # Everything that dL/dz holds beside p and the constant of label smoothing, at the words concerned.
        on_target = -(1.0 - plan.alpha) * (1.0 - plan.label_smoothing - self.smoothing_of_others)
        indices, values = column, torch.full_like(column, on_target, dtype=self.dtype)
        if plan.options.support != "full":
            if words is None:
                words = self._predicted(z, best_word)
            q = sparse_soft_targets(
                self.weight, make_support(target, words, plan.excluded), self.temperature, plan.options.min_target_prob
            )
            q_probs = q.probs.to(self.dtype)
            self.sparse_skd += (lse - (q_probs * z.gather(1, q.indices)).sum(dim=1)).sum()
            self._count(q.probs[:, 0].sum(), q.distances[:, 1:], q.valid[:, 1:])
            indices, values = q.indices, -plan.alpha * q_probs
            values[:, 0] += on_target
        if any(gradient is not None for gradient in grads):
            probs.scatter_add_(1, indices, values)
            self._backward_products(probs, h, tokens, grads)

    def _predicted(self, z: Tensor, best_word: Tensor) -> Tensor:
        """The n most probable words that are not excluded, from logits that are left as they were: (C, n)."""
        options = self.plan.options
        if options.support_size == 1 and not (best_word.unsqueeze(1) == self.excluded_ids).any():
            return best_word.unsqueeze(1)
        kept = z[:, self.excluded_ids]
        z.index_fill_(1, self.excluded_ids, -float("inf"))
        words = z.topk(options.support_size, dim=1).indices
        z.index_copy_(1, self.excluded_ids, kept)
        return words

    def _count(self, target_prob: Tensor, distances: Tensor, valid: Tensor) -> None:
        self.target_prob += target_prob
        self.distance += distances.masked_fill(~valid, 0.0).sum()
        self.num_pairs += valid.sum()

    def _backward_products(self, dz: Tensor, h: Tensor, tokens: slice, grads: _Gradients) -> None:
        dz_like_h = dz.to(h.dtype)
        if grads.features is not None:
            if h.dtype == self.dtype:
                torch.mm(dz_like_h, self.weight, out=grads.features[tokens])
            else:
                grads.features[tokens] = torch.mm(dz_like_h, self.weight)
        if grads.weight is not None:
            if h.dtype == self.dtype:
                grads.weight.addmm_(dz_like_h.t(), h)
            else:  # every chunk is summed in float32, so that more chunks do not mean more rounding
                grads.weight.add_(torch.mm(dz_like_h.t(), h))
        if grads.bias is not None:
            grads.bias.add_(dz.sum(dim=0))

    def _cross_entropy(self, grads: _Gradients) -> Tensor:
        """L_CE, and the gradient of the part of label smoothing that is the same for every word."""
        eps, eps_i = self.plan.label_smoothing, self.smoothing_of_others
        if eps == 0:
            return self.nll
        num_tokens, vocabulary = self.features.size(0), self.weight.size(0)
        sum_of_rows = self.weight.sum(dim=0, dtype=self.dtype)
        sum_of_features = self.features.sum(dim=0, dtype=self.dtype)
        sum_of_logits = sum_of_features.dot(sum_of_rows)
        if self.bias is not None:
            sum_of_logits = sum_of_logits + num_tokens * self.bias.sum(dtype=self.dtype)
        constant = -(1.0 - self.plan.alpha) * eps_i
        if grads.features is not None:
            grads.features.add_(sum_of_rows, alpha=constant)
        if grads.weight is not None:
            grads.weight.add_(sum_of_features, alpha=constant)
        if grads.bias is not None:
            grads.bias.add_(constant * num_tokens)
        return (1.0 - eps - eps_i) * self.nll + eps_i * (vocabulary * self.lse - sum_of_logits)

    def _full(self, grads: _Gradients) -> Tensor:
        """``sum_i sum_k q_ik z_ik`` for exact soft targets, and their share of the gradients."""
        plan, dtype = self.plan, self.dtype
        words, inverse, counts = self.target.unique(return_inverse=True, return_counts=True)
        counts = counts.to(dtype)
        h_sum = torch.zeros(words.numel(), self.features.size(1), dtype=dtype, device=self.features.device)
        h_sum.index_add_(0, inverse, self.features.to(dtype))
        w = self.weight.to(dtype)
        square_norms = w.pow(2).sum(dim=1)
        means = torch.empty_like(h_sum)
        total = torch.zeros((), dtype=dtype, device=w.device)
        for start in range(0, words.numel(), plan.chunk_size):
            rows = slice(start, start + plan.chunk_size)
            q, distances = full_soft_targets(
                w, words[rows], self.temperature, plan.options.min_target_prob, plan.excluded, square_norms
            )
            count = counts[rows]
            self.target_prob += count.dot(q.gather(1, words[rows].unsqueeze(1)).squeeze(1))
            finite_rows = distances.index_fill_(1, self.excluded_ids, 0.0).sum(dim=1)
            self.distance += count.dot(finite_rows)
            torch.mm(q, w, out=means[rows])
            total += (h_sum[rows] * means[rows]).sum()
            if self.bias is not None:
                total += count.dot(q.mv(self.bias.to(dtype)))
            if plan.alpha > 0 and grads.weight is not None:
                grads.weight.addmm_(q.t(), h_sum[rows], alpha=-plan.alpha)
            if plan.alpha > 0 and grads.bias is not None:
                grads.bias.sub_(count @ q, alpha=plan.alpha)
        if plan.alpha > 0 and grads.features is not None:
            grads.features.sub_(means[inverse], alpha=plan.alpha)
        self.num_pairs += self._pairs_of_full()
        return total

    def _pairs_of_full(self) -> Tensor:
        """Pairs of a target and another word of its support: every word but the target and the excluded ones."""
        vocabulary = self.weight.size(0)
        others = vocabulary - 1 - self.excluded_ids.numel()
        target_is_excluded = (self.target.unsqueeze(1) == self.excluded_ids).any(dim=1)
        return others * self.target.numel() + target_is_excluded.sum()


class _FusedSelfKDLoss(torch.autograd.Function):
    """Differentiable in features, weight and bias through the first output alone."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Optional[Tensor], target: Tensor, plan: _Plan
    ) -> Tuple[Tensor, ...]:
        needs = ctx.needs_input_grad[:3]
        # The caller has chosen the dtypes; autocast must not take distances in half precision.
        with torch.autocast(device_type=features.device.type, enabled=False):
            result, grads = _Pass(features.detach(), weight.detach(), bias, target, plan).run(needs)
        inputs = (features, weight, bias)
        ctx.save_for_backward(*(None if g is None or x is None else g.to(x.dtype) for g, x in zip(grads, inputs)))
        # Clones, because one tensor may stand for two outputs (no label smoothing, say), of which only the first
        # has a gradient.
        outputs = (*(value.clone() for value in result[:4]), *result.statistics)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> Tuple[Optional[Tensor], ...]:
        gradients = ctx.saved_tensors
        # On the CPU reading one number costs nothing, and the usual upstream gradient of 1 needs no pass over W.
        if grad_loss.device.type != "cpu" or grad_loss.item() != 1.0:
            gradients = tuple(None if g is None else g * grad_loss.to(g.dtype) for g in gradients)
        return (*gradients, None, None)


def fused_self_kd_loss(
    features: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    target: Tensor,
    *,
    alpha: float,
    options: SoftTargetOptions,
    label_smoothing: float,
    excluded: Sequence[int],
    chunk_size: Optional[int],
    neighbours: Optional[Tensor] = None,
    generator: Optional[torch.Generator] = None,
) -> SelfKDLoss:
    """The fused path behind :func:`selfkd_fairseq.core.self_kd_loss`, which checks the arguments and documents them.

    ``target`` holds no ignored token. Gradients flow from ``loss`` alone. Under autocast the matrix products run in the
    autocast dtype; sums and the softmax are float32 or better always.
    """
    device = features.device.type
    if torch.is_autocast_enabled() if device == "cuda" else _cpu_autocast_enabled():
        dtype = torch.get_autocast_gpu_dtype() if device == "cuda" else torch.get_autocast_cpu_dtype()
        features, weight = features.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    if chunk_size is None:
        itemsize = torch.empty((), dtype=at_least_float32(features.dtype)).element_size()
        chunk_size = default_chunk_size(weight.size(0), target.numel(), features.device, itemsize)
    plan = _Plan(alpha, options, label_smoothing, tuple(sorted({*excluded})), chunk_size, neighbours, generator)
    loss, ce_loss, nll_loss, skd_loss, *statistics = _FusedSelfKDLoss.apply(features, weight, bias, target, plan)
    return SelfKDLoss(loss, ce_loss, nll_loss, skd_loss, Statistics(*statistics))


def _cpu_autocast_enabled() -> bool:
    return hasattr(torch, "is_autocast_cpu_enabled") and torch.is_autocast_cpu_enabled()
