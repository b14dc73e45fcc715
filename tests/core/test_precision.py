"""Half precision at the vocabulary of a real model: no overflow, and no more error than the naive criterion's own.

The truth is the method in float64, from its equations; the naive criterion is fairseq's label smoothing and the plain
sum of the definition over (N, V) log-probabilities, in the dtype under test. Neither calls the loss under test.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from torch import Tensor
from torch.nn import functional

from selfkd_fairseq.core import SUPPORTS, SelfKDLoss, nearest_words, rms_distance, self_kd_loss
from tests import definition

PAD, BOS = 1, 0
VOCABULARY, WIDTH, TOKENS = 32_000, 64, 32
ALPHA, SMOOTHING, FLOOR = 0.5, 0.1, 0.5


class Batch(NamedTuple):
    """features (N, d), weight (V, d), target (N,), and a random other word for each word of the vocabulary (V, 1)."""

    features: Tensor
    weight: Tensor
    target: Tensor
    any_word: Tensor


class Found(NamedTuple):
    """(L, L_CE, nll, L_SKD) in nats, and the gradients of L in float64."""

    sums: list[float]
    features_grad: Tensor
    weight_grad: Tensor


@functools.lru_cache(maxsize=None)
def batch(logits: str, dtype: torch.dtype) -> Batch:
    """A batch whose largest logit is as asked for; ``realistic``: a trained model's, right in part and confident.

    In each token the best word is so far ahead that rounding leaves it the best: which of two equal words is the
    predicted one is chance, not precision.
    """
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator) / math.sqrt(WIDTH)
    target = torch.randint(4, VOCABULARY, (4 * TOKENS,), generator=generator)
    features = torch.randn(4 * TOKENS, WIDTH, generator=generator)
    if logits == "realistic":
        features = 3 * features + 6 * weight[target]
    elif logits.startswith("offset"):  # every logit is near one large number
        weight[:, 0], features[:, 0] = 1.0, float(logits.split()[1])
    else:
        features *= float(logits) / (features @ weight.t()).abs().max()
    best, second = (features @ weight.t()).topk(2, dim=1).values.unbind(dim=1)
    ahead = (best - second).topk(TOKENS).indices
    any_word = torch.randint(2, VOCABULARY, (VOCABULARY, 1), generator=generator)
    return Batch(features[ahead].to(dtype), weight.to(dtype), target[ahead], any_word)


@functools.lru_cache(maxsize=None)
def distances_to_all(logits: str, dtype: torch.dtype) -> Tensor:
    """(N, V) float64, one target at a time and by differences."""
    weight = batch(logits, dtype).weight.double()
    return torch.stack([(weight - weight[word]).norm(dim=1) for word in batch(logits, dtype).target])


def soft_targets_in_float64(logits: str, dtype: torch.dtype, support: str, predicted: Tensor) -> Tensor:
    """q (N, V) of a batch with one other word in the support, or with every word."""
    data, distances = batch(logits, dtype), distances_to_all(logits, dtype)
    weight, target, tokens = data.weight.double(), data.target, torch.arange(TOKENS)
    tau = math.sqrt(2 * ((weight**2).sum(dim=1).mean() - (weight.mean(dim=0) ** 2).sum()).item())
    in_support = torch.zeros(TOKENS, VOCABULARY, dtype=torch.bool)
    if support == "full":
        in_support[:] = True
        in_support[:, [PAD, BOS]] = False
    else:
        far = distances.clone()
        far[:, [PAD, BOS]] = far[tokens, target] = math.inf
        words = {"predicted": predicted, "nearest": far.argmin(dim=1), "random": data.any_word[target, 0]}
        in_support[tokens, words[support]] = True
    in_support[tokens, target] = True
    q = torch.softmax((-distances / tau).masked_fill(~in_support, -math.inf), dim=1)
    of_target = q[tokens, target]
    low = of_target < FLOOR
    q[low] *= ((1 - FLOOR) / (1 - of_target[low])).unsqueeze(1)
    q[tokens[low], target[low]] = FLOOR
    return q


def predicted_words(logits: Tensor) -> Tensor:
    return logits.index_fill(1, torch.tensor([PAD, BOS]), -math.inf).max(dim=1).indices


@functools.lru_cache(maxsize=None)
def truth(logits: str, dtype: torch.dtype, support: str) -> Found:
    """The definition in float64, from the numbers that the dtype holds."""
    data = batch(logits, dtype)
    features, weight, tokens = data.features.double(), data.weight.double(), torch.arange(TOKENS)
    z = features @ weight.t()
    lprobs = torch.log_softmax(z, dim=1)
    q = soft_targets_in_float64(logits, dtype, support, predicted_words(z))
    smoothed = torch.full_like(z, SMOOTHING / (VOCABULARY - 1))
    smoothed[tokens, data.target] = 1 - SMOOTHING
    ce, skd = -(smoothed * lprobs).sum(), -(q * lprobs).sum()
    dz = lprobs.exp() - (1 - ALPHA) * smoothed - ALPHA * q
    sums = [(1 - ALPHA) * ce + ALPHA * skd, ce, -lprobs[tokens, data.target].sum(), skd]
    return Found([value.item() for value in sums], dz @ weight, dz.t() @ features)


def low_precision(autocast: bool) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast)


def leaves(data: Batch) -> tuple[Tensor, Tensor]:
    return data.features.clone().requires_grad_(), data.weight.clone().requires_grad_()


def naive(logits: str, dtype: torch.dtype, support: str, autocast: bool) -> Found:
    """fairseq's way: logits in the low dtype, log-probabilities of the whole vocabulary in float32, then autograd."""
    data = batch(logits, dtype)
    features, weight = leaves(data)
    with low_precision(autocast):
        z = functional.linear(features, weight)
        lprobs = torch.log_softmax(z, dim=1, dtype=torch.float32)
        ce, nll = label_smoothed_nll_loss(lprobs, data.target, SMOOTHING, ignore_index=PAD)
        q = soft_targets_in_float64(logits, dtype, support, predicted_words(z.detach())).float()
        skd = -(q * lprobs).sum()
        loss = (1 - ALPHA) * ce + ALPHA * skd
    gradients = torch.autograd.grad(loss, (features, weight))
    return Found([v.item() for v in (loss, ce, nll, skd)], *(gradient.double() for gradient in gradients))


