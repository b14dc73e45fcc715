"""The support ``full`` of the fused loss: exact soft targets, once per distinct target word of the batch.

q depends on the target word alone. With U <= N distinct words, ``m_u = sum_k q_uk w_k`` and H_u the sum of the features
of the tokens with that target,

    sum_i sum_k q_ik z_ik = sum_u H_u . m_u + n_u sum_k q_uk b_k        gradient to W: q^T H, to h_i: m_(t_i)

which is about three (U, V, d) matrix products, in chunks of words.
"""

import math
from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

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


class _Space(NamedTuple):
    """The embedding space in units of tau', and what distances in it need.

    Attributes:
        rows: (V, d) rows of W less their mean, divided by tau'; float32 or better.
        square_norms: (V,) their squared norms.
        excluded_ids: (E,) int64.
        min_target_prob: floor m.
    """

    rows: Tensor
    square_norms: Tensor
    excluded_ids: Tensor
    min_target_prob: float


def _exact_rows(space: _Space, words: Tensor, distances: Tensor, probs: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Soft targets of U words over the whole vocabulary, in two given (U, V) buffers: few passes, no new memory.

    ``sqrt(|w_t|^2 + |w_k|^2 - 2 w_t . w_k)`` is one matrix product, and rows less their mean keep it from cancelling.

    Returns:
        scale (U, 1): q is ``scale * probs``, so that raising a target to the floor does not pass over the others;
        target_prob (U,): q of the word itself; distance (U,): sum of its distances to all others, in units of tau'.
    """
    column = words.unsqueeze(1)
    torch.addmm(space.square_norms, space.rows[words], space.rows.t(), alpha=-2.0, out=distances)
    distances.add_(space.square_norms[words].unsqueeze(1)).clamp_min_(0.0).sqrt_()
    distances.scatter_(1, column, 0.0).index_fill_(1, space.excluded_ids, 0.0)
    distance = distances.sum(dim=1)
    distances.neg_().index_fill_(1, space.excluded_ids, -math.inf).scatter_(1, column, 0.0)
    torch.softmax(distances, dim=1, out=probs)
    floor, target_prob = space.min_target_prob, probs.gather(1, column)
    if floor == 1.0:  # one-hot, and no scale could say so
        probs.zero_().scatter_(1, column, target_prob.new_ones(target_prob.shape))
        return torch.ones_like(target_prob), torch.ones_like(distance), distance
    below_floor = target_prob < floor
    scale = torch.where(below_floor, (1.0 - floor) / (1.0 - target_prob), torch.ones_like(target_prob))
    target_prob = torch.where(below_floor, torch.full_like(target_prob, floor), target_prob)
    probs.scatter_(1, column, target_prob / scale)
    return scale, target_prob.squeeze(1), distance


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
    buffers: Tuple[Tensor, Tensor],
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
        buffers: two (C, V) tensors of the accumulators' dtype, C words at a time; what they hold is lost.
        gradients: accumulators, see :class:`Gradients`.
    """
    dtype = at_least_float32(features.dtype)
    words, inverse, counts = target.unique(return_inverse=True, return_counts=True)
    counts = counts.to(dtype)
    h_sum = torch.zeros(words.numel(), features.size(1), dtype=dtype, device=features.device)
    h_sum.index_add_(0, inverse, features.to(dtype))
    w, chunk_size = weight.to(dtype), buffers[0].size(0)
    rows = (centred(embedding) / temperature).to(dtype)
    excluded_ids = torch.tensor(excluded, dtype=torch.long, device=target.device)
    space = _Space(rows, rows.pow(2).sum(dim=1), excluded_ids, min_target_prob)
    zero = torch.zeros((), dtype=dtype, device=features.device)
    total, target_prob, distance = zero.clone(), zero.clone(), zero.clone()
    means = torch.empty_like(h_sum)
    for start in range(0, words.numel(), chunk_size):
        part = slice(start, start + chunk_size)
        ids, count = words[part], counts[part]
        distances, probs = (buffer[: ids.numel()] for buffer in buffers)
        scale, row_target_prob, row_distance = _exact_rows(space, ids, distances, probs)
        target_prob += count.dot(row_target_prob)
        distance += count.dot(row_distance) * temperature
        torch.mm(probs, w, out=means[part]).mul_(scale)
        total += (h_sum[part] * means[part]).sum()
        if bias is not None:
            total += (count * scale.squeeze(1)).dot(probs.mv(bias.to(dtype)))
        if alpha > 0 and gradients.weight is not None:
            gradients.weight.addmm_(probs.t(), h_sum[part] * scale, alpha=-alpha)
        if alpha > 0 and gradients.bias is not None:
            gradients.bias.sub_((count * scale.squeeze(1)) @ probs, alpha=alpha)
    if alpha > 0 and gradients.features is not None:
        gradients.features.sub_(means[inverse], alpha=alpha)
    # Every word but the target and the excluded ones; a target that is itself excluded takes nothing away.
    target_is_excluded = (target.unsqueeze(1) == excluded_ids).any(dim=1)
    others = weight.size(0) - 1 - excluded_ids.numel()
    return ExactTargets(total, target_prob, distance, others * target.numel() + target_is_excluded.sum())
