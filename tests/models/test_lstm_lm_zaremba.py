"""Zaremba's language models against a loop over tokens that is written out here, and how they carry their state."""

import copy
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY
from omegaconf import OmegaConf

from selfkd_fairseq.criterions.model_output import can_give_features
from selfkd_fairseq.criterions.output_embedding import find_output_embedding
from selfkd_fairseq.models.lstm_lm_zaremba import ZarembaConfig, ZarembaDecoder, ZarembaLanguageModel
from tests import definition
from tests.fairseq_setup import build
from tests.models.test_lstm_regularisation import lstm_by_hand, weights_of

BPTT = ["--task", "bptt_language_modeling"]
TINY = ["--arch", "lstm_lm_zaremba_small", "--decoder-embed-dim", "12", "--decoder-hidden-size", "12"]
WORDS = 11  # and four special symbols
STREAMS, LENGTH = 3, 35


def vocabulary(words=WORDS):
    dictionary = Dictionary()
    for word in range(words):
        dictionary.add_symbol(f"w{word}")
    return dictionary


def language_model(seed=0, **options):
    settings = dict(decoder_embed_dim=5, decoder_hidden_size=6, decoder_layers=2, init_range=0.5)
    torch.manual_seed(seed)
    decoder = ZarembaDecoder(ZarembaConfig(**{**settings, **options}), vocabulary())
    return ZarembaLanguageModel(decoder).double()


def token_batch(length=LENGTH, streams=STREAMS, seed=1):
    torch.manual_seed(seed)
    return torch.randint(2, 4 + WORDS, (streams, length))


def build_architecture(arch, **options):
    """What ``--arch`` with these options builds, for a small vocabulary."""
    cfg = MODEL_DATACLASS_REGISTRY[arch](**options)
    torch.manual_seed(0)
    return ARCH_MODEL_REGISTRY[arch].build_model(cfg, Namespace(target_dictionary=vocabulary(40)))


def forward_by_hand(decoder, tokens, state=None, masks=None):
    """Logits (B, T, V), h and c (layers, B, units). masks: of the embeddings, then of the outputs of each layer."""
    weights = weights_of(decoder.lstm)
    masks = masks or [1.0] * (len(weights) + 1)
    x = torch.stack([torch.stack([decoder.embed_tokens.weight[word] for word in column]) for column in tokens.t()])
    last = []
    for layer, layer_weights in enumerate(weights):
        start = None if state is None else (state[0][layer : layer + 1], state[1][layer : layer + 1])
        x, h, c = lstm_by_hand([layer_weights], x * masks[layer], start)
        last.append((h, c))
    projection = decoder.output_projection
    logits = (x * masks[-1]) @ projection.weight.T + projection.bias
    return logits.transpose(0, 1), [torch.cat(parts) for parts in zip(*last)]


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=1e-12), (found - expected).abs().max().item()


# -------------------------------------------------------------------------------------------------------- architectures

PTB = 10_002  # 9,998 words beside <unk>, and fairseq's <s>, <pad>, </s> and <unk>


def parameters_by_hand(d, vocabulary, layers=2):
    """Embedding V d; a layer has four gates with matrices (d, d) for input and state and two biases; output V d + V."""
    return vocabulary * d + layers * 4 * (2 * d * d + 2 * d) + vocabulary * d + vocabulary


