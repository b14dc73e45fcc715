"""Defaults of an architecture: values for what the user left open."""

import dataclasses
from typing import Any, Type

from fairseq.models import register_model

__all__ = ["register_variant", "set_defaults"]


def set_defaults(args: Any, **defaults: Any) -> None:
    """Set each attribute that the user did not set: for architectures of fairseq models without a dataclass.

    Args:
        args: namespace or config of the model, changed in place.
        **defaults: attribute name -> value.
    """
    for name, value in defaults.items():
        setattr(args, name, getattr(args, name, value))


def register_variant(name: str, model: type, config: Type[Any], description: str, **defaults: Any) -> type:
    """Register ``model`` once more under another name and with other defaults.

    fairseq's hydra command line fills in the defaults of a model's dataclass before it calls an architecture function,
    which then finds nothing left open. So each variant has a dataclass of its own, for both command lines.

    Args:
        name: for ``--arch`` and ``model._name``.
        model: fairseq model class.
        config: its dataclass.
        description: docstring of the variant.
        **defaults: option -> value where it differs from ``config``.

    Returns:
        The registered subclass of ``model``.
    """
    changed = [
        (option.name, option.type, dataclasses.field(default=defaults[option.name], metadata=option.metadata))
        for option in dataclasses.fields(config)
        if option.name in defaults
    ]
    variant = dataclasses.make_dataclass(f"{config.__name__}_{name}", changed, bases=(config,))
    registered: type = register_model(name, dataclass=variant)(type(name, (model,), {"__doc__": description}))
    return registered
