import math

import numpy as np
import pytest
import torch

from selfkd_fairseq.core import SelfKDOptions, self_kd_loss_from_logits
from tests.core import chance
from tests.core.forms import FORMS, reads_teacher
from tests.definition import losses

PAD, BOS, SEED = 1, 0, 3


def batch(tokens=23, vocabulary=17, width=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(tokens, vocabulary, dtype=dtype, generator=generator)
    weight = torch.randn(vocabulary, width, dtype=dtype, generator=generator)
    target = torch.randint(2, vocabulary, (tokens,), generator=generator)
    target[::5] = PAD
    return logits.requires_grad_(), weight.requires_grad_(), target


def teacher_of(logits):
    """What the model says without dropout, (N, V): other logits."""
    generator = torch.Generator().manual_seed(8)
    return logits.detach() + torch.randn(logits.shape, dtype=logits.dtype, generator=generator)


def loss_of(form, logits, weight, target, **arguments):
    """The loss of a form, with n and tau among the other arguments."""
    options = SelfKDOptions(**FORMS[form])._replace(
        **{name: arguments.pop(name) for name in SelfKDOptions._fields if name in arguments}
    )
    return self_kd_loss_from_logits(
        logits, weight, target, options=options, ignore_index=PAD, excluded=(BOS,),
        teacher_logits=teacher_of(logits), generator=torch.Generator().manual_seed(SEED),
        **arguments,
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 4])
def test_loss_and_gradient_equal_the_definition(form, alpha, label_smoothing, n):
    logits, weight, target = batch()
    arguments = dict(alpha=alpha, label_smoothing=label_smoothing)
    result = loss_of(form, logits, weight, target, support_size=n, temperature=0.8, **arguments)
    result.loss.backward()
    chosen = chance.of_form(FORMS[form], weight, target, n, (BOS, PAD), SEED, ignore_index=PAD)
    expected = losses(
        logits.detach().numpy(), weight.detach().numpy(), target, pad=PAD, excluded=(BOS,),
        teacher_logits=teacher_of(logits).numpy(), **arguments, **chosen,
        **{**FORMS[form], "support_size": n, "temperature": 0.8},
    )  # fmt: skip
    found = [result.loss, result.ce_loss, result.nll_loss, result.skd_loss]
    assert [v.item() for v in found] == pytest.approx(expected.sums, rel=1e-13, abs=1e-13)
    statistics = [v.item() for v in result.statistics]
    assert statistics == pytest.approx(list(expected.statistics.values()), rel=1e-13, abs=1e-13)
    assert np.abs(logits.grad.numpy() - expected.gradient).max() < 1e-13
    assert weight.grad is None


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(alpha):
    """L_SKD is a divergence: 0 there, and above 0 elsewhere. The floor would be another teacher."""
    logits, weight, target = batch()
    options = SelfKDOptions("full", teacher="self", embedding_weight=0.0, student_temperature=2.0, min_target_prob=0.0)
    arguments = dict(alpha=alpha, options=options, ignore_index=PAD)
    # Padding is in no support: to be its own teacher the model has to find it impossible.
    logits = logits.detach().index_fill(1, torch.tensor([PAD]), -1e4).requires_grad_()
    result = self_kd_loss_from_logits(logits, weight, target, teacher_logits=logits.detach(), **arguments)
    assert result.skd_loss.item() == pytest.approx(0.0, abs=1e-12)
    skd_gradient = torch.autograd.grad(result.loss - (1 - alpha) * result.ce_loss, logits)[0]
    assert skd_gradient.abs().max().item() < 1e-14
    other = self_kd_loss_from_logits(logits, weight, target, teacher_logits=teacher_of(logits), **arguments)
    assert other.skd_loss.item() > 1.0


