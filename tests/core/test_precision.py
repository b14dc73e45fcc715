"""Half precision at the vocabulary of a real model: no overflow, and no more error than the naive criterion's own.

The truth and the naive criterion are those of ``precision_yardsticks.py``. Where there is an accelerator, the loss and
the naive criterion run on it too; the truth stays in float64 on the CPU.
"""

from __future__ import annotations

import math
from typing import Any, Iterable

import pytest
import torch
from torch import Tensor

from selfkd_fairseq.core import (
    SIMILARITIES,
    SelfKDLoss,
    geometry,
    half_products,
    nearest_words,
    rms_distance,
    self_kd_loss,
)
from tests import definition
from tests.core.forms import FEW, FORMS
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
HALF = [torch.float16, torch.bfloat16]


def of_form(form: str, setting: Setting) -> Setting:
    """With the words of the support beyond doubt: within it, the best word beside the target may be the second."""
    chosen_beside_target = FORMS[form].get("normalise") == "support"
    return setting._replace(ahead=2) if chosen_beside_target else setting


def our_loss(
    setting: Setting, form: str, device: str, implementation: str = "fused"
) -> tuple[SelfKDLoss, tuple[Tensor, Tensor]]:
    """The loss, and the leaves that its gradients are of."""
    features, weight, target, teacher = leaves(setting, device)
    result = self_kd_loss(
        features, weight, target, alpha=ALPHA, label_smoothing=SMOOTHING, min_target_prob=FLOOR, ignore_index=PAD,
        excluded=(BOS,), chunk_size=setting.size.chunk_size, generator=torch.Generator().manual_seed(SEED),
        teacher_features=teacher, implementation=implementation, **FORMS[form],
    )  # fmt: skip
    return result, (features, weight)


def ours(setting: Setting, form: str, autocast: bool, device: str, implementation: str = "fused") -> Found:
    with low_precision(autocast, device):
        result, inputs = our_loss(setting, form, device, implementation)
    reduced = torch.promote_types(setting.dtype, torch.float32)
    assert all(value.dtype == reduced for value in result[:4])
    gradients = torch.autograd.grad(result.loss, inputs)
    assert all(gradient.dtype == setting.dtype and gradient.device == inputs[0].device for gradient in gradients)
    return collected(list(result[:4]), gradients)


def check_against_the_naive_criterion(
    setting: Setting, form: str, autocast: bool, device: str, implementation: str = "fused"
) -> None:
    exact, result = truth(setting, form), ours(setting, form, autocast, device, implementation)
    assert all(math.isfinite(value) for value in result.sums)
    assert torch.isfinite(result.features_grad).all() and torch.isfinite(result.weight_grad).all()
    error, allowed = errors(result, exact), errors(naive(setting, form, autocast, device), exact)
    for name in error:
        print(f"{name}: {error[name]:.1e}, naive {allowed[name]:.1e}")  # shown by pytest -rP
        # A gradient is cast to half precision once more than autograd's: measured at most 1.17 times the error.
        factor = 1.25 if name.endswith("grad") else 1.05
        assert error[name] <= factor * allowed[name] + 1e-6, (name, error, allowed)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
def test_float64_is_the_definition(form: str, device: str) -> None:
    setting = of_form(form, Setting("realistic", torch.float64, MANY_CHUNKS))
    assert max(errors(ours(setting, form, False, device), truth(setting, form)).values()) < 1e-10


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FEW)
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
    dtype: torch.dtype, logits: str, autocast: bool, form: str, device: str
) -> None:
    check_against_the_naive_criterion(of_form(form, Setting(logits, dtype)), form, autocast, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", ["predicted", "full", "predicted, gaussian, within, T 2", "full, self, T 2"])
@pytest.mark.parametrize(
    "dtype, logits, autocast",
    [
        (torch.bfloat16, "realistic", False),
        (torch.float16, "realistic", False),
        (torch.float16, "58000", False),
        (torch.float32, "realistic", True),
    ],
)
def test_so_have_the_passes_that_are_compiled(
    dtype: torch.dtype, logits: str, autocast: bool, form: str, device: str
) -> None:
    check_against_the_naive_criterion(of_form(form, Setting(logits, dtype)), form, autocast, device, "compiled")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FEW)
