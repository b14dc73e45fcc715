"""``selfkd-evaluate``: likelihood, accuracy and calibration of a checkpoint on a split, by one teacher-forced pass."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Sequence

from selfkd_fairseq.common.fairseq_package import require_fairseq

PROGRAM = "selfkd-evaluate"
require_fairseq(PROGRAM)

import torch
from tqdm import tqdm

from selfkd_fairseq import hardening, register
from selfkd_fairseq.cli.command import OneLineParser, count, run_command, write_results
from selfkd_fairseq.data.raw_text import sha256_of
from selfkd_fairseq.evaluation.calibration import BINS, calibrate
from selfkd_fairseq.evaluation.damage import one_message
from selfkd_fairseq.evaluation.data_folder import find_data_folder
from selfkd_fairseq.evaluation.errors import EvaluationError
from selfkd_fairseq.evaluation.evaluation_record import as_json, measurements, training_settings
from selfkd_fairseq.evaluation.reliability_diagram import draw_reliability_diagram
from selfkd_fairseq.evaluation.runs import EVALUATION_FORMAT
from selfkd_fairseq.evaluation.split import TASKS, read_split
from selfkd_fairseq.evaluation.teacher_forced import score_tokens
from selfkd_fairseq.evaluation.trained_model import TrainedModel, load_trained_model
from selfkd_fairseq.evaluation.word_shares import word_shares_of
from selfkd_fairseq.runs.provenance import provenance

DEFAULT_MAX_TOKENS = 2048

DESCRIPTION = """\
Score the reference text of a split with a checkpoint, each token given the true tokens before it (teacher-forced):
negative log-likelihood and perplexity, accuracy, and calibration, with a reliability diagram. For the tasks
translation, language_modeling and bptt_language_modeling."""

EPILOG = f"""\
what is measured, over all tokens of the references, </s> included:
  NLL            fairseq's nll_loss, never with label smoothing or distillation; perplexity is exp of its mean
  accuracy       percent of tokens that are the most probable word
  calibration    confidence is the probability of the most probable word. Expected calibration error: the mean distance
                 of accuracy and mean confidence over {BINS} bins of equal width, weighted by their tokens (Guo et al.,
                 2017, arXiv 1706.04599), as a fraction
  per sentence   tokens and NLL of each line of the raw text, in its order, for tests of significance
  word shares    of a model trained with self_kd: how much of the probability of its soft targets, and of its own, lies
                 on the target, on its nearest words by the Euclidean distance of the rows of the output matrix (the
                 first, 2 to 10, 11 to 100) and on all others
No sentence is left out; one that is too long for the model is an error. All is in float32. The settings are those of
the checkpoint: the numbers are those of fairseq-validate with --required-batch-size-multiple 1. A model of the task
bptt_language_modeling reads the split as one stream, as in fairseq-eval-lm with --batch-size 1: the first token of all
is not scored, and --max-tokens is the length of the windows, which changes the speed alone.

what is written, each whole or not at all, the JSON last:
  RESULTS/evaluate-SPLIT.json    all numbers, with the settings of the training, the versions and the checksums of the
                                 data and of the checkpoint; selfkd-compare reads it
  RESULTS/evaluate-SPLIT.png     the reliability diagram

On stdout comes a summary; messages and progress go to stderr.
exit status: 0 done; 1 bad input; 2 bad options; 130 Ctrl-C; 141 nobody reads the output.

example:
  selfkd-evaluate data-bin/multi30k.en-de/bin --path RUN/checkpoints/checkpoint_best.pt --results-path RUN/results"""


def make_parser() -> OneLineParser:
    """The options of the command, under fairseq's names."""
    parser = OneLineParser(PROGRAM, DESCRIPTION, EPILOG)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of binarised data; of several, A:B, the first")
    parser.add_argument("--path", required=True, type=Path, metavar="CHECKPOINT", help="file of fairseq-train")
    parser.add_argument("--gen-subset", default="test", metavar="SPLIT", help="what to evaluate (%(default)s)")
    parser.add_argument("--results-path", required=True, type=Path, metavar="RESULTS", help="folder for the results")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--max-tokens", type=count, metavar="N", help=f"most tokens in a batch (default: {DEFAULT_MAX_TOKENS})"
    )
    size.add_argument("--batch-size", type=count, metavar="N", help="instead: most sentences in a batch")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    return parser


