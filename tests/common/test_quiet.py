"""What is left out of the screen of a command, and what is not."""

import logging
import warnings

import pytest

from selfkd_fairseq.common.quiet import quiet


def say(module):
    """A message of each level below error, and a warning, from a library's module."""
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger(module).log(level, f"{module} {logging.getLevelName(level)}")
    warnings.warn_explicit(f"{module} advises", UserWarning, "file.py", 1, module=module)


@pytest.mark.parametrize("module", ["fairseq.options", "hydra.core.compose", "torch.nn.functional"])
def test_only_warnings_are_logged_and_no_advice_to_the_authors_of_a_library_is_given(module, monkeypatch):
    heard, handler = [], logging.Handler()  # at the logger itself: torch 2.4 keeps its messages from the root
    monkeypatch.setattr(handler, "emit", lambda record: heard.append(record.getMessage()))
    monkeypatch.setattr(logging.getLogger(module), "handlers", [handler])
    monkeypatch.setattr(logging.getLogger(module), "level", logging.DEBUG)
    with warnings.catch_warnings(record=True) as given, quiet():
        say(module)
    assert heard == [f"{module} WARNING"] and not given


def test_warnings_of_ones_own_are_given():
    with warnings.catch_warnings(record=True) as given, quiet():
        warnings.simplefilter("always")
        say("selfkd_fairseq.core.options")
    assert [str(each.message) for each in given] == ["selfkd_fairseq.core.options advises"]


def test_one_within_another_ends_where_the_outer_one_does(caplog):
    with caplog.at_level(logging.DEBUG):
        with quiet():
            with quiet():
                pass
            logging.getLogger("matplotlib").debug("font")
        logging.getLogger("matplotlib").debug("after")
    assert caplog.messages == ["after"]
