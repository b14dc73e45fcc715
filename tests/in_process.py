"""fairseq's commands, called in this process: a start of one takes 5 to 9 seconds of imports."""

import contextlib
import importlib
import logging
import sys
from unittest import mock

from fairseq import checkpoint_utils
from fairseq.logging import metrics

from tests.fairseq_setup import ROOT

PLUGIN = ["--user-dir", str(ROOT / "selfkd_fairseq"), "--cpu"]


@contextlib.contextmanager
def as_a_new_process(*command_line):
    """What fairseq keeps in its modules and in the root logger is as in a process that has just begun, and put back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    metrics.reset()
    try:
        with mock.patch.object(sys, "argv", [str(argument) for argument in command_line]):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def fairseq(command, *arguments):
    """Call ``fairseq-COMMAND`` with these arguments, the plugin's and ``--cpu``."""
    main = importlib.import_module(f"fairseq_cli.{command}").cli_main
    with as_a_new_process(f"fairseq-{command}", *arguments, *PLUGIN):
        main()