@pytest.mark.parametrize(
    "arch, d, dropout, init_range, parameters",
    [
        ("lstm_lm_zaremba_small", 200, 0.0, 0.1, 4_654_002),
        ("lstm_lm_zaremba_medium", 650, 0.5, 0.05, 19_783_002),
        ("lstm_lm_zaremba_large", 1500, 0.65, 0.04, 66_040_002),
    ],
)
def test_architectures(arch, d, dropout, init_range, parameters, tiny_language_model):
    task = Namespace(target_dictionary=vocabulary(PTB - 4))
    with torch.device("meta"):  # shapes alone
        cfg = build(tiny_language_model, *BPTT, "--arch", arch).cfg.model
        model = ZarembaLanguageModel.build_model(cfg, task)
        cfg.share_decoder_input_output_embed = True
        tied = ZarembaLanguageModel.build_model(cfg, task)
    assert issubclass(ARCH_MODEL_REGISTRY[arch], ZarembaLanguageModel)
    assert sum(p.numel() for p in model.parameters()) == parameters == parameters_by_hand(d, PTB)
    assert sum(p.numel() for p in tied.parameters()) == parameters - PTB * d
    decoder = model.decoder
    assert decoder.embed_tokens.weight.shape == decoder.output_projection.weight.shape == (PTB, d)
    assert (decoder.lstm.num_layers, decoder.lstm.input_size, decoder.lstm.hidden_size) == (2, d, d)
    assert decoder.dropout == decoder.lstm.dropout == dropout
    assert cfg.init_range == init_range


@pytest.mark.parametrize(
    "arch, limit, tied",
    [
        ("lstm_lm_zaremba_small", 0.1, False),
        ("lstm_lm_zaremba_medium", 0.05, True),
        ("lstm_lm_zaremba_large", 0.04, False),
    ],
)
def test_every_parameter_is_uniform_in_the_published_range(arch, limit, tied):
    model = build_architecture(
        arch, decoder_embed_dim=64, decoder_hidden_size=64, share_decoder_input_output_embed=tied
    )  # fmt: skip
    names = {name for name, _ in model.named_parameters()}
    assert len(names) == 1 + 2 * 4 + (1 if tied else 2)
    for name, parameter in model.named_parameters():
        assert parameter.abs().max() <= limit, name
        if parameter.numel() > 200:  # the biases of the output are few
            assert -parameter.min() > 0.95 * limit and parameter.max() > 0.95 * limit, name
            # Standard deviation of the uniform distribution: limit / sqrt(3).
            assert parameter.std().item() == pytest.approx(limit / 3**0.5, rel=0.15), name
    assert model.decoder.output_projection.bias.std().item() == pytest.approx(limit / 3**0.5, rel=0.4)


@pytest.mark.parametrize("tied", [False, True])
def test_tied_or_not(tied):
    width = dict(decoder_embed_dim=6) if tied else {}
    decoder = language_model(share_decoder_input_output_embed=tied, **width).decoder
    assert (decoder.output_projection.weight is decoder.embed_tokens.weight) == tied


# -------------------------------------------------------------------------------------------------------------- forward

