"""The contenders on the same features, output matrix and targets."""

import functools
import importlib.util
from typing import Any, Callable, Dict, NamedTuple, Tuple

import torch
from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from torch import Tensor
from torch.nn import functional

from ..core import SUPPORTS, nearest_words, self_kd_loss
from .zipf import zipf_words

__all__ = [
    "COMPILED",
    "FORMS",
    "SIZES",
    "Tensors",
    "contenders",
    "cross_entropy",
    "label_smoothed_cross_entropy",
    "make_tensors",
    "nearest_refresh",
    "self_kd",
]

# (N, V, d): a batch of tokens, the vocabulary, the width of the output embedding
SIZES = ((3500, 9700, 128), (3500, 10000, 512), (3500, 32000, 512), (1400, 10000, 400))
LABEL_SMOOTHING = 0.1
ALPHA = 0.5
NEAREST_SIZE = 16
_SELF_AND_COSINE: Dict[str, Any] = {
    "support": "full", "teacher": "self", "similarity": "cosine", "min_target_prob": 0.0
}  # fmt: skip
# Forms of the method beside the plain supports
FORMS: Dict[str, Dict[str, Any]] = {
    "within the support, predicted 4": {"normalise": "support", "support_size": 4, "similarity": "gaussian"},
    "full distance T 4": {"support": "full", "student_temperature": 4.0, "min_target_prob": 0.0},
    "full cosine T 5": {
        "support": "full", "similarity": "cosine", "student_temperature": 5.0, "min_target_prob": 0.0
    },
    "self": {"support": "full", "teacher": "self", "embedding_weight": 0.0, "min_target_prob": 0.0},
    "self and cosine": _SELF_AND_COSINE,
    "both passes": {**_SELF_AND_COSINE, "paired": True},
    "both passes, gate others": {**_SELF_AND_COSINE, "paired": True, "gate": "others"},
}  # fmt: skip
# What `implementation="compiled"` is measured with, on GPUs
COMPILED: Dict[str, Dict[str, Any]] = {"predicted": {}, "full": {"support": "full"}, **FORMS}


class Tensors(NamedTuple):
    """What a loss is given.

    Attributes:
        features: (N, d), a leaf with gradient.
        weight: (V, d), a leaf with gradient, in the dtype of ``features``.
        target: (N,) int64 in [0, V).
    """

    features: Tensor
    weight: Tensor
    target: Tensor


