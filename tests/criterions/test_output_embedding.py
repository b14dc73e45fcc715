import pytest
import torch
from torch import nn

from selfkd_fairseq.criterions.output_embedding import UnsupportedModelError, find_output_embedding
from tests.fairseq_setup import TINY_LSTM, TINY_LSTM_LM, TINY_TRANSFORMER, TINY_TRANSFORMER_LM, batches, build

ANY_CRITERION = ["--criterion", "cross_entropy"]


@pytest.mark.parametrize(
    "corpus, flags",
    [
        ("tiny_translation", TINY_TRANSFORMER),
        ("tiny_translation", [*TINY_TRANSFORMER, "--share-all-embeddings"]),
        ("tiny_translation", TINY_LSTM),
        ("tiny_translation", [*TINY_LSTM, "--share-decoder-input-output-embed"]),
        ("tiny_language_model", TINY_TRANSFORMER_LM),
        ("tiny_language_model", TINY_LSTM_LM),
        ("tiny_language_model", [*TINY_LSTM_LM, "--share-decoder-input-output-embed"]),
    ],
)
def test_the_matrix_found_is_the_one_that_makes_the_logits(corpus, flags, request):
    setup = build(request.getfixturevalue(corpus), *flags, *ANY_CRITERION)
    model = setup.model.eval()
    net_input = batches(setup)[0]["net_input"]
    logits = model(**net_input)[0]
    weight, bias = find_output_embedding(model)
    if hasattr(model, "encoder"):
        encoder_out = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
        features = model.decoder.extract_features(net_input["prev_output_tokens"], encoder_out=encoder_out)[0]
    else:
        features = model.decoder.extract_features(net_input["src_tokens"], None)[0]
    assert torch.allclose(nn.functional.linear(features, weight, bias), logits, atol=1e-6)
    assert any(weight is parameter for parameter in model.parameters())
    assert (bias is not None) == (flags in (TINY_LSTM, TINY_LSTM_LM))


def test_adaptive_softmax_is_refused_by_name(tiny_language_model):
    flags = [*TINY_TRANSFORMER_LM, "--adaptive-softmax-cutoff", "10,20"]
    setup = build(tiny_language_model, *flags, "--criterion", "self_kd")
    with pytest.raises(UnsupportedModelError) as error:
        setup.criterion(setup.model, batches(setup)[0])
    assert "TransformerLanguageModel" in str(error.value)
    assert "adaptive softmax" in str(error.value)
    assert "transformer, transformer_lm, lstm and lstm_lm" in str(error.value)


def test_a_decoder_with_another_output_layer_is_refused(tiny_translation):
    flags = ["--arch", "fconv", "--encoder-embed-dim", "8", "--decoder-embed-dim", "8"]
    setup = build(tiny_translation, *flags, *ANY_CRITERION)
    with pytest.raises(UnsupportedModelError, match="FConvModel: the output layer of FConvDecoder is not known"):
        find_output_embedding(setup.model)


def test_a_decoder_that_changes_the_output_layer_is_refused(tiny_translation):
    setup = build(tiny_translation, *TINY_TRANSFORMER, *ANY_CRITERION)

    class Scaled(type(setup.model.decoder)):
        def output_layer(self, features):
            return 2.0 * super().output_layer(features)

    setup.model.decoder.__class__ = Scaled
    with pytest.raises(UnsupportedModelError, match="output layer of Scaled"):
        find_output_embedding(setup.model)


def replaced_on_the_object(decoder):
    original = decoder.output_layer
    decoder.output_layer = lambda features: 2.0 * original(features)


def subclass_of_linear(decoder):
    class Adapted(nn.Linear):
        def forward(self, features):
            return super().forward(features) + features.sum()

    decoder.output_projection.__class__ = Adapted


def product_replaced_on_the_object(decoder):
    decoder.output_projection.forward = lambda features: features @ decoder.output_projection.weight.t() + 1.0


def weight_made_before_each_product(decoder):
    nn.utils.weight_norm(decoder.output_projection)


@pytest.mark.parametrize(
    "change",
    [replaced_on_the_object, subclass_of_linear, product_replaced_on_the_object, weight_made_before_each_product],
)
def test_an_output_layer_that_was_changed_on_the_object_is_refused(change, tiny_translation):
    setup = build(tiny_translation, *TINY_TRANSFORMER, *ANY_CRITERION)
    change(setup.model.decoder)
    with pytest.raises(UnsupportedModelError, match="is not known to be one matrix"):
        find_output_embedding(setup.model)


def test_a_shared_matrix_that_is_no_parameter_is_refused(tiny_translation):
    class Halved(nn.Module):
        def forward(self, weight):
            return weight / 2

    flags = [*TINY_LSTM, "--share-decoder-input-output-embed"]
    setup = build(tiny_translation, *flags, *ANY_CRITERION)
    nn.utils.parametrize.register_parametrization(setup.model.decoder.embed_tokens, "weight", Halved())
    with pytest.raises(UnsupportedModelError, match="LSTMDecoder is not known to be one matrix"):
        find_output_embedding(setup.model)


def test_a_model_can_offer_its_matrix_itself():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.zeros(4, 2))

        def output_embedding(self):
            return self.matrix, None

    model = nn.Module()
    model.decoder = Decoder()
    assert find_output_embedding(model).weight is model.decoder.matrix


def test_a_model_without_a_decoder_is_refused():
    with pytest.raises(UnsupportedModelError, match="Linear: it has no decoder"):
        find_output_embedding(nn.Linear(2, 2))


def test_sharded_weights_are_refused(tiny_translation):
    setup = build(tiny_translation, *TINY_TRANSFORMER, *ANY_CRITERION)

    class FullyShardedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(UnsupportedModelError, match="TransformerModel: its weights are sharded"):
        find_output_embedding(FullyShardedDataParallel(setup.model))
