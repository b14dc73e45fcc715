"""AWD-LSTM against a loop over tokens that is written out here, its regularisation included."""

import copy
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from fairseq.models import ARCH_MODEL_REGISTRY
from omegaconf import OmegaConf

from selfkd_fairseq.criterions.model_output import can_give_features
from selfkd_fairseq.criterions.output_embedding import find_output_embedding
from selfkd_fairseq.models.awd_lstm_lm import AWDLSTMConfig, AWDLSTMDecoder, AWDLSTMLanguageModel
from tests import definition
from tests.fairseq_setup import build
from tests.models.test_lstm_lm_zaremba import (
    BPTT,
    LENGTH,
    PTB,
    SELF_KD,
    STREAMS,
    assert_same,
    build_architecture,
    count_calls,
    first_window,
    token_batch,
    vocabulary,
)
from tests.models.test_lstm_regularisation import ar_by_hand, lstm_by_hand, tar_by_hand, weights_of

TINY = ["--arch", "awd_lstm_ptb", "--decoder-embed-dim", "8", "--decoder-hidden-size", "12"]
PAD = 1
TIED = [False, True]


def language_model(tied=True, seed=0, **options):
    settings = dict(
        decoder_embed_dim=5, decoder_hidden_size=6, decoder_layers=3, no_share_decoder_input_output_embed=not tied
    )
    torch.manual_seed(seed)
    model = AWDLSTMLanguageModel(AWDLSTMDecoder(AWDLSTMConfig(**{**settings, **options}), vocabulary())).double()
    with torch.no_grad():
        model.decoder.embed_tokens.weight.mul_(10)  # so that the state matters
        model.decoder.output_projection.bias.uniform_(-1, 1)
    return model


def forward_by_hand(decoder, tokens, state=None, masks=None):
    """What the paper describes, as a dict.

    Args:
        tokens: (B, T).
        state: (h, c) of each layer, (1, B, units) each, one after the other.
        masks: of words, of the embeddings, of W_hh of each layer, between layers, of the outputs; None: no dropout.

    Returns:
        logits (B, T, V), state as above, and the outputs of the last layer (T, B, units), raw and dropped.
    """
    count = len(decoder.layers)
    if masks is None:
        masks = {"words": 1.0, "embeddings": 1.0, "weights": [1.0] * count, "between": [1.0] * count, "outputs": 1.0}
    table = decoder.embed_tokens.weight * masks["words"]
    x = torch.stack([torch.stack([table[word] for word in column]) for column in tokens.t()]) * masks["embeddings"]
    new_state = []
    for i, layer in enumerate(decoder.layers):
        if i > 0:
            x = x * masks["between"][i - 1]
        ((w_ih, w_hh, b_ih, b_hh),) = weights_of(layer)
        start = None if state is None else state[2 * i : 2 * i + 2]
        x, h, c = lstm_by_hand([(w_ih, w_hh * masks["weights"][i], b_ih, b_hh)], x, start)
        new_state += [h, c]
    dropped = x * masks["outputs"]
    logits = dropped @ decoder.output_projection.weight.T + decoder.output_projection.bias
    return {"logits": logits.transpose(0, 1), "state": new_state, "raw": x, "dropped": dropped}


PROBABILITIES = dict(
    embedding_dropout=0.2, input_dropout=0.3, weight_dropout=0.5, hidden_dropout=0.25, dropout=0.4
)  # fmt: skip


def drawn_masks(decoder, streams, seed):
    """The masks of a forward pass after ``torch.manual_seed(seed)``, in the order of the computation."""
    torch.manual_seed(seed)

    def mask(name, *shape):
        return F.dropout(torch.ones(*shape, dtype=torch.float64), PROBABILITIES[name])

    masks = {"words": mask("embedding_dropout", decoder.embed_tokens.num_embeddings, 1), "weights": [], "between": []}
    masks["embeddings"] = mask("input_dropout", 1, streams, decoder.embed_tokens.embedding_dim)
    for i, layer in enumerate(decoder.layers):
        if i > 0:
            masks["between"].append(mask("hidden_dropout", 1, streams, layer.input_size))
        masks["weights"].append(mask("weight_dropout", 4 * layer.hidden_size, layer.hidden_size))
    masks["outputs"] = mask("dropout", 1, streams, decoder.layers[-1].hidden_size)
    return masks