def make_tensors(size: Tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> Tensors:
    """Random features and matrix of a fixed seed; target words drawn by Zipf's law (word of rank r: 1 / r).

    Args:
        size: (N, V, d).
        device: where all of them lie; the draw is the same on every device.
        dtype: of features and matrix, floating point.

    Returns:
        :class:`Tensors`: features standard normal, matrix normal with standard deviation 0.1.
    """
    tokens, vocabulary, width = size
    generator = torch.Generator().manual_seed(1)
    target = zipf_words(vocabulary, tokens, generator)
    features = torch.randn(tokens, width, generator=generator).to(device, dtype).requires_grad_()
    weight = (0.1 * torch.randn(vocabulary, width, generator=generator)).to(device, dtype).requires_grad_()
    return Tensors(features, weight, target.to(device))


def _floor(t: Tensors) -> None:
    """The three matrix products that no loss can do without: logits, and the gradients of features and matrix."""
    with torch.no_grad():
        logits = t.features @ t.weight.t()
        logits @ t.weight
        logits.t() @ t.features


def _clear(t: Tensors) -> None:
    t.features.grad = t.weight.grad = None


def cross_entropy(t: Tensors) -> Tensor:
    """Fairseq's ``cross_entropy``.

    Args:
        t: what it is given.

    Returns:
        () sum over the tokens, in nats.
    """
    lprobs = utils.log_softmax(functional.linear(t.features, t.weight), dim=-1)
    return functional.nll_loss(lprobs, t.target, reduction="sum")


def label_smoothed_cross_entropy(t: Tensors) -> Tensor:
    """Fairseq's ``label_smoothed_cross_entropy``.

    Args:
        t: what it is given.

    Returns:
        () sum over the tokens, in nats.
    """
    lprobs = utils.log_softmax(functional.linear(t.features, t.weight), dim=-1)
    loss: Tensor = label_smoothed_nll_loss(lprobs, t.target.unsqueeze(-1), LABEL_SMOOTHING, ignore_index=1)[0]
    return loss


def self_kd(t: Tensors, **arguments: Any) -> Tensor:
    """This plugin's loss.

    Args:
        t: what it is given.
        **arguments: of :func:`~selfkd_fairseq.core.self_kd_loss`; alpha 0.5, label smoothing 0.1 and
            ``fused`` unless said. ``paired``: every token is there twice, and the mean of both counts.

    Returns:
        () sum over the tokens, in nats.
    """
    arguments = {
        "alpha": ALPHA, "label_smoothing": LABEL_SMOOTHING, "ignore_index": 1, "excluded": (0,),
        "implementation": "fused", **arguments,
    }  # fmt: skip
    if arguments.get("paired"):
        features, target = t.features.repeat_interleave(2, dim=0), t.target.repeat_interleave(2)
        return self_kd_loss(features, t.weight, target, **arguments).loss / 2
    # The features stand for those of another pass, too: what they hold costs nothing.
    return self_kd_loss(*t, teacher_features=t.features.detach(), **arguments).loss


def _train(loss: Callable[..., Tensor], t: Tensors, **arguments: Any) -> None:
    loss(t, **arguments).backward()
    _clear(t)


def nearest_refresh(t: Tensors) -> Tensor:
    """Neighbours of the whole vocabulary, what the criterion does at every ``--skd-refresh-updates``.

    Args:
        t: only the matrix is read; no gradient flows.

    Returns:
        (V, n) int64, nearest first; n is ``NEAREST_SIZE``.
    """
    every_word = torch.arange(t.weight.size(0), device=t.weight.device)
    return nearest_words(t.weight, every_word, NEAREST_SIZE, (0, 1))


def contenders(t: Tensors) -> Dict[str, Callable[[], None]]:
    """The losses to time, fairseq's own and this plugin's; on a GPU also the compiled ones, and those of others.

    Args:
        t: what each of them is given.

    Returns:
        Name -> forward and backward of one batch, of the sum over its tokens in nats; the gradients are dropped.
        ``three products`` is the least that any loss needs.
    """
    neighbours = nearest_refresh(t)
    work: Dict[str, Callable[[], None]] = {
        "three products": functools.partial(_floor, t),
        "cross_entropy": functools.partial(_train, cross_entropy, t),
        "label_smoothed_cross_entropy": functools.partial(_train, label_smoothed_cross_entropy, t),
        "self_kd reference predicted": functools.partial(_train, self_kd, t, implementation="reference"),
        "self_kd fused alpha 0": functools.partial(_train, self_kd, t, alpha=0.0, label_smoothing=0.0),
    }
    for support in SUPPORTS:
        size = NEAREST_SIZE if support == "nearest" else 1
        work[f"self_kd fused {support}"] = functools.partial(
            _train,
            self_kd,
            t,
            support=support,
            support_size=size,
            neighbours=neighbours if support == "nearest" else None,
        )
    for name, options in FORMS.items():
        work[f"self_kd fused {name}"] = functools.partial(_train, self_kd, t, **options)
    if t.features.device.type == "cuda":
        for name, options in COMPILED.items():
            work[f"self_kd compiled {name}"] = functools.partial(
                _train, self_kd, t, implementation="compiled", **options
            )
        work.update(_peers(t))
    return work


def _peers(t: Tensors) -> Dict[str, Callable[[], None]]:
    """Plain cross-entropy by Liger-Kernel and by Apple's cut-cross-entropy: the yardstick of ``alpha 0``."""
    work: Dict[str, Callable[[], None]] = {}
    if importlib.util.find_spec("liger_kernel") is not None:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        liger = LigerFusedLinearCrossEntropyLoss(reduction="sum")

        def run_liger() -> None:
            liger(t.weight, t.features, t.target).backward()
            _clear(t)

        work["liger-kernel cross-entropy"] = run_liger
    if importlib.util.find_spec("cut_cross_entropy") is not None:
        from cut_cross_entropy import linear_cross_entropy

        def run_cut() -> None:
            linear_cross_entropy(t.features, t.weight, t.target, reduction="sum").backward()
            _clear(t)

        work["cut-cross-entropy"] = run_cut
    return work