MODELS = {
    "two layers": {},
    "one layer": {"decoder_layers": 1},
    "three layers, tied": {
        "decoder_layers": 3,
        "decoder_embed_dim": 6,
        "share_decoder_input_output_embed": True,
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_by_hand(name):
    model = language_model(dropout=0.4, **MODELS[name]).eval()
    tokens = token_batch()
    expected, state = forward_by_hand(model.decoder, tokens)
    assert_same(model(tokens)[0], expected)
    assert_same(model(tokens, starts_stream=True)[0], expected)
    for found, part in zip(model.decoder._carried[False], state):
        assert_same(found, part)
    features = model.decoder.extract_features(tokens)[0]
    assert_same(model.decoder(tokens, features_only=True)[0], features)
    assert_same(model.decoder.output_layer(features), expected)


@pytest.mark.parametrize("name", MODELS)
def test_dropout_is_on_embeddings_between_layers_and_at_the_end_and_never_on_the_recurrence(name):
    model = language_model(dropout=0.4, **MODELS[name]).train()
    decoder = model.decoder
    tokens = token_batch(9)
    width, units, layers = decoder.lstm.input_size, decoder.lstm.hidden_size, decoder.lstm.num_layers
    # torch draws them in this order; every time step has a mask of its own.
    shapes = [(9, STREAMS, width)] + [(9, STREAMS, units)] * layers
    torch.manual_seed(6)
    masks = [F.dropout(torch.ones(shape, dtype=torch.float64), 0.4) for shape in shapes]
    twin = copy.deepcopy(decoder)
    expected, state = forward_by_hand(twin, tokens, masks=masks)
    torch.manual_seed(6)
    found = model(tokens, starts_stream=True)[0]
    assert_same(found, expected)
    for carried, part in zip(decoder.carried_state(), state):
        assert_same(carried, part)
    upstream = torch.randn_like(expected)
    found.backward(upstream)
    expected.backward(upstream)
    for parameter, reference in zip(decoder.parameters(), twin.parameters()):
        assert_same(parameter.grad, reference.grad)


# -------------------------------------------------------------------------------------------------------- carried state


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("window", [1, 7, 35])
def test_windows_of_any_length_give_the_logits_of_one(window, training):
    model = language_model().train(training)
    tokens = token_batch()
    logits = [model(tokens[:, t : t + window], starts_stream=t == 0)[0] for t in range(0, LENGTH, window)]
    expected, state = forward_by_hand(model.decoder, tokens)
    assert_same(torch.cat(logits, dim=1), expected)
    for found, part in zip(model.decoder._carried[training], state):
        assert_same(found, part)


def test_training_and_evaluation_have_states_of_their_own():
    model = language_model()
    train, valid = token_batch(12), token_batch(12, streams=2, seed=5)
    model.train()(train[:, :6], starts_stream=True)
    logits = [model.eval()(valid[:, t : t + 4], starts_stream=t == 0)[0] for t in (0, 4)]
    second = model.train()(train[:, 6:], starts_stream=False)[0]
    logits.append(model.eval()(valid[:, 8:], starts_stream=False)[0])
    assert_same(second, forward_by_hand(model.decoder, train)[0][:, 6:])
    assert_same(torch.cat(logits, dim=1), forward_by_hand(model.decoder, valid)[0])


def test_a_new_start_forgets_the_state():
    model = language_model().train()
    tokens = token_batch(8)
    model(token_batch(8, seed=2), starts_stream=True)
    assert_same(model(tokens, starts_stream=True)[0], forward_by_hand(model.decoder, tokens)[0])
    # Also with another number of streams.
    assert_same(model(tokens[:2], starts_stream=True)[0], forward_by_hand(model.decoder, tokens[:2])[0])


def test_without_starts_stream_every_window_starts_from_zeros_and_nothing_is_carried(caplog):
    model = language_model().train()
    tokens = token_batch(8)
    expected, _ = forward_by_hand(model.decoder, tokens)
    for _ in range(2):
        assert_same(model(tokens)[0], expected)
    assert model.decoder.carried_state() is None
    assert sum("the state is not carried from batch to batch" in record.message for record in caplog.records) == 1
    model(tokens, starts_stream=True)
    carried = [part.clone() for part in model.decoder.carried_state()]
    model(token_batch(8, seed=4))
    assert all(torch.equal(part, before) for part, before in zip(model.decoder.carried_state(), carried))


def test_going_on_from_nothing_starts_from_zeros_and_says_so(caplog):
    model = language_model().train()
    tokens = token_batch(8)
    expected, _ = forward_by_hand(model.decoder, tokens)
    assert_same(model(tokens[:, :4], starts_stream=False)[0], expected[:, :4])
    assert sum("no state was carried to this window" in record.message for record in caplog.records) == 1
    assert_same(model(tokens[:, 4:], starts_stream=False)[0], expected[:, 4:])


def test_another_number_of_streams_is_an_error_and_leaves_the_state():
    model = language_model().train()
    tokens = token_batch(8)
    model(tokens[:, :4], starts_stream=True)
    with pytest.raises(ValueError, match="^the carried state is of 3 streams and this window has 2$"):
        model(tokens[:2, 4:], starts_stream=False)
    assert_same(model(tokens[:, 4:], starts_stream=False)[0], forward_by_hand(model.decoder, tokens)[0][:, 4:])


def test_no_gradient_flows_into_the_window_before():
    model = language_model().train()
    tokens = token_batch(8)
    model(tokens[:, :4], starts_stream=True)
    assert not any(part.requires_grad for part in model.decoder.carried_state())
    found = model(tokens[:, 4:], starts_stream=False)[0]
    twin = copy.deepcopy(model.decoder)
    with torch.no_grad():
        _, state = forward_by_hand(twin, tokens[:, :4])
    expected, _ = forward_by_hand(twin, tokens[:, 4:], state)
    upstream = torch.randn_like(expected)
    found.backward(upstream)
    expected.backward(upstream)
    for parameter, reference in zip(model.decoder.parameters(), twin.parameters()):
        assert_same(parameter.grad, reference.grad)


def test_a_state_that_was_set_is_gone_on_from_in_training_alone():
    model = language_model()
    tokens = token_batch(8)
    _, state = forward_by_hand(model.decoder, tokens[:, :4])
    model.decoder.set_carried_state([part.detach().float() for part in state])  # as from a checkpoint, any dtype
    expected, _ = forward_by_hand(model.decoder, tokens)
    found = model.train()(tokens[:, 4:], starts_stream=False)[0]
    assert found.dtype == torch.float64 and torch.allclose(found, expected[:, 4:], atol=1e-6)
    zeros, _ = forward_by_hand(model.decoder, tokens[:, 4:])
    assert_same(model.eval()(tokens[:, 4:], starts_stream=False)[0], zeros)
    model.decoder.set_carried_state(None)
    assert model.decoder.carried_state() is None


def test_the_carried_state_is_no_part_of_the_state_dict():
    model = language_model()
    before = list(model.state_dict())
    model(token_batch(4), starts_stream=True)
    assert list(model.state_dict()) == before
    assert set(before) == {f"decoder.{name}" for name, _ in model.decoder.named_parameters()}


# ------------------------------------------------------------------------------------------------ step-by-step decoding


def test_step_by_step_equals_the_whole_sequence():
    model = language_model(dropout=0.4).eval()
    tokens = token_batch(10)
    incremental_state = {}
    steps = [model(tokens[:, : t + 1], incremental_state=incremental_state)[0] for t in range(10)]
    assert all(step.shape == (STREAMS, 1, 4 + WORDS) for step in steps)
    assert_same(torch.cat(steps, dim=1), forward_by_hand(model.decoder, tokens)[0])
    assert model.decoder._carried == {}


@pytest.mark.parametrize("new_order", [[2, 0, 1], [1, 1, 0], [2, 2]])
def test_hypotheses_take_their_state_along(new_order):
    model = language_model().eval()
    tokens, order = token_batch(10), torch.tensor(new_order)
    incremental_state = {}
    model.decoder.reorder_incremental_state_scripting(incremental_state, order)  # before the first step: nothing
    assert incremental_state == {}
    for t in range(5):
        model(tokens[:, : t + 1], incremental_state=incremental_state)
    model.decoder.reorder_incremental_state_scripting(incremental_state, order)
    reordered = torch.cat([tokens[order, :5], tokens[: len(order), 5:]], dim=1)
    expected, _ = forward_by_hand(model.decoder, reordered)
    for t in range(5, 10):
        found = model(reordered[:, : t + 1], incremental_state=incremental_state)[0]
        assert_same(found, expected[:, t : t + 1])


def test_two_decodings_do_not_see_each_other():
    model = language_model().eval()
    tokens = token_batch(4)
    first, second = {}, {}
    model(tokens[:, :1], incremental_state=first)
    model(tokens[:, 1:2], incremental_state=second)
    expected, _ = forward_by_hand(model.decoder, tokens[:, :2])
    assert_same(model(tokens[:, :2], incremental_state=first)[0], expected[:, 1:])


# -------------------------------------------------------------------------------------------------- fairseq and self_kd


@pytest.fixture(scope="module")
def tiny(tiny_language_model):
    return build(tiny_language_model, *BPTT, *TINY)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"share_decoder_input_output_embed": True, "decoder_embed_dim": 8},
            "--share-decoder-input-output-embed needs --decoder-embed-dim equal to --decoder-hidden-size, not 8 and 12",
        ),
        ({"dropout": 1.0}, "--dropout must be at least 0 and below 1, not 1.0"),
        ({"dropout": -0.1}, "--dropout must be at least 0 and below 1, not -0.1"),
        ({"decoder_layers": 0}, "num_layers must be greater than zero"),
    ],
)
def test_bad_options_end_with_one_line(options, message, tiny):
    with pytest.raises(SystemExit) as error:
        tiny.task.build_model(OmegaConf.merge(tiny.cfg.model, options))
    assert str(error.value) == f"lstm_lm_zaremba_small: {message}"