# -------------------------------------------------------------------------------------------------------- architectures


def parameters_by_hand(widths, vocabulary, tied):
    """A layer has four gates with matrices for input and state and two biases; the output has a bias."""
    layers = sum(4 * (outputs * (inputs + outputs) + 2 * outputs) for inputs, outputs in zip(widths, widths[1:]))
    matrices = vocabulary * widths[0] + (0 if tied else vocabulary * widths[-1])
    return layers + matrices + vocabulary


def test_parameter_count_of_the_paper():
    # With the 10,000 words of the authors' own vocabulary; Table 1 of the paper says 24 million.
    assert parameters_by_hand([400, 1150, 1150, 400], 10_000, tied=True) == 24_221_600


# The authors' commands (README of github.com/salesforce/awd-lstm-lm, defaults in its main.py): for PTB
# `--dropouti 0.4 --dropouth 0.25`, for WikiText-2 `--dropouth 0.2` beside the default `--dropouti 0.65`.
@pytest.mark.parametrize(
    "arch, input_dropout, hidden_dropout", [("awd_lstm_ptb", 0.4, 0.25), ("awd_lstm_wikitext2", 0.65, 0.2)]
)
def test_architectures(arch, input_dropout, hidden_dropout, tiny_language_model):
    task = Namespace(target_dictionary=vocabulary(PTB - 4))
    with torch.device("meta"):  # shapes alone
        cfg = build(tiny_language_model, *BPTT, "--arch", arch).cfg.model
        tied = AWDLSTMLanguageModel.build_model(cfg, task)
        cfg.no_share_decoder_input_output_embed = True
        untied = AWDLSTMLanguageModel.build_model(cfg, task)
    assert issubclass(ARCH_MODEL_REGISTRY[arch], AWDLSTMLanguageModel)
    # 24,221,600 and the two words (400 + 1 numbers each) that fairseq's dictionary has more.
    assert sum(p.numel() for p in tied.parameters()) == 24_222_402
    assert sum(p.numel() for p in untied.parameters()) == 43_830_702
    assert parameters_by_hand([400, 1150, 1150, 400], PTB, tied=True) == 24_222_402
    assert parameters_by_hand([400, 1150, 1150, 1150], PTB, tied=False) == 43_830_702
    decoder = tied.decoder
    assert [(m.input_size, m.hidden_size) for m in decoder.layers] == [(400, 1150), (1150, 1150), (1150, 400)]
    assert [layer.weight_dropout for layer in decoder.layers] == [0.5] * 3
    assert (decoder.embedding_dropout.p, decoder.output_dropout.p) == (0.1, 0.4)
    assert (decoder.ar_weight, decoder.tar_weight) == (2.0, 1.0)
    assert decoder.hidden_dropout.p == hidden_dropout
    assert decoder.input_dropout.p == input_dropout


@pytest.mark.parametrize("tied", TIED)
def test_initial_values(tied):
    decoder = build_architecture(
        "awd_lstm_ptb", decoder_embed_dim=60, decoder_hidden_size=90, decoder_layers=2,
        no_share_decoder_input_output_embed=not tied,
    ).decoder  # fmt: skip
    # Embeddings from [-0.1, 0.1], the bias zero, an LSTM from [-1 / sqrt(units), 1 / sqrt(units)] as in PyTorch.
    limits = {"embed_tokens.weight": 0.1, "output_projection.weight": 0.1}
    for layer, units in enumerate([90, 60 if tied else 90]):
        for kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            limits[f"layers.{layer}.{kind}"] = units**-0.5
    values = decoder.state_dict()
    assert (values.pop("output_projection.bias") == 0).all()
    assert values.keys() == limits.keys()
    for name, limit in limits.items():
        assert values[name].abs().max() <= limit, name
        assert -values[name].min() > 0.9 * limit and values[name].max() > 0.9 * limit, name
        assert values[name].std().item() == pytest.approx(limit / 3**0.5, rel=0.15), name
    assert (decoder.output_projection.weight is decoder.embed_tokens.weight) == tied


