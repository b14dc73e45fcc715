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

To add a support: write a function that returns a :class:`Support`, and enter it in :func:`soft_targets`.
"""

import math
from typing import NamedTuple, Optional, Sequence

import torch
from torch import Tensor

__all__ = [
    "SUPPORTS",
    "TEMPERATURE_SCALES",
    "SoftTargetOptions",
    "SoftTargets",
    "Support",
    "at_least_float32",
    "effective_temperature",
    "predicted_support",
    "rms_distance",
    "soft_targets",
    "support_probabilities",
]

SUPPORTS = ("predicted",)
TEMPERATURE_SCALES = ("relative", "absolute")


class SoftTargetOptions(NamedTuple):
    """How soft targets are made. The defaults are those of the criterion ``self_kd``.

    Attributes:
        support: which words share probability with the target, one of :data:`SUPPORTS`.
        support_size: n, the number of words in the support beside the target, in [1, V).
        temperature: tau, above 0 and finite.
        temperature_scale: ``relative`` (tau in units of the root mean square distance of two rows of W) or
            ``absolute`` (tau in units of the embedding).
        min_target_prob: m, the floor of the target's own probability, in [0, 1].
    """

    support: str = "predicted"
    support_size: int = 1
    temperature: float = 1.0
    temperature_scale: str = "relative"
    min_target_prob: float = 0.5

    def check(self, vocabulary_size: Optional[int] = None) -> None:
        """Raise ValueError, naming argument, value and what is allowed, unless every option is in its range."""
        if self.support not in SUPPORTS:
            raise ValueError(f"support must be one of {', '.join(SUPPORTS)}, got {self.support!r}")
        if self.support_size < 1:
            raise ValueError(f"support_size must be at least 1, got {self.support_size}")
        if vocabulary_size is not None and self.support_size >= vocabulary_size:
            raise ValueError(
                f"support_size must be less than the vocabulary size {vocabulary_size}, got {self.support_size}"
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature must be above 0 and finite, got {self.temperature}")
        if self.temperature_scale not in TEMPERATURE_SCALES:
            raise ValueError(
                f"temperature_scale must be one of {', '.join(TEMPERATURE_SCALES)}, got {self.temperature_scale!r}"
            )
        if not 0.0 <= self.min_target_prob <= 1.0:
            raise ValueError(f"min_target_prob must be in [0, 1], got {self.min_target_prob}")


class Support(NamedTuple):
    """The words that share probability, target first.

    Attributes:
        indices: (N, K) int64, word ids; column 0 is the target.
        valid: (N, K) bool, False where a column holds no word of the support (an excluded word, or the target
            a second time). Column 0 is always True.
    """

    indices: Tensor
    valid: Tensor


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


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype to reduce in: float32 for half precision, else ``dtype`` itself."""
    return torch.promote_types(dtype, torch.float32)


def rms_distance(weight: Tensor) -> Tensor:
    """Root mean square distance of two rows of W drawn independently: ``sqrt(2 (mean ||w||^2 - ||mean w||^2))``.

    Computed as ``sqrt(2 sum_j Var(w_.j))``, which does not cancel when the mean is large.

    Args:
        weight: (V, d), any float dtype; no gradient flows.

    Returns:
        () float32 (float64 for a float64 ``weight``), at least 0.
    """
    weight = weight.detach()
    variances = weight.to(at_least_float32(weight.dtype)).var(dim=0, unbiased=False)
    return (2.0 * variances.sum()).sqrt()


def effective_temperature(weight: Tensor, options: SoftTargetOptions) -> Tensor:
    """tau' of the soft targets: () float32 or better; no gradient flows.

    It is kept above 0 so that a matrix of equal rows, whose distances are all 0, gives equal shares and not NaN.
    """
    dtype = at_least_float32(weight.dtype)
    if options.temperature_scale == "absolute":
        return torch.full((), options.temperature, dtype=dtype, device=weight.device)
    return (options.temperature * rms_distance(weight)).clamp_min(torch.finfo(dtype).tiny)


def support_probabilities(distances: Tensor, valid: Tensor, temperature: Tensor, min_target_prob: float) -> Tensor:
    """q over a support whose column 0 is the target, with the floor applied.

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


def predicted_support(scores: Tensor, target: Tensor, size: int, excluded: Sequence[int]) -> Support:
    """The target and the n words that the model itself finds most probable now.

    If the target is among them the support has n words, else n + 1.

    Args:
        scores: (N, V) logits or log-probabilities; only their order is used, no gradient flows.
        target: (N,) int64.
        size: n, in [1, V).
        excluded: word ids that are never predicted (padding, bos).

    Returns:
        a :class:`Support` with K = n + 1 columns.
    """
    scores = scores.detach()
    if excluded:
        excluded_ids = torch.tensor(sorted(excluded), device=scores.device)
        scores = scores.index_fill(1, excluded_ids, -math.inf)
    predicted = scores.topk(size, dim=1).indices
    valid = predicted != target.unsqueeze(1)
    # By membership, not by score: with n near V the excluded words come up last, and a logit may be -inf itself.
    for word in excluded:
        valid &= predicted != word
    return Support(
        indices=torch.cat([target.unsqueeze(1), predicted], dim=1),
        valid=torch.cat([torch.ones_like(valid[:, :1]), valid], dim=1),
    )


@torch.no_grad()
def soft_targets(
    scores: Tensor, weight: Tensor, target: Tensor, options: SoftTargetOptions, excluded: Sequence[int] = ()
) -> SoftTargets:
    """Soft targets of N tokens from the rows of the output embedding matrix.

    Args:
        scores: (N, V) logits or log-probabilities of the model (read by the support ``predicted``).
        weight: (V, d), the output embedding matrix; float16, bfloat16, float32 or float64.
        target: (N,) int64, in [0, V).
        options: see :class:`SoftTargetOptions`; assumed checked.
        excluded: word ids that are in no support except as the target.

    Returns:
        :class:`SoftTargets`, float32 or better; no gradient flows.
    """
    support = predicted_support(scores, target, options.support_size, excluded)
    dtype = at_least_float32(weight.dtype)
    rows = weight.detach()[support.indices].to(dtype)
    distances = torch.linalg.vector_norm(rows - rows[:, :1], dim=2)
    temperature = effective_temperature(weight, options)
    probs = support_probabilities(distances, support.valid, temperature, options.min_target_prob)
    return SoftTargets(support.indices, probs, distances, support.valid)
