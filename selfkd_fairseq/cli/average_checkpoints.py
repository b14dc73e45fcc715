"""``selfkd-average-checkpoints``: the mean of several checkpoints, as a checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Sequence

from selfkd_fairseq.common.fairseq_package import require_fairseq

PROGRAM = "selfkd-average-checkpoints"
require_fairseq(PROGRAM)

from selfkd_fairseq.checkpoints.average import average_checkpoints, save_checkpoint
from selfkd_fairseq.checkpoints.average_inputs import AverageError, last_checkpoints
from selfkd_fairseq.cli.command import OneLineParser, count, run_command

DESCRIPTION = """\
Average the models of several checkpoints of one training: its last epochs, its last updates, or named files. The
result is a checkpoint like any other, for fairseq-generate, fairseq-validate and fairseq-train."""

EPILOG = """\
what the result holds:
  model        the mean of each parameter: summed in float64 in the order of the files (oldest first with --last-...),
               divided by their number, rounded once to the parameter's own dtype. Tied parameters stay tied. Tensors
               of integers must be equal in all files and are taken over.
  the rest     the settings (cfg or args), task_state, extra_state and so on of the newest file, the one with the most
               updates
  averaged_checkpoints    the files and their numbers of updates; fairseq does not read it
  It does not hold the state of the optimizer, which belongs to another point than the mean. To train on, give it to
  fairseq-train --finetune-from-model, which starts the optimizer, the schedules and the epochs anew. --restore-file
  loads it too, like a file of --no-save-optimizer-state: the count of epochs goes on, that of updates starts at 0.

The memory needed is less than that of two checkpoints, however many are averaged. OUTPUT appears when it is whole; a
file of that name is replaced, but not one of the inputs. Files are loaded in torch's safe mode, and checked whole.
On stdout comes one line, the path of OUTPUT; messages go to stderr.
exit status: 0 done; 1 bad input; 2 bad options; 130 Ctrl-C; 141 nobody reads the output.

examples:
  selfkd-average-checkpoints --last-epochs 10 checkpoints/self_kd --output checkpoints/self_kd/average10.pt
  selfkd-average-checkpoints --last-updates 5 --upper-bound 8000 checkpoints/self_kd --output average.pt
  selfkd-average-checkpoints a/checkpoint_best.pt a/checkpoint_last.pt --output average.pt"""


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(PROGRAM, DESCRIPTION, EPILOG)
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="with --last-epochs or --last-updates the folder of the checkpoints, else the files",
    )
    parser.add_argument("--output", required=True, type=Path, help="the file to make")
    last = parser.add_mutually_exclusive_group()
    last.add_argument("--last-epochs", type=count, metavar="N", help="the last N files checkpointEPOCH.pt")
    last.add_argument("--last-updates", type=count, metavar="N", help="the last N files checkpoint_EPOCH_UPDATE.pt")
    parser.add_argument(
        "--upper-bound", type=count, metavar="N", help="with --last-...: none after epoch, or update, N (default: all)"
    )
    return parser


def _inputs(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Path]:
    """The files that the options name; ends the program where the options do not fit together."""
    inputs: list[Path] = options.inputs
    count = options.last_epochs or options.last_updates
    if count is None:
        if options.upper_bound is not None:
            parser.error("--upper-bound goes with --last-epochs or --last-updates")
        folders = [path for path in inputs if path.is_dir()]
        if folders:
            parser.error(f"{folders[0]} is a folder: it goes with --last-epochs or --last-updates")
        return inputs
    kind = "epoch" if options.last_epochs else "update"
    if len(inputs) != 1:
        parser.error(f"--last-{kind}s takes one folder, got {len(inputs)}")
    return last_checkpoints(inputs[0], count, kind, options.upper_bound)


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse, before any work, a place where the result must not or cannot go."""
    if output.exists() and not output.is_file():  # a device would be replaced by a file of its name
        raise AverageError(f"--output {output} is a folder or a device")
    for path in inputs:
        if output.exists() and path.exists() and os.path.samefile(str(output), str(path)):
            raise AverageError(f"--output {output} is one of the inputs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit status. The path of the result is printed on stdout, alone; everything else goes to stderr, each
        failure in one line.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)

    def work() -> Path:
        inputs = _inputs(parser, options)
        _check_output(options.output, inputs)
        parser.report(f"averaging {len(inputs)} checkpoints: {', '.join(map(str, inputs))}")
        save_checkpoint(average_checkpoints(inputs), options.output)
        output: Path = options.output
        return output

    return run_command(
        parser,
        work,
        AverageError,
        place=f" (while working on {options.output})",
        interrupted="interrupted; nothing is written",
    )


if __name__ == "__main__":
    sys.exit(main())
