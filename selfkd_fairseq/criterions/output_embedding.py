"""Find the output embedding matrix of a fairseq decoder, or say clearly that there is none."""

import contextlib
from typing import Any, Iterator, List, NamedTuple, Optional, Union

from fairseq.models.lstm import LSTMDecoder
from fairseq.models.transformer import TransformerDecoderBase
from torch import Tensor, nn

from ..models.stateful_language_model import StatefulDecoder
from ..models.unwrapped import unwrapped

__all__ = ["OutputEmbedding", "UnsupportedModelError", "features_instead_of_logits", "find_output_embedding"]


class UnsupportedModelError(RuntimeError):
    """The model has no single output embedding matrix that soft targets could come from."""


class OutputEmbedding(NamedTuple):
    """The matrix right below the softmax: ``logits = features @ weight.T + bias``.

    Attributes:
        weight: (V, d), the parameter itself (shared with the input embedding when tied).
        bias: (V,) parameter, or None.
    """

    weight: Tensor
    bias: Optional[Tensor]


def _unsupported(model: nn.Module, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"self_kd cannot take soft targets from {type(model).__name__}: {why}. What works: models with one plain "
        "output matrix, that is fairseq's transformer, transformer_lm, lstm and lstm_lm and this plugin's language "
        "models, tied or untied, "
        "without --adaptive-softmax-cutoff and without --ddp-backend fully_sharded."
    )


def find_output_embedding(model: nn.Module) -> OutputEmbedding:
    """The output embedding of a fairseq model.

    Recognised are decoders whose ``output_layer`` is fairseq's own Transformer or LSTM one, or that of this plugin's
    language models, with a plain matrix, so that the matrix returned here is certain to be the one that makes the
    logits; and any decoder with a method ``output_embedding()`` that returns ``(weight, bias)``, for models that are
    written with this plugin in mind.

    Args:
        model: a fairseq model, possibly wrapped for data-parallel training.

    Returns:
        :class:`OutputEmbedding`; the tensors are the model's own parameters.

    Raises:
        UnsupportedModelError: the model has no such matrix; the message names the model and what would work.
    """
    inner = unwrapped(model)
    if any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()):
        raise _unsupported(inner, "its weights are sharded (fully_sharded)")
    decoder = getattr(inner, "decoder", None)
    if decoder is None:
        raise _unsupported(inner, "it has no decoder")
    if getattr(decoder, "adaptive_softmax", None) is not None:
        raise _unsupported(inner, "its adaptive softmax has no single output matrix")
    if hasattr(decoder, "output_embedding"):
        return OutputEmbedding(*decoder.output_embedding())
    projection = _stock_projection(decoder)
    # Exactly a Linear: a subclass may add to the product (adapters), and a parametrisation makes a subclass.
    if isinstance(projection, OutputEmbedding):
        return projection
    if type(projection) is nn.Linear:
        return OutputEmbedding(projection.weight, projection.bias)
    raise _unsupported(inner, f"the output layer of {type(decoder).__name__} is not known to be one matrix")


def _stock_projection(decoder: Any) -> Union[nn.Module, OutputEmbedding, None]:
    """What known output layers multiply by: a module, a shared matrix, or None for any other output layer."""
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


def can_give_features(model: nn.Module) -> bool:
    """Whether the projection can be left to the loss, so that it makes the logits itself.

    So it is where the decoder's output layer is fairseq's own or this plugin's and nothing else hangs on it: no hooks
    (fairseq's search for NaN sets some), and no PyTorch DDP that looks for unused parameters (it decides from the
    model's output which gradients will come, and would take an output projection that is applied outside of the model
    for unused).

    Args:
        model: a fairseq model with a decoder, possibly wrapped for data-parallel training.

    Returns:
        True if :func:`features_instead_of_logits` works for it.
    """
    wrapper: Any = model
    while hasattr(wrapper, "module"):
        if getattr(wrapper, "find_unused_parameters", False):
            return False
        wrapper = wrapper.module
    projection = _stock_projection(wrapper.decoder)
    if isinstance(projection, nn.Module) and (projection._forward_hooks or projection._forward_pre_hooks):
        return False
    # Where the matrix is shared with the input, the logits are the output of no module but the decoder.
    return projection is not None and not wrapper.decoder._forward_hooks


@contextlib.contextmanager
def features_instead_of_logits(model: nn.Module) -> Iterator[None]:
    """Within this context the model returns features (B, T, d) where it would return logits (B, T, V).

    Every argument of the model's forward stays as it is, so this works for models whose ``forward`` does not know
    ``features_only``, and through data-parallel wrappers. For models of which :func:`can_give_features` holds.

    Args:
        model: a fairseq model, possibly wrapped for data-parallel training.

    Yields:
        None.

    Raises:
        RuntimeError: at the end, if the model did not call its output layer exactly once.
    """
    decoder = unwrapped(model).decoder
    calls: List[int] = []

    def output_layer(features: Tensor) -> Tensor:
        calls.append(1)
        return features

    decoder.output_layer = output_layer  # shadows the method of the class
    try:
        yield
    finally:
        del decoder.output_layer
    if len(calls) != 1:
        raise RuntimeError(
            f"{type(decoder).__name__} called its output layer {len(calls)} times in one forward pass, where self_kd "
            "needs one; use --skd-implementation reference"
        )
