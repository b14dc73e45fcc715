"""Random arguments to the loss: ValueError, or a loss of the right shape on which both implementations agree."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import event, given

from selfkd_fairseq.core import (
    CONTROLS,
    IMPLEMENTATIONS,
    NORMALISATIONS,
    SIMILARITIES,
    SUPPORTS,
    TEACHERS,
    TEMPERATURE_SCALES,
    SelfKDOptions,
    alpha_at_update,
    self_kd_loss,
    self_kd_loss_from_logits,
)
from tests.hostile.fuzzing import fuzzed

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
NO_FLOATS = [torch.int64, torch.bool, torch.complex64]
ODD_NUMBERS = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1.0, 2.0, 1e-300, 1e300, -0.0])


def number(low, high):
    """Mostly in a range."""
    return st.integers(0, 23).flatmap(lambda odd: st.floats(low, high) if odd else ODD_NUMBERS)


def mostly(value, *others):
    return st.sampled_from([value] * (30 * len(others)) + list(others))


@st.composite
def tensors(draw):
    """features, weight, bias, target and features of the teacher that fit together, or one of them does not."""
    n, d, v = (
        draw(st.integers(0, 4)),
        draw(mostly(draw(st.integers(1, 3)), 0)),
        draw(st.sampled_from([*range(2, 7), *range(2, 7), 1])),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from(FLOATS * 20 + NO_FLOATS))

    def random(*shape):
        values = 3 * torch.randn(shape, generator=generator)
        return values.to(draw(mostly(dtype, torch.float64)))

    shapes = {"features": (n, d), "weight": (v, d), "bias": (v,), "target": (n,), "teacher_features": (n, d)}
    if draw(st.integers(0, 11)) == 0:
        shapes[draw(st.sampled_from(sorted(shapes)))] = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    found = {name: random(*shapes[name]) for name in ("features", "weight", "bias", "teacher_features")}
    found["teacher_features"] = draw(mostly(found["teacher_features"], None))
    found["bias"] = draw(st.sampled_from([None, found["bias"]]))
    found["target"] = torch.randint(0, v, shapes["target"], generator=generator).to(
        draw(mostly(torch.int64, torch.int32, torch.float32))
    )
    for name in ("features", "weight", "bias", "teacher_features"):
        spoilt = found[name]
        if spoilt is not None and spoilt.numel() and spoilt.dtype.is_floating_point and draw(st.integers(0, 9)) == 0:
            spoilt.view(-1)[0] = draw(st.sampled_from([math.nan, math.inf, -math.inf, 6e4]))
    if found["target"].numel() and draw(st.integers(0, 7)) == 0:
        found["target"].view(-1)[0] = draw(st.sampled_from([-1, -100, v, 2**31 - 1]))
    return found


WORDS = st.one_of(st.integers(-1, 6), st.sampled_from([-100, 2**31, 2**63 - 1, 2**63, 2**70, -(2**70)]))


@st.composite
def options(draw, vocabulary):
    """Options of soft targets that mostly go together; in some one is out of its range, or is any number."""
    support, normalise = draw(st.sampled_from(list(SUPPORTS))), draw(st.sampled_from(NORMALISATIONS))
    if support == "full":
        normalise = draw(mostly("vocabulary", normalise))
    softened = support == "full" or normalise == "support"
    found = {
        "support": support,
        "support_size": draw(st.integers(1, max(1, vocabulary - 1))),
        "temperature": draw(st.floats(1e-3, 10)),
        "temperature_scale": draw(st.sampled_from(TEMPERATURE_SCALES)),
        "min_target_prob": draw(st.floats(0, 1)),
        "similarity": draw(st.sampled_from(list(SIMILARITIES))),
        "teacher": draw(st.sampled_from(TEACHERS)),
        "embedding_weight": draw(st.sampled_from([0.0, 0.5, 3.0, 1000.0])),
        "student_temperature": draw(st.sampled_from([1.0, 0.3, 4.0, 1e-3, 1e3])) if softened else 1.0,
        "normalise": normalise,
        "control": draw(st.sampled_from(CONTROLS)),
    }
    for name in draw(st.lists(st.sampled_from(sorted(found)), max_size=1)) if draw(st.integers(0, 2)) == 0 else []:
        value = found[name]
        odd = st.sampled_from(["other", ""]) if isinstance(value, str) else ODD_NUMBERS
        found[name] = draw(st.sampled_from([0, -1, 7, 2**70]) if isinstance(value, int) else odd)
    return found


@st.composite
def calls(draw):
    given = draw(tensors())
    v = given["weight"].size(0) if given["weight"].dim() else 1
    soft = draw(options(v))
    shape = draw(mostly(v, 2)), draw(mostly(min(abs(soft["support_size"]), 8), 2))
    neighbours = torch.randint(0, max(1, v), shape).to(draw(mostly(torch.int64, torch.int32)))
    if neighbours.numel() and draw(st.integers(0, 5)) == 0:
        neighbours.view(-1)[0] = draw(st.sampled_from([-1, v, 2**31 - 1]))
    return (
        given,
        soft,
        {
            "alpha": draw(number(0, 1)),
            "label_smoothing": draw(number(0, 0.9)),
            "ignore_index": draw(st.sampled_from([None, draw(st.integers(-1, 6)), draw(WORDS)])),
            "excluded": draw(st.lists(WORDS, max_size=3)),
            "neighbours": draw(st.sampled_from([None] * 3 + [neighbours])),
        },
    )


def tried(call, *arguments, **options):
    """The result, or None after the one documented error."""
    try:
        return call(*arguments, **options)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
        return None


def is_finite(*tensors):
    return all(tensor is None or bool(torch.isfinite(tensor).all()) for tensor in tensors)


def check(result, inputs, shape):
    """Sums of the right shape and dtype, which are finite where what went in is finite."""
    for value in result[:4]:
        assert value.shape == shape and value.dtype in (torch.float32, torch.float64)
    if is_finite(*inputs):
        assert is_finite(*result[:4]), result
    return result


@fuzzed(usual=400)
@given(calls(), mostly(None, 0, -1) | st.sampled_from([1, 2, 100]))
def test_loss_from_features(call, chunk_size):
    given, soft, rest = call
    results = {}
    for implementation in IMPLEMENTATIONS:
        inputs = [given[name] for name in ("features", "weight", "bias")]
        inputs = [x.detach().clone().requires_grad_() if x is not None and x.is_floating_point() else x for x in inputs]
        result = tried(
            self_kd_loss,
            inputs[0],
            inputs[1],
            given["target"],
            bias=inputs[2],
            teacher_features=given["teacher_features"],
            **soft,
            **rest,
            chunk_size=chunk_size,
            implementation=implementation,
            generator=torch.Generator().manual_seed(1),
        )
        results[implementation] = result
        if result is None:
            continue
        low = any(x is not None and x.dtype == torch.float16 for x in inputs)  # a logit may be too large for it
        read = [*inputs, given["teacher_features"]]
        moderate = not low or all(x is None or bool((x.detach().abs() < 100).all()) for x in read)
        check(result, read if moderate else [torch.tensor(math.nan)], ())
        if result.loss.requires_grad:
            result.loss.backward()
            for x in inputs:
                assert x is None or x.grad is None or x.grad.shape == x.shape
                if x is not None and x.grad is not None and is_finite(*read) and moderate:
                    assert is_finite(x.grad)
    reference, fused = results["reference"], results["fused"]
    event("refused" if fused is None else "a loss")
    assert (reference is None) == (fused is None)
    if fused is not None and given["weight"].dtype == torch.float64 and is_finite(*read) and moderate:
        for a, b in zip(reference[:4], fused[:4]):
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6)


def logits_of(features, weight, fits):
    fits = fits and not features.is_complex() and features.dim() == 2 and features.size(1) == weight.size(1)
    return (features.double() @ weight.double().t()).to(features.dtype) if fits else features


@fuzzed(usual=400)
@given(calls(), mostly("sum", "none") | mostly("none", "mean"))
def test_loss_from_logits(call, reduction):
    given, soft, rest = call
    features, weight, target = given["features"], given["weight"], given["target"]
    fits = features.dim() == weight.dim() == 2 and features.size(1) == weight.size(1)
    logits, teacher = logits_of(features, weight, fits), given["teacher_features"]
    result = tried(
        self_kd_loss_from_logits,
        logits,
        weight,
        target,
        teacher_logits=None if teacher is None else logits_of(teacher, weight, fits),
        options=SelfKDOptions(**soft),
        **rest,
        reduction=reduction,
        generator=torch.Generator().manual_seed(1),
    )
    if result is not None:
        read = [logits, weight, teacher]
        check(result, read, () if reduction == "sum" else target.shape)
    event("refused" if result is None else "a loss")


WHOLE = st.one_of(st.integers(-3, 10), st.sampled_from([2**70, -(2**70)]))


@fuzzed()
@given(WHOLE, number(0, 1), WHOLE)
def test_alpha(updates, most, warmup):
    alpha = tried(alpha_at_update, updates, alpha_max=most, warmup_updates=warmup)
    assert alpha is None or 0 <= alpha <= most <= 1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nan_in_one_token_is_seen_in_the_sum(implementation):
    features = torch.zeros(3, 2)
    features[1, 0] = math.nan
    result = self_kd_loss(features, torch.eye(4, 2), torch.tensor([0, 1, 2]), alpha=0.5, implementation=implementation)
    assert all(math.isnan(value) for value in result[:4])
