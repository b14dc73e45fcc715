"""The model inside data-parallel wrappers."""

from typing import Any, Iterator

from torch import nn

__all__ = ["unwrapped", "wrappers"]


def wrappers(model: nn.Module) -> Iterator[Any]:
    """The wrappers of a model, the outermost first.

    Args:
        model: a fairseq model, possibly wrapped for data-parallel training, once or several times.

    Yields:
        Each of the wrappers; the model itself is none.
    """
    outer: Any = model
    while hasattr(outer, "module"):
        yield outer
        outer = outer.module


def unwrapped(model: nn.Module) -> Any:
    """Take the wrappers off a model.

    Args:
        model: a fairseq model, possibly wrapped for data-parallel training, once or several times.

    Returns:
        The fairseq model itself.
    """
    inner: Any = model
    for wrapper in wrappers(model):
        inner = wrapper.module
    return inner
