"""The parts of AWD-LSTM against loops over time steps, units and positions that are written out here."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfkd_fairseq.models.lstm_regularisation import (
    EmbeddingDropout,
    LockedDropout,
    WeightDropLSTM,
    activation_regularisation,
    check_probability,
    temporal_activation_regularisation,
)


def drawn(seed, p, *shapes):
    """The masks (0 or 1 / (1 - p)) that torch's dropout draws for tensors of these shapes, one after the other."""
    torch.manual_seed(seed)
    return [F.dropout(torch.ones(*shape, dtype=torch.float64), p) for shape in shapes]


def lstm_by_hand(weights, x, state=None):
    """An LSTM written out; the gates are in the order input, forget, cell, output.

    weights are (W_ih, W_hh, b_ih, b_hh) of each layer, x is (T, B, inputs), state h and c (layers, B, units); returns
    outputs (T, B, units), h and c.
    """
    units, last_h, last_c = weights[0][1].size(1), [], []
    for layer, (w_ih, w_hh, b_ih, b_hh) in enumerate(weights):
        h = c = x.new_zeros(x.size(1), units)
        if state is not None:
            h, c = state[0][layer], state[1][layer]
        outputs = []
        for x_t in x:
            gates = x_t @ w_ih.T + b_ih + h @ w_hh.T + b_hh
            i, f, g, o = (gates[:, k * units : (k + 1) * units] for k in range(4))
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        x = torch.stack(outputs)
        last_h.append(h)
        last_c.append(c)
    return x, torch.stack(last_h), torch.stack(last_c)


# ------------------------------------------------------------------------------------------------------ WeightDropLSTM

INPUTS, UNITS, STEPS, STREAMS = 3, 5, 4, 2


def lstm(layers=2, weight_dropout=0.4, seed=0, **keywords):
    torch.manual_seed(seed)
    return WeightDropLSTM(INPUTS, UNITS, num_layers=layers, weight_dropout=weight_dropout, **keywords).double()


def stock_twin(module):
    twin = nn.LSTM(module.input_size, module.hidden_size, num_layers=module.num_layers).to(module.weight_ih_l0.dtype)
    twin.load_state_dict(module.state_dict())
    return twin


def data(layers=2, seed=1):
    torch.manual_seed(seed)
    x = torch.randn(STEPS, STREAMS, INPUTS, dtype=torch.float64)
    return x, torch.randn(layers, STREAMS, UNITS, dtype=torch.float64), torch.randn(layers, STREAMS, UNITS).double()


def weights_of(module):
    kinds = ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")
    return [tuple(getattr(module, f"{kind}{layer}") for kind in kinds) for layer in range(module.num_layers)]


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_weight_drop_equals_an_lstm_by_hand_with_masked_recurrent_weights(layers, with_state):
    module = lstm(layers)
    x, h, c = data(layers)
    masks = drawn(7, 0.4, *[(4 * UNITS, UNITS)] * layers)
    assert all(0 < (mask == 0).sum() < mask.numel() for mask in masks)
    inputs = [tensor.clone().requires_grad_() for tensor in (x, h, c)]
    torch.manual_seed(7)
    outputs, (last_h, last_c) = module(inputs[0], tuple(inputs[1:]) if with_state else None)

    by_hand = [[w.detach().clone().requires_grad_() for w in weights] for weights in weights_of(module)]
    inputs_ = [tensor.clone().requires_grad_() for tensor in (x, h, c)]
    masked = [(w_ih, w_hh * mask, b_ih, b_hh) for (w_ih, w_hh, b_ih, b_hh), mask in zip(by_hand, masks)]
    expected = lstm_by_hand(masked, inputs_[0], inputs_[1:] if with_state else None)
    for found, hand in zip((outputs, last_h, last_c), expected):
        assert found.shape == hand.shape
        assert torch.allclose(found, hand, rtol=0, atol=1e-12)

    torch.manual_seed(2)
    upstream = [torch.randn_like(tensor) for tensor in expected]
    torch.autograd.backward((outputs, last_h, last_c), upstream)
    torch.autograd.backward(expected, upstream)
    for weights, hand in zip(weights_of(module), by_hand):
        for weight, reference in zip(weights, hand):
            assert torch.allclose(weight.grad, reference.grad, rtol=0, atol=1e-12)
    for tensor, reference in zip(inputs if with_state else inputs[:1], inputs_):
        assert torch.allclose(tensor.grad, reference.grad, rtol=0, atol=1e-12)
    for layer, mask in enumerate(masks):
        assert (getattr(module, f"weight_hh_l{layer}").grad[mask == 0] == 0).all()


