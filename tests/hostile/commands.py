"""The commands that read checkpoints, called with one that they must refuse."""

import torch

from selfkd_fairseq.cli import average_checkpoints, evaluate, neighbours
from tests import fairseq_setup


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
