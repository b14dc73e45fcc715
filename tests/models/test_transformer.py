import re

import pytest
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_NAME_REGISTRY

from tests.fairseq_setup import ONLY_OF_0_12_2, TINY_TRANSFORMER, build

CRITERION = ["--criterion", "self_kd"]


def without_embeddings(model):
    skipped = re.compile(f"embed_tokens|output_proj|{ONLY_OF_0_12_2.pattern}")
    return sum(p.numel() for n, p in model.named_parameters() if not skipped.search(n))


# Counted by hand from Vaswani et al. (2017), with q, k, v, out projections and two ffn matrices, all with biases:
# attention 4 (d^2 + d), ffn 2 d f + f + d, layer norm 2 d; an encoder layer has 1 attention and 2 norms, a decoder
# layer 2 and 3.
def layers_by_hand(layers, d, f):
    attention, ffn, norm = 4 * (d * d + d), 2 * d * f + f + d, 2 * d
    return layers * ((attention + ffn + 2 * norm) + (2 * attention + ffn + 3 * norm))


@pytest.mark.parametrize(
    "arch, layers, d, f, heads, dropouts",
    [
        ("transformer_multi30k", 4, 128, 256, 4, (0.3, 0.0, 0.0)),
        ("transformer_selfkd_iwslt", 6, 512, 1024, 4, (0.3, 0.1, 0.1)),
        ("transformer_selfkd_wmt_base", 6, 512, 2048, 8, (0.1, 0.0, 0.0)),
        ("transformer_selfkd_wmt_big", 6, 1024, 4096, 16, (0.3, 0.0, 0.0)),
    ],
)
def test_architectures(arch, layers, d, f, heads, dropouts, tiny_translation):
    setup = build(tiny_translation, "--arch", arch, "--share-all-embeddings", *CRITERION)
    assert ARCH_MODEL_NAME_REGISTRY[arch] == "transformer"
    assert without_embeddings(setup.model) == layers_by_hand(layers, d, f)
    attention = setup.model.decoder.layers[0].encoder_attn
    assert (attention.num_heads, attention.embed_dim) == (heads, d)
    cfg = setup.model.cfg
    assert (cfg.dropout, cfg.attention_dropout, cfg.activation_dropout) == dropouts
    assert (cfg.encoder.normalize_before, cfg.decoder.normalize_before) == (False, False)
    assert cfg.activation_fn == "relu"


def test_parameter_count_of_transformer_tiny_on_multi30k():
    # 9,712 types (dictionary of the published preparation) and 2,568,192 parameters: Wu et al. (2021).
    assert layers_by_hand(4, 128, 256) + 9712 * 128 == 2_568_192


def test_command_line_overrides_an_architecture(tiny_translation):
    model = build(tiny_translation, *TINY_TRANSFORMER, "--dropout", "0.05", *CRITERION).model
    assert (len(model.encoder.layers), model.cfg.dropout) == (1, 0.05)


def test_dictionary_size_reaches_the_output_matrix(tiny_translation):
    model = build(tiny_translation, *TINY_TRANSFORMER, *CRITERION).model
    size = len(Dictionary.load(str(tiny_translation / "dict.tgt.txt")))
    assert model.decoder.output_projection.weight.shape == (size, 16)