def test_weight_drop_draws_a_new_mask_for_each_call():
    module = lstm()
    x, *_ = data()
    torch.manual_seed(3)
    first, second = module(x)[0], module(x)[0]
    assert not torch.allclose(first, second)
    torch.manual_seed(3)
    assert torch.equal(module(x)[0], first)


def test_weight_drop_masks_the_recurrent_matrices_alone(monkeypatch):
    module = lstm()
    seen, dropout = [], F.dropout

    def recorded(tensor, p, *arguments, **keywords):
        seen.append((tensor, p))
        return dropout(tensor, p, *arguments, **keywords)

    monkeypatch.setattr(F, "dropout", recorded)
    module(data()[0])
    assert len(seen) == 2 and all(p == 0.4 for _, p in seen)
    assert seen[0][0] is module.weight_hh_l0 and seen[1][0] is module.weight_hh_l1


def test_weight_drop_leaves_names_shapes_and_values_of_the_parameters():
    module = lstm()
    stock = nn.LSTM(INPUTS, UNITS, num_layers=2)
    shapes = {name: parameter.shape for name, parameter in stock.named_parameters()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    pointers = {name: parameter.data_ptr() for name, parameter in module.named_parameters()}
    module(data()[0])[0].sum().backward()
    assert {name: parameter.shape for name, parameter in module.named_parameters()} == shapes
    assert list(module.state_dict()) == list(stock.state_dict())
    assert all(isinstance(parameter, nn.Parameter) and parameter.is_leaf for parameter in module.parameters())
    assert {name: parameter.data_ptr() for name, parameter in module.named_parameters()} == pointers
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    x, *_ = data()
    assert torch.equal(module.eval()(x)[0], stock_twin(module)(x)[0])


def test_weight_drop_trains_the_parameters_that_an_optimizer_holds():
    module = lstm(layers=1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    x, *_ = data(1)
    before = module.weight_hh_l0.detach().clone()
    torch.manual_seed(4)
    module(x)[0].sum().backward()
    (mask,) = drawn(4, 0.4, (4 * UNITS, UNITS))
    optimizer.step()
    moved = module.weight_hh_l0.detach() - before
    assert (moved[mask == 0] == 0).all() and (moved[mask > 0] != 0).all()
    # The next call computes with what the optimizer wrote.
    assert torch.allclose(module.eval()(x)[0], lstm_by_hand(weights_of(module), x)[0], rtol=0, atol=1e-12)


def test_weight_drop_after_an_exception_is_as_before():
    module = lstm()
    x, *_ = data()
    expected = stock_twin(module)(x)[0]
    with pytest.raises(RuntimeError):
        module(torch.randn(STEPS, STREAMS, INPUTS + 1, dtype=torch.float64))
    assert all(weight is parameter for weight, parameter in zip(module._flat_weights, module.parameters()))
    assert torch.equal(module.eval()(x)[0], expected)


@pytest.mark.parametrize("weight_dropout, training", [(0.4, False), (0.0, True), (0.0, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weight_drop_without_dropout_is_nn_lstm_bit_for_bit(weight_dropout, training, dtype):
    module = lstm(weight_dropout=weight_dropout).to(dtype).train(training)
    stock = stock_twin(module).train(training)
    x, h, c = (tensor.to(dtype) for tensor in data())
    state = torch.random.get_rng_state()
    results = []
    for lstm_ in (module, stock):
        outputs, last = lstm_(x, (h, c))
        (outputs.sum() + last[1].pow(2).sum()).backward()
        results.append([outputs, *last, *(parameter.grad for parameter in lstm_.parameters())])
    assert len(results[0]) == 3 + 8
    assert all(torch.equal(found, expected) for found, expected in zip(*results))
    assert torch.equal(torch.random.get_rng_state(), state)


def pickled(module):
    return pickle.loads(pickle.dumps(module))


def saved_and_loaded(module):
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = lstm(seed=9)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("change", [copy.deepcopy, pickled, saved_and_loaded, lambda m: m.float().double()])
@pytest.mark.parametrize("used_before", [False, True])
def test_weight_drop_can_be_copied_and_converted(change, used_before):
    module = lstm()
    x, *_ = data()
    if used_before:
        module(x)[0].sum().backward()
        module.zero_grad()
    with torch.no_grad():  # so that float32 holds the values
        for parameter in module.parameters():
            parameter.copy_(parameter.float())
    weights = [[w.detach().clone() for w in layer] for layer in weights_of(module)]
    masks = drawn(5, 0.4, *[(4 * UNITS, UNITS)] * 2)
    masked = [(w_ih, w_hh * mask, b_ih, b_hh) for (w_ih, w_hh, b_ih, b_hh), mask in zip(weights, masks)]
    changed = change(module)
    assert changed.weight_dropout == 0.4
    torch.manual_seed(5)
    assert torch.allclose(changed(x)[0], lstm_by_hand(masked, x)[0], rtol=0, atol=1e-12)
    if changed is not module:  # its weights are its own
        with torch.no_grad():
            changed.weight_hh_l0.zero_()
        assert torch.equal(module.weight_hh_l0, weights[0][1])
        assert torch.allclose(module.eval()(x)[0], lstm_by_hand(weights, x)[0], rtol=0, atol=1e-12)


def test_weight_drop_computes_in_the_dtype_it_was_moved_to():
    module = lstm().to(torch.float32)
    outputs, (h, c) = module(data()[0].float())
    assert {outputs.dtype, h.dtype, c.dtype} == {torch.float32}
    assert all(weight is parameter for weight, parameter in zip(module._flat_weights, module.parameters()))


# ------------------------------------------------------------------------------------------------------- LockedDropout


def test_locked_dropout_by_hand():
    x = torch.randn(6, 3, 40, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(11)
    found = LockedDropout(0.3)(x)
    (mask,) = drawn(11, 0.3, (1, 3, 40))
    assert set(mask.unique().tolist()) == {0.0, 1 / 0.7}
    upstream = torch.randn_like(x)
    found.backward(upstream)
    for t in range(6):
        for b in range(3):
            for d in range(40):
                factor = mask[0, b, d].item()
                assert found[t, b, d].item() == pytest.approx(x[t, b, d].item() * factor, rel=1e-15, abs=0)
                assert x.grad[t, b, d].item() == pytest.approx(upstream[t, b, d].item() * factor, rel=1e-15, abs=0)


def test_locked_dropout_locks_time_and_nothing_else():
    torch.manual_seed(0)
    factors = LockedDropout(0.5)(torch.ones(7, 30, 50))
    assert set(factors.unique().tolist()) == {0.0, 2.0}
    assert all(torch.equal(factors[t], factors[0]) for t in range(7))
    kept = factors[0] > 0  # (streams, units)
    # Neither two streams nor two units share a mask: chance alone would do that once in 2^30 (or 2^50) pairs.
    assert len({tuple(row) for row in kept.tolist()}) == 30
    assert len({tuple(column) for column in kept.t().tolist()}) == 50
    layer = LockedDropout(0.5)
    assert not torch.equal(layer(torch.ones(1, 30, 50)), layer(torch.ones(1, 30, 50)))  # a new mask a window


@pytest.mark.parametrize("p", [0.1, 0.4, 0.75])
def test_locked_dropout_keeps_the_expectation(p):
    torch.manual_seed(1)
    count = 40_000
    factors = LockedDropout(p)(torch.ones(2, 200, 200, dtype=torch.float64))[0]
    # Mean 1 and variance p / (1 - p) of a factor; six standard deviations of the mean.
    assert abs(factors.mean().item() - 1) < 6 * math.sqrt(p / (1 - p) / count)
    assert abs((factors == 0).double().mean().item() - p) < 6 * math.sqrt(p * (1 - p) / count)


@pytest.mark.parametrize("layer", [LockedDropout(0.5).eval(), LockedDropout(0.0)])
def test_locked_dropout_is_the_identity_where_nothing_is_dropped(layer):
    x, state = torch.randn(2, 3, 4), torch.random.get_rng_state()
    assert layer(x) is x
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_locked_dropout_keeps_half_precision(dtype):
    found = LockedDropout(0.5)(torch.ones(2, 3, 4, dtype=dtype))
    assert found.dtype == dtype and set(found.unique().tolist()) <= {0.0, 2.0}


# ---------------------------------------------------------------------------------------------------- EmbeddingDropout

WORDS = torch.tensor([[2, 5, 2], [7, 2, 1], [5, 1, 9], [9, 0, 5]])  # (T, B), all but 3, 4, 6 and 8 of the vocabulary


def embedding(padding_idx=None):
    torch.manual_seed(0)
    return nn.Embedding(10, 4, padding_idx=padding_idx).double()


@pytest.mark.parametrize("padding_idx", [None, 1])
def test_embedding_dropout_masks_the_rows_of_the_matrix(padding_idx):
    table = embedding(padding_idx)
    seed, p = 3, 0.4
    (mask,) = drawn(seed, p, (10, 1))
    present = set(WORDS.flatten().tolist())
    assert any(mask[word] == 0 for word in present) and any(mask[word] > 0 for word in present)
    torch.manual_seed(seed)
    found = EmbeddingDropout(p)(table, WORDS)
    masked = np.array(table.weight.detach()) * np.array(mask)
    assert found.shape == (4, 3, 4)
    assert np.allclose(found.detach().numpy(), masked[WORDS.numpy()], rtol=1e-15, atol=0)

    upstream = torch.randn(4, 3, 4, dtype=torch.float64)
    found.backward(upstream)
    expected = np.zeros((10, 4))
    for t in range(4):
        for b in range(3):
            word = int(WORDS[t, b])
            if word != padding_idx:
                expected[word] += upstream[t, b].numpy() * mask[word].item()
    assert np.allclose(table.weight.grad.numpy(), expected, rtol=1e-14, atol=0)
    assert all((table.weight.grad[word] == 0).all() for word in range(10) if mask[word] == 0)


def test_embedding_dropout_drops_each_occurrence_of_a_word_and_scales_the_others():
    table, layer = embedding(), EmbeddingDropout(0.5)
    patterns = set()
    for seed in range(20):
        torch.manual_seed(seed)
        vectors = layer(table, WORDS)
        factor = {}
        for word, vector in zip(WORDS.flatten().tolist(), vectors.reshape(-1, 4)):
            ratios = (vector / table.weight[word]).tolist()
            assert ratios == pytest.approx([ratios[0]] * 4)  # the whole vector
            assert factor.setdefault(word, ratios[0]) == ratios[0]  # every occurrence
        assert set(factor.values()) <= {0.0, 2.0}
        patterns.add(tuple(sorted(word for word in factor if factor[word] == 0)))
    assert len(patterns) > 10  # a new draw for each window


def test_embedding_dropout_keeps_the_expectation():
    table = nn.Embedding(30_000, 1)
    nn.init.ones_(table.weight)
    torch.manual_seed(2)
    factors = EmbeddingDropout(0.1)(table, torch.arange(30_000)[:, None])
    assert factors.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert abs(factors.mean().item() - 1) < 6 * math.sqrt(0.1 / 0.9 / 30_000)


@pytest.mark.parametrize("layer", [EmbeddingDropout(0.5).eval(), EmbeddingDropout(0.0)])
def test_embedding_dropout_is_a_look_up_where_nothing_is_dropped(layer):
    table = embedding()
    state = torch.random.get_rng_state()
    assert torch.equal(layer(table, WORDS), table.weight[WORDS])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_embedding_dropout_leaves_the_matrix_and_keeps_half_precision():
    table = embedding().half()
    before = table.weight.detach().clone()
    assert EmbeddingDropout(0.5)(table, WORDS).dtype == torch.float16
    assert torch.equal(table.weight, before)


# ----------------------------------------------------------------------------------------------------------- AR and TAR


def ar_by_hand(outputs, counts=None):
    total, positions = 0.0, 0
    steps, streams, width = outputs.shape
    for t in range(steps):
        for b in range(streams):
            if counts is None or counts[t][b]:
                positions += 1
                total += sum(float(outputs[t, b, d]) ** 2 for d in range(width)) / width
    return total / max(positions, 1)


def tar_by_hand(outputs, counts=None):
    total, positions = 0.0, 0
    steps, streams, width = outputs.shape
    for t in range(1, steps):
        for b in range(streams):
            if counts is None or counts[t][b]:
                positions += 1
                changes = (float(outputs[t, b, d]) - float(outputs[t - 1, b, d]) for d in range(width))
                total += sum(change**2 for change in changes) / width
    return total / max(positions, 1)


def gradient_by_differences(by_hand, outputs, counts, step=1e-6):
    gradient = np.zeros_like(outputs)
    for index in np.ndindex(outputs.shape):
        up, down = outputs.copy(), outputs.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (by_hand(up, counts) - by_hand(down, counts)) / (2 * step)
    return gradient


REGULARISERS = [(activation_regularisation, ar_by_hand), (temporal_activation_regularisation, tar_by_hand)]
COUNTS = torch.tensor([[True, True], [True, True], [True, False], [True, False]])


@pytest.mark.parametrize("function, by_hand", REGULARISERS)
@pytest.mark.parametrize("counts", [None, COUNTS, torch.ones_like(COUNTS), torch.zeros_like(COUNTS)])
def test_ar_and_tar_by_hand(function, by_hand, counts):
    torch.manual_seed(0)
    outputs = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    found = function(outputs, counts)
    values = outputs.detach().numpy()
    assert found.shape == () and found.dtype == torch.float64
    assert found.item() == pytest.approx(by_hand(values, counts), rel=1e-14, abs=0)
    found.backward()
    assert np.allclose(outputs.grad.numpy(), gradient_by_differences(by_hand, values, counts), rtol=1e-7, atol=1e-9)


def test_ar_and_tar_of_numbers_worked_out_on_paper():
    outputs = torch.tensor([[[1.0, -1.0], [2.0, 0.0]], [[3.0, 1.0], [2.0, 4.0]]], dtype=torch.float64)
    counts = torch.tensor([[True, True], [True, False]])
    # Squares over d: 1, 2 | 5, 10. Changes: (2, 2), (0, 4): 4, 8.
    assert activation_regularisation(outputs).item() == (1 + 2 + 5 + 10) / 4
    assert activation_regularisation(outputs, counts).item() == pytest.approx((1 + 2 + 5) / 3)
    assert temporal_activation_regularisation(outputs).item() == (4 + 8) / 2
    assert temporal_activation_regularisation(outputs, counts).item() == 4


@pytest.mark.parametrize("counts", [None, torch.ones(1, 2, dtype=torch.bool)])
def test_tar_of_one_time_step_is_zero(counts):
    outputs = torch.randn(1, 2, 3, requires_grad=True)
    found = temporal_activation_regularisation(outputs, counts)
    assert found.item() == 0
    found.backward()
    assert torch.equal(outputs.grad, torch.zeros(1, 2, 3))


@pytest.mark.parametrize("function, by_hand", REGULARISERS)
@pytest.mark.parametrize("counts", [None, torch.ones(2, 8, dtype=torch.bool)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ar_and_tar_of_half_precision_are_taken_in_float32(function, by_hand, counts, dtype):
    # 300^2 is more than float16 can hold and has more digits than bfloat16.
    outputs = torch.full((2, 8, 512), 300.0, dtype=dtype)
    outputs[1] = 0.0
    outputs.requires_grad_()
    found = function(outputs, counts)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(by_hand(outputs.detach().double().numpy(), counts), rel=1e-5)
    found.backward()
    assert outputs.grad.dtype == dtype and torch.isfinite(outputs.grad).all()


# -------------------------------------------------------------------------------------------------------- probabilities


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_probabilities_out_of_range_are_refused(p):
    for make in (LockedDropout, EmbeddingDropout, lambda p: WeightDropLSTM(2, 3, weight_dropout=p)):
        with pytest.raises(ValueError, match="must be at least 0 and below 1, not"):
            make(p)
    with pytest.raises(ValueError, match=f"^rate must be at least 0 and below 1, not {p}$"):
        check_probability("rate", p)


@pytest.mark.parametrize("p", [0, 0.0, 0.5, 0.999])
def test_probabilities_in_range_are_returned(p):
    assert check_probability("rate", p) == p
    assert LockedDropout(p).p == EmbeddingDropout(p).p == WeightDropLSTM(2, 3, weight_dropout=p).weight_dropout == p


def test_print_shows_the_probabilities():
    assert repr(LockedDropout(0.25)) == "LockedDropout(p=0.25)"
    assert repr(EmbeddingDropout(0.25)) == "EmbeddingDropout(p=0.25)"
    assert repr(WeightDropLSTM(2, 3, weight_dropout=0.25)) == "WeightDropLSTM(2, 3, weight_dropout=0.25)"
