"""What is done to the logits of a chunk, written for a compiler to fuse: few readings, and the gradient in their place.

The equations are those of ``docs/method.md``. Each function is plain PyTorch and gives the numbers of the eager passes
in :mod:`.chunk_passes`; compiled by ``torch.compile`` nothing of size (C, V) is written but the result. Numbers
that change from update to update come as tensors, for a compiler takes any other as a constant.
"""

import functools
import math
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .geometry import SIMILARITIES, Products
from .options import SelfKDOptions
from .soft_targets import Shuffle

__all__ = ["FullRows", "FullTerms", "compiled", "full_rows", "read_rows", "write_rows"]


# inductor would write down what is long to compute or read often; to compute it anew costs a GPU less than to read it.
_NEVER_WRITTEN_DOWN: Dict[str, Any] = {
    f"realize_{what}_threshold": 10_000 for what in ("reads", "acc_reads", "opcount")
}


@functools.lru_cache(maxsize=None)
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as ``torch.compile`` makes it, when it is called for the first time.

    Args:
        function: of tensors, and of values that a compiler takes as constants.

    Returns:
        The same function, compiled.
    """
    return torch.compile(function, options=_NEVER_WRITTEN_DOWN)


def read_rows(z: Tensor, left_out: Optional[Tensor], dtype: torch.dtype) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the loss wants to know of the logits of C tokens.

    Args:
        z: (C, V), any float dtype.
        left_out: (V,) bool, words that are not to be predicted; None: nothing is.
        dtype: to compute in, float32 or float64.

    Returns:
        The largest logit (C,), its word (C,) int64, logsumexp less the largest logit (C,) in nats, no sum over tokens,
        and the most probable word of those that are not left out (C, 1) int64.
    """
    logits = z.to(dtype)
    best_logit, best_word = logits.max(dim=1)
    excess = (logits - best_logit.unsqueeze(1)).exp().sum(dim=1).log()
    predicted = best_word
    if left_out is not None:
        predicted = logits.masked_fill(left_out, -math.inf).max(dim=1).indices
    return best_logit, best_word, excess, predicted.unsqueeze(1)


def write_rows(z: Tensor, shift: Tensor) -> None:
    """``z = exp(z - shift)``, in place.

    Args:
        z: (C, V), any float dtype.
        shift: (C,), float32 or better.
    """
    z.copy_((z.to(shift.dtype) - shift.unsqueeze(1)).exp())


class FullRows(NamedTuple):
    """What the soft targets over every word are made of, for C tokens.

    Attributes:
        target: (C,) int64.
        left_out: (V,) bool, words that get no probability except as the target.
        dots: (C, V) products of the rows of W, float32 or better; None where W is not read.
        products: of W, whose rows these are of.
        temperature: () tau'; None where W is not read.
        teacher_logits: (C, V) z0 of the teacher ``self``, in the dtype of the features; else None.
        shuffle: of the controls that shuffle, else None.
    """

    target: Tensor
    left_out: Tensor
    dots: Optional[Tensor]
    products: Optional[Products]
    temperature: Optional[Tensor]
    teacher_logits: Optional[Tensor]
    shuffle: Optional[Shuffle]


class FullTerms(NamedTuple):
    """Of C tokens, in nats where it is a logarithm.

    Attributes:
        nll: (C,) negative log-likelihood of the targets.
        lse: (C,) logsumexp of the logits.
        loss: (C,) T^2 KL(q || pT).
        target_prob: (C,) q of the target.
        entropy: (C,) of q.
        measure: (C,) sum of the distances (or cosines) of the target and every other word of its support.
        best_word: (C,) int64, the most probable one.
    """

    nll: Tensor
    lse: Tensor
    loss: Tensor
    target_prob: Tensor
    entropy: Tensor
    measure: Tensor
    best_word: Tensor


