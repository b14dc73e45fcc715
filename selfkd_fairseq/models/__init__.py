"""Architectures that ``--arch`` knows once the plugin is loaded."""

from . import transformer  # noqa: F401
