"""A second pass of the model over a batch, for soft targets that it makes itself (``docs/method.md``).

It is made without gradient, or trained as well, with the first pass as its teacher in turn.
"""

import contextlib
from typing import Any, Dict, Iterator

import torch
from fairseq.modules import LayerDropModuleList
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..core.fused_linear_loss import autocast_dtype
from ..models.stateful_language_model import StatefulDecoder
from ..models.unwrapped import unwrapped, wrappers
from .output_embedding import UnsupportedModelError

__all__ = ["TEACHER_MODES", "check_can_train_passes", "teacher_pass"]

TEACHER_MODES = ("eval", "train", "both")


def teacher_pass(model: nn.Module, net_input: Dict[str, Any], device: torch.device, mode: str) -> Any:
    """What the model returns for a batch in a pass of its own, with nothing of it left behind.

    The model itself is called, not what wraps it for data-parallel training: nothing is sent between workers.
    A model that carries a state from batch to batch starts from the state that the training's own pass of this batch
    starts from, so this pass comes first.

    Args:
        model: a fairseq model in training mode, possibly wrapped for data-parallel training.
        net_input: arguments of its forward.
        device: of the batch.
        mode: ``eval``: without dropout, and torch's generators draw no number; ``train``: with dropout, drawn anew;
            ``both``: so too, and the pass can be trained like the other.

    Returns:
        The model's output, without gradient unless the mode is ``both``.
    """
    inner = unwrapped(model)
    low = autocast_dtype(device.type)
    with contextlib.ExitStack() as stack:
        if mode != "both":
            stack.enter_context(torch.no_grad())
            # What autocast has cast here it would remember for the pass with gradients, without a gradient.
            stack.enter_context(torch.autocast(device.type, dtype=low, enabled=low is not None, cache_enabled=False))
        if mode == "eval":
            stack.enter_context(_evaluation_mode(inner))
            # With LayerDrop fairseq draws in evaluation, too, though it drops nothing then; it does so on the CPU.
            stack.enter_context(torch.random.fork_rng(devices=[]))
        if isinstance(inner.decoder, StatefulDecoder):
            stack.enter_context(inner.decoder.as_in_training())
        return inner(**net_input)


def check_can_train_passes(model: nn.Module, mode: str) -> None:
    """Refuse what cannot train both passes.

    PyTorch's DDP counts one gradient for each parameter, and decides by the pass that it sees which will come.

    Args:
        model: as of :func:`teacher_pass`.
        mode: as of :func:`teacher_pass`; only with ``both`` is anything refused.

    Raises:
        UnsupportedModelError: the pass is to be trained, and PyTorch's data-parallel wrapper cannot take its gradients.
    """
    parallel = [wrapper for wrapper in wrappers(model) if isinstance(wrapper, DistributedDataParallel)]
    if mode != "both" or not parallel:
        return
    modules = list(unwrapped(model).modules())
    why = None
    if any(hasattr(module, "precheckpoint_forward") for module in modules):
        why = "--checkpoint-activations"
    elif any(wrapper.find_unused_parameters for wrapper in parallel) and any(
        isinstance(module, LayerDropModuleList) for module in modules
    ):
        why = "LayerDrop and --find-unused-parameters"
    if why is not None:
        raise UnsupportedModelError(
            f"self_kd cannot train both passes (--skd-teacher-mode both) with {why} under PyTorch's DDP, which takes "
            "one gradient for each parameter: give --ddp-backend legacy_ddp, or --skd-teacher-mode train"
        )


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards each in the mode that it was in (some may be frozen)."""
    in_training = [module for module in model.modules() if module.training]
    for module in in_training:
        module.training = False
    try:
        yield
    finally:
        for module in in_training:
            module.training = True
