"""The model inside data-parallel wrappers."""

from typing import Any

from torch import nn

__all__ = ["unwrapped"]


def unwrapped(model: nn.Module) -> Any:
    """Take the wrappers off a model.

    Args:
        model: a fairseq model, possibly wrapped for data-parallel training, once or several times.

    Returns:
        The fairseq model itself.
    """
    inner: Any = model
    while hasattr(inner, "module"):
        inner = inner.module
    return inner
