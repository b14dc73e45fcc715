"""What is done to the logits of a chunk, written for a compiler to fuse: few readings, and the gradient in their place.

The equations are those of ``docs/method.md``. Each function is plain PyTorch and gives the numbers of the eager passes
in :mod:`.chunk_passes`; compiled by ``torch.compile`` nothing of size (C, V) is written but the result. Numbers
that change from update to update come as tensors, for a compiler takes any other as a constant.
"""

import functools
import math
import os
import warnings
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .geometry import SIMILARITIES, Products
from .options import SelfKDOptions
from .soft_targets import Shuffle, of_partners

__all__ = ["FullRows", "Sums", "can_compile", "compiled", "full_rows", "read_rows", "write_rows"]


class Sums(NamedTuple):
    """What is summed over the tokens that count, in float32 or better: of the tokens of a chunk, then in all.

    Attributes:
        nll: (C,) or () negative log-likelihood of the target, in nats.
        lse: (C,) or () logsumexp of the logits.
        n_correct: (C,) or () 1 where the most probable word is the target.
        skd_loss: (C,) or () T^2 KL(q || pT), in nats.
        target_prob: (C,) or () q of the target.
        entropy: (C,) or () of q, in nats.
        measure: (C,) or () sum of the distances (or cosines) of the target and every other word of the support.
    """

    nll: Tensor
    lse: Tensor
    n_correct: Tensor
    skd_loss: Tensor
    target_prob: Tensor
    entropy: Tensor
    measure: Tensor


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


@functools.lru_cache(maxsize=None)
def can_compile(device: str) -> bool:
    """Whether compiled passes are to be had, and pay. Tried once, with a small one.

    Args:
        device: type of the device.

    Returns:
        False on a CPU, where they gain nothing; on a GPU whether ``torch.compile`` works. If not, a warning says why.
    """
    if device != "cuda":  # asked first: to ask the compiler is to import it, which takes a second
        return False
    if torch._dynamo.config.disable or os.environ.get("TORCHDYNAMO_DISABLE", "0") == "1":
        # Not compiled, their functions would hold several tensors (C, V), which eager passes do not.
        return False
    try:
        compiled(write_rows)(torch.zeros(2, 8, device=device), torch.zeros(2, device=device))
    except Exception as error:  # whatever a compiler and its tools may raise
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"self_kd: torch.compile does not work here, the loss takes more time: {reason}", stacklevel=2)
        return False
    return True


def _first(words: Tensor, chosen: Tensor) -> Tensor:
    """The first word (C,) int64 of those that are chosen (C, V); the last of all where none is, as with NaN.

    What is the largest, and then where it is: a GPU is slow to carry both at once.
    """
    return torch.where(chosen, words, words[-1]).amin(dim=1)


