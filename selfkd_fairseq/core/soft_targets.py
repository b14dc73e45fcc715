"""Soft targets from the output embedding matrix: which words share probability, and how much.

Notation: N target tokens, V words, d the width of the output embedding ``W`` (V, d), ``t_i`` the target word of
token i. Over a support ``S_i`` that contains ``t_i``,

    D_ik = || w_{t_i} - w_k ||_2
    q_ik = exp(-D_ik / tau') / sum_{j in S_i} exp(-D_ij / tau')        for k in S_i, 0 elsewhere

with ``tau' = tau * D_rms(W)`` (scale ``relative``) or ``tau' = tau`` (``absolute``). If ``q_it`` is below the floor
m, it is raised to m and the other entries are scaled so that the row still sums to 1. q is a constant for
autograd. Every support excludes a given set of words (padding, bos), except as the target.

The idea that the soft targets come from the model's own embedding space is that of Hahn and Choi (RANLP 2019,
arXiv 1908.01851); the exact equations are this project's reading of it.
"""

import math
from typing import NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from .supports import SoftTargetOptions, Support, at_least_float32, centred, make_support, support_words

__all__ = [
    "SoftTargets",
    "effective_temperature",
    "rms_distance",
    "soft_targets",
    "sparse_soft_targets",
    "support_probabilities",
]


class SoftTargets(NamedTuple):
    """Soft targets over a sparse support. No tensor here carries a gradient.

    Attributes:
        indices: (N, K) int64, word ids; column 0 is the target.
        probs: (N, K) float32 or float64, q; each row sums to 1, and is 0 where ``valid`` is False.
        distances: (N, K) like ``probs``, Euclidean distance to the target's row of W (0 in column 0).
        valid: (N, K) bool, see :class:`Support`.
    """

    indices: Tensor
    probs: Tensor
    distances: Tensor
    valid: Tensor


def rms_distance(weight: Tensor) -> Tensor:
    """Root mean square distance of two rows of W drawn independently: ``sqrt(2 (mean ||w||^2 - ||mean w||^2))``.

    Computed from the rows less their mean, so that nothing cancels when the mean is large.

    Args:
        weight: (V, d), any float dtype; no gradient flows.

    Returns:
        () float32 (float64 for a float64 ``weight``), at least 0.
    """
    # Row by row: over all V d numbers at once, vector_norm on the CPU was off by 6e-4 (V = 32,000, d = 512).
    norms: Tensor = torch.linalg.vector_norm(centred(weight), dim=1)
    return (2.0 * norms.pow(2).mean()).sqrt()


def effective_temperature(weight: Tensor, options: SoftTargetOptions) -> Tensor:
    """The temperature tau' of the soft targets, in units of the embedding.

    It is kept above 0 so that a matrix of equal rows, whose distances are all 0, gives equal shares and not NaN, and
    within the range of the dtype.

    Args:
        weight: (V, d), any float dtype; no gradient flows.
        options: tau and its scale; assumed checked.

    Returns:
        () float32 (float64 for a float64 ``weight``).
    """
    dtype = at_least_float32(weight.dtype)
    limits = torch.finfo(dtype)
    temperature = min(max(options.temperature, limits.tiny), limits.max)
    if options.temperature_scale == "absolute":
        return torch.full((), temperature, dtype=dtype, device=weight.device)
    return (temperature * rms_distance(weight)).clamp(limits.tiny, limits.max)


def support_probabilities(distances: Tensor, valid: Tensor, temperature: Tensor, min_target_prob: float) -> Tensor:
    """Probabilities q over a support whose column 0 is the target, with the floor applied.

    Args:
        distances: (N, K) distances to the target's row, float32 or better.
        valid: (N, K) bool, True where the column holds a word of the support; column 0 is True.
        temperature: (), tau', above 0.
        min_target_prob: m in [0, 1].

    Returns:
        (N, K) like ``distances``; each row sums to 1; 0 where ``valid`` is False.
    """
    probs = torch.softmax((-distances / temperature).masked_fill(~valid, -math.inf), dim=1)
    target_prob = probs[:, :1]
    below_floor = target_prob < min_target_prob
    # Where the floor applies target_prob < m <= 1, so the divisor is positive; elsewhere the ratio is unused.
    others = torch.where(below_floor, probs * ((1.0 - min_target_prob) / (1.0 - target_prob)), probs)
    floored_target = torch.where(below_floor, torch.full_like(target_prob, min_target_prob), target_prob)
    return torch.cat([floored_target, others[:, 1:]], dim=1)


@torch.no_grad()
def sparse_soft_targets(weight: Tensor, support: Support, temperature: Tensor, min_target_prob: float) -> SoftTargets:
    """Soft targets over a sparse support.

    Args:
        weight: (V, d), the output embedding matrix; float16, bfloat16, float32 or float64.
        support: see :class:`Support`.
        temperature: (), tau', above 0; float32 or better.
        min_target_prob: m in [0, 1].

    Returns:
        :class:`SoftTargets`, float32 or better; no gradient flows.
    """
    rows = weight.detach()[support.indices].to(at_least_float32(weight.dtype))
    distances = torch.linalg.vector_norm(rows - rows[:, :1], dim=2)
    probs = support_probabilities(distances, support.valid, temperature, min_target_prob)
    return SoftTargets(support.indices, probs, distances, support.valid)


@torch.no_grad()
def soft_targets(
    scores: Optional[Tensor],
    weight: Tensor,
    target: Tensor,
    options: SoftTargetOptions,
    excluded: Sequence[int] = (),
    neighbours: Optional[Tensor] = None,
    generator: Optional[torch.Generator] = None,
) -> SoftTargets:
    """Soft targets of N tokens from the rows of the output embedding matrix.

    Args:
        scores: (N, V) logits or log-probabilities of the model; read by the support ``predicted`` alone.
        weight: (V, d), the output embedding matrix; float16, bfloat16, float32 or float64.
        target: (N,) int64, in [0, V).
        options: see :class:`SoftTargetOptions`; assumed checked.
        excluded: word ids that are in no support except as the target.
        neighbours: (V, n) int64, cached result of :func:`nearest_words` for every word (support ``nearest``);
            without it the neighbours of the batch's words are computed from ``weight`` as it is now.
        generator: source of the support ``random``.

    Returns:
        :class:`SoftTargets`, float32 or better; no gradient flows. With the support ``full`` K is V + 1.
    """
    temperature = effective_temperature(weight, options)
    if options.support != "full":
        words = support_words(scores, weight, target, options, excluded, neighbours, generator)
        support = make_support(target, words, excluded)
        return sparse_soft_targets(weight, support, temperature, options.min_target_prob)
    every_word = torch.arange(weight.size(0), device=target.device).expand(target.numel(), -1)
    support = make_support(target, every_word, excluded)
    weight = weight.detach().to(at_least_float32(weight.dtype))
    # Differences, not products: slower and free of cancellation, as a reference should be.
    distances = torch.cdist(weight[target], weight, compute_mode="donot_use_mm_for_euclid_dist")
    distances = torch.cat([torch.zeros_like(distances[:, :1]), distances], dim=1)
    probs = support_probabilities(distances, support.valid, temperature, options.min_target_prob)
    return SoftTargets(support.indices, probs, distances, support.valid)
