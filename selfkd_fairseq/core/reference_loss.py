"""The loss of self-knowledge distillation, as ``docs/method.md`` defines it: the yardstick of every faster path.

Sums over the N tokens that are not ignored, in nats; z_i are the logits of token i, p_i = softmax(z_i), q_i its soft
targets (:mod:`selfkd_fairseq.core.soft_targets`), T the temperature of the student:

    L_CE  = cross-entropy with label smoothing eps, identical to fairseq's label_smoothed_cross_entropy
    L_SKD = T^2 sum_i KL( q_i || softmax(z_i / T) )         over all words, or over the words of the support
    L     = (1 - alpha) L_CE + alpha L_SKD
"""

import math
from typing import NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from .arguments import (
    at_least_float32,
    check_floating,
    check_ignore_index,
    check_neighbours,
    check_word_ids,
    words_in_vocabulary,
)
from .options import SelfKDOptions, check_loss_weights
from .soft_targets import SoftTargets, entropy, soft_targets

__all__ = ["SelfKDLoss", "Statistics", "self_kd_loss_from_logits"]


class Statistics(NamedTuple):
    """What is worth logging about the soft targets; sums, so that workers can add them up. No gradient.

    Attributes:
        ntokens: () int64, N: tokens that are not ignored.
        n_correct: () int64, tokens whose most probable word is the target.
        target_prob: () sum over tokens of q_it, the soft-target probability of the target word.
        entropy: () sum over tokens of the entropy of q_i, in nats.
        measure: () sum over the ``num_pairs`` pairs of a target and another word of its support of what the similarity
            is made of: their distance, or cosine.
        num_pairs: () int64; 0 where the soft targets do not read the matrix.
    """

    ntokens: Tensor
    n_correct: Tensor
    target_prob: Tensor
    entropy: Tensor
    measure: Tensor
    num_pairs: Tensor


class SelfKDLoss(NamedTuple):
    """Result of the loss functions: in nats, float32 or better; sums, or values of N' tokens with ``reduction="none"``.

    ``loss`` carries a gradient always; the other three do in the reference (``skd_loss`` where alpha is
    above 0) and do not in the fused implementation.

    Attributes:
        loss: () or (N',), L, the training objective.
        ce_loss: () or (N',), L_CE (label-smoothed).
        nll_loss: () or (N',), plain negative log-likelihood of the targets.
        skd_loss: () or (N',), L_SKD, T^2 times a KL divergence: 0 where the model equals the soft targets. No gradient
            ever flows through q.
        statistics: see :class:`Statistics`.
    """

    loss: Tensor
    ce_loss: Tensor
    nll_loss: Tensor
    skd_loss: Tensor
    statistics: Statistics


def _statistics(logits: Tensor, target: Tensor, q: SoftTargets) -> Statistics:
    # What is not made of W has no pairs.
    others = q.valid[:, 1:] if q.measures is not None else q.valid[:, :0]
    measures = q.probs[:, :0] if q.measures is None else q.measures[:, 1:]
    return Statistics(
        ntokens=torch.tensor(target.numel(), device=target.device),
        n_correct=(logits.argmax(dim=1) == target).sum(),
        target_prob=q.probs[:, 0].sum(),
        entropy=entropy(q.probs).sum(),
        measure=measures.masked_select(others).sum(),
        num_pairs=others.sum(),
    )


def _divergence(logits: Tensor, lprobs: Tensor, q: SoftTargets, options: SelfKDOptions) -> Tensor:
    """T^2 KL(q || softmax(z / T)) of each token (N,), over all words or over the words of the support.

    ``lprobs``: log-probabilities (N, V) at temperature 1.
    """
    temperature = options.student_temperature
    if options.normalise == "support":
        softened = logits.to(lprobs.dtype).gather(1, q.indices) / temperature
        of_support = torch.log_softmax(softened.masked_fill(~q.valid, -math.inf), dim=1)
    else:
        if temperature != 1:
            lprobs = torch.log_softmax(logits.to(lprobs.dtype) / temperature, dim=1)
        of_support = lprobs.gather(1, q.indices)
    cross_entropy = -(q.probs * of_support.masked_fill(~q.valid, 0.0)).sum(dim=1)
    return temperature**2 * (cross_entropy - entropy(q.probs))