def _largest(logits: Tensor, words: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest logit (C,), its word (C,), the logits less it (C, V), and logsumexp less it (C,)."""
    best_logit = logits.amax(dim=1)
    below_best = logits - best_logit.unsqueeze(1)
    best_word = _first(words, logits == best_logit.unsqueeze(1))
    return best_logit, best_word, below_best, below_best.exp().sum(dim=1).log()


def read_rows(
    z: Tensor, excluded: Optional[Tuple[Tensor, Tensor]], dtype: torch.dtype
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the loss wants to know of the logits of C tokens.

    Of the words that may be predicted by one maximum and one sum over all, to which those of the few others are added.

    Args:
        z: (C, V), any float dtype.
        excluded: words that are not to be predicted, (E,) int64 in rising order, E at least 1, and (V,) bool that
            marks them; None: there is none.
        dtype: to compute in, float32 or float64.

    Returns:
        The largest logit (C,), its word (C,) int64, logsumexp less the largest logit (C,) in nats, no sum over tokens,
        and the most probable word of those that are not excluded (C, 1) int64.
    """
    words = torch.arange(z.size(1), device=z.device)
    logits = z.to(dtype)
    if excluded is None:
        best_logit, best_word, _, excess = _largest(logits, words)
        return best_logit, best_word, excess, best_word.unsqueeze(1)
    ids, left_out = excluded
    allowed, others = logits.masked_fill(left_out, -math.inf), logits.index_select(1, ids)
    best_allowed, best_other = allowed.amax(dim=1), others.amax(dim=1)
    predicted = _first(words, ~left_out & (allowed == best_allowed.unsqueeze(1)))
    other = _first(ids, others == best_other.unsqueeze(1))
    is_other = (best_other > best_allowed) | ((best_other == best_allowed) & (other < predicted))
    best_logit = torch.maximum(best_allowed, best_other)
    sum_of_allowed = (allowed - best_allowed.unsqueeze(1)).exp().sum(dim=1) * (best_allowed - best_logit).exp()
    sum_of_allowed = torch.where(best_allowed == -math.inf, 0.0, sum_of_allowed)
    excess = (sum_of_allowed + (others - best_logit.unsqueeze(1)).exp().sum(dim=1)).log()
    return best_logit, torch.where(is_other, other, predicted), excess, predicted.unsqueeze(1)


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
        dots: (C, V) products of the rows of W, float32 or better, (C / 2, V) if ``paired``; None where W is not read.
        products: of W, whose rows these are of.
        temperature: () tau'; None where W is not read.
        teacher_logits: (C, V) z0 of the teacher ``self``, in the dtype of the features, if ``paired`` the logits
            themselves; else None.
        shuffle: of the controls that shuffle, else None.
        paired: whether tokens 2 i and 2 i + 1 are one in two passes, each the teacher of the other.
    """

    target: Tensor
    left_out: Tensor
    dots: Optional[Tensor]
    products: Optional[Products]
    temperature: Optional[Tensor]
    teacher_logits: Optional[Tensor]
    shuffle: Optional[Shuffle]
    paired: bool = False


def _of_teacher(rows: FullRows, options: SelfKDOptions, logits: Tensor) -> Tensor:
    """z0 / T (C, V) of the other pass."""
    assert rows.teacher_logits is not None
    teacher_logits = of_partners(rows.teacher_logits) if rows.paired else rows.teacher_logits
    return teacher_logits.to(logits.dtype) / options.student_temperature


def _scores(rows: FullRows, of_target: Tensor, options: SelfKDOptions, logits: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Scores (C, V) of every word, what to take from them (C, 1), and the sum of the measures of the others (C,).

    What to take is the largest score, or in the space of W alone that of the target: none exceeds it but by rounding.
    """
    measure, scores, highest = (torch.zeros_like(like) for like in (logits[:, 0], logits, logits[:, :1]))
    if rows.dots is not None:
        assert rows.products is not None and rows.temperature is not None
        similarity = SIMILARITIES[options.similarity]
        of_itself = similarity.measure.of_itself
        dots = rows.dots.repeat_interleave(2, dim=0) if rows.paired else rows.dots
        measures = similarity.measure.of_dots(dots, rows.products, rows.target)
        measures = measures.masked_fill(of_target, of_itself)
        if rows.shuffle is not None and options.control == "shuffled_rows":
            measures = rows.shuffle.columns(measures, rows.target)
        measure = measures.masked_fill(of_target | rows.left_out, 0.0).sum(dim=1)
        scores = similarity.score(measures.clone(), rows.temperature)
        highest = similarity.score(torch.full_like(highest, of_itself), rows.temperature)
    if rows.teacher_logits is not None:
        scores = _of_teacher(rows, options, logits) + options.embedding_weight * scores
    scores = scores.masked_fill(rows.left_out & ~of_target, -math.inf)
    if rows.teacher_logits is not None:
        highest = scores.amax(dim=1, keepdim=True)
    return scores, highest, measure


def _kept_by_target(rows: FullRows, of_target: Tensor, options: SelfKDOptions, logits: Tensor) -> Tensor:
    """What the other pass gives to the target, over the words that may have probability: (C,)."""
    softened = _of_teacher(rows, options, logits).masked_fill(rows.left_out & ~of_target, -math.inf)
    below = softened - softened.amax(dim=1, keepdim=True)
    return (below.masked_fill(~of_target, -math.inf).amax(dim=1) - below.exp().sum(dim=1).log()).exp()


def full_rows(
    z: Tensor, rows: FullRows, options: SelfKDOptions, weights: Tensor, scale: float, wants_gradient: bool,
    out: Optional[Tensor] = None,
) -> Sums:  # fmt: skip
    """Loss and gradient where every word shares probability; ``z``, or ``out``, becomes ``scale`` times dL/dz.

    Every row is read three times: for the largest logit, for all sums, and where the gradient is written. So q is not
    made before its sums are: entropy and expectation follow from those of the exponentials.

    Args:
        z: (C, V) logits, any float dtype; overwritten if the gradient is wanted and there is no ``out``.
        rows: see :class:`FullRows`.
        options: of support ``full``, checked.
        weights: (n,) of two numbers: alpha, and what the label-smoothed cross-entropy takes from the target's share.
        scale: of the gradient.
        wants_gradient: whether it is.
        out: (C, V) in the dtype of ``z``, overwritten with it: where rows are paired each is read for two tokens.

    Returns:
        :class:`Sums` of each token, (C,), in nats, in the dtype of ``weights``.
    """
    temperature = options.student_temperature
    logits = z.to(weights.dtype)
    words = torch.arange(z.size(1), device=z.device)
    of_target = words == rows.target.unsqueeze(1)

    def of_targets(row: Tensor) -> Tensor:
        return row.masked_fill(~of_target, 0.0).sum(dim=1)

    def of_others(row: Tensor) -> Tensor:
        return row.masked_fill(of_target, 0.0).sum(dim=1)

    best_logit, best_word, below_best, excess = _largest(logits, words)
    below_of_target = of_targets(below_best)

    scores, highest, measure = _scores(rows, of_target, options, logits)
    kept = None
    if options.spares_target:
        kept = _kept_by_target(rows, of_target, options, logits)
        scores = scores.masked_fill(of_target, -math.inf)  # the others share what it leaves
        highest = scores.amax(dim=1, keepdim=True)
        highest = torch.where(highest == -math.inf, 0.0, highest)
    below = (scores - highest).clamp_max(0.0)
    shares = below.exp()  # of q, but for two factors: one for the target, one for the others
    entropies = of_others(shares * below.masked_fill(below == -math.inf, 0.0))
    if rows.shuffle is not None and options.control == "shuffled":
        shares = rows.shuffle.columns(shares, rows.target)
    target_share, others, expected = of_targets(shares), of_others(shares), of_others(shares * below_best)
    total, floor = target_share + others, options.min_target_prob
    target_prob = target_share / total if kept is None else kept
    # What is left for the others, a word at a time; a target that is alone keeps all.
    if kept is None:
        share = torch.where(target_prob < floor, (1.0 - floor) / others, 1.0 / total)
    else:
        share = (1.0 - target_prob.clamp_min(floor)) / others
    share = torch.where(others == 0, 0.0, share)
    target_prob = torch.where(others == 0, 1.0, target_prob.clamp_min(floor))
    entropy = torch.special.entr(target_prob) - share * entropies - others * torch.special.xlogy(share, share)
    expected = target_prob * below_of_target + share * expected
    excess_softened = excess
    if temperature != 1:
        excess_softened = (below_best / temperature).exp().sum(dim=1).log()
    loss = temperature**2 * (excess_softened - expected / temperature - entropy)
    if wants_gradient:
        alpha, on_target = weights[0], weights[1]
        q = torch.where(of_target, target_prob.unsqueeze(1), shares * share.unsqueeze(1))
        p = (below_best - excess.unsqueeze(1)).exp()
        if temperature == 1:
            dz = p - alpha * q
        else:
            softened = (below_best / temperature - excess_softened.unsqueeze(1)).exp()
            dz = (1.0 - alpha) * p + alpha * temperature * (softened - q)
        (z if out is None else out).copy_(scale * torch.where(of_target, dz - on_target, dz))
    n_correct = (best_word == rows.target).to(excess.dtype)
    return Sums(excess - below_of_target, excess + best_logit, n_correct, loss, target_prob, entropy, measure)
