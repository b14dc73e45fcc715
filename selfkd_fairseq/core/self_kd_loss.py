"""The public loss of ``docs/method.md``: one signature for the reference and the fused implementation."""

from typing import Optional, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .fused_linear_loss import autocast_dtype, fused_self_kd_loss
from .reference_loss import SelfKDLoss, check_loss_weights, self_kd_loss_from_logits
from .supports import (
    SoftTargetOptions,
    check_floating,
    check_ignore_index,
    check_neighbours,
    check_word_ids,
    words_in_vocabulary,
)

__all__ = ["IMPLEMENTATIONS", "check_implementation", "self_kd_loss"]

IMPLEMENTATIONS = ("fused", "reference")


def check_implementation(implementation: str) -> None:
    """Check the name of an implementation.

    Args:
        implementation: one of :data:`IMPLEMENTATIONS`.

    Raises:
        ValueError: it is none of them; the message names what is allowed.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {implementation!r}")


def _check_tensors(features: Tensor, weight: Tensor, bias: Optional[Tensor], target: Tensor) -> None:
    if features.dim() != 2 or weight.dim() != 2 or features.size(1) != weight.size(1):
        raise ValueError(
            f"features must be (N, d) and weight (V, d), got {tuple(features.shape)} and {tuple(weight.shape)}"
        )
    if features.size(1) == 0:
        raise ValueError(f"features must be (N, d) with d of at least 1, got {tuple(features.shape)}")
    if target.shape != features.shape[:1]:
        raise ValueError(
            f"target must be (N,) with the N of features, got {tuple(target.shape)} and features "
            f"{tuple(features.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias must be (V,) with the V of weight, got {tuple(bias.shape)} and weight {tuple(weight.shape)}"
        )
    if target.dtype != torch.long:  # before a float is compared with the id of the padding
        raise ValueError(f"target must be int64 word ids, got {target.dtype}")
    check_floating(features=features, weight=weight, bias=bias)
    dtypes = {x.dtype for x in (features, weight, bias) if x is not None}
    # Autocast brings all to one dtype, but for float64.
    if len(dtypes) > 1 and (torch.float64 in dtypes or autocast_dtype(features.device.type) is None):
        raise ValueError(f"features, weight and bias must be of one dtype, got {', '.join(sorted(map(str, dtypes)))}")


def self_kd_loss(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Optional[Tensor] = None,
    alpha: float,
    support: str = "predicted",
    support_size: int = 1,
    temperature: float = 1.0,
    temperature_scale: str = "relative",
    min_target_prob: float = 0.5,
    label_smoothing: float = 0.0,
    ignore_index: Optional[int] = None,
    excluded: Sequence[int] = (),
    chunk_size: Optional[int] = None,
    implementation: str = "fused",
    neighbours: Optional[Tensor] = None,
    generator: Optional[torch.Generator] = None,
) -> SelfKDLoss:
    """Cross-entropy and self-knowledge distillation of a batch of tokens: ``(1 - alpha) L_CE + alpha L_SKD``.

    The equations are those of Hahn and Choi's idea (RANLP 2019, arXiv 1908.01851) as ``docs/method.md`` states them.

    Args:
        features: (N', d) decoder features just before the output projection; gradients flow.
        weight: (V, d) output embedding matrix, tied or not; gradients flow through the logits, never through the
            soft targets. float16, bfloat16, float32 or float64, and so is ``features``.
        target: (N',) int64 word ids.
        bias: (V,) bias of the output projection, if it has one; gradients flow.
        alpha: weight of L_SKD, in [0, 1].
        support: which words share probability with the target: ``predicted``, ``nearest``, ``full`` or ``random``.
        support_size: n, words in the support beside the target, in [1, V); not read by ``full``.
        temperature: tau, above 0 and finite.
        temperature_scale: ``relative`` or ``absolute``.
        min_target_prob: floor m of the target's own soft-target probability, in [0, 1].
        label_smoothing: eps of L_CE, in [0, 1).
        ignore_index: targets with this id (padding) add nothing; it is in no support either.
        excluded: further word ids that are in no support except as the target (bos).
        chunk_size: tokens at a time of the fused implementation; by default chosen by V and device.
        implementation: ``fused`` never holds an (N, V) tensor and takes the gradients in the forward pass, so
            ``loss`` is its only output with a gradient; ``reference`` is the plain definition.
        neighbours: (V, n) int64 from :func:`~selfkd_fairseq.core.supports.nearest_words`, for ``nearest``;
            without it they are computed for the words of the batch.
        generator: CPU generator for ``random``; by default torch's own.

    Returns:
        :class:`SelfKDLoss`: sums in nats over the tokens that are not ignored, float32 or better, and statistics.

    Raises:
        ValueError: an argument is out of its range or of another dtype, or shapes do not fit; the message names it and
            what is allowed.
    """
    _check_tensors(features, weight, bias, target)
    check_loss_weights(alpha, label_smoothing)
    check_implementation(implementation)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    vocabulary = weight.size(0)
    options = SoftTargetOptions(support, support_size, temperature, temperature_scale, min_target_prob)
    options.check(vocabulary_size=vocabulary)
    check_neighbours(neighbours, vocabulary, support_size)
    check_ignore_index(ignore_index)
    excluded = words_in_vocabulary([*excluded, ignore_index], vocabulary)
    if ignore_index is not None:
        kept = (target != ignore_index).nonzero().squeeze(1)
        if kept.numel() < target.numel():
            features, target = features.index_select(0, kept), target.index_select(0, kept)
    check_word_ids("target", target, vocabulary)
    if implementation == "fused":
        return fused_self_kd_loss(
            features, weight, bias, target, alpha=alpha, options=options, label_smoothing=label_smoothing,
            excluded=excluded, chunk_size=chunk_size, neighbours=neighbours, generator=generator,
        )  # fmt: skip
    return self_kd_loss_from_logits(
        functional.linear(features, weight, bias), weight, target, alpha=alpha, options=options,
        label_smoothing=label_smoothing, excluded=excluded, neighbours=neighbours, generator=generator,
    )  # fmt: skip