def our_loss(data: Batch, features: Tensor, weight: Tensor, support: str) -> SelfKDLoss:
    # Words drawn at random come in as cached neighbours, so that the truth knows them; the sum is the same code.
    kind, words = ("nearest", data.any_word) if support == "random" else (support, None)
    return self_kd_loss(
        features, weight, data.target, alpha=ALPHA, label_smoothing=SMOOTHING, support=kind, neighbours=words,
        min_target_prob=FLOOR, ignore_index=PAD, excluded=(BOS,),
    )  # fmt: skip


def ours(logits: str, dtype: torch.dtype, support: str, autocast: bool) -> Found:
    data = batch(logits, dtype)
    features, weight = leaves(data)
    with low_precision(autocast):
        result = our_loss(data, features, weight, support)
    assert all(value.dtype == torch.float32 for value in result[:4])
    gradients = torch.autograd.grad(result.loss, (features, weight))
    assert all(gradient.dtype == dtype for gradient in gradients)
    return Found([v.item() for v in result[:4]], *(gradient.double() for gradient in gradients))


def errors(found: Found, exact: Found) -> dict[str, float]:
    """Relative errors of the four sums and of both gradients."""
    named = zip(("loss", "ce_loss", "nll_loss", "skd_loss"), found.sums, exact.sums)
    relative = {name: abs(value - expected) / abs(expected) for name, value, expected in named}
    for name in ("features_grad", "weight_grad"):
        expected = getattr(exact, name)
        relative[name] = ((getattr(found, name) - expected).norm() / expected.norm()).item()
    return relative


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize(
    "dtype, logits, autocast",
    [
        (torch.bfloat16, "realistic", False),
        (torch.bfloat16, "200", False),
        (torch.float16, "realistic", False),
        (torch.float16, "58000", False),
        (torch.float32, "realistic", True),
        (torch.float32, "200", True),
    ],
)
def test_no_overflow_and_the_naive_criterions_own_error(
    dtype: torch.dtype, logits: str, autocast: bool, support: str
) -> None:
    found, exact = ours(logits, dtype, support, autocast), truth(logits, dtype, support)
    assert all(math.isfinite(value) for value in found.sums)
    assert torch.isfinite(found.features_grad).all() and torch.isfinite(found.weight_grad).all()
    error, allowed = errors(found, exact), errors(naive(logits, dtype, support, autocast), exact)
    for name in error:
        print(f"{name}: {error[name]:.1e}, naive {allowed[name]:.1e}")  # shown by pytest -rP
        # A gradient is cast to half precision once more than autograd's: measured at most 1.17 times the error.
        factor = 1.25 if name.endswith("grad") else 1.05
        assert error[name] <= factor * allowed[name] + 1e-6, (name, error, allowed)


