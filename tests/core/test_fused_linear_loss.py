"""The fused implementation against the reference: every support, the loss and every gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfkd_fairseq.benchmark.measure import peak_extra_bytes
from selfkd_fairseq.core import IMPLEMENTATIONS, SUPPORTS, self_kd_loss
from tests import definition
from tests.core.drawn_words import drawn_words

PAD, BOS, SEED = 1, 0, 3


def batch(tokens=23, vocabulary=17, width=6, seed=0, dtype=torch.float64, bias=False):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(tokens, width, dtype=dtype, generator=generator)
    weight = torch.randn(vocabulary, width, dtype=dtype, generator=generator)
    target = torch.randint(0, vocabulary, (tokens,), generator=generator)
    target[::4] = PAD
    tensors = {"features": features, "weight": weight, "target": target}
    if bias:
        tensors["bias"] = torch.randn(vocabulary, dtype=dtype, generator=generator)
    return tensors


def run(tensors, implementation, upstream=1.0, needs=("features", "weight", "bias"), **arguments):
    leaves = {
        name: tensor.clone().requires_grad_() if name in needs and tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    result = self_kd_loss(
        **leaves, ignore_index=PAD, excluded=(BOS,), implementation=implementation,
        generator=torch.Generator().manual_seed(SEED), **arguments,
    )  # fmt: skip
    if result.loss.requires_grad:
        (result.loss * upstream).backward()
    values = [*result[:4], *result.statistics]
    return values, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def assert_same(tensors, tolerance=1e-12, **arguments):
    values, grads = run(tensors, "fused", **arguments)
    expected_values, expected_grads = run(tensors, "reference", **arguments)
    for value, expected in zip(values, expected_values):
        assert value.item() == pytest.approx(expected.item(), rel=tolerance, abs=tolerance)
    assert grads.keys() == expected_grads.keys()
    for name, expected in expected_grads.items():
        assert grads[name].dtype == expected.dtype
        if expected.numel() > 0:
            difference = (grads[name] - expected).abs().max().item()
            assert difference <= tolerance * max(1.0, expected.abs().max().item()), name


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_reference(support, alpha, label_smoothing, bias):
    for chunk_size in (None, 1, 5, 40):
        for n in (1, 4):
            assert_same(
                batch(bias=bias), support=support, alpha=alpha, label_smoothing=label_smoothing,
                chunk_size=chunk_size, support_size=n, temperature=0.4,
            )  # fmt: skip


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_equals_the_definition(support, implementation, alpha):
    tensors = batch(bias=True)
    tensors["target"][5] = BOS  # an excluded word is in a support as the target
    arguments = dict(alpha=alpha, label_smoothing=0.1, support=support, support_size=3, temperature=0.6)
    values, grads = run(tensors, implementation, min_target_prob=0.3, **arguments)
    features, weight, bias = (tensors[name].numpy() for name in ("features", "weight", "bias"))
    sums, dz = definition.losses(
        features @ weight.T + bias, weight, tensors["target"], alpha=alpha, label_smoothing=0.1, pad=PAD,
        excluded=(BOS,), n=3, tau=0.6, relative=True, floor=0.3, support=support,
        drawn=drawn_words(support, tensors["weight"], tensors["target"], 3, (BOS, PAD), SEED, ignore_index=PAD),
    )  # fmt: skip
    assert [value.item() for value in values[:4]] == pytest.approx(list(sums), rel=1e-12)
    for name, expected in (("features", dz @ weight), ("weight", dz.T @ features), ("bias", dz.sum(axis=0))):
        assert abs(grads[name].numpy() - expected).max() < 1e-12, name


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("upstream", [0.0, -1.0, 2.5])
def test_upstream_gradient(support, upstream):
    assert_same(batch(bias=True), support=support, alpha=0.4, label_smoothing=0.1, upstream=upstream)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("needs", [("features",), ("weight",), ("bias",), ("features", "bias"), ()])
def test_any_combination_of_inputs_that_need_a_gradient(support, needs):
    assert_same(batch(bias=True), support=support, alpha=0.4, label_smoothing=0.1, needs=needs, chunk_size=7)


@pytest.mark.parametrize("support", SUPPORTS)
def test_all_padding_and_one_token(support):
    tensors = batch(bias=True)
    tensors["target"] = torch.full_like(tensors["target"], PAD)
    assert_same(tensors, support=support, alpha=0.4, label_smoothing=0.1)
    values, grads = run(tensors, "fused", support=support, alpha=0.4)
    assert values[0].item() == 0.0 and all(grad.abs().sum().item() == 0.0 for grad in grads.values())
    tensors["target"][6] = 9
    assert_same(tensors, support=support, alpha=0.4, label_smoothing=0.1)


@pytest.mark.parametrize("support", SUPPORTS)
def test_tied_embedding_gets_both_gradients(support):
    grads = {}
    for implementation in ("fused", "reference"):
        table = batch()["weight"].clone().requires_grad_()
        words = torch.tensor([3, 5, 5, 9, 2])
        features = torch.tanh(table[words])
        loss = self_kd_loss(
            features, table, words.roll(1), alpha=0.4, support=support, implementation=implementation,
            generator=torch.Generator().manual_seed(0),
        ).loss  # fmt: skip
        loss.backward()
        grads[implementation] = table.grad
    assert torch.allclose(grads["fused"], grads["reference"], atol=1e-12, rtol=0)


@pytest.mark.parametrize("support", SUPPORTS)
def test_gradcheck(support):
    """For autograd q is a constant, for finite differences it is one only where it does not depend on the input."""
    tensors = batch(tokens=6, vocabulary=8, width=3, bias=True)
    inputs = [tensors[name].clone().requires_grad_() for name in ("features", "weight", "bias")]

    def loss(features, weight, bias):
        return self_kd_loss(
            features, weight, tensors["target"], bias=bias, alpha=0.0, label_smoothing=0.1, ignore_index=PAD,
            support=support, chunk_size=4, generator=torch.Generator().manual_seed(0),
        ).loss  # fmt: skip

    assert torch.autograd.gradcheck(loss, inputs)

    def loss_of_features(features):
        # q does not depend on features: with predicted as long as the order stays, with the others never.
        return self_kd_loss(
            features, inputs[1].detach(), tensors["target"], alpha=0.6, label_smoothing=0.1, ignore_index=PAD,
            support=support, chunk_size=4, generator=torch.Generator().manual_seed(0),
        ).loss  # fmt: skip

    assert torch.autograd.gradcheck(loss_of_features, inputs[:1])


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(0, 12), vocabulary=st.integers(5, 30), width=st.integers(1, 9), n=st.integers(1, 2),
    chunk_size=st.integers(1, 14), support=st.sampled_from(SUPPORTS), alpha=st.sampled_from([0.0, 0.3, 1.0]),
    label_smoothing=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 10**6), bias=st.booleans(),
    scale=st.sampled_from(["relative", "absolute"]), floor=st.floats(0, 1), temperature=st.floats(0.05, 20),
)  # fmt: skip
def test_equals_the_reference_over_shapes(
    tokens, vocabulary, width, n, chunk_size, support, alpha, label_smoothing, seed, bias, scale, floor, temperature
):
    assert_same(
        batch(tokens, vocabulary, width, seed, bias=bias), tolerance=1e-7 if support == "full" else 1e-9,
        support=support, support_size=n, chunk_size=chunk_size, alpha=alpha, label_smoothing=label_smoothing,
        temperature_scale=scale, min_target_prob=floor, temperature=temperature,
    )  # fmt: skip


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_near_to_float32_as_the_naive_loss(support, dtype):
    # Zero-mean features that make a peaked distribution, so that rounding shows.
    exact = batch(tokens=120, vocabulary=300, width=32, dtype=torch.float32)
    exact["features"] *= 0.7
    half = {name: t.to(dtype) if t.is_floating_point() else t for name, t in exact.items()}
    rounded = {name: t.float() if t.is_floating_point() else t for name, t in half.items()}
    arguments = dict(support=support, alpha=0.4, label_smoothing=0.1, chunk_size=50)
    truth, truth_grads = run(rounded, "reference", **arguments)
    fused, fused_grads = run(half, "fused", **arguments)
    naive, naive_grads = run(half, "reference", **arguments)
    assert fused[0].dtype == torch.float32

    def error(found, expected):
        return ((found.float() - expected).norm() / expected.norm()).item()

    assert error(fused[0], truth[0]) <= error(naive[0], truth[0]) + 1e-5
    for name in truth_grads:
        assert fused_grads[name].dtype == dtype
        assert error(fused_grads[name], truth_grads[name]) <= error(naive_grads[name], truth_grads[name]) + 1e-3, name


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("loss_scale", [128.0, 1024.0])
def test_small_gradients_survive_float16_with_a_loss_scale(support, loss_scale):
    """The scale of fairseq's --fp16 comes with the upstream gradient, after these gradients were taken."""
    exact = batch(tokens=200, vocabulary=1500, width=64, dtype=torch.float32)
    exact["target"] = exact["target"].clamp_min(2)
    # A peaked, mostly right model: most probabilities lie below what float16 holds without a scale.
    exact["features"] = 0.4 * exact["weight"][exact["target"]]
    half = {name: t.half() if t.is_floating_point() else t for name, t in exact.items()}
    rounded = {name: t.double() if t.is_floating_point() else t for name, t in half.items()}
    arguments = dict(support=support, alpha=0.4, upstream=loss_scale)
    _, truth = run(rounded, "reference", **arguments)
    _, fused = run(half, "fused", **arguments)
    _, naive = run(half, "reference", **arguments)

    def row_errors(grads):
        truth_rows = truth["weight"].norm(dim=1)
        errors = (grads["weight"].double() - truth["weight"]).norm(dim=1) / truth_rows
        return errors[truth_rows > 1e-6 * loss_scale]

    assert torch.isfinite(fused["weight"]).all() and torch.isfinite(fused["features"]).all()
    assert row_errors(fused).median() <= row_errors(naive).median() + 1e-3
    assert (row_errors(fused) > 0.5).float().mean() <= (row_errors(naive) > 0.5).float().mean() + 1e-3


