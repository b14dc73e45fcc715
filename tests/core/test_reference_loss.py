import math

import numpy as np
import pytest
import torch

from selfkd_fairseq.core import SoftTargetOptions, self_kd_loss_from_logits
from tests.definition import losses

PAD, BOS = 1, 0


def batch(tokens=23, vocabulary=17, width=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(tokens, vocabulary, dtype=dtype, generator=generator)
    weight = torch.randn(vocabulary, width, dtype=dtype, generator=generator)
    target = torch.randint(2, vocabulary, (tokens,), generator=generator)
    target[::5] = PAD
    return logits.requires_grad_(), weight.requires_grad_(), target


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 4])
def test_loss_and_gradient_equal_the_definition(alpha, label_smoothing, n):
    logits, weight, target = batch()
    result = self_kd_loss_from_logits(
        logits,
        weight,
        target,
        alpha=alpha,
        options=SoftTargetOptions(support_size=n, temperature=0.8),
        label_smoothing=label_smoothing,
        ignore_index=PAD,
        excluded=(BOS,),
    )
    result.loss.backward()
    sums, gradient = losses(
        logits.detach().numpy(),
        weight.detach().numpy(),
        target,
        alpha=alpha,
        label_smoothing=label_smoothing,
        pad=PAD,
        excluded=(BOS,),
        n=n,
        tau=0.8,
        relative=True,
        floor=0.5,
    )
    found = [result.loss, result.ce_loss, result.nll_loss, result.skd_loss]
    assert [v.item() for v in found] == pytest.approx(list(sums), rel=1e-13)
    assert np.abs(logits.grad.numpy() - gradient).max() < 1e-13
    assert weight.grad is None


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
        options=SoftTargetOptions(temperature_scale="absolute"),
        ignore_index=PAD,
        excluded=(BOS,),
    )
    statistics = result.statistics
    assert (int(statistics.ntokens), int(statistics.n_correct), int(statistics.num_pairs)) == (2, 1, 1)
    assert float(statistics.distance) == 2.0
    assert float(statistics.target_prob) == pytest.approx(1 / (1 + math.exp(-2.0)) + 1.0)


def test_reduction_none_keeps_the_shape_and_sums_to_the_same():
    logits, weight, target = batch()
    arguments = dict(alpha=0.3, label_smoothing=0.1, ignore_index=PAD, excluded=(BOS,))
    summed = self_kd_loss_from_logits(logits, weight, target, **arguments)
    per_token = self_kd_loss_from_logits(logits, weight, target, reduction="none", **arguments)
    for name in ("loss", "ce_loss", "nll_loss", "skd_loss"):
        values = getattr(per_token, name)
        assert values.shape == target.shape
        assert values[target == PAD].tolist() == [0.0] * int((target == PAD).sum())
        assert values.sum().item() == pytest.approx(getattr(summed, name).item(), rel=1e-14)


@pytest.mark.parametrize("tokens", [0, 1])
def test_no_token_and_one_token(tokens):
    logits, weight, target = batch(tokens=6)
    target[:] = PAD
    target[:tokens] = 4
    result = self_kd_loss_from_logits(logits, weight, target, alpha=0.5, ignore_index=PAD)
    result.loss.backward()
    assert int(result.statistics.ntokens) == tokens
    assert (result.loss.item() == 0.0) == (tokens == 0)
    assert logits.grad[tokens:].abs().sum().item() == 0.0


def test_gradcheck():
    logits, weight, target = batch(tokens=6, vocabulary=8)
    # q is a constant for autograd, and finite differences must see it as one: alpha acts on log p alone,
    # which holds as long as the steps do not change which word is most probable.
    assert torch.autograd.gradcheck(
        lambda z: self_kd_loss_from_logits(z, weight, target, alpha=0.4, label_smoothing=0.1, ignore_index=PAD).loss,
        (logits,),
    )


def test_half_precision_is_reduced_in_float32():
    logits, weight, target = batch(tokens=200, vocabulary=101, dtype=torch.float32)
    half = self_kd_loss_from_logits(logits.half(), weight.half(), target, alpha=0.4, ignore_index=PAD)
    same = self_kd_loss_from_logits(logits.half().float(), weight.half().float(), target, alpha=0.4, ignore_index=PAD)
    assert half.loss.dtype == torch.float32
    assert half.loss.item() == pytest.approx(same.loss.item(), rel=1e-6)


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
            dict(options=SoftTargetOptions(support_size=17)),
            "support_size must be less than the vocabulary size 17, got 17",
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
