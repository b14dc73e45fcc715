"""fairseq's search for the tensor that was not finite first, mended for models whose encoder returns lists in a dict.

When a gradient is NaN or infinite, fairseq's trainer runs the batch once more under ``NanDetector``, which logs the
module and the parameters concerned, and stops with ``gradients are Nan/Inf``. The detector asks torch for backward
hooks by way of a module's output, and torch finds no tensor in the output of a Transformer encoder, a dict of lists:
the training ends with a bare ``StopIteration`` and no name. Here the gradients are watched at the tensors themselves,
wherever they are in an output.
"""

from __future__ import annotations

import functools
from typing import Any

from fairseq import utils
from fairseq.nan_detector import NanDetector
from torch import Tensor, nn

from .stand_ins import stand_in


def _watch_gradients(detector: NanDetector, module: nn.Module, inputs: Any, output: Any) -> None:
    """Forward hook: the detector is told the gradient of each tensor in the output of the module."""

    def watch(tensor: Tensor) -> Tensor:
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: detector.bhook_fn(module, None, gradient))
        return tensor

    utils.apply_to_sample(watch, output)


def add_hooks(detector: NanDetector, module: nn.Module) -> None:
    """Stand in for ``NanDetector.add_hooks``.

    Args:
        detector: what to tell the outputs of the module, and their gradients.
        module: any part of a model; what it computes, and its gradients, stay as they are.
    """
    if detector.forward:
        detector.fhooks.append(module.register_forward_hook(detector.fhook_fn))
    if detector.backward:
        detector.bhooks.append(module.register_forward_hook(functools.partial(_watch_gradients, detector)))


def watch_gradients_at_tensors() -> None:
    """Make ``NanDetector`` watch gradients at tensors, for this process; a second call changes nothing."""
    stand_in(NanDetector, "add_hooks", lambda _: add_hooks)
