"""Transformer architectures of the recipes: hyper-parameters over fairseq's own ``transformer``, no code.

A checkpoint made with any of them is an ordinary fairseq Transformer for every tool. As with fairseq's own
architectures, embedding sharing stays a flag (``--share-all-embeddings``, ``--share-decoder-input-output-embed``).
"""

# fairseq has no annotations, its decorators neither.
# mypy: disallow-untyped-decorators=False

from typing import Any

from fairseq.models import register_model_architecture
from fairseq.models.transformer import (
    base_architecture,
    transformer_iwslt_de_en,
    transformer_vaswani_wmt_en_de_big,
)

from .architecture_defaults import set_defaults


@register_model_architecture("transformer", "transformer_multi30k")
def transformer_multi30k(args: Any) -> None:
    """Transformer-Tiny of Wu et al. (2021) for Multi30k: 4 + 4 layers, d 128, ffn 256, 4 heads, post-norm.

    Args:
        args: options of the model, changed in place; what the user set stays.
    """
    set_defaults(
        args,
        encoder_layers=4,
        encoder_embed_dim=128,
        encoder_ffn_embed_dim=256,
        encoder_attention_heads=4,
        decoder_layers=4,
        decoder_embed_dim=128,
        decoder_ffn_embed_dim=256,
        decoder_attention_heads=4,
        dropout=0.3,
    )
    base_architecture(args)


@register_model_architecture("transformer", "transformer_selfkd_iwslt")
def transformer_selfkd_iwslt(args: Any) -> None:
    """The ``transformer_iwslt_de_en`` of fairseq with the dropouts of the strongest plain baseline known to us.

    Args:
        args: options of the model, changed in place; what the user set stays.
    """
    set_defaults(args, dropout=0.3, attention_dropout=0.1, activation_dropout=0.1)
    transformer_iwslt_de_en(args)


@register_model_architecture("transformer", "transformer_selfkd_wmt_base")
def transformer_selfkd_wmt_base(args: Any) -> None:
    """Transformer base (Vaswani et al., 2017) for WMT: 6 + 6 layers, d 512, ffn 2048, 8 heads, dropout 0.1.

    Args:
        args: options of the model, changed in place; what the user set stays.
    """
    set_defaults(args, dropout=0.1)
    base_architecture(args)


@register_model_architecture("transformer", "transformer_selfkd_wmt_big")
def transformer_selfkd_wmt_big(args: Any) -> None:
    """Transformer big (Vaswani et al., 2017) for WMT: 6 + 6 layers, d 1024, ffn 4096, 16 heads, dropout 0.3.

    Args:
        args: options of the model, changed in place; what the user set stays.
    """
    transformer_vaswani_wmt_en_de_big(args)