@pytest.mark.parametrize("support", ["nearest", "full", "random"])  # equal logits decide what is predicted
@pytest.mark.parametrize("dtype, offset", [(torch.float32, 50_003), (torch.float16, 2001), (torch.bfloat16, 200)])
def test_an_offset_of_all_logits_costs_no_more_precision_than_in_the_naive_criterion(
    dtype: torch.dtype, offset: int, support: str
) -> None:
    """A softmax does not see it, and differences of logits are all that a loss may lose precision on."""
    logits = f"offset {offset}"
    exact = truth(logits, dtype, support)
    error, allowed = (errors(f(logits, dtype, support, False), exact) for f in (ours, naive))
    for name in ("loss", "ce_loss", "nll_loss", "skd_loss"):
        assert error[name] <= 1.5 * allowed[name] + 1e-5, (name, error, allowed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_unit_of_the_temperature_is_exact_for_a_large_matrix(dtype: torch.dtype) -> None:
    """A sum of 4 million squares, one after the other in float32, would be off by 1e-4."""
    weight = torch.randn(VOCABULARY, 128, generator=torch.Generator().manual_seed(2)).to(dtype)
    exact = weight.double()
    expected = math.sqrt(2 * ((exact**2).sum(dim=1).mean() - (exact.mean(dim=0) ** 2).sum()).item())
    assert rms_distance(weight).item() == pytest.approx(expected, rel=1e-6)


SPREAD = {torch.float16: 30_000.0, torch.bfloat16: 1e15}  # the squares of float16 overflow from 256 on


@pytest.mark.parametrize("dtype", SPREAD)
def test_distances_between_large_rows_do_not_overflow(dtype: torch.dtype) -> None:
    """The rows differ by what no square in half precision can hold, and the soft targets are still those of float64."""
    generator = torch.Generator().manual_seed(1)
    weight = (SPREAD[dtype] * (2 * torch.rand(500, 16, generator=generator) - 1)).to(dtype)
    target, features = torch.arange(2, 62), torch.zeros(60, 16, dtype=dtype)
    exact = weight.double()
    distances = torch.cdist(exact[target], exact, compute_mode="donot_use_mm_for_euclid_dist")[:, 2:]
    for support, expected in (("full", distances.sum()), ("nearest", distances.topk(2, largest=False).values.sum())):
        result = self_kd_loss(features, weight, target, alpha=ALPHA, support=support, ignore_index=PAD, excluded=(BOS,))
        assert result.statistics.distance.item() == pytest.approx(expected.item(), rel=1e-5), support
        rows = [
            definition.soft_target_row(
                [0.0] * 500, exact.numpy(), int(word), n=1, tau=1.0, relative=True, floor=FLOOR, excluded={PAD, BOS},
                support=support,
            )[int(word)]
            for word in target
        ]  # fmt: skip
        assert result.statistics.target_prob.item() == pytest.approx(sum(rows), rel=1e-5), support
        assert torch.isfinite(result.loss)


@pytest.mark.parametrize("dtype, offset", [(torch.float16, 2048.0), (torch.bfloat16, 256.0)])
def test_near_neighbours_are_not_lost_to_cancellation(dtype: torch.dtype, offset: float) -> None:
    """Rows far from the origin whose neighbour is one step of the dtype away: |w|^2 + |v|^2 - 2 wv would round to 0."""
    generator = torch.Generator().manual_seed(1)
    step = 2.0  # between two numbers of either dtype above its offset
    weight = offset + step * torch.randint(0, 100, (200, 16), generator=generator)
    weight[1::2] = weight[::2]
    weight[1::2, 3] += step
    weight = weight.to(dtype)
    words = torch.arange(200)
    assert torch.equal(nearest_words(weight, words, 1, ()).squeeze(1), words ^ 1)
    features = torch.zeros(200, 16, dtype=dtype)
    nearest = self_kd_loss(features, weight, words, alpha=ALPHA, support="nearest")
    assert nearest.statistics.distance.item() == 200 * step
    exact = weight.double()
    full = self_kd_loss(features, weight, words, alpha=ALPHA, support="full", min_target_prob=0.0, temperature=0.01)
    rows = [
        definition.soft_target_row(
            [0.0] * 200, exact.numpy(), word, n=1, tau=0.01, relative=True, floor=0.0, excluded=(), support="full"
        )[word]
        for word in range(200)
    ]
    assert full.statistics.target_prob.item() == pytest.approx(sum(rows), rel=1e-4)


@pytest.mark.parametrize("support", SUPPORTS)
def test_logits_too_large_for_float16_are_seen_in_the_loss(support: str) -> None:
    """2 * 300 * 300 is more than float16 holds: a naive criterion's loss is not finite either."""
    features, weight = torch.full((4, 2), 300.0).half(), torch.ones(9, 2).half()
    weight[5] = 300.0
    result = self_kd_loss(features, weight, torch.tensor([2, 3, 5, 8]), alpha=ALPHA, support=support)
    assert not math.isfinite(result.loss.item())


@pytest.mark.parametrize("support", SUPPORTS)
def test_a_loss_scale_overflows_where_float16_ends(support: str) -> None:
    """What fairseq's loss scaler looks for: gradients beyond 65,504 are infinite, and no others."""
    exact = truth("realistic", torch.float16, support)
    data, seen = batch("realistic", torch.float16), set()
    for scale in (2.0**10, 2.0**16, 2.0**22):
        features, weight = leaves(data)
        gradients = torch.autograd.grad(scale * our_loss(data, features, weight, support).loss, (features, weight))
        for name, found in zip(("features_grad", "weight_grad"), gradients):
            scaled = scale * getattr(exact, name).abs()
            assert not found.isnan().any()
            # Twice and half of it, for what rounding adds.
            assert found[scaled > 131_008].isinf().all() and found[scaled < 32_752].isfinite().all()
            seen.add(bool(found.isinf().any()))
    assert seen == {True, False}