def _check_shapes(logits: Tensor, weight: Tensor, target: Tensor) -> None:
    if logits.dim() != 2 or target.shape != logits.shape[:1]:
        raise ValueError(f"logits must be (N, V) and target (N,), got {tuple(logits.shape)} and {tuple(target.shape)}")
    if weight.dim() != 2 or weight.size(0) != logits.size(1):
        raise ValueError(
            f"weight must be (V, d) with the V of logits, got {tuple(weight.shape)} and logits {tuple(logits.shape)}"
        )
    if target.dtype != torch.long:
        raise ValueError(f"target must be int64 word ids, got {target.dtype}")
    check_floating(logits=logits, weight=weight)


def self_kd_loss_from_logits(
    logits: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    alpha: float,
    options: SelfKDOptions = SelfKDOptions(),  # noqa: B008 (an immutable tuple)
    label_smoothing: float = 0.0,
    ignore_index: Optional[int] = None,
    excluded: Sequence[int] = (),
    reduction: str = "sum",
    neighbours: Optional[Tensor] = None,
    generator: Optional[torch.Generator] = None,
    teacher_logits: Optional[Tensor] = None,
) -> SelfKDLoss:
    """Cross-entropy and self-knowledge distillation of a batch of tokens.

    Args:
        logits: (N', V) scores before the softmax, any float dtype; gradients flow. The log-softmax is taken in
            float32, or float64 for float64 logits.
        weight: (V, d) output embedding matrix, read for the soft targets only; no gradient flows.
        target: (N',) int64 word ids.
        alpha: weight of L_SKD, in [0, 1]. At 0 the loss is L_CE itself.
        options: how the soft targets are made and compared with the model.
        label_smoothing: eps of L_CE, in [0, 1).
        ignore_index: targets with this id add nothing to any sum (padding); it is in no support either.
        excluded: further word ids that are in no support except as the target (bos).
        reduction: ``sum``, or ``none`` for one value per token (0 where the target is ignored).
        neighbours: (V, n) int64, cached neighbours for the support ``nearest``.
        generator: CPU generator for the support ``random``.
        teacher_logits: (N', V) the model's logits for the same tokens in another pass, read by the teacher
            ``self`` alone; no gradient flows.

    Returns:
        :class:`SelfKDLoss`, in nats.

    Raises:
        ValueError: shapes do not fit together, or an argument is out of its range or of another dtype.
    """
    _check_shapes(logits, weight, target)
    check_loss_weights(alpha, label_smoothing)
    options.check(vocabulary_size=logits.size(1))
    if reduction not in ("sum", "none"):
        raise ValueError(f"reduction must be 'sum' or 'none', got {reduction!r}")
    check_neighbours(neighbours, logits.size(1), options.support_size)
    check_ignore_index(ignore_index)
    if not options.needs_teacher_pass:
        teacher_logits = None
    elif teacher_logits is None or teacher_logits.shape != logits.shape:
        found = None if teacher_logits is None else tuple(teacher_logits.shape)
        raise ValueError(f"the teacher self needs teacher_logits (N, V) as logits {tuple(logits.shape)}, got {found}")
    not_ignored = None
    excluded = words_in_vocabulary([*excluded, ignore_index], logits.size(1))
    if ignore_index is not None:
        not_ignored = target != ignore_index
        logits, target = logits[not_ignored], target[not_ignored]
        teacher_logits = None if teacher_logits is None else teacher_logits[not_ignored]
    check_word_ids("target", target, logits.size(1))

    lprobs = torch.log_softmax(logits, dim=1, dtype=at_least_float32(logits.dtype))
    nll_loss = -lprobs.gather(1, target.unsqueeze(1)).squeeze(1)
    ce_loss = nll_loss
    if label_smoothing > 0:
        eps_i = label_smoothing / (logits.size(1) - 1)
        ce_loss = (1.0 - label_smoothing - eps_i) * nll_loss - eps_i * lprobs.sum(dim=1)

    q = soft_targets(logits, weight, target, options, excluded, neighbours, generator, teacher_logits)
    # At alpha = 0 the term is for the log only: backward then does exactly the work of cross-entropy.
    inputs = (logits, lprobs) if alpha > 0 else (logits.detach(), lprobs.detach())
    skd_loss = _divergence(*inputs, q, options)
    loss = (1.0 - alpha) * ce_loss + alpha * skd_loss if alpha > 0 else ce_loss

    def reduce(values: Tensor) -> Tensor:
        if reduction == "sum":
            return values.sum()
        if not_ignored is None:
            return values
        return values.new_zeros(not_ignored.shape).masked_scatter(not_ignored, values)

    return SelfKDLoss(
        loss=reduce(loss),
        ce_loss=reduce(ce_loss),
        nll_loss=reduce(nll_loss),
        skd_loss=reduce(skd_loss),
        statistics=_statistics(logits.detach(), target, q),
    )