@pytest.mark.parametrize("dtype, autocast", [(torch.bfloat16, False), (torch.float16, False), (torch.float32, True)])
def test_many_chunks_cost_no_more_precision_than_in_the_naive_criterion(
    dtype: torch.dtype, autocast: bool, form: str, device: str
) -> None:
    """256 of them: what is summed over chunks must not be rounded to half precision in between."""
    setting = of_form(form, Setting("realistic", dtype, MANY_CHUNKS))
    check_against_the_naive_criterion(setting, form, autocast, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", [form for form in FEW if "predicted" not in form])  # there equal logits decide
@pytest.mark.parametrize("dtype, offset", [(torch.float32, 50_003), (torch.float16, 2001), (torch.bfloat16, 200)])
def test_an_offset_of_all_logits_costs_no_more_precision_than_in_the_naive_criterion(
    dtype: torch.dtype, offset: int, form: str, device: str
) -> None:
    """A softmax does not see it, and differences of logits are all that a loss may lose precision on."""
    setting = Setting(f"offset {offset}", dtype)
    exact = truth(setting, form)
    error, allowed = (errors(take(setting, form, False, device), exact) for take in (ours, naive))
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


def shares_of_targets(weight: Tensor, target: Tensor, excluded: Iterable[int], **options: Any) -> list[float]:
    """By the definition, what each target word keeps of its own soft targets."""
    space, chosen = definition.Space(weight.numpy()), definition.Options(**options)
    tokens = [definition.Token(int(word), excluded=frozenset(excluded)) for word in target]
    return [float(definition.row_of(token, space, chosen).probs[token.target]) for token in tokens]


OFFSET = {torch.float16: 2048.0, torch.bfloat16: 256.0}
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
    for support, total in (("full", distances.sum()), ("nearest", distances.topk(2, largest=False).values.sum())):
        result = self_kd_loss(
            features.to(device), weight.to(device), target.to(device), alpha=ALPHA, support=support, ignore_index=PAD,
            excluded=(BOS,),
        )  # fmt: skip
        assert result.statistics.measure.item() == pytest.approx(total.item(), rel=1e-5), support
        expected = sum(shares_of_targets(exact, target, {PAD, BOS}, support=support))
        assert result.statistics.target_prob.item() == pytest.approx(expected, rel=1e-5), support
        assert torch.isfinite(result.loss)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype, offset", OFFSET.items())
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
    assert nearest.statistics.measure.item() == 200 * step
    exact = weight.double().cpu()
    full = self_kd_loss(features, weight, words, alpha=ALPHA, support="full", min_target_prob=0.0, temperature=0.01)
    expected = sum(shares_of_targets(exact, words, (), support="full", min_target_prob=0.0, temperature=0.01))
    assert full.statistics.target_prob.item() == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU does not have the products of half precision that are summed in float32: here they are in float32."""
    monkeypatch.setattr(half_products, "_rounded_product", lambda a, b: a.float() @ b.float())
    monkeypatch.setattr(geometry, "summed_in_float32", lambda tensor: True)


@pytest.mark.parametrize("implementation", ["fused", "compiled"])
@pytest.mark.parametrize("form", [form for form in FEW if "full" in form and "self" not in form])
@pytest.mark.parametrize("logits", ["realistic", "200"])
@pytest.mark.parametrize("dtype", HALF)
def test_rows_of_half_precision_cost_no_more(
    dtype: torch.dtype, logits: str, form: str, implementation: str, as_on_a_gpu: None
) -> None:
    check_against_the_naive_criterion(Setting(logits, dtype), form, False, "cpu", implementation)


@pytest.mark.parametrize("dtype", HALF)
def test_nor_do_large_rows_or_near_ones(dtype: torch.dtype, as_on_a_gpu: None) -> None:
    test_distances_between_large_rows_do_not_overflow(dtype, "cpu")
    test_near_neighbours_are_not_lost_to_cancellation(dtype, OFFSET[dtype], "cpu")


@pytest.mark.parametrize("measure", ["distance", "cosine"])
@pytest.mark.parametrize("spread, offset", [(1.0, 0.0), (1e-3, 0.0), (1.0, 1.0), (1.0, 30.0), (0.0, 1.0)])
@pytest.mark.parametrize("dtype", HALF)
def test_measures_of_rows_of_half_precision(
    dtype: torch.dtype, spread: float, offset: float, measure: str, as_on_a_gpu: None
) -> None:
    weight = offset + spread * torch.randn(300, 64, generator=torch.Generator().manual_seed(3))
    weight, words = weight.to(dtype), torch.arange(0, 300, 7)
    found = SIMILARITIES[measure].measure
    products = found.products(weight, torch.float32)
    exact = found.to_every_word(weight.double(), words)
    assert products.rows.dtype == dtype
    of_products = found.by_products(products, words, torch.empty(words.numel(), 300))
    dots = products.rows[words].float() @ products.rows.float().t()
    size = 1.0 if measure == "cosine" else exact.abs().mean().item()
    for measures in (of_products, found.of_dots(dots, products, words)):
        error = (measures.double() - exact).scatter_(1, words.unsqueeze(1), 0.0)  # one that nobody reads
        assert error.abs().max().item() <= torch.finfo(dtype).eps * size
    if products.rms is not None:
        assert products.rms.item() == pytest.approx(rms_distance(weight).item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("measure", ["distance", "cosine"])
def test_a_row_far_out_and_rows_of_next_to_nothing(measure: str, as_on_a_gpu: None) -> None:
    generator = torch.Generator().manual_seed(3)
    far_out = 1e-2 * torch.randn(300, 64, generator=generator)
    far_out[0] = 1000.0
    pairs = torch.randn(20, 64, generator=generator)
    pairs[10:] *= 1e-25
    next_to_nothing = torch.cat([pairs, -pairs])
    found = SIMILARITIES[measure].measure
    for weight in (far_out.half(), next_to_nothing.bfloat16()):
        words = torch.arange(1, weight.size(0), 3)
        out = torch.empty(words.numel(), weight.size(0))
        measures = found.by_products(found.products(weight, torch.float32), words, out)
        exact = found.to_every_word(weight, words)
        size = torch.ones_like(exact) if measure == "cosine" else exact.clamp_min(exact.median().item())
        error = ((measures - exact) / size).scatter_(1, words.unsqueeze(1), 0.0)
        assert error.abs().max().item() <= torch.finfo(weight.dtype).eps


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FEW)
def test_logits_too_large_for_float16_are_seen_in_the_loss(form: str, device: str) -> None:
    """2 * 300 * 300 is more than float16 holds: a naive criterion's loss is not finite either."""
    features, weight = torch.full((4, 2), 300.0).half().to(device), torch.ones(9, 2).half().to(device)
    weight[5] = 300.0
    target = torch.tensor([2, 3, 5, 8], device=device)
    result = self_kd_loss(features, weight, target, alpha=ALPHA, teacher_features=features, **FORMS[form])
    assert not math.isfinite(result.loss.item())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FEW)
def test_a_loss_scale_overflows_where_float16_ends(form: str, device: str) -> None:
    """What fairseq's loss scaler looks for: gradients beyond 65,504 are infinite, and no others."""
    setting = of_form(form, Setting("realistic", torch.float16))
    exact, seen = truth(setting, form), set()
    for scale in (2.0**10, 2.0**16, 2.0**22):
        result, inputs = our_loss(setting, form, device)
        gradients = torch.autograd.grad(scale * result.loss, inputs)
        for name, gradient in zip(("features_grad", "weight_grad"), gradients):
            scaled, gradient = scale * getattr(exact, name).abs(), gradient.cpu()
            assert not gradient.isnan().any()
            # Twice and half of it, for what rounding adds.
            assert gradient[scaled > 131_008].isinf().all() and gradient[scaled < 32_752].isfinite().all()
            seen.add(bool(gradient.isinf().any()))
    assert seen == {True, False}