@pytest.mark.parametrize("support", SUPPORTS)
def test_autocast(support):
    tensors = batch(tokens=60, vocabulary=200, width=16, dtype=torch.float32, bias=True)
    plain, plain_grads = run(tensors, "fused", support=support, alpha=0.4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, low_grads = run(tensors, "fused", support=support, alpha=0.4)
    assert low[0].dtype == torch.float32 and all(grad.dtype == torch.float32 for grad in low_grads.values())
    assert low[0].item() == pytest.approx(plain[0].item(), rel=2e-2)
    assert low[0].item() != plain[0].item()
    # Soft targets come from the matrix as it is, not as autocast rounds it.
    if support != "predicted":
        assert low[6].item() == plain[6].item()
    for name, grad in plain_grads.items():
        assert ((low_grads[name] - grad).norm() / grad.norm()).item() < 5e-2, name


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("name", ["features", "weight", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_not_hidden(support, name, value):
    tensors = batch(bias=True)
    tensors[name].view(-1)[17 if name == "weight" else 3] = value
    tensors["target"][:] = 2
    values, _ = run(tensors, "fused", support=support, alpha=0.4)
    assert not math.isfinite(values[0].item())


def test_a_second_backward_adds_the_same_again():
    tensors = batch()
    features = tensors["features"].requires_grad_()
    loss = self_kd_loss(features, tensors["weight"], tensors["target"], alpha=0.5).loss
    loss.backward(retain_graph=True)
    once = features.grad.clone()
    loss.backward()
    assert torch.equal(features.grad, 2 * once)


def test_only_the_loss_carries_a_gradient():
    tensors = batch()
    result = self_kd_loss(tensors["features"].requires_grad_(), tensors["weight"], tensors["target"], alpha=0.5)
    assert result.loss.requires_grad
    assert not any(value.requires_grad for value in (result.ce_loss, result.nll_loss, result.skd_loss))


def test_cached_neighbours_are_used():
    tensors = batch()
    neighbours = torch.full((17, 1), 7)
    with_cache = self_kd_loss(**tensors, alpha=0.5, support="nearest", neighbours=neighbours)
    reference = self_kd_loss(**tensors, alpha=0.5, support="nearest", neighbours=neighbours, implementation="reference")
    without = self_kd_loss(**tensors, alpha=0.5, support="nearest")
    assert with_cache.skd_loss.item() == pytest.approx(reference.skd_loss.item(), rel=1e-12)
    assert abs(with_cache.skd_loss.item() - without.skd_loss.item()) > 1e-3


def test_no_gradient_work_without_grad_mode(monkeypatch):
    from selfkd_fairseq.core import fused_linear_loss

    tensors = batch()
    tensors["weight"].requires_grad_()
    monkeypatch.setattr(fused_linear_loss._Pass, "_backward_products", lambda *_: pytest.fail("gradients were taken"))
    with torch.no_grad():
        assert self_kd_loss(**tensors, alpha=0.5).loss.item() > 0


def test_memory_stays_far_below_that_of_the_logits():
    """Peak extra memory of forward and backward, against one (N, V) tensor."""
    tokens, vocabulary, width = 1024, 8000, 16
    tensors = batch(tokens, vocabulary, width, dtype=torch.float32)
    features, weight = tensors["features"].requires_grad_(), tensors["weight"].requires_grad_()

    def peak(implementation):
        def forward_and_backward():
            self_kd_loss(
                features, weight, tensors["target"], alpha=0.4, label_smoothing=0.1, implementation=implementation,
                chunk_size=64,
            ).loss.backward()  # fmt: skip

        features.grad = weight.grad = None
        return peak_extra_bytes(forward_and_backward, torch.device("cpu"))

    one_tensor = 4 * tokens * vocabulary
    assert peak("reference") > 2 * one_tensor
    assert peak("fused") < 0.25 * one_tensor


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(features=torch.zeros(23, 5)), "features must be (N, d) and weight (V, d), got (23, 5) and (17, 6)"),
        (
            dict(target=torch.zeros(3, dtype=torch.long)),
            "target must be (N,) with the N of features, got (3,) and features (23, 6)",
        ),
        (dict(bias=torch.zeros(4)), "bias must be (V,) with the V of weight, got (4,) and weight (17, 6)"),
        (dict(target=torch.zeros(23)), "target must be int64 word ids, got torch.float32"),
        (dict(target=torch.full((23,), 17)), "target must be in [0, 17), got 17"),
        (dict(alpha=1.2), "alpha must be in [0, 1], got 1.2"),
        (dict(label_smoothing=-0.1), "label_smoothing must be in [0, 1), got -0.1"),
        (dict(chunk_size=0), "chunk_size must be at least 1, got 0"),
        (dict(implementation="fast"), "implementation must be one of fused, reference, got 'fast'"),
        (dict(support_size=17), "support_size must be less than the vocabulary size 17, got 17"),
        (
            dict(support="random", support_size=16, excluded=(0,)),
            "support_size must be at most 15 for the support random, got 16",
        ),
        (
            dict(neighbours=torch.zeros(4, 1)),
            "neighbours must be int64 (V, support_size) = (17, 1), got torch.float32 (4, 1)",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(changes, message):
    arguments = dict(batch(), alpha=0.5)
    arguments.update(changes)
    with pytest.raises(ValueError) as error:
        self_kd_loss(**arguments)
    assert str(error.value) == message