def test_a_checkpoint_of_another_vocabulary_is_refused_with_one_line():
    model = language_model()
    with torch.random.fork_rng():
        other = ZarembaLanguageModel(ZarembaDecoder(ZarembaConfig(), vocabulary(WORDS + 2)))
    with pytest.raises(SystemExit) as error:
        model.load_state_dict(other.state_dict())
    assert str(error.value).startswith("the checkpoint has a vocabulary of 17 words and the data one of 15: ")
    assert "\n" not in str(error.value)
    same = language_model(seed=3)
    same.load_state_dict(model.state_dict())
    tokens = token_batch(4)
    assert_same(same.eval()(tokens)[0], forward_by_hand(model.decoder, tokens)[0])


def first_window(setup, streams=4):
    iterator = setup.task.get_batch_iterator(setup.task.dataset("train"), max_sentences=streams)
    return next(iterator.next_epoch_itr(shuffle=False))


def count_calls(module, monkeypatch):
    """A list that gets an entry for each call of a module; a change of the object keeps self_kd from its fused path."""
    calls, forward = [], type(module).forward

    def counted(self, *inputs):
        if self is module:
            calls.append(1)
        return forward(self, *inputs)

    monkeypatch.setattr(type(module), "forward", counted)
    return calls


SELF_KD = ["--criterion", "self_kd", "--label-smoothing", "0.1", "--skd-alpha", "0.4", "--skd-warmup-updates", "0"]
SELF_KD += ["--skd-teacher", "embedding", "--skd-support-size", "3"]
SELF_KD += ["--skd-temperature", "0.6", "--skd-min-target-prob", "0.5"]


