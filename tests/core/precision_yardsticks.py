"""Yardsticks of half precision: a batch, the method in float64 from its equations, and the naive criterion's result.

The naive criterion is fairseq's label smoothing and the plain sum of the definition over (N, V) log-probabilities, in
the dtype under test. Neither calls the loss under test; it gives them what chance made, and nothing else.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from torch import Tensor
from torch.nn import functional

from tests import definition
from tests.core import chance
from tests.core.forms import FORMS, reads_teacher

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
    """What makes a batch. ``logits``: how large the largest is, ``realistic``, or ``offset`` and what all are near.

    In each token the first ``ahead`` words are each so far ahead of the next that rounding does not change the order.
    """

    logits: str  # realistic: a trained model's, right in part and confident
    dtype: torch.dtype
    size: Size = REAL
    ahead: int = 1


class Batch(NamedTuple):
    """features (N, d), weight (V, d), target (N,), and features (N, d) of a pass without dropout."""

    features: Tensor
    weight: Tensor
    target: Tensor
    teacher: Tensor


class Found(NamedTuple):
    """(L, L_CE, nll, L_SKD) in nats, and the gradients of L; float64, on the CPU."""

    sums: list[float]
    features_grad: Tensor
    weight_grad: Tensor


@functools.lru_cache(maxsize=None)
def batch(setting: Setting) -> Batch:
    """A batch on the CPU. Which of two equal words is the predicted one would be chance, not precision."""
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
    best = (features @ weight.t()).topk(setting.ahead + 1, dim=1).values
    ahead = best.diff(dim=1).max(dim=1).values.topk(tokens, largest=False).indices
    features, target = features[ahead], target[ahead]
    dropped = torch.rand(tokens, WIDTH, generator=generator) < 0.1
    dropped[:, 0] = False  # what an offset of all logits comes from
    teacher = features.masked_fill(dropped, 0.0)
    return Batch(features.to(setting.dtype), weight.to(setting.dtype), target, teacher.to(setting.dtype))


class Truth(NamedTuple):
    """What the definition says, from the numbers that the dtype holds; and its q (N, V) and supports (N, V)."""

    found: Found
    q: Tensor
    support: Tensor


@functools.lru_cache(maxsize=None)
def space(setting: Setting) -> definition.Space:
    return definition.Space(batch(setting).weight.double().numpy())


def by_definition(setting: Setting, form: str, logits: Tensor, teacher_logits: Tensor) -> definition.Losses:
    """The losses of logits (N, V) and of those of the teacher, in float64."""
    data, options = batch(setting), {**FORMS[form], "min_target_prob": FLOOR}
    made = chance.of_form(FORMS[form], data.weight, data.target, 1, (BOS, PAD), SEED)
    return definition.losses(
        logits.numpy(), space(setting), data.target, alpha=ALPHA, label_smoothing=SMOOTHING, pad=PAD, excluded=(BOS,),
        teacher_logits=teacher_logits.numpy(), **made, **options,
    )  # fmt: skip


def q_and_supports(losses: definition.Losses) -> tuple[Tensor, Tensor]:
    """(N, V) each."""
    probs, supports = (np.stack([getattr(row, name) for row in losses.rows]) for name in ("probs", "support"))
    return torch.from_numpy(probs), torch.from_numpy(supports)


@functools.lru_cache(maxsize=None)
def definition_of(setting: Setting, form: str) -> Truth:
    """In float64. Predicted is what the logits in float64 predict, which rounding does not change."""
    features, weight, _, teacher = (tensor.double() for tensor in batch(setting))
    losses = by_definition(setting, form, features @ weight.t(), teacher @ weight.t())
    dz = torch.from_numpy(losses.gradient)
    found = Found([float(value) for value in losses.sums], dz @ weight, dz.t() @ features)
    return Truth(found, *q_and_supports(losses))


def truth(setting: Setting, form: str) -> Found:
    """The definition in float64, from the numbers that the dtype holds."""
    return definition_of(setting, form).found


def low_precision(autocast: bool, device: str) -> torch.autocast:
    return torch.autocast(device, dtype=torch.bfloat16, enabled=autocast)


def leaves(setting: Setting, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features and weight as fresh leaves on the device, target and features of the teacher there."""
    features, weight, target, teacher = (tensor.detach().clone().to(device) for tensor in batch(setting))
    return features.requires_grad_(), weight.requires_grad_(), target, teacher


def collected(sums: list[Tensor], gradients: tuple[Tensor, ...]) -> Found:
    return Found([value.item() for value in sums], *(gradient.cpu().double() for gradient in gradients))


def naive(setting: Setting, form: str, autocast: bool, device: str) -> Found:
    """fairseq's way: logits in the low dtype, log-probabilities of the whole vocabulary in float32, then autograd.

    Its soft targets are exact but where the model makes them itself: those it has from its logits in the low dtype.
    """
    features, weight, target, teacher = leaves(setting, device)
    options = definition.Options(**FORMS[form])
    exact = definition_of(setting, form)
    temperature, support = options.student_temperature, exact.support.to(device)
    with low_precision(autocast, device):
        q = exact.q.float().to(device)
        if reads_teacher(FORMS[form]):
            q = q_of_rounded_teacher(setting, form, functional.linear(teacher, weight).detach()).to(device)
        z = functional.linear(features, weight)
        lprobs = torch.log_softmax(z, dim=1, dtype=torch.float32)
        ce, nll = label_smoothed_nll_loss(lprobs, target, SMOOTHING, ignore_index=PAD)
        compared = z.float() / temperature
        if options.normalise == "support":
            compared = compared.masked_fill(~support, -math.inf)
        student = torch.log_softmax(compared, dim=1).masked_fill(q == 0, 0.0)
        skd = temperature**2 * (torch.special.xlogy(q, q) - q * student).sum()
        loss = (1 - ALPHA) * ce + ALPHA * skd
    return collected([loss, ce, nll, skd], torch.autograd.grad(loss, (features, weight)))


def q_of_rounded_teacher(setting: Setting, form: str, teacher_logits: Tensor) -> Tensor:
    """Soft targets (N, V) in float32 of a model whose own logits are rounded."""
    logits = batch(setting).features.double() @ batch(setting).weight.double().t()
    return q_and_supports(by_definition(setting, form, logits, teacher_logits.double().cpu()))[0].float()


def errors(found: Found, exact: Found) -> dict[str, float]:
    """Relative errors of the four sums and of both gradients."""
    named = zip(("loss", "ce_loss", "nll_loss", "skd_loss"), found.sums, exact.sums)
    relative = {name: abs(value - expected) / abs(expected) for name, value, expected in named}
    for name in ("features_grad", "weight_grad"):
        expected = getattr(exact, name)
        relative[name] = ((getattr(found, name) - expected).norm() / expected.norm()).item()
    return relative
