"""The model inside data-parallel wrappers."""

from typing import Any

from torch import nn

__all__ = ["unwrapped"]


def unwrapped(model: nn.Module) -> Any:
    """The fairseq model itself, without data-parallel wrappers."""
    inner: Any = model
    while hasattr(inner, "module"):
        inner = inner.module
    return inner