@pytest.mark.parametrize("temperature", [10.0, 1e3])
def test_the_size_of_the_gradient_stays_when_the_temperature_rises(temperature):
    """T^2 is for that: the gradient goes to a limit, (z - its mean) / V less what the soft targets say."""
    logits, weight, target = batch()
    options = SelfKDOptions("full", control="uniform", min_target_prob=0.0, student_temperature=temperature)
    result = self_kd_loss_from_logits(logits, weight, target, alpha=1.0, options=options)
    result.loss.backward()
    centred = logits.detach() - logits.detach().mean(dim=1, keepdim=True)
    assert torch.allclose(logits.grad, centred / 17, atol=2.0 / temperature)


@pytest.mark.parametrize("support_size", [1, 3])
def test_within_the_support_other_words_feel_the_cross_entropy_alone(support_size):
    logits, weight, target = batch()
    result = loss_of("predicted, within", logits, weight, target, alpha=1.0, support_size=support_size)
    result.loss.backward()
    touched = (logits.grad != 0).sum(dim=1)
    assert touched.tolist() == [0 if word == PAD else support_size + 1 for word in target.tolist()]
    assert logits.grad.sum(dim=1).abs().max().item() < 1e-14  # probability is moved among the words


def test_statistics_are_sums_over_the_tokens_that_count():
    # Two words on a line at distance 2, the third far off; tau' = 1 absolute.
    weight = torch.tensor([[0.0], [0.0], [0.0], [2.0], [9.0]])
    logits = torch.tensor([[0, 0, 0, 5.0, 0], [0, 0, 5.0, 0, 0], [0, 0, 0, 0, 5.0]])
    target = torch.tensor([2, 2, PAD])
    result = self_kd_loss_from_logits(
        logits,
        weight,
        target,
        alpha=0.5,
        options=SelfKDOptions(temperature_scale="absolute"),
        ignore_index=PAD,
        excluded=(BOS,),
    )
    statistics = result.statistics
    assert (int(statistics.ntokens), int(statistics.n_correct), int(statistics.num_pairs)) == (2, 1, 1)
    assert float(statistics.measure) == 2.0
    assert float(statistics.target_prob) == pytest.approx(1 / (1 + math.exp(-2.0)) + 1.0)


@pytest.mark.parametrize("form", FORMS)
def test_what_was_not_read_has_no_pairs(form):
    logits, weight, target = batch()
    result = loss_of(form, logits, weight, target, alpha=0.5)
    reads_space = "uniform" not in form and "self alone" not in form
    assert bool(result.statistics.num_pairs > 0) == reads_space == bool(result.statistics.measure != 0)
    neighbours = torch.full((17, 1), 7) if FORMS[form].get("support") == "nearest" else None  # its words are of W, too
    spoilt = loss_of(form, logits, weight * math.nan, target, alpha=0.5, neighbours=neighbours)
    assert math.isfinite(spoilt.loss.item()) == (not reads_space)


@pytest.mark.parametrize("form", FORMS)
def test_reduction_none_keeps_the_shape_and_sums_to_the_same(form):
    logits, weight, target = batch()
    arguments = dict(alpha=0.3, label_smoothing=0.1)
    summed = loss_of(form, logits, weight, target, **arguments)
    per_token = loss_of(form, logits, weight, target, reduction="none", **arguments)
    for name in ("loss", "ce_loss", "nll_loss", "skd_loss"):
        values = getattr(per_token, name)
        assert values.shape == target.shape
        assert values[target == PAD].tolist() == [0.0] * int((target == PAD).sum())
        assert values.sum().item() == pytest.approx(getattr(summed, name).item(), rel=1e-14)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [0, 1])
