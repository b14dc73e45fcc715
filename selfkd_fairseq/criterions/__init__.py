"""Criterions that ``--criterion`` knows once the plugin is loaded."""

from . import self_kd  # noqa: F401