def _scores(rows: FullRows, of_target: Tensor, options: SelfKDOptions, like: Tensor) -> Tuple[Tensor, Tensor]:
    """Scores (C, V) of every word, and the sum of the measures of those that may share (C,)."""
    measure, scores = torch.zeros_like(like[:, 0]), torch.zeros_like(like)
    if rows.dots is not None:
        assert rows.products is not None and rows.temperature is not None
        similarity = SIMILARITIES[options.similarity]
        measures = similarity.measure.of_dots(rows.dots, rows.products, rows.target)
        measures = measures.masked_fill(of_target, similarity.measure.of_itself)
        if rows.shuffle is not None and options.control == "shuffled_rows":
            measures = rows.shuffle.columns(measures, rows.target)
        measure = measures.masked_fill(of_target | rows.left_out, 0.0).sum(dim=1)
        scores = similarity.score(measures.clone(), rows.temperature)
    if rows.teacher_logits is not None:
        softened = rows.teacher_logits.to(like.dtype) / options.student_temperature
        scores = softened + options.embedding_weight * scores
    return scores.masked_fill(rows.left_out & ~of_target, -math.inf), measure


def full_rows(
    z: Tensor, rows: FullRows, options: SelfKDOptions, weights: Tensor, scale: float, wants_gradient: bool
) -> FullTerms:
    """Loss and gradient where every word shares probability; ``z`` becomes ``scale`` times dL/dz.

    Args:
        z: (C, V) logits, any float dtype; overwritten if the gradient is wanted.
        rows: see :class:`FullRows`.
        options: of support ``full``, checked.
        weights: (n,) of two numbers: alpha, and what the label-smoothed cross-entropy takes from the target's share.
        scale: of the gradient.
        wants_gradient: whether it is.

    Returns:
        :class:`FullTerms`, in the dtype of ``weights``: in nats, of each token, no sums.
    """
    temperature = options.student_temperature
    logits = z.to(weights.dtype)
    of_target = torch.arange(z.size(1), device=z.device) == rows.target.unsqueeze(1)
    best_logit, best_word = logits.max(dim=1)
    below_best = logits - best_logit.unsqueeze(1)
    excess = below_best.exp().sum(dim=1).log()
    nll = excess - below_best.masked_fill(~of_target, 0.0).sum(dim=1)

    scores, measure = _scores(rows, of_target, options, logits)
    below = scores - scores.max(dim=1, keepdim=True).values
    q = below.exp()
    others = q.masked_fill(of_target, 0.0).sum(dim=1)
    target_prob = q.masked_fill(~of_target, 0.0).sum(dim=1)
    total = target_prob + others
    floored = (target_prob / total).clamp_min(options.min_target_prob)
    # What is left for the others, a word at a time; a target that is alone keeps all.
    share = torch.where(others > 0, (1.0 - floored) / others, 0.0)
    target_prob = torch.where(others > 0, floored, 1.0)
    q = torch.where(of_target, target_prob.unsqueeze(1), q * share.unsqueeze(1))
    if rows.shuffle is not None and options.control == "shuffled":
        q = rows.shuffle.columns(q, rows.target)
    entropy = torch.special.entr(q).sum(dim=1)
    expected = (q * below_best).sum(dim=1)
    excess_softened = excess
    if temperature != 1:
        excess_softened = (below_best / temperature).exp().sum(dim=1).log()
    loss = temperature**2 * (excess_softened - expected / temperature - entropy)
    if wants_gradient:
        alpha, on_target = weights[0], weights[1]
        p = (below_best - excess.unsqueeze(1)).exp()
        if temperature == 1:
            dz = p - alpha * q
        else:
            softened = (below_best / temperature - excess_softened.unsqueeze(1)).exp()
            dz = (1.0 - alpha) * p + alpha * temperature * (softened - q)
        z.copy_(scale * torch.where(of_target, dz - on_target, dz))
    return FullTerms(nll, excess + best_logit, loss, target_prob, entropy, measure, best_word)