def test_no_token_and_one_token(form, tokens):
    logits, weight, target = batch(tokens=6)
    target[:] = PAD
    target[:tokens] = 4
    result = loss_of(form, logits, weight, target, alpha=0.5)
    result.loss.backward()
    assert int(result.statistics.ntokens) == tokens
    assert (result.loss.item() == 0.0) == (tokens == 0)
    assert logits.grad[tokens:].abs().sum().item() == 0.0


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form):
    logits, weight, target = batch(tokens=3, vocabulary=6)
    teacher = teacher_of(logits)
    # q is a constant for autograd, and finite differences must see it as one: alpha acts on log p alone,
    # which holds as long as the steps do not change which word is most probable.
    arguments = dict(alpha=0.4, label_smoothing=0.1, ignore_index=PAD, options=SelfKDOptions(**FORMS[form]))

    def loss(z):
        generator = torch.Generator().manual_seed(SEED)
        return self_kd_loss_from_logits(
            z, weight, target, teacher_logits=teacher, generator=generator, **arguments
        ).loss  # fmt: skip

    assert torch.autograd.gradcheck(loss, (logits,))


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_reduced_in_float32(form):
    logits, weight, target = batch(tokens=200, vocabulary=101, dtype=torch.float32)
    teacher = teacher_of(logits).half()
    arguments = dict(alpha=0.4, ignore_index=PAD, options=SelfKDOptions(**FORMS[form]))
    half, same = (
        self_kd_loss_from_logits(
            to(logits.half()), to(weight.half()), target, teacher_logits=to(teacher),
            generator=torch.Generator().manual_seed(SEED), **arguments,
        )
        for to in (lambda tensor: tensor, lambda tensor: tensor.float())
    )  # fmt: skip
    assert half.loss.dtype == torch.float32
    assert half.loss.item() == pytest.approx(same.loss.item(), rel=1e-6)


@pytest.mark.parametrize("form", [name for name, options in FORMS.items() if reads_teacher(options)])
def test_nan_of_the_teacher_is_not_hidden(form):
    logits, weight, target = batch()
    teacher = teacher_of(logits)
    teacher[2, int(target[2])] = math.nan
    options = SelfKDOptions(**FORMS[form])
    result = self_kd_loss_from_logits(logits, weight, target, alpha=0.4, options=options, teacher_logits=teacher)
    assert math.isnan(result.loss.item())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["logits", "weight"])
def test_nan_and_infinity_are_not_hidden(value, where):
    logits, weight, target = (t.detach() for t in batch(tokens=4))
    # The target of token 1, and the word that it will be paired with.
    target[:] = torch.tensor([PAD, 3, 4, 5])
    logits[1, 7] = 50.0
    if where == "logits":
        logits[1, 3] = value
    else:
        weight[7, 0] = value
    result = self_kd_loss_from_logits(logits, weight, target, alpha=0.4, ignore_index=PAD)
    assert not math.isfinite(result.loss.item())


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(alpha=-0.1), "alpha must be in [0, 1], got -0.1"),
        (dict(label_smoothing=1.0), "label_smoothing must be in [0, 1), got 1.0"),
        (dict(reduction="mean"), "reduction must be 'sum' or 'none', got 'mean'"),
        (dict(target=torch.zeros(3, dtype=torch.long)), "logits must be (N, V) and target (N,), got (23, 17) and (3,)"),
        (
            dict(weight=torch.zeros(16, 5)),
            "weight must be (V, d) with the V of logits, got (16, 5) and logits (23, 17)",
        ),
        (
            dict(options=SelfKDOptions(support_size=17)),
            "support_size must be less than the vocabulary size 17, got 17",
        ),
        (
            dict(options=SelfKDOptions(teacher="self")),
            "the teacher self needs teacher_logits (N, V) as logits (23, 17), got None",
        ),
        (
            dict(options=SelfKDOptions(teacher="self"), teacher_logits=torch.zeros(23, 16)),
            "the teacher self needs teacher_logits (N, V) as logits (23, 17), got (23, 16)",
        ),
        (
            dict(options=SelfKDOptions("full", normalise="support")),
            "normalise support needs a support of some words, got support full, which is all of them",
        ),
        (
            dict(options=SelfKDOptions("nearest", student_temperature=0.5)),
            "a student_temperature other than 1 needs support full or normalise support, got 0.5 with support nearest "
            "and normalise vocabulary",
        ),
    ],
)
def test_bad_arguments_are_named(changes, message):
    logits, weight, target = batch()
    arguments = dict(logits=logits, weight=weight, target=target, alpha=0.5)
    arguments.update(changes)
    with pytest.raises(ValueError) as error:
        self_kd_loss_from_logits(**arguments)
    assert str(error.value) == message
