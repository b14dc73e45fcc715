"""Half precision at the vocabulary of a real model: no overflow, and no more error than the naive criterion's own.

The truth and the naive criterion are those of ``precision_yardsticks.py``. Where there is an accelerator, the loss and
the naive criterion run on it too; the truth stays in float64 on the CPU.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from selfkd_fairseq.core import SUPPORTS, SelfKDLoss, nearest_words, rms_distance, self_kd_loss
from tests import definition
from tests.core.precision_yardsticks import (
    ALPHA,
    BOS,
    FLOOR,
    MANY_CHUNKS,
    PAD,
    REAL,
    SEED,
    SMOOTHING,
    Found,
    Setting,
    collected,
    errors,
    leaves,
    low_precision,
    naive,
    truth,
)

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def our_loss(features: Tensor, weight: Tensor, target: Tensor, support: str, chunk_size: int | None) -> SelfKDLoss:
    return self_kd_loss(
        features, weight, target, alpha=ALPHA, label_smoothing=SMOOTHING, support=support, min_target_prob=FLOOR,
        ignore_index=PAD, excluded=(BOS,), chunk_size=chunk_size, generator=torch.Generator().manual_seed(SEED),
    )  # fmt: skip


def ours(setting: Setting, support: str, autocast: bool, device: str) -> Found:
    features, weight, target = leaves(setting, device)
    with low_precision(autocast, device):
        result = our_loss(features, weight, target, support, setting.size.chunk_size)
    assert all(value.dtype == torch.float32 for value in result[:4])
    gradients = torch.autograd.grad(result.loss, (features, weight))
    assert all(gradient.dtype == setting.dtype and gradient.device == target.device for gradient in gradients)
    return collected(list(result[:4]), gradients)


def check_against_the_naive_criterion(setting: Setting, support: str, autocast: bool, device: str) -> None:
    exact, result = truth(setting, support), ours(setting, support, autocast, device)
    assert all(math.isfinite(value) for value in result.sums)
    assert torch.isfinite(result.features_grad).all() and torch.isfinite(result.weight_grad).all()
    error, allowed = errors(result, exact), errors(naive(setting, support, autocast, device), exact)
    for name in error:
        print(f"{name}: {error[name]:.1e}, naive {allowed[name]:.1e}")  # shown by pytest -rP
        # A gradient is cast to half precision once more than autograd's: measured at most 1.17 times the error.
        factor = 1.25 if name.endswith("grad") else 1.05
        assert error[name] <= factor * allowed[name] + 1e-6, (name, error, allowed)


@pytest.mark.skipif("cuda" not in DEVICES, reason="no CUDA device: the tests of this file run on the CPU alone")
def test_float64_on_the_accelerator_is_the_definition() -> None:
    setting = Setting("realistic", torch.float64, MANY_CHUNKS)
    for support in SUPPORTS:
        features, weight, target = leaves(setting, "cuda")
        result = our_loss(features, weight, target, support, MANY_CHUNKS.chunk_size)
        gradients = torch.autograd.grad(result.loss, (features, weight))
        assert max(errors(collected(list(result[:4]), gradients), truth(setting, support)).values()) < 1e-10, support


@pytest.mark.parametrize("device", DEVICES)
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
    dtype: torch.dtype, logits: str, autocast: bool, support: str, device: str
) -> None:
    check_against_the_naive_criterion(Setting(logits, dtype), support, autocast, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("dtype, autocast", [(torch.bfloat16, False), (torch.float16, False), (torch.float32, True)])
def test_many_chunks_cost_no_more_precision_than_in_the_naive_criterion(
    dtype: torch.dtype, autocast: bool, support: str, device: str
) -> None:
    """256 of them: what is summed over chunks must not be rounded to half precision in between."""
    check_against_the_naive_criterion(Setting("realistic", dtype, MANY_CHUNKS), support, autocast, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("support", [s for s in SUPPORTS if s != "predicted"])  # there equal logits decide
@pytest.mark.parametrize("dtype, offset", [(torch.float32, 50_003), (torch.float16, 2001), (torch.bfloat16, 200)])
def test_an_offset_of_all_logits_costs_no_more_precision_than_in_the_naive_criterion(
    dtype: torch.dtype, offset: int, support: str, device: str
) -> None:
    """A softmax does not see it, and differences of logits are all that a loss may lose precision on."""
    setting = Setting(f"offset {offset}", dtype)
    exact = truth(setting, support)
    error, allowed = (errors(take(setting, support, False, device), exact) for take in (ours, naive))
    for name in ("loss", "ce_loss", "nll_loss", "skd_loss"):
        assert error[name] <= 1.5 * allowed[name] + 1e-5, (name, error, allowed)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_unit_of_the_temperature_is_exact_for_a_large_matrix(dtype: torch.dtype, device: str) -> None:
    """A sum of 4 million squares, one after the other in float32, would be off by 1e-4."""
    weight = torch.randn(REAL.vocabulary, 128, generator=torch.Generator().manual_seed(2)).to(dtype)
    exact = weight.double()
    expected = math.sqrt(2 * ((exact**2).sum(dim=1).mean() - (exact.mean(dim=0) ** 2).sum()).item())
    assert rms_distance(weight.to(device)).item() == pytest.approx(expected, rel=1e-6)


SPREAD = {torch.float16: 30_000.0, torch.bfloat16: 1e15}  # the squares of float16 overflow from 256 on


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", SPREAD)
def test_distances_between_large_rows_do_not_overflow(dtype: torch.dtype, device: str) -> None:
    """The rows differ by what no square in half precision can hold, and the soft targets are still those of float64."""
    generator = torch.Generator().manual_seed(1)
    weight = (SPREAD[dtype] * (2 * torch.rand(500, 16, generator=generator) - 1)).to(dtype)
    target, features = torch.arange(2, 62), torch.zeros(60, 16, dtype=dtype)
    exact = weight.double()
    distances = torch.cdist(exact[target], exact, compute_mode="donot_use_mm_for_euclid_dist")[:, 2:]
    for support, expected in (("full", distances.sum()), ("nearest", distances.topk(2, largest=False).values.sum())):
        result = self_kd_loss(
            features.to(device), weight.to(device), target.to(device), alpha=ALPHA, support=support, ignore_index=PAD,
            excluded=(BOS,),
        )  # fmt: skip
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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype, offset", [(torch.float16, 2048.0), (torch.bfloat16, 256.0)])
def test_near_neighbours_are_not_lost_to_cancellation(dtype: torch.dtype, offset: float, device: str) -> None:
    """Rows far from the origin whose neighbour is one step of the dtype away: |w|^2 + |v|^2 - 2 wv would round to 0."""
    generator = torch.Generator().manual_seed(1)
    step = 2.0  # between two numbers of either dtype above its offset
    weight = offset + step * torch.randint(0, 100, (200, 16), generator=generator)
    weight[1::2] = weight[::2]
    weight[1::2, 3] += step
    weight = weight.to(dtype).to(device)
    words = torch.arange(200, device=device)
    assert torch.equal(nearest_words(weight, words, 1, ()).squeeze(1), words ^ 1)
    features = torch.zeros(200, 16, dtype=dtype, device=device)
    nearest = self_kd_loss(features, weight, words, alpha=ALPHA, support="nearest")
    assert nearest.statistics.distance.item() == 200 * step
    exact = weight.double().cpu()
    full = self_kd_loss(features, weight, words, alpha=ALPHA, support="full", min_target_prob=0.0, temperature=0.01)
    rows = [
        definition.soft_target_row(
            [0.0] * 200, exact.numpy(), word, n=1, tau=0.01, relative=True, floor=0.0, excluded=(), support="full"
        )[word]
        for word in range(200)
    ]
    assert full.statistics.target_prob.item() == pytest.approx(sum(rows), rel=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("support", SUPPORTS)
def test_logits_too_large_for_float16_are_seen_in_the_loss(support: str, device: str) -> None:
    """2 * 300 * 300 is more than float16 holds: a naive criterion's loss is not finite either."""
    features, weight = torch.full((4, 2), 300.0).half().to(device), torch.ones(9, 2).half().to(device)
    weight[5] = 300.0
    target = torch.tensor([2, 3, 5, 8], device=device)
    result = self_kd_loss(features, weight, target, alpha=ALPHA, support=support)
    assert not math.isfinite(result.loss.item())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("support", SUPPORTS)
def test_a_loss_scale_overflows_where_float16_ends(support: str, device: str) -> None:
    """What fairseq's loss scaler looks for: gradients beyond 65,504 are infinite, and no others."""
    setting = Setting("realistic", torch.float16)
    exact, seen = truth(setting, support), set()
    for scale in (2.0**10, 2.0**16, 2.0**22):
        features, weight, target = leaves(setting, device)
        loss = our_loss(features, weight, target, support, None).loss
        gradients = torch.autograd.grad(scale * loss, (features, weight))
        for name, gradient in zip(("features_grad", "weight_grad"), gradients):
            scaled, gradient = scale * getattr(exact, name).abs(), gradient.cpu()
            assert not gradient.isnan().any()
            # Twice and half of it, for what rounding adds.
            assert gradient[scaled > 131_008].isinf().all() and gradient[scaled < 32_752].isfinite().all()
            seen.add(bool(gradient.isinf().any()))
    assert seen == {True, False}
