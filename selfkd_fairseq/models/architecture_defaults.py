"""Defaults of an architecture: values for what the user left open."""

__all__ = ["set_defaults"]


def set_defaults(args, **defaults):
    """Set each attribute that the user did not set on the command line or in the YAML file.

    Args:
        args: namespace or config of the model, changed in place.
        defaults: attribute name -> value.
    """
    for name, value in defaults.items():
        setattr(args, name, getattr(args, name, value))