# -------------------------------------------------------------------------------------------------------------- forward


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_evaluation_by_hand_without_randomness(layers, tied):
    model = language_model(tied, decoder_layers=layers, **PROBABILITIES).eval()
    decoder = model.decoder
    assert [layer.hidden_size for layer in decoder.layers] == [6] * (layers - 1) + [5 if tied else 6]
    tokens, state = token_batch(), torch.random.get_rng_state()
    expected = forward_by_hand(decoder, tokens)
    assert_same(model(tokens)[0], expected["logits"])
    assert_same(model(tokens, starts_stream=True)[0], expected["logits"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert decoder.activation_loss is None and decoder.take_activation_loss() is None
    assert len(decoder._carried[False]) == len(expected["state"]) == 2 * layers
    for found, part in zip(decoder._carried[False], expected["state"]):
        assert_same(found, part)
    features = decoder.extract_features(tokens)[0]
    assert_same(features, expected["raw"].transpose(0, 1))
    assert_same(decoder(tokens, features_only=True)[0], features)


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("padded", [False, True])
def test_training_by_hand_with_every_dropout_and_ar_and_tar(padded, tied):
    model = language_model(
        tied, activation_regularization=2.0, temporal_activation_regularization=3.0, **PROBABILITIES
    ).train()  # fmt: skip
    decoder = model.decoder
    tokens = token_batch(9)
    if padded:
        tokens[-1, 6:] = PAD
    twin = copy.deepcopy(decoder)
    masks = drawn_masks(decoder, STREAMS, seed=8)
    flat = [masks["words"], masks["embeddings"], *masks["weights"], *masks["between"], masks["outputs"]]
    assert len(flat) == 8 and all(0 < (mask == 0).sum() < mask.numel() for mask in flat)
    expected = forward_by_hand(twin, tokens, masks=masks)

    torch.manual_seed(8)
    found = model(tokens, starts_stream=True)[0]
    assert_same(found, expected["logits"])
    for carried, part in zip(decoder.carried_state(), expected["state"]):
        assert_same(carried, part)
    counts = (tokens != PAD).t()
    raw, dropped = expected["raw"].detach().numpy(), expected["dropped"].detach().numpy()
    by_hand = 2.0 * ar_by_hand(dropped, counts) + 3.0 * tar_by_hand(raw, counts)
    activation_loss = decoder.take_activation_loss()
    assert activation_loss.item() == pytest.approx(by_hand, rel=1e-12)
    assert decoder.take_activation_loss() is None  # once

    # The gradient of logits and regularisation together, the latter in plain torch.
    change, both = (expected["raw"][1:] - expected["raw"][:-1]) ** 2, counts.double()[:, :, None]
    regularisation = 2.0 * (expected["dropped"] ** 2 * both).sum() / both.sum() / raw.shape[2]
    regularisation = regularisation + 3.0 * (change * both[1:]).sum() / both[1:].sum() / raw.shape[2]
    assert regularisation.item() == pytest.approx(by_hand, rel=1e-12)
    upstream = torch.randn_like(found)
    ((found * upstream).sum() + 5.0 * activation_loss).backward()
    ((expected["logits"] * upstream).sum() + 5.0 * regularisation).backward()
    for (name, parameter), reference in zip(decoder.named_parameters(), twin.parameters()):
        assert torch.allclose(parameter.grad, reference.grad, rtol=1e-10, atol=1e-12), name


@pytest.mark.parametrize("alpha, beta", [(1.5, 0.0), (0.0, 0.5), (0.0, 0.0)])
def test_ar_and_tar_one_by_one(alpha, beta):
    model = language_model(activation_regularization=alpha, temporal_activation_regularization=beta, **PROBABILITIES)
    masks = drawn_masks(model.decoder, STREAMS, seed=2)
    tokens = token_batch(7)
    expected = forward_by_hand(model.decoder, tokens, masks=masks)
    torch.manual_seed(2)
    model.train()(tokens)
    found = model.decoder.take_activation_loss()
    if alpha == beta == 0:
        assert found is None
    else:
        raw, dropped = expected["raw"].detach().numpy(), expected["dropped"].detach().numpy()
        assert found.item() == pytest.approx(alpha * ar_by_hand(dropped) + beta * tar_by_hand(raw), rel=1e-12)


def test_a_window_of_one_step_has_ar_and_no_tar():
    model = language_model(**PROBABILITIES).train()
    masks = drawn_masks(model.decoder, STREAMS, seed=2)
    tokens = token_batch(1)
    expected = forward_by_hand(model.decoder, tokens, masks=masks)
    torch.manual_seed(2)
    model(tokens)
    found = model.decoder.take_activation_loss()
    assert found.item() == pytest.approx(2.0 * ar_by_hand(expected["dropped"].detach().numpy()), rel=1e-12)
    found.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


# -------------------------------------------------------------------------------------------------------- carried state


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("window", [1, 7, 35])
def test_windows_of_any_length_give_the_logits_of_one(window, training):
    model = language_model(**dict.fromkeys(PROBABILITIES, 0.0)).train(training)
    tokens = token_batch()
    logits = [model(tokens[:, t : t + window], starts_stream=t == 0)[0] for t in range(0, LENGTH, window)]
    expected = forward_by_hand(model.decoder, tokens)
    assert_same(torch.cat(logits, dim=1), expected["logits"])
    for found, part in zip(model.decoder._carried[training], expected["state"]):
        assert_same(found, part)
    # The state matters: from zeros the last window is another.
    if window < LENGTH:
        assert not torch.allclose(logits[-1], model(tokens[:, -window:])[0], atol=1e-6)


def test_training_goes_on_with_new_masks_from_the_detached_state():
    model = language_model(**PROBABILITIES).train()
    decoder, tokens = model.decoder, token_batch(8)
    twin = copy.deepcopy(decoder)
    torch.manual_seed(1)
    model(tokens[:, :4], starts_stream=True)
    assert not any(part.requires_grad for part in decoder.carried_state())
    torch.manual_seed(2)
    found = model(tokens[:, 4:], starts_stream=False)[0]
    with torch.no_grad():
        first = forward_by_hand(twin, tokens[:, :4], masks=drawn_masks(twin, STREAMS, seed=1))
    second = forward_by_hand(twin, tokens[:, 4:], first["state"], masks=drawn_masks(twin, STREAMS, seed=2))
    assert_same(found, second["logits"])
    upstream = torch.randn_like(found)
    found.backward(upstream)
    second["logits"].backward(upstream)
    for parameter, reference in zip(decoder.parameters(), twin.parameters()):
        assert_same(parameter.grad, reference.grad)


def test_training_and_evaluation_have_states_of_their_own():
    model = language_model(**dict.fromkeys(PROBABILITIES, 0.0))
    train, valid = token_batch(12), token_batch(12, streams=2, seed=5)
    model.train()(train[:, :6], starts_stream=True)
    logits = [model.eval()(valid[:, t : t + 4], starts_stream=t == 0)[0] for t in (0, 4)]
    second = model.train()(train[:, 6:], starts_stream=False)[0]
    logits.append(model.eval()(valid[:, 8:], starts_stream=False)[0])
    assert_same(second, forward_by_hand(model.decoder, train)["logits"][:, 6:])
    assert_same(torch.cat(logits, dim=1), forward_by_hand(model.decoder, valid)["logits"])


def test_another_number_of_streams_is_an_error():
    model = language_model().eval()
    model(token_batch(4), starts_stream=True)
    with pytest.raises(ValueError, match="^the carried state is of 3 streams and this window has 5$"):
        model(token_batch(4, streams=5), starts_stream=False)


def test_going_on_from_nothing_and_carrying_nothing(caplog):
    model = language_model().eval()
    tokens = token_batch(6)
    expected = forward_by_hand(model.decoder, tokens)["logits"]
    assert_same(model(tokens)[0], expected)
    assert model.decoder._carried == {}
    assert_same(model(tokens[:, :3], starts_stream=False)[0], expected[:, :3])
    assert_same(model(tokens[:, 3:], starts_stream=False)[0], expected[:, 3:])
    # once that nothing is carried to where it was not asked for, once that nothing was there to go on from
    assert [r.levelname for r in caplog.records if "carried" in r.getMessage()] == ["WARNING"] * 2


def test_step_by_step_decoding_and_reordering():
    model = language_model(**PROBABILITIES).eval()
    tokens, order = token_batch(10), torch.tensor([2, 0, 0])
    incremental_state = {}
    expected = forward_by_hand(model.decoder, tokens)["logits"]
    for t in range(5):
        found = model(tokens[:, : t + 1], incremental_state=incremental_state)[0]
        assert_same(found, expected[:, t : t + 1])
    model.decoder.reorder_incremental_state_scripting(incremental_state, order)
    reordered = torch.cat([tokens[order, :5], tokens[:, 5:]], dim=1)
    expected = forward_by_hand(model.decoder, reordered)["logits"]
    for t in range(5, 10):
        found = model(reordered[:, : t + 1], incremental_state=incremental_state)[0]
        assert_same(found, expected[:, t : t + 1])
    assert model.decoder._carried == {}


# -------------------------------------------------------------------------------------------------- fairseq and self_kd


@pytest.fixture(scope="module")
def tiny(tiny_language_model):
    return build(tiny_language_model, *BPTT, *TINY)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dropout": 1.0}, "--dropout must be at least 0 and below 1, not 1.0"),
        ({"input_dropout": -0.5}, "--input-dropout must be at least 0 and below 1, not -0.5"),
        ({"hidden_dropout": 1.0}, "--hidden-dropout must be at least 0 and below 1, not 1.0"),
        ({"embedding_dropout": 1.5}, "--embedding-dropout must be at least 0 and below 1, not 1.5"),
        ({"weight_dropout": 1.0}, "--weight-dropout must be at least 0 and below 1, not 1.0"),
        ({"activation_regularization": -1.0}, "the weights of AR and TAR must not be negative"),
        ({"temporal_activation_regularization": -1.0}, "the weights of AR and TAR must not be negative"),
    ],
)
def test_bad_options_end_with_one_line(options, message, tiny):
    with pytest.raises(SystemExit) as error:
        tiny.task.build_model(OmegaConf.merge(tiny.cfg.model, options))
    assert str(error.value) == f"awd_lstm_ptb: {message}"


