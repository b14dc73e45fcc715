"""The fused implementation against the reference and the definition: every form, the loss and every gradient."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfkd_fairseq.benchmark.measure import peak_extra_bytes
from selfkd_fairseq.core import IMPLEMENTATIONS, Statistics, self_kd_loss
from selfkd_fairseq.core.compiled_rows import can_compile
from tests import definition
from tests.core import chance
from tests.core.forms import FORMS, reads_teacher
from tests.fairseq_setup import ROOT

PAD, BOS, SEED = 1, 0, 3


def batch(tokens=23, vocabulary=17, width=6, seed=0, dtype=torch.float64, bias=False):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(tokens, width, dtype=dtype, generator=generator)
    weight = torch.randn(vocabulary, width, dtype=dtype, generator=generator)
    target = torch.randint(0, vocabulary, (tokens,), generator=generator)
    target[::4] = PAD
    teacher_features = features + 0.5 * torch.randn(tokens, width, dtype=dtype, generator=generator)
    tensors = {"features": features, "weight": weight, "target": target, "teacher_features": teacher_features}
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


def assert_same(tensors, tolerance=1e-12, implementation="fused", **arguments):
    values, grads = run(tensors, implementation, **arguments)
    expected_values, expected_grads = run(tensors, "reference", **arguments)
    for value, expected in zip(values, expected_values):
        assert value.item() == pytest.approx(expected.item(), rel=tolerance, abs=tolerance)
    assert grads.keys() == expected_grads.keys()
    for name, expected in expected_grads.items():
        assert grads[name].dtype == expected.dtype
        if expected.numel() > 0:
            difference = (grads[name] - expected).abs().max().item()
            assert difference <= tolerance * max(1.0, expected.abs().max().item()), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("implementation", ["fused", "compiled"])
def test_equals_the_reference(form, alpha, label_smoothing, bias, implementation):
    for chunk_size, n in ((None, 1), (1, 4), (5, 4), (40, 1)):
        assert_same(
            batch(bias=bias), **FORMS[form], alpha=alpha, label_smoothing=label_smoothing, chunk_size=chunk_size,
            support_size=n, temperature=0.4, implementation=implementation,
        )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("implementation", ["fused", "compiled"])
def test_equals_the_reference_over_more_words_than_are_looked_at_together(form, implementation):
    for vocabulary, n in ((300, 2), (521, 4)):
        assert_same(
            batch(vocabulary=vocabulary, bias=True), **FORMS[form], alpha=0.3, label_smoothing=0.1, support_size=n,
            implementation=implementation,
        )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("implementation", ["fused", "compiled"])
def test_of_equal_logits_the_first_word_is_the_prediction(form, implementation):
    """As argmax has it, also where that word is the target or may not be in the support: half precision has many."""
    tensors = batch(tokens=400)
    for name in ("features", "weight"):
        tensors[name] = tensors[name].round().clamp(-1, 1)
    logits = tensors["features"] @ tensors["weight"].t()
    best, words = logits.topk(2, dim=1)
    assert (best[:, 0] == best[:, 1]).sum() > 100 and (words == BOS).any()
    correct = ((logits.argmax(dim=1) == tensors["target"]) & (tensors["target"] != PAD)).sum().item()
    for n in (1, 4):
        values, _ = run(tensors, implementation, support_size=n, alpha=0.3, **FORMS[form])
        assert Statistics(*values[4:]).n_correct == correct


@pytest.mark.parametrize("form", [form for form in FORMS if "random" not in form])  # which draws for padding, too
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("implementation", ["fused", "compiled"])
def test_where_no_number_may_be_read_it_is_the_same(form, alpha, bias, implementation, monkeypatch):
    """As on a GPU: padding is not taken out, but counts for nothing, and each token has its own row of soft targets."""
    tensors = batch(bias=bias)
    tensors["target"][5] = BOS
    tensors["features"][0] = tensors["teacher_features"][0] = math.nan  # of a token that is ignored
    for label_smoothing, chunk_size, n in ((0.1, 5, 4), (0.0, None, 1)):
        arguments = dict(
            FORMS[form], alpha=alpha, label_smoothing=label_smoothing, chunk_size=chunk_size, support_size=n,
            temperature=0.4, min_target_prob=0.3,
        )  # fmt: skip
        expected_values, expected_grads = run(tensors, "reference", upstream=3.0, **arguments)
        with monkeypatch.context() as patch:
            for module in ("self_kd_loss", "fused_linear_loss", "fused_full_targets"):
                patch.setattr(sys.modules[f"selfkd_fairseq.core.{module}"], "numbers_at_hand", lambda tensor: False)
            values, grads = run(tensors, implementation, upstream=3.0, **arguments)
        for value, expected in zip(values, expected_values):
            assert value.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
        for name, expected in expected_grads.items():
            assert torch.allclose(grads[name], expected, rtol=1e-12, atol=1e-12), name


@pytest.mark.parametrize("form", ["predicted", "nearest, cosine, self, within, T 2", "full, self, T 2", "full"])
def test_compiled_passes_are_compiled_and_the_same(form, really_compiled):
    """Nothing is compiled for an alpha or a number of tokens, which change; validations come between updates."""
    torch._dynamo.utils.counters.clear()
    for alpha in (0.1, 0.2, 0.3):
        for tokens in (23, 40):
            tensors = batch(tokens, bias=True)
            assert_same(tensors, implementation="compiled", alpha=alpha, label_smoothing=0.1, **FORMS[form])
            if reads_teacher(FORMS[form]):
                passes, _ = paired(tensors)
                assert_same(passes, implementation="compiled", alpha=alpha, paired=True, chunk_size=16, **FORMS[form])
            assert_same(tensors, implementation="compiled", alpha=alpha, needs=(), chunk_size=9, **FORMS[form])
    functions = 1 if form.startswith("full") else 4
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 5 * functions  # of 8 that torch allows


@pytest.mark.parametrize("is_there", [False, True])
def test_auto_compiles_where_a_gpu_can(is_there, monkeypatch):
    """On a CPU it does not; where a compiler does not work, a warning says so, and eager passes take over."""
    seen = []
    monkeypatch.setattr(sys.modules["selfkd_fairseq.core.chunk_passes"], "compiled", lambda f: seen.append(f) or f)
    assert_same(batch(), implementation="auto", alpha=0.3)
    assert not seen and not can_compile("cpu")
    monkeypatch.setattr(sys.modules["selfkd_fairseq.core.self_kd_loss"], "can_compile", lambda device: is_there)
    assert_same(batch(), implementation="auto", alpha=0.3)
    assert bool(seen) == is_there


def test_a_loss_on_a_cpu_imports_no_compiler():
    """It would take a second, of the first update."""
    program = """
