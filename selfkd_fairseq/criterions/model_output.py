"""What the loss takes from a model: features where nothing but the projection lies behind them, else its logits."""

import contextlib
import logging
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple
from weakref import WeakKeyDictionary

import torch
from fairseq.distributed import (
    DistributedTimeoutWrapper,
    LegacyDistributedDataParallel,
    ModuleProxyWrapper,
    TPUDistributedDataParallel,
)
from fairseq.models import BaseFairseqModel, FairseqDecoder, FairseqEncoderDecoderModel, FairseqLanguageModel
from fairseq.models.bart import BARTModel
from fairseq.models.lstm import LSTMDecoder, LSTMModel
from fairseq.models.transformer import TransformerDecoderBase, TransformerModelBase
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..models.stateful_language_model import StatefulDecoder
from ..models.unwrapped import unwrapped, wrappers
from .output_embedding import OutputEmbedding, known_projection, unsupported

__all__ = ["can_give_features", "checked_logits", "features_instead_of_logits"]

logger = logging.getLogger(__name__)

_Methods = Dict[str, Tuple[Any, ...]]

# Every method between features and loss, and the functions of which it is known that they leave the logits as they are.
# None: the class has no such method. Before the features lie extract_features, the encoder and so on: they may differ.
_OF_WRAPPER: _Methods = {
    "__call__": (nn.Module.__call__,),
    "forward": (
        DistributedDataParallel.forward,
        DistributedTimeoutWrapper.forward,
        LegacyDistributedDataParallel.forward,
        ModuleProxyWrapper.forward,
        TPUDistributedDataParallel.forward,
    ),
    "get_normalized_probs": (None,),
    "get_normalized_probs_scriptable": (None,),
    "get_targets": (None,),
}
_OF_MODEL: _Methods = {
    "__call__": (nn.Module.__call__,),
    "forward": (
        BARTModel.forward,
        FairseqEncoderDecoderModel.forward,
        FairseqLanguageModel.forward,
        LSTMModel.forward,
        TransformerModelBase.forward,
    ),
    "get_normalized_probs": (
        None,
        BaseFairseqModel.get_normalized_probs,
        TransformerModelBase.get_normalized_probs,
    ),
    "get_normalized_probs_scriptable": (None, BaseFairseqModel.get_normalized_probs_scriptable),
    "get_targets": (BaseFairseqModel.get_targets,),
}
_OF_DECODER: _Methods = {
    "__call__": (nn.Module.__call__,),
    "forward": (LSTMDecoder.forward, StatefulDecoder.forward, TransformerDecoderBase.forward),
    "output_layer": (LSTMDecoder.output_layer, StatefulDecoder.output_layer, TransformerDecoderBase.output_layer),
    "get_normalized_probs": (None, FairseqDecoder.get_normalized_probs),
    "get_normalized_probs_scriptable": (None, FairseqDecoder.get_normalized_probs_scriptable),
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_told: "WeakKeyDictionary[nn.Module, Set[str]]" = WeakKeyDictionary()  # decoder -> what the log has said of it


def can_give_features(model: nn.Module) -> bool:
    """Whether the projection can be left to the loss, so that it makes the logits itself.

    So it is where every method between features and loss is fairseq's own or this plugin's, nothing else hangs on
    it (hooks: fairseq's search for NaN sets some), and no PyTorch DDP looks for unused parameters (it decides from
    the model's output which gradients will come, and would take an output projection that is applied outside of the
    model for unused). Elsewhere a line in the log says why, once for each model.

    Args:
        model: a fairseq model with a decoder, possibly wrapped for data-parallel training.

    Returns:
        True if :func:`features_instead_of_logits` works for it.
    """
    why = _changed_method(model) or _obstacle(model)
    inner = unwrapped(model)
    if why is not None and why not in _told.setdefault(inner.decoder, set()):
        _told[inner.decoder].add(why)
        logger.info(
            f"self_kd takes the logits of {type(inner).__name__} as the model makes them, in more memory and time than "
            f"fused: {why}. Soft targets come from its output matrix as ever"
        )
    return why is None


def _changed_method(model: nn.Module, names: str = "") -> Optional[str]:
    """Which method, of those that begin with ``names``, is another than the known ones; None: none is."""
    inner = unwrapped(model)
    parts = [*((wrapper, _OF_WRAPPER) for wrapper in wrappers(model)), (inner, _OF_MODEL), (inner.decoder, _OF_DECODER)]
    for part, methods in parts:
        for name, known in methods.items():
            if not name.startswith(names):
                continue
            if name in vars(part):
                return f"{name} of its {type(part).__name__} was replaced on the object"
            if getattr(type(part), name, None) not in known:
                return f"{type(part).__name__}.{name} is not fairseq's own"
    return None


def _obstacle(model: nn.Module) -> Optional[str]:
    """What keeps a model of known methods from giving features; None: nothing."""
    inner = unwrapped(model)
    if hasattr(inner.decoder, "output_embedding"):
        return f"{type(inner.decoder).__name__}.output_embedding need not be all that makes them"
    if any(getattr(wrapper, "find_unused_parameters", False) for wrapper in wrappers(model)):
        return "PyTorch's DDP looks for unused parameters"
    # Where the matrix is shared with the input, the logits are the output of no module but the decoder.
    projection = known_projection(inner.decoder)
    for part in (*wrappers(model), inner, inner.decoder, projection):
        if isinstance(part, nn.Module) and any(getattr(part, hooks, None) for hooks in _HOOKS):
            return f"hooks on its {type(part).__name__} see or change what passes"
    if any(getattr(torch.nn.modules.module, "_global" + hooks, None) for hooks in _HOOKS):
        return "hooks on all modules see or change what passes"
    return None


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


def checked_logits(model: Any, net_output: Any, counted: Tensor, embedding: OutputEmbedding) -> Tensor:
    """The scores of which the loss takes the softmax, so that it sees the probabilities that fairseq's criterions see.

    A model that makes its probabilities by methods of its own is asked for their logarithms, which are logits too.

    Args:
        model: a fairseq model, possibly wrapped for data-parallel training.
        net_output: what it returned for a batch.
        counted: (B, T) bool, True where a target is no padding.
        embedding: the model's output matrix of V words.

    Returns:
        (B, T, V), with gradient.

    Raises:
        UnsupportedModelError: there is no one tensor of that shape, or of such a model the probabilities of a token
            do not add up to 1.
    """
    own = _changed_method(model, "get_normalized_probs") is not None
    scores = model.get_normalized_probs(net_output, log_probs=True) if own else net_output[0]
    name = "its get_normalized_probs gives" if own else "its forward gives"
    if not (isinstance(scores, Tensor) and scores.dim() == 3 and scores.size(2) == embedding.weight.size(0)):
        found = tuple(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        expected = f"(batch, length, {embedding.weight.size(0)})"
        raise unsupported(unwrapped(model), f"{name} {found} and its output matrix needs {expected}")
    if own:
        log_sums = scores.detach()[counted].logsumexp(dim=-1)
        tolerance = max(1e-4, 8 * torch.finfo(scores.dtype).eps)
        if (log_sums.abs() > tolerance).any():  # False where all is NaN: for fairseq to find
            raise unsupported(unwrapped(model), f"{name} probabilities that do not add up to 1")
    return scores
