"""The support ``full`` of the fused loss: exact soft targets, once per distinct target word of the batch.

q depends on the target word alone. With U <= N distinct words, ``m_u = sum_k q_uk w_k`` and H_u the sum of the features
of the tokens with that target,

    sum_i sum_k q_ik z_ik = sum_u H_u . m_u + n_u sum_k q_uk b_k        gradient to W: q^T H, to h_i: m_(t_i)

which is about three (U, V, d) matrix products, in chunks of words.
"""

from typing import NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from .soft_targets import full_soft_targets
from .supports import at_least_float32, centred

__all__ = ["ExactTargets", "Gradients", "add_exact_targets"]


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


class ExactTargets(NamedTuple):
    """Sums over the N tokens, float32 or better; ``num_pairs`` int64.

    Attributes:
        sum_of_logits: () ``sum_i sum_k q_ik z_ik``.
        target_prob: () sum of the soft-target probabilities of the target words.
        distance: () sum of the distances of the targets to every other word of their supports.
        num_pairs: () number of those distances.
    """

    sum_of_logits: Tensor
    target_prob: Tensor
    distance: Tensor
    num_pairs: Tensor


def add_exact_targets(
    features: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    target: Tensor,
    *,
    embedding: Tensor,
    temperature: Tensor,
    min_target_prob: float,
    excluded: Sequence[int],
    alpha: float,
    chunk_size: int,
    gradients: Gradients,
) -> ExactTargets:
    """Add the share of exact soft targets to ``gradients``, in place, and return their sums.

    Args:
        features: (N, d), any float dtype; like ``weight`` and ``bias`` without autograd history.
        weight: (V, d) as it makes the logits (in half precision under autocast).
        bias: (V,) or None.
        target: (N,) int64.
        embedding: (V, d) the same matrix as the soft targets see it.
        temperature: (), tau'.
        min_target_prob: floor m.
        excluded: word ids that get no probability except as the target.
        alpha: weight of the distillation term, in [0, 1].
        chunk_size: words at a time.
        gradients: accumulators, see :class:`Gradients`.
    """
    dtype = at_least_float32(features.dtype)
    words, inverse, counts = target.unique(return_inverse=True, return_counts=True)
    counts = counts.to(dtype)
    h_sum = torch.zeros(words.numel(), features.size(1), dtype=dtype, device=features.device)
    h_sum.index_add_(0, inverse, features.to(dtype))
    w, space = weight.to(dtype), centred(embedding)
    square_norms = space.pow(2).sum(dim=1)
    excluded_ids = torch.tensor(excluded, dtype=torch.long, device=target.device)
    means = torch.empty_like(h_sum)
    zero = torch.zeros((), dtype=dtype, device=features.device)
    total, target_prob, distance = zero.clone(), zero.clone(), zero.clone()
    for start in range(0, words.numel(), chunk_size):
        rows = slice(start, start + chunk_size)
        q, distances = full_soft_targets(space, words[rows], temperature, min_target_prob, excluded, square_norms)
        q, count = q.to(dtype), counts[rows]
        target_prob += count.dot(q.gather(1, words[rows].unsqueeze(1)).squeeze(1))
        distance += count.dot(distances.index_fill_(1, excluded_ids, 0.0).sum(dim=1).to(dtype))
        torch.mm(q, w, out=means[rows])
        total += (h_sum[rows] * means[rows]).sum()
        if bias is not None:
            total += count.dot(q.mv(bias.to(dtype)))
        if alpha > 0 and gradients.weight is not None:
            gradients.weight.addmm_(q.t(), h_sum[rows], alpha=-alpha)
        if alpha > 0 and gradients.bias is not None:
            gradients.bias.sub_(count @ q, alpha=alpha)
    if alpha > 0 and gradients.features is not None:
        gradients.features.sub_(means[inverse], alpha=alpha)
    # Every word but the target and the excluded ones; a target that is itself excluded takes nothing away.
    target_is_excluded = (target.unsqueeze(1) == excluded_ids).any(dim=1)
    others = weight.size(0) - 1 - excluded_ids.numel()
    return ExactTargets(total, target_prob, distance, others * target.numel() + target_is_excluded.sum())
