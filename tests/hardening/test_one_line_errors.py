"""Which errors of which programs are printed as one line."""

import sys

import pytest
import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from selfkd_fairseq.common.errors import MendableError
from selfkd_fairseq.common.one_line import in_one_line
from selfkd_fairseq.evaluation.errors import EvaluationError
from selfkd_fairseq.hardening.one_line_errors import print_in_one_line


@pytest.fixture
def hook(monkeypatch):
    """Call the hook of a program of some name with an error: what the hook that was there before has got of it."""

    def call(program, error):
        stacks = []
        monkeypatch.setattr(sys, "argv", [program, "--path", "x.pt"])
        monkeypatch.setattr(sys, "excepthook", lambda *arguments: stacks.append(arguments))
        print_in_one_line()
        sys.excepthook(type(error), error, None)
        return stacks

    return call


@pytest.mark.parametrize("program", ["fairseq-train", "/usr/bin/fairseq-generate", "fairseq-eval-lm"])
@pytest.mark.parametrize("kind", [MendableError, EvaluationError])
def test_a_mendable_error_is_one_line(hook, capsys, program, kind):
    assert hook(program, kind("x.pt is\nempty")) == []
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{program.rsplit('/', 1)[-1]}: error: x.pt is empty\n")


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("fairseq-train", ValueError("x.pt is empty")),
        ("fairseq-train", KeyboardInterrupt()),
        ("train.py", MendableError("x.pt is empty")),
        ("fairseq_analysis.py", MendableError("x.pt is empty")),
        ("/home/fairseq/bin/pytest", MendableError("x.pt is empty")),
        ("", MendableError("x.pt is empty")),
    ],
)
def test_what_keeps_its_stack(hook, capsys, program, error):
    assert hook(program, error) == [(type(error), error, None)]
    assert capsys.readouterr().err == ""


def test_a_program_without_a_name(monkeypatch):
    before = sys.excepthook
    monkeypatch.setattr(sys, "argv", [])
    print_in_one_line()
    assert sys.excepthook is before


def test_control_characters_do_not_reach_the_terminal():
    assert in_one_line("a\r\nb\x1b[2J\u2028c\x85日本") == "a b [2J c 日本"


def fail(number):
    raise MendableError("x.pt is empty")


def test_errors_of_the_process_of_a_gpu(hook, capsys):
    """fairseq-train starts one for each GPU where there are several."""
    with pytest.raises(ProcessRaisedException) as caught:
        torch.multiprocessing.spawn(fail)
    assert hook("fairseq-train", caught.value) == []
    assert capsys.readouterr().err.endswith("fairseq-train: error: x.pt is empty\n")
    mendable = f"{MendableError.__module__}.MendableError: "
    for name in (
        "ValueError: ",
        "selfkd_fairseq.checkpoints.average_inputs.AverageError: ",
        "selfkd_fairseq.no_such.Error: ",
    ):
        other = ProcessRaisedException(str(caught.value).replace(mendable, name), 0, 1)
        assert hook("fairseq-train", other) == [(type(other), other, None)]
