"""Models and architectures that ``--arch`` knows once the plugin is loaded."""

from . import awd_lstm_lm, lstm_lm_zaremba, transformer  # noqa: F401
