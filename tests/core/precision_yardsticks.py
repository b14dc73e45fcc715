"""Yardsticks of half precision: a batch, the method in float64 from its equations, and the naive criterion's result.

The naive criterion is fairseq's label smoothing and the plain sum of the definition over (N, V) log-probabilities, in
the dtype under test. Neither calls the loss under test; it gives them the words that chance drew, and nothing else.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from torch import Tensor
from torch.nn import functional

from tests import definition
from tests.core.drawn_words import drawn_words

PAD, BOS = 1, 0
WIDTH, SEED = 64, 3
ALPHA, SMOOTHING, FLOOR = 0.5, 0.1, 0.5


class Size(NamedTuple):
    """V, N, and the tokens that the loss takes at a time (None: its own choice)."""

    vocabulary: int
    tokens: int
    chunk_size: int | None


REAL = Size(vocabulary=32_000, tokens=32, chunk_size=None)
MANY_CHUNKS = Size(vocabulary=100, tokens=1024, chunk_size=4)


class Setting(NamedTuple):
    """What makes a batch. ``logits``: how large the largest is, ``realistic``, or ``offset`` and what all are near."""

    logits: str  # realistic: a trained model's, right in part and confident
    dtype: torch.dtype
    size: Size = REAL


class Batch(NamedTuple):
    """features (N, d), weight (V, d), target (N,)."""

    features: Tensor
    weight: Tensor
    target: Tensor


class Found(NamedTuple):
    """(L, L_CE, nll, L_SKD) in nats, and the gradients of L; float64, on the CPU."""

    sums: list[float]
    features_grad: Tensor
    weight_grad: Tensor


@functools.lru_cache(maxsize=None)
def batch(setting: Setting) -> Batch:
    """A batch on the CPU.

    In each token the best word is so far ahead that rounding leaves it the best: which of two equal words is the
    predicted one is chance, not precision.
    """
    vocabulary, tokens, _ = setting.size
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(vocabulary, WIDTH, generator=generator) / math.sqrt(WIDTH)
    target = torch.randint(4, vocabulary, (4 * tokens,), generator=generator)
    features = torch.randn(4 * tokens, WIDTH, generator=generator)
    if setting.logits == "realistic":
        features = 3 * features + 6 * weight[target]
    elif setting.logits.startswith("offset"):
        weight[:, 0], features[:, 0] = 1.0, float(setting.logits.split()[1])
    else:
        features *= float(setting.logits) / (features @ weight.t()).abs().max()
    best, second = (features @ weight.t()).topk(2, dim=1).values.unbind(dim=1)
    ahead = (best - second).topk(tokens).indices
    return Batch(features[ahead].to(setting.dtype), weight.to(setting.dtype), target[ahead])


@functools.lru_cache(maxsize=None)
def distances_to_all(setting: Setting) -> Tensor:
    """(N, V) float64, one target at a time and by differences."""
    weight = batch(setting).weight.double()
    return torch.stack([(weight - weight[word]).norm(dim=1) for word in batch(setting).target])


@functools.lru_cache(maxsize=None)
def in_support(setting: Setting, support: str) -> Tensor:
    """(N, V) bool: the words that share probability, one other word beside the target or every word.

    Predicted is what the logits in float64 predict, which rounding does not change.
    """
    data = batch(setting)
    logits, distances = data.features.double() @ data.weight.double().t(), distances_to_all(setting)
    drawn = drawn_words(support, data.weight, data.target, 1, (BOS, PAD), SEED)
    mask = torch.zeros(logits.shape, dtype=torch.bool)
    for i, target in enumerate(data.target.tolist()):
        token = definition.Token(
            logits[i].numpy(), distances[i].numpy(), target, 1, {PAD, BOS}, drawn[i] if drawn else None
        )
        mask[i, list(definition.support_of(support, token))] = True
    return mask


def soft_targets_in_float64(setting: Setting, support: str) -> Tensor:
    """q (N, V)."""
    data, tokens = batch(setting), torch.arange(setting.size.tokens)
    weight, target = data.weight.double(), data.target
    tau = math.sqrt(2 * ((weight**2).sum(dim=1).mean() - (weight.mean(dim=0) ** 2).sum()).item())
    scores = (-distances_to_all(setting) / tau).masked_fill(~in_support(setting, support), -math.inf)
    q = torch.softmax(scores, dim=1)
    of_target = q[tokens, target]
    low = of_target < FLOOR
    q[low] *= ((1 - FLOOR) / (1 - of_target[low])).unsqueeze(1)
    q[tokens[low], target[low]] = FLOOR
    return q


@functools.lru_cache(maxsize=None)
def truth(setting: Setting, support: str) -> Found:
    """The definition in float64, from the numbers that the dtype holds."""
    data, tokens = batch(setting), torch.arange(setting.size.tokens)
    features, weight = data.features.double(), data.weight.double()
    z = features @ weight.t()
    lprobs = torch.log_softmax(z, dim=1)
    q = soft_targets_in_float64(setting, support)
    smoothed = torch.full_like(z, SMOOTHING / (setting.size.vocabulary - 1))
    smoothed[tokens, data.target] = 1 - SMOOTHING
    ce, skd = -(smoothed * lprobs).sum(), -(q * lprobs).sum()
    dz = lprobs.exp() - (1 - ALPHA) * smoothed - ALPHA * q
    sums = [(1 - ALPHA) * ce + ALPHA * skd, ce, -lprobs[tokens, data.target].sum(), skd]
    return Found([value.item() for value in sums], dz @ weight, dz.t() @ features)


def low_precision(autocast: bool, device: str) -> torch.autocast:
    return torch.autocast(device, dtype=torch.bfloat16, enabled=autocast)


def leaves(setting: Setting, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features and weight as fresh leaves on the device, and the target there."""
    features, weight, target = (tensor.detach().clone().to(device) for tensor in batch(setting))
    return features.requires_grad_(), weight.requires_grad_(), target


def collected(sums: list[Tensor], gradients: tuple[Tensor, ...]) -> Found:
    return Found([value.item() for value in sums], *(gradient.cpu().double() for gradient in gradients))


def naive(setting: Setting, support: str, autocast: bool, device: str) -> Found:
    """fairseq's way: logits in the low dtype, log-probabilities of the whole vocabulary in float32, then autograd."""
    features, weight, target = leaves(setting, device)
    q = soft_targets_in_float64(setting, support).float().to(device)
    with low_precision(autocast, device):
        lprobs = torch.log_softmax(functional.linear(features, weight), dim=1, dtype=torch.float32)
        ce, nll = label_smoothed_nll_loss(lprobs, target, SMOOTHING, ignore_index=PAD)
        skd = -(q * lprobs).sum()
        loss = (1 - ALPHA) * ce + ALPHA * skd
    return collected([loss, ce, nll, skd], torch.autograd.grad(loss, (features, weight)))


def errors(found: Found, exact: Found) -> dict[str, float]:
    """Relative errors of the four sums and of both gradients."""
    named = zip(("loss", "ce_loss", "nll_loss", "skd_loss"), found.sums, exact.sums)
    relative = {name: abs(value - expected) / abs(expected) for name, value, expected in named}
    for name in ("features_grad", "weight_grad"):
        expected = getattr(exact, name)
        relative[name] = ((getattr(found, name) - expected).norm() / expected.norm()).item()
    return relative
