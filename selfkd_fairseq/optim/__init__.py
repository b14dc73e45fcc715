"""Optimizers that ``--optimizer`` knows once the plugin is loaded."""

from . import nt_asgd  # noqa: F401