import sys, torch
from selfkd_fairseq.core import self_kd_loss
features, weight = (torch.randn(n, 4, requires_grad=True) for n in (5, 9))
self_kd_loss(features, weight, torch.arange(5), alpha=0.5).loss.backward()
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_gpu_without_a_compiler_is_said_once(monkeypatch):
    def broken(function):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    can_compile.cache_clear()
    assert not can_compile("cuda")  # with TORCHDYNAMO_DISABLE=1 nothing is tried
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "0")
    monkeypatch.setattr(sys.modules["selfkd_fairseq.core.compiled_rows"], "compiled", broken)
    can_compile.cache_clear()
    with pytest.warns(UserWarning, match="does not work here, the loss takes more time: Failed to find C compiler.$"):
        assert not can_compile("cuda")
    assert not can_compile("cuda")
    can_compile.cache_clear()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_equals_the_definition(form, implementation, alpha, floor):
    tensors = batch(bias=True)
    tensors["target"][5] = BOS  # an excluded word is in a support as the target
    options = dict(FORMS[form], support_size=3, temperature=0.6, min_target_prob=floor)
    values, grads = run(tensors, implementation, alpha=alpha, label_smoothing=0.1, chunk_size=8, **options)
    features, teacher, weight, bias = (
        tensors[name].numpy() for name in ("features", "teacher_features", "weight", "bias")
    )
    expected = definition.losses(
        features @ weight.T + bias, weight, tensors["target"], alpha=alpha, label_smoothing=0.1, pad=PAD,
        excluded=(BOS,), teacher_logits=teacher @ weight.T + bias, **options,
        **chance.of_form(options, tensors["weight"], tensors["target"], 3, (BOS, PAD), SEED, ignore_index=PAD),
    )  # fmt: skip
    found = [value.item() for value in values]
    assert found == pytest.approx([*expected.sums, *expected.statistics.values()], rel=1e-12, abs=1e-12)
    dz = expected.gradient
    for name, gradient in (("features", dz @ weight), ("weight", dz.T @ features), ("bias", dz.sum(axis=0))):
        assert abs(grads[name].numpy() - gradient).max() < 1e-12, name


