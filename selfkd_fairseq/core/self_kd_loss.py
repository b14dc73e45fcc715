"""The public loss of ``docs/method.md``: one signature for the reference and the fused implementation."""

from typing import Any, Optional, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .arguments import (
    check_floating,
    check_ignore_index,
    check_neighbours,
    check_word_ids,
    numbers_at_hand,
    words_in_vocabulary,
)
from .compiled_rows import can_compile
from .fused_linear_loss import autocast_dtype, fused_self_kd_loss
from .options import SelfKDOptions, check_loss_weights, check_one_of
from .reference_loss import SelfKDLoss, self_kd_loss_from_logits
from .soft_targets import of_partners

__all__ = ["IMPLEMENTATIONS", "self_kd_loss"]

IMPLEMENTATIONS = ("auto", "fused", "compiled", "reference")


def _check_tensors(
    features: Tensor, weight: Tensor, bias: Optional[Tensor], target: Tensor, teacher_features: Optional[Tensor]
) -> None:
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
    if teacher_features is not None and teacher_features.shape != features.shape:
        raise ValueError(
            f"teacher_features must be (N, d) as features {tuple(features.shape)}, got {tuple(teacher_features.shape)}"
        )
    if target.dtype != torch.long:  # before a float is compared with the id of the padding
        raise ValueError(f"target must be int64 word ids, got {target.dtype}")
    check_floating(features=features, weight=weight, bias=bias, teacher_features=teacher_features)
    dtypes = {x.dtype for x in (features, weight, bias, teacher_features) if x is not None}
    # Autocast brings all to one dtype, but for float64.
    if len(dtypes) > 1 and (torch.float64 in dtypes or autocast_dtype(features.device.type) is None):
        found = ", ".join(sorted(map(str, dtypes)))
        raise ValueError(f"features, weight, bias and teacher_features must be of one dtype, got {found}")


def _check_pairs(target: Tensor, teacher_features: Optional[Tensor]) -> None:
    if teacher_features is not None:
        raise ValueError("paired features are each other's teacher_features, which must be left out")
    if target.numel() % 2 == 1 or (numbers_at_hand(target) and not torch.equal(target[::2], target[1::2])):
        raise ValueError("paired features must be two rows of each token, one after the other, with the same target")


def self_kd_loss(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Optional[Tensor] = None,
    alpha: float,
    teacher_features: Optional[Tensor] = None,
    paired: bool = False,
    label_smoothing: float = 0.0,
    ignore_index: Optional[int] = None,
    excluded: Sequence[int] = (),
    chunk_size: Optional[int] = None,
    implementation: str = "auto",
    neighbours: Optional[Tensor] = None,
    generator: Optional[torch.Generator] = None,
    **options: Any,
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
        teacher_features: (N', d) features of the same tokens in another pass, in the dtype of ``features``;
            required by the teacher ``self`` unless ``paired``, and read by no other; no gradient flows.
        paired: the features are of two passes, rows 2 i and 2 i + 1 of the same token and with the same target (which
            on a CPU is checked), and each of the two is the teacher of the other: in place of ``teacher_features``,
            with fewer products. Sums are over both.
        label_smoothing: eps of L_CE, in [0, 1).
        ignore_index: targets with this id (padding) add nothing; it is in no support either.
        excluded: further word ids that are in no support except as the target (bos).
        chunk_size: tokens at a time of the fused implementation; by default chosen by V and device.
        implementation: ``fused`` never holds an (N, V) tensor and takes the gradients in the forward pass, so
            ``loss`` is its only output with a gradient; ``compiled`` is the same by ``torch.compile``: fewer passes
            over the logits, for GPUs; ``auto`` is ``compiled`` on a GPU where ``torch.compile`` works, else ``fused``;
            ``reference`` is the plain definition.
        neighbours: (V, n) int64 from :func:`~selfkd_fairseq.core.supports.nearest_words`, for ``nearest``;
            without it they are computed for the words of the batch.
        generator: CPU generator for ``random``; by default torch's own.
        **options: how the soft targets are made and compared with the model: the fields of
            :class:`~selfkd_fairseq.core.options.SelfKDOptions`, which says what each may be.

    Returns:
        :class:`SelfKDLoss`: sums in nats over the tokens that are not ignored, float32 or better, and statistics.

    Raises:
        ValueError: an argument is out of its range or of another dtype, or shapes do not fit; the message names it and
            what is allowed.
        TypeError: there is no such option.
    """
    _check_tensors(features, weight, bias, target, teacher_features)
    if paired:
        _check_pairs(target, teacher_features)
    check_loss_weights(alpha, label_smoothing)
    check_one_of("implementation", implementation, IMPLEMENTATIONS)
    if implementation == "auto":
        implementation = "compiled" if can_compile(weight.device.type) else "fused"
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    vocabulary = weight.size(0)
    chosen = SelfKDOptions(**options)
    chosen.check(vocabulary_size=vocabulary)
    if not chosen.needs_teacher_pass:
        teacher_features, paired = None, False
    elif teacher_features is None and not paired:
        raise ValueError("the teacher self needs teacher_features, those of another pass")
    check_neighbours(neighbours, vocabulary, chosen.support_size)
    check_ignore_index(ignore_index)
    excluded = words_in_vocabulary([*excluded, ignore_index], vocabulary)
    keep = None
    if ignore_index is not None:
        keep = target != ignore_index
        if numbers_at_hand(target) or implementation == "reference":
            kept = keep.nonzero().squeeze(1)
            if kept.numel() < target.numel():
                features, target = features.index_select(0, kept), target.index_select(0, kept)
                teacher_features = None if teacher_features is None else teacher_features.index_select(0, kept)
            keep = None
        else:  # to count them, a GPU would be waited for
            ignored = ~keep
            features, target = features.masked_fill(ignored.unsqueeze(1), 0.0), target.masked_fill(ignored, 0)
            if teacher_features is not None:
                teacher_features = teacher_features.masked_fill(ignored.unsqueeze(1), 0.0)
    check_word_ids("target", target, vocabulary)
    if implementation != "reference":
        return fused_self_kd_loss(
            features, weight, bias, target, alpha=alpha, options=chosen, label_smoothing=label_smoothing,
            excluded=excluded, chunk_size=chunk_size, neighbours=neighbours, generator=generator,
            teacher_features=teacher_features, paired=paired, keep=keep, compile_passes=implementation == "compiled",
        )  # fmt: skip
    logits, teacher_logits = functional.linear(features, weight, bias), None
    if paired:
        teacher_logits = of_partners(logits)
    elif teacher_features is not None:
        with torch.no_grad():
            teacher_logits = functional.linear(teacher_features, weight, bias)
    return self_kd_loss_from_logits(
        logits, weight, target, alpha=alpha, options=chosen,
        label_smoothing=label_smoothing, excluded=excluded, neighbours=neighbours, generator=generator,
        teacher_logits=teacher_logits,
    )  # fmt: skip
