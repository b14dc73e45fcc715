"""The commands that read checkpoints and data, called with some that they must refuse."""

import importlib
import logging
import sys

import torch

from selfkd_fairseq.cli import average_checkpoints, evaluate, neighbours
from selfkd_fairseq.hardening.one_line_errors import print_in_one_line
from tests import fairseq_setup
from tests.language_model import TASK, TINY_ZAREMBA


def write_checkpoint(data, path, *flags):
    """A checkpoint as fairseq-train writes it, after one update."""
    from fairseq.trainer import Trainer

    setup = fairseq_setup.build(data, *flags)
    trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
    trainer.begin_epoch(1)
    iterator = setup.task.get_batch_iterator(
        setup.task.dataset("train"), max_tokens=200, max_sentences=setup.cfg.dataset.batch_size
    )
    trainer.train_step([next(iterator.next_epoch_itr(shuffle=False))])
    trainer.consolidate_optimizer()
    trainer.save_checkpoint(str(path), {"train_iterator": {"epoch": 1, "iterations_in_epoch": 1}, "val_loss": 1.0})
    return path


def changed(checkpoint, path, change):
    """A copy of a checkpoint that ``change`` was applied to."""
    state = torch.load(checkpoint, weights_only=True)
    change(state)
    torch.save(state, path)
    return path


COMMANDS = {
    "selfkd-evaluate": lambda path, data, out: (evaluate.main, [data, "--path", path, "--results-path", out, "--cpu"]),
    "selfkd-neighbours": lambda path, data, out: (neighbours.main, [path, "--data", data, "--output", out]),
    "selfkd-average-checkpoints": lambda path, data, out: (average_checkpoints.main, [path, "--output", out / "x.pt"]),
}
ON_DATA = ("selfkd-evaluate", "selfkd-neighbours")


PLUGIN = ["--user-dir", str(fairseq_setup.ROOT / "selfkd_fairseq"), "--cpu"]
TRAIN = ["--optimizer", "sgd", "--lr", "0.1", "--max-tokens", "200"]
TRAIN_TRANSFORMER = [*TRAIN, *fairseq_setup.TINY_TRANSFORMER, "--criterion", "self_kd"]
TRAIN_STREAM = [*TRAIN, *TASK, *TINY_ZAREMBA]
VALIDATE = ["--task", "translation", "--max-tokens", "200"]
# fairseq's own, each with its arguments but for the data; the path of a checkpoint follows.
FAIRSEQ_COMMANDS = {
    "fairseq-train": [*TRAIN_TRANSFORMER, "--restore-file"],
    "fairseq-generate": ["--path"],
    "fairseq-validate": [*VALIDATE, "--path"],
}


def refused_by_fairseq(capsys, monkeypatch, name, data, *arguments):
    """Call one of fairseq's own commands in this process; it must end with one line of an error.

    Returns:
        The error, without the command's name.
    """
    handlers = list(logging.root.handlers)  # the module adds one, for the stdout of this test
    main = importlib.import_module(f"fairseq_cli.{name.split('-', 1)[1].replace('-', '_')}").cli_main
    monkeypatch.setattr(sys, "argv", [f"/somewhere/bin/{name}", str(data), *PLUGIN, *map(str, arguments)])
    monkeypatch.chdir(data.parent)  # fairseq-train makes a folder checkpoints
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    print_in_one_line()  # as in a process of that name
    capsys.readouterr()
    logging.disable(logging.CRITICAL)  # of another process this would be on stdout or stderr, before the error
    try:
        main()
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        logging.disable(logging.NOTSET)
        logging.root.handlers[:] = handlers
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{name}: error: "), "\n".join(lines)
    return lines[0][len(f"{name}: error: ") :]


def refused(capsys, path, data, out, commands=tuple(COMMANDS)):
    """Call each command; each must end with status 1, one line of an error, nothing on stdout and nothing written.

    Returns:
        The errors by command, each without the command's name.
    """
    messages = {}
    for name in commands:
        main, arguments = COMMANDS[name](path, data, out)
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if ": averaging 1 checkpoints: " not in line]
        assert (status, captured.out, len(lines)) == (1, "", 1), (name, status, captured)
        assert lines[0].startswith(f"{name}: error: ") and not out.exists(), lines
        messages[name] = lines[0][len(f"{name}: error: ") :]
    return messages
