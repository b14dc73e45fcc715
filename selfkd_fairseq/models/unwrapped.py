"""The model inside data-parallel wrappers."""

from torch import nn

__all__ = ["unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without data-parallel wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model