@pytest.mark.parametrize("implementation", ["fused", "compiled"])
@pytest.mark.parametrize("temperature", [1e-9, 1e-6, 1e-3])
def test_rows_of_one_direction_whose_cosine_is_rounded_above_1(implementation, temperature):
    """However little the temperature leaves of other words, none of them takes all."""
    tensors = batch(24, 50, 8, dtype=torch.float32)
    tensors["weight"][25:] = tensors["weight"][:25]
    options = {"support": "full", "similarity": "cosine", "min_target_prob": 0.0, "temperature": temperature}
    values, grads = run(tensors, implementation, alpha=0.5, **options)
    expected, _ = run(tensors, "reference", alpha=0.5, **options)
    assert values[3].item() == pytest.approx(expected[3].item(), rel=0.05)  # which of two equal words is chance
    assert all(gradient.isfinite().all() for gradient in grads.values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("upstream", [0.0, -1.0, 2.5])
def test_upstream_gradient(form, upstream):
    assert_same(batch(bias=True), **FORMS[form], alpha=0.4, label_smoothing=0.1, upstream=upstream)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("needs", [("features",), ("weight",), ("bias",), ("features", "bias"), ()])
def test_any_combination_of_inputs_that_need_a_gradient(form, needs):
    assert_same(batch(bias=True), **FORMS[form], alpha=0.4, label_smoothing=0.1, needs=needs, chunk_size=7)


@pytest.mark.parametrize("form", [name for name, options in FORMS.items() if reads_teacher(options)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_gradient_flows_through_the_teacher(form, implementation):
    """Not into its features, and not through them into the matrix that makes its logits."""
    tensors, needs = batch(bias=True), ("features", "weight", "bias")
    _, expected = run(tensors, implementation, **FORMS[form], alpha=0.4, needs=needs)
    _, found = run(tensors, implementation, **FORMS[form], alpha=0.4, needs=(*needs, "teacher_features"))
    assert found.keys() == set(needs)
    assert all(torch.equal(found[name], expected[name]) for name in needs)


def paired(tensors):
    """Two passes, one below the other; and the same with the features of the other pass beside each."""
    one, two = tensors["features"], tensors["teacher_features"]
    passes = {
        **tensors, "features": torch.stack([one, two], dim=1).flatten(0, 1),
        "target": tensors["target"].repeat_interleave(2),
    }  # fmt: skip
    del passes["teacher_features"]
    return passes, {**passes, "teacher_features": torch.stack([two, one], dim=1).flatten(0, 1)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("implementation", [*IMPLEMENTATIONS, "fused, as on a GPU", "compiled, as on a GPU"])
@pytest.mark.parametrize("bias", [False, True])
def test_two_passes_that_are_teachers_of_each_other(form, implementation, bias, monkeypatch):
    """The same as with the features of the other pass given for each: the reference, in every number."""
    for tokens, chunk_size in ((23, None), (23, 1), (23, 5), (23, 8), (1, None), (0, None)):
        passes, explicit = paired(batch(tokens, bias=bias))
        arguments = dict(FORMS[form], alpha=0.4, label_smoothing=0.1, chunk_size=chunk_size, support_size=3)
        expected_values, expected_grads = run(explicit, "reference", **arguments)
        name, _, on_gpu = implementation.partition(", ")
        if on_gpu and "random" in form:
            continue  # which draws for padding, too
        with monkeypatch.context() as patch:
            for module in ("self_kd_loss", "fused_linear_loss", "fused_full_targets") if on_gpu else ():
                patch.setattr(sys.modules[f"selfkd_fairseq.core.{module}"], "numbers_at_hand", lambda tensor: False)
            values, grads = run(passes, name, paired=True, **arguments)
        for value, expected in zip(values, expected_values):
            assert value.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
        assert grads.keys() == expected_grads.keys()
        for tensor, expected in expected_grads.items():
            assert torch.allclose(grads[tensor], expected, rtol=1e-12, atol=1e-12), tensor


@pytest.mark.parametrize("form", [name for name, options in FORMS.items() if reads_teacher(options)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_two_passes_in_half_precision(form, dtype):
    """As near to float32 as with the features of the other pass given for each, but for rounding of its logits."""
    tensors = batch(60, 300, 32, dtype=torch.float32, bias=True)
    tensors = {name: x.to(dtype).float() if x.is_floating_point() else x for name, x in tensors.items()}
    passes, explicit = paired(tensors)
    arguments = dict(FORMS[form], alpha=0.4, label_smoothing=0.1)
    if "random" in form:
        arguments["support"] = "predicted"
    expected_values, expected_grads = run(explicit, "reference", **arguments)
    low = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in passes.items()}
    values, grads = run(low, "fused", paired=True, **arguments)
    tolerance = 0.005 if dtype == torch.float16 else 0.04
    for value, expected in zip(values[:4], expected_values):
        assert value.item() == pytest.approx(expected.item(), rel=tolerance)
    for name, expected in expected_grads.items():
        assert float((grads[name].float() - expected).norm() / expected.norm()) < tolerance, name


@pytest.mark.parametrize("form", [name for name, options in FORMS.items() if not reads_teacher(options)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_no_option_needs_may_be_left_out(form, implementation):
    tensors = batch()
    values, _ = run(tensors, implementation, **FORMS[form], alpha=0.4)
    del tensors["teacher_features"]
    alone, _ = run(tensors, implementation, **FORMS[form], alpha=0.4)
    assert [value.item() for value in alone] == [value.item() for value in values]


@pytest.mark.parametrize("form", FORMS)
def test_all_padding_and_one_token(form):
    tensors = batch(bias=True)
    tensors["target"] = torch.full_like(tensors["target"], PAD)
    assert_same(tensors, **FORMS[form], alpha=0.4, label_smoothing=0.1)
    values, grads = run(tensors, "fused", **FORMS[form], alpha=0.4)
    assert values[0].item() == 0.0 and all(grad.abs().sum().item() == 0.0 for grad in grads.values())
    tensors["target"][6] = 9
    assert_same(tensors, **FORMS[form], alpha=0.4, label_smoothing=0.1)


@pytest.mark.parametrize("form", FORMS)
def test_tied_embedding_gets_both_gradients(form):
    grads = {}
    for implementation in IMPLEMENTATIONS:
        table = batch()["weight"].clone().requires_grad_()
        words = torch.tensor([3, 5, 5, 9, 2])
        features = torch.tanh(table[words])
        loss = self_kd_loss(
            features, table, words.roll(1), teacher_features=torch.sin(table[words]), alpha=0.4, **FORMS[form],
            implementation=implementation, generator=torch.Generator().manual_seed(0),
        ).loss  # fmt: skip
        loss.backward()
        grads[implementation] = table.grad
    assert torch.allclose(grads["fused"], grads["reference"], atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form):
    """For autograd q is a constant, for finite differences it is one only where it does not depend on the input."""
    tensors, options = batch(tokens=6, vocabulary=8, width=3, bias=True), FORMS[form]
    inputs = [tensors[name].clone().requires_grad_() for name in ("features", "weight", "bias")]

    def loss(features, weight, bias, alpha):
        return self_kd_loss(
            features, weight, tensors["target"], bias=bias, alpha=alpha, label_smoothing=0.1, ignore_index=PAD,
            teacher_features=tensors["teacher_features"], chunk_size=4, generator=torch.Generator().manual_seed(0),
            **options,
        ).loss  # fmt: skip

    assert torch.autograd.gradcheck(lambda *inputs: loss(*inputs, 0.0), inputs)
    if options.get("control") == "uniform":  # q is of nothing; and the words of predicted stay for such small steps
        assert torch.autograd.gradcheck(lambda *inputs: loss(*inputs, 0.6), inputs)
    # q does not depend on features: with predicted as long as the order stays, with the others never.
    weight, bias = (leaf.detach() for leaf in inputs[1:])
    assert torch.autograd.gradcheck(lambda features: loss(features, weight, bias, 0.6), inputs[:1])


@pytest.mark.filterwarnings("ignore:Using backward")  # it may keep memory
@pytest.mark.parametrize("form", ["predicted", "full", "full, self, T 2", "predicted, within"])
@pytest.mark.parametrize("way", ["backward", "grad"])
def test_there_is_no_second_derivative_but_in_the_reference(form, way):
    """The gradients are taken in the forward pass: a gradient of them would be 0, and wrong."""

    def gradient_of_gradient(implementation):
        tensors = batch()
        features = tensors.pop("features").requires_grad_()
        loss = self_kd_loss(features, **tensors, alpha=0.4, implementation=implementation, **FORMS[form]).loss
        if way == "backward":
            loss.backward(create_graph=True)
            gradient = features.grad
        else:
            (gradient,) = torch.autograd.grad(loss, features, create_graph=True)
        return torch.autograd.grad(gradient.pow(2).sum(), features)[0]

    second = gradient_of_gradient("reference")
    assert torch.isfinite(second).all() and second.abs().max() > 1e-3
    with pytest.raises(RuntimeError, match=r"no second derivative .*implementation=\"reference\"") as error:
        gradient_of_gradient("fused")
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.integers(0, 12), vocabulary=st.integers(5, 30), width=st.integers(1, 9), n=st.integers(1, 2),
    chunk_size=st.integers(1, 14), form=st.sampled_from(sorted(FORMS)), alpha=st.sampled_from([0.0, 0.3, 1.0]),
    label_smoothing=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 10**6), bias=st.booleans(),
    scale=st.sampled_from(["relative", "absolute"]), floor=st.floats(0, 1), temperature=st.floats(0.05, 20),
    student_temperature=st.floats(0.2, 5), embedding_weight=st.floats(0, 4),
)  # fmt: skip
def test_equals_the_reference_over_shapes(
    tokens, vocabulary, width, n, chunk_size, form, alpha, label_smoothing, seed, bias, scale, floor, temperature,
    student_temperature, embedding_weight,
):  # fmt: skip
    options = dict(FORMS[form])
    if "student_temperature" in options:
        options["student_temperature"] = student_temperature
    if "embedding_weight" in options:
        options["embedding_weight"] = embedding_weight
    assert_same(
        batch(tokens, vocabulary, width, seed, bias=bias), tolerance=1e-7 if "full" in form else 1e-9, **options,
        support_size=n, chunk_size=chunk_size, alpha=alpha, label_smoothing=label_smoothing, temperature_scale=scale,
        min_target_prob=floor, temperature=temperature,
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_near_to_float32_as_the_naive_loss(form, dtype):
    # Zero-mean features that make a peaked distribution, so that rounding shows.
    exact = batch(tokens=120, vocabulary=300, width=32, dtype=torch.float32)
    exact["features"] *= 0.7
    half = {name: t.to(dtype) if t.is_floating_point() else t for name, t in exact.items()}
    rounded = {name: t.float() if t.is_floating_point() else t for name, t in half.items()}
    arguments = dict(FORMS[form], alpha=0.4, label_smoothing=0.1, chunk_size=50)
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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss_scale", [128.0, 1024.0])
def test_small_gradients_survive_float16_with_a_loss_scale(form, loss_scale):
    """The scale of fairseq's --fp16 comes with the upstream gradient, after these gradients were taken."""
    exact = batch(tokens=100, vocabulary=1500, width=64, dtype=torch.float32)
    exact["target"] = exact["target"].clamp_min(2)
    # A peaked, mostly right model: most probabilities lie below what float16 holds without a scale.
    exact["features"] = 0.4 * exact["weight"][exact["target"]]
    exact["teacher_features"] = 0.4 * exact["weight"][exact["target"]]
    half = {name: t.half() if t.is_floating_point() else t for name, t in exact.items()}
    rounded = {name: t.double() if t.is_floating_point() else t for name, t in half.items()}
    arguments = dict(FORMS[form], alpha=0.4, upstream=loss_scale)
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


@pytest.mark.parametrize("form", FORMS)
def test_autocast(form):
    options = FORMS[form]
    tensors = batch(tokens=60, vocabulary=200, width=16, dtype=torch.float32, bias=True)
    plain, plain_grads = run(tensors, "fused", **options, alpha=0.4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, low_grads = run(tensors, "fused", **options, alpha=0.4)
    assert low[0].dtype == torch.float32 and all(grad.dtype == torch.float32 for grad in low_grads.values())
    assert low[0].item() == pytest.approx(plain[0].item(), rel=2e-2)
    assert low[0].item() != plain[0].item()
    # What soft targets take from the matrix they take from it as it is, not as autocast rounds it.
    if options.get("support", "predicted") != "predicted" and not reads_teacher(options):
        assert low[6].item() == plain[6].item()
    for name, grad in plain_grads.items():
        assert ((low_grads[name] - grad).norm() / grad.norm()).item() < 5e-2, name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ["features", "weight", "bias", "teacher_features"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_not_hidden(form, implementation, name, value):
    tensors = batch(bias=True)
    tensors[name].view(-1)[17 if name == "weight" else 3] = value
    tensors["target"][:] = 2
    values, _ = run(tensors, implementation, **FORMS[form], alpha=0.4)
    is_read = name != "teacher_features" or reads_teacher(FORMS[form])
    if is_read and not (name == "teacher_features" and value == math.inf):  # a word may well be impossible
        assert not math.isfinite(values[0].item())
    elif not is_read:
        assert math.isfinite(values[0].item())


@pytest.mark.parametrize("form", [name for name, options in FORMS.items() if reads_teacher(options)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("token", [2, 3])  # one token, in either pass
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_of_either_pass_are_not_hidden(form, implementation, token, value):
    passes, _ = paired(batch())
    passes["features"][token], passes["target"][:] = value, 2
    values, _ = run(passes, implementation, paired=True, **FORMS[form], alpha=0.4)
    assert not math.isfinite(values[0].item())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_temperature_that_is_allowed_gives_a_finite_loss(form, dtype):
    """In units of a temperature near 0 distances would be infinite, and q log q of such a word NaN."""
    tensors = batch(dtype=dtype, bias=True)
    tensors["weight"] *= 10
    softened = FORMS[form].get("support") == "full" or FORMS[form].get("normalise") == "support"
    for temperature in (1e-300, 1e-20, 1e-3, 1e300):
        for student_temperature in (1e-3, 1e3) if softened else (1.0,):
            extremes = {"temperature": temperature, "student_temperature": student_temperature}
            for weight in (1e-3, 1e3) if reads_teacher(FORMS[form]) and "alone" not in form else (0.0,):
                arguments = {**FORMS[form], **extremes, "embedding_weight": weight, "alpha": 0.4}
                for implementation in IMPLEMENTATIONS:
                    values, grads = run(tensors, implementation, **arguments)
                    assert all(torch.isfinite(value) for value in [*values, *(g.abs().max() for g in grads.values())])


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


@pytest.mark.parametrize(
    "form, chunk_size",
    [("predicted", 64), ("nearest, cosine, self, within, T 2", 64), ("full, cosine, self, shuffled, T 2", 16)],
)
def test_memory_stays_far_below_that_of_the_logits(form, chunk_size):
    """Peak extra memory of forward and backward, against one (N, V) tensor."""
    tokens, vocabulary, width = 1024, 8000, 16
    tensors = batch(tokens, vocabulary, width, dtype=torch.float32)
    features, weight = tensors["features"].requires_grad_(), tensors["weight"].requires_grad_()
    neighbours = (torch.arange(vocabulary) ^ 1).unsqueeze(1)

    def peak(implementation):
        def forward_and_backward():
            self_kd_loss(
                features, weight, tensors["target"], alpha=0.4, label_smoothing=0.1, implementation=implementation,
                chunk_size=chunk_size, teacher_features=tensors["teacher_features"], neighbours=neighbours,
                **FORMS[form],
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
        (
            dict(teacher_features=torch.zeros(22, 6, dtype=torch.float64)),
            "teacher_features must be (N, d) as features (23, 6), got (22, 6)",
        ),
        (
            dict(teacher_features=torch.zeros(23, 6)),
            "features, weight, bias and teacher_features must be of one dtype, got torch.float32, torch.float64",
        ),
        (
            dict(teacher_features=torch.zeros(23, 6).long()),
            "teacher_features must be float16, bfloat16, float32 or float64, got torch.int64",
        ),
        (
            dict(teacher_features=None, teacher="self"),
            "the teacher self needs teacher_features, those of another pass",
        ),
        (
            dict(normalise="support", support="full"),
            "normalise support needs a support of some words, got support full, which is all of them",
        ),
        (
            dict(student_temperature=2.0),
            "a student_temperature other than 1 needs support full or normalise support, got 2.0 with support "
            "predicted and normalise vocabulary",
        ),
        (
            dict(paired=True, teacher="self"),
            "paired features are each other's teacher_features, which must be left out",
        ),
        (
            dict(paired=True, teacher="self", teacher_features=None),
            "paired features must be two rows of each token, one after the other, with the same target",
        ),
        (dict(target=torch.zeros(23)), "target must be int64 word ids, got torch.float32"),
        (dict(target=torch.full((23,), 17)), "target must be in [0, 17), got 17"),
        (dict(alpha=1.2), "alpha must be in [0, 1], got 1.2"),
        (dict(label_smoothing=-0.1), "label_smoothing must be in [0, 1), got -0.1"),
        (dict(chunk_size=0), "chunk_size must be at least 1, got 0"),
        (dict(implementation="fast"), "implementation must be one of auto, fused, compiled, reference, got 'fast'"),
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


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_an_unknown_option_is_named(implementation):
    with pytest.raises(TypeError, match="'tau'"):
        self_kd_loss(**batch(), alpha=0.5, implementation=implementation, tau=1.0)