def evaluate(trained: TrainedModel, options: argparse.Namespace, device: torch.device) -> tuple[dict[str, Any], bytes]:
    """Evaluate a model.

    Args:
        trained: the model of ``options.path``.
        options: of :func:`make_parser`.
        device: where the model is.

    Returns:
        The record of ``evaluate-SPLIT.json``, and the content of the PNG file.

    Raises:
        EvaluationError: something that the user can mend.
        OSError: a file cannot be read.
    """
    name, max_tokens = options.gen_subset, options.max_tokens
    if max_tokens is None and options.batch_size is None:
        max_tokens = DEFAULT_MAX_TOKENS
    with one_message(f"{options.path} does not have the settings of a checkpoint of fairseq-train"):
        training = training_settings(trained)
        as_json(training)  # as at the end, after all the work
    shares = word_shares_of(trained)
    observe = None if shares is None else shares.add
    split = read_split(trained, options.data, name, max_tokens, options.batch_size)
    progress = tqdm(split.batches, desc=name, leave=False, disable=None)  # None: shown on a terminal alone
    with one_message(f"{options.path} cannot score {name} of {options.data}"):
        scores = score_tokens(trained.model, progress, trained.task.target_dictionary.pad(), observe)
    calibration = calibrate(scores.confidence, scores.correct)
    record = {
        "format": EVALUATION_FORMAT,
        "split": name,
        **measurements(scores, split.lengths, calibration),
        "word_shares": None if shares is None else shares.means(),
        "checkpoint": {
            "path": str(options.path),
            "sha256": sha256_of(options.path),
            "epoch": trained.epoch,
            "num_updates": trained.num_updates,
        },
        "training": training,
        "provenance": provenance(device, options.data, [name]),
    }
    error = calibration.expected_calibration_error
    title = [f"{name}: expected calibration error {error:.4f}, accuracy {record['accuracy']:.2f} %", str(options.path)]
    return record, draw_reliability_diagram(calibration, title)


def _summary(record: dict[str, Any], files: Sequence[Path]) -> str:
    nll, calibration = record["nll"], record["calibration"]
    confidence = sum(b["tokens"] * b["confidence"] for b in calibration["bins"] if b["tokens"]) / record["tokens"]
    return "\n".join(
        [
            f"{record['split']}: {record['sentences']:,} sentences, {record['tokens']:,} tokens",
            f"NLL per token      {nll['nats_per_token']:.4f} nats, {nll['bits_per_token']:.4f} bits",
            f"perplexity         {nll['ppl']:.3f}",
            f"accuracy           {record['accuracy']:.2f} %",
            f"mean confidence    {100 * confidence:.2f} %",
            f"calibration error  {calibration['expected_calibration_error']:.4f}",
            *_shares(record["word_shares"]),
            *(f"written: {file}" for file in files),
        ]
    )


def _shares(shares: dict[str, dict[str, float]] | None) -> list[str]:
    """A line for the soft targets and one for the model."""
    return [
        f"{name.replace('_', ' '):19}" + ", ".join(f"{group} {100 * share:.2f} %" for group, share in groups.items())
        for name, groups in (shares or {}).items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit status. The summary is printed on stdout, alone; everything else goes to stderr, each failure in one
        line.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")

    def work() -> str:
        register()
        hardening.install()
        options.data = find_data_folder(options.data)
        if options.results_path.exists() and not options.results_path.is_dir():
            raise EvaluationError(f"--results-path {options.results_path} is not a folder")
        try:
            record, diagram = evaluate(load_trained_model(options.path, options.data, device, TASKS), options, device)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError from error
        stem = f"evaluate-{options.gen_subset}"
        contents = {f"{stem}.png": diagram, f"{stem}.json": as_json(record).encode("utf-8")}
        write_results(options.results_path, contents)
        return _summary(record, [options.results_path / name for name in contents])

    return run_command(
        parser,
        work,
        EvaluationError,
        interrupted="interrupted; nothing is written",
        out_of_memory="out of memory; try a smaller --max-tokens or --batch-size",
    )


if __name__ == "__main__":
    sys.exit(main())