@pytest.mark.parametrize("layers", [0, -1])
def test_a_model_without_layers_is_refused_with_one_line(layers, tiny):
    with pytest.raises(SystemExit) as error:
        tiny.task.build_model(OmegaConf.merge(tiny.cfg.model, {"decoder_layers": layers}))
    assert str(error.value).startswith("awd_lstm_ptb: ") and "layers" in str(error.value)


@pytest.mark.parametrize("support, tied", [("predicted", True), ("full", False)])
def test_self_kd_takes_the_fused_path_and_equals_the_definition(tied, support, tiny_language_model, monkeypatch):
    flags = [f"--{name.replace('_', '-')}={p}" for name, p in PROBABILITIES.items()]
    flags += [] if tied else ["--no-share-decoder-input-output-embed"]
    setup = build(tiny_language_model, *BPTT, *TINY, *flags, *SELF_KD, "--skd-support", support)
    model, criterion, sample = setup.model.double().train(), setup.criterion, first_window(setup)
    decoder = model.decoder
    weight, bias = find_output_embedding(model)
    assert weight is decoder.output_projection.weight and bias is decoder.output_projection.bias
    assert can_give_features(model)
    projections, results = count_calls(decoder.output_projection, monkeypatch), []
    for implementation, calls in (("fused", 0), ("reference", 1)):  # fused: the model makes no logits
        criterion.implementation = implementation
        model.zero_grad()
        torch.manual_seed(4)
        loss, _, logged = criterion(model, sample)
        assert len(projections) == calls
        assert decoder.take_activation_loss() is not None  # for the task to add
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in decoder.named_parameters()}
        results.append((loss.item(), logged["nll_loss"].item(), gradients))

    tokens, target = sample["net_input"]["src_tokens"], sample["target"].reshape(-1)
    twin = copy.deepcopy(decoder)
    twin.zero_grad()
    masks = drawn_masks(twin, len(tokens), seed=4)
    logits = forward_by_hand(twin, tokens, masks=masks)["logits"].reshape(len(target), -1)
    pad, bos = setup.task.dictionary.pad(), setup.task.dictionary.bos()
    sums, dz, *_ = definition.losses(
        logits.detach().numpy(), weight.detach().numpy(), target, alpha=0.4, label_smoothing=0.1, pad=pad,
        excluded=(bos,), support_size=3, temperature=0.6, support=support,
    )  # fmt: skip
    logits.backward(torch.from_numpy(dz))
    for loss, nll_loss, gradients in results:
        assert (loss, nll_loss) == pytest.approx((sums[0], sums[2]), rel=1e-10)
        for name, parameter in twin.named_parameters():
            scale = parameter.grad.abs().max()
            assert scale > 0 and (gradients[name] - parameter.grad).abs().max() <= 1e-9 * scale, name
