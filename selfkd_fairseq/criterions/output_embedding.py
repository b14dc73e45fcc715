"""Find the output embedding matrix of a fairseq decoder, or say clearly that there is none."""

from typing import Any, NamedTuple, Optional, Union

from fairseq.models.lstm import LSTMDecoder
from fairseq.models.transformer import TransformerDecoderBase
from torch import Tensor, nn

from ..models.stateful_language_model import StatefulDecoder
from ..models.unwrapped import unwrapped, wrappers

__all__ = ["OutputEmbedding", "UnsupportedModelError", "find_output_embedding", "known_projection", "unsupported"]


class UnsupportedModelError(RuntimeError):
    """The model has no single output embedding matrix that soft targets could come from, or no logits to fit it."""


class OutputEmbedding(NamedTuple):
    """The matrix right below the softmax: ``logits = features @ weight.T + bias``.

    Attributes:
        weight: (V, d), the parameter itself (shared with the input embedding when tied).
        bias: (V,) parameter, or None.
    """

    weight: Tensor
    bias: Optional[Tensor]


def unsupported(model: nn.Module, why: str) -> UnsupportedModelError:
    """What to raise for a model.

    Args:
        model: the fairseq model, without wrappers.
        why: what it has instead of one plain output matrix.

    Returns:
        The error: one line that names the model and what would work.
    """
    return UnsupportedModelError(
        f"self_kd cannot take soft targets from {type(model).__name__}: {why}. What works: models with one plain "
        "output matrix, that is fairseq's transformer, transformer_lm, lstm and lstm_lm and this plugin's language "
        "models, tied or untied, "
        "without --adaptive-softmax-cutoff and without --ddp-backend fully_sharded; and any decoder with a method "
        "output_embedding() that returns (weight, bias)."
    )


def find_output_embedding(model: nn.Module) -> OutputEmbedding:
    """The output embedding of a fairseq model.

    Recognised are decoders whose ``output_layer`` is fairseq's own Transformer or LSTM one, or that of this plugin's
    language models, with a plain matrix, so that the matrix returned here is certain to be the one that makes the
    logits; and any decoder with a method ``output_embedding()`` that returns ``(weight, bias)``, for models that are
    written with this plugin in mind. What a model makes of these logits afterwards is seen by
    :func:`~selfkd_fairseq.criterions.model_output.can_give_features`.

    Args:
        model: a fairseq model, possibly wrapped for data-parallel training.

    Returns:
        :class:`OutputEmbedding`; the tensors are the model's own parameters.

    Raises:
        UnsupportedModelError: the model has no such matrix; the message names the model and what would work.
    """
    inner = unwrapped(model)
    decoder = getattr(inner, "decoder", None)
    # Called for every batch, so no walk over all modules: fairseq shards the outermost one, if any.
    if any(type(m).__name__ == "FullyShardedDataParallel" for m in (*wrappers(model), inner, decoder)):
        raise unsupported(inner, "its weights are sharded (fully_sharded)")
    if decoder is None:
        raise unsupported(inner, "it has no decoder")
    if getattr(decoder, "adaptive_softmax", None) is not None:
        raise unsupported(inner, "its adaptive softmax has no single output matrix")
    if hasattr(decoder, "output_embedding"):
        return OutputEmbedding(*decoder.output_embedding())
    projection = known_projection(decoder)
    # Exactly a Linear: a subclass may add to the product (adapters), and a parametrisation makes a subclass.
    if type(projection) is nn.Linear and "forward" not in vars(projection):
        projection = OutputEmbedding(projection.weight, projection.bias)
    # What weight_norm leaves in the parameter's place is of the batch before.
    if isinstance(projection, OutputEmbedding) and isinstance(projection.weight, nn.Parameter):
        return projection
    raise unsupported(inner, f"the output layer of {type(decoder).__name__} is not known to be one matrix")


def known_projection(decoder: Any) -> Union[nn.Module, OutputEmbedding, None]:
    """What a known output layer multiplies by.

    Args:
        decoder: of a fairseq model.

    Returns:
        A module; or a matrix that is shared with the input embedding, (V, d), with gradient; or None for any other
        output layer than fairseq's own and this plugin's.
    """
    if "output_layer" in vars(decoder):  # replaced on this one object
        return None
    output_layer = getattr(type(decoder), "output_layer", None)
    if output_layer in (TransformerDecoderBase.output_layer, StatefulDecoder.output_layer):
        projection: nn.Module = decoder.output_projection
        return projection
    if output_layer is LSTMDecoder.output_layer:
        shared = decoder.share_input_output_embed
        return OutputEmbedding(decoder.embed_tokens.weight, None) if shared else decoder.fc_out
    return None