@pytest.mark.parametrize("support, tied", [("predicted", []), ("full", ["--share-decoder-input-output-embed"])])
def test_self_kd_takes_the_fused_path_and_equals_the_definition(tied, support, tiny_language_model, monkeypatch):
    setup = build(tiny_language_model, *BPTT, *TINY, *tied, *SELF_KD, "--skd-support", support)
    model, criterion, sample = setup.model.double().train(), setup.criterion, first_window(setup)
    decoder = model.decoder
    weight, bias = find_output_embedding(model)
    assert weight is decoder.output_projection.weight and bias is decoder.output_projection.bias
    assert can_give_features(model)
    projections, results = count_calls(decoder.output_projection, monkeypatch), []
    for implementation, calls in (("fused", 0), ("reference", 1)):  # fused: the model makes no logits
        criterion.implementation = implementation
        model.zero_grad()
        loss, _, logged = criterion(model, sample)
        assert len(projections) == calls
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in decoder.named_parameters()}
        results.append((loss.item(), logged["nll_loss"].item(), gradients))

    target = sample["target"].reshape(-1)
    assert len(target) > 60
    twin = copy.deepcopy(decoder)
    twin.zero_grad()
    logits = forward_by_hand(twin, sample["net_input"]["src_tokens"])[0].reshape(len(target), -1)
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
