"""Tasks that ``--task`` knows once the plugin is loaded."""

from . import bptt_language_modeling  # noqa: F401
