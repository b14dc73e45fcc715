"""``selfkd-compare``: several systems with several seeds each, in one table with tests and plots."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Sequence

from selfkd_fairseq.cli.command import OneLineParser, run_command
from selfkd_fairseq.cli.text_options import add_text_options
from selfkd_fairseq.evaluation.comparison import Comparison, compare
from selfkd_fairseq.evaluation.comparison_folder import RECORD, check_place, write_folder
from selfkd_fairseq.evaluation.comparison_report import PROGRAM, as_json, as_page
from selfkd_fairseq.evaluation.comparison_table import as_csv, as_text
from selfkd_fairseq.evaluation.errors import ComparisonError, ScoringError
from selfkd_fairseq.evaluation.runs import Run, parse_run, read_run
from selfkd_fairseq.evaluation.significance import DEFAULT_SAMPLES, DEFAULT_SEED, TESTS, Resampling
from selfkd_fairseq.evaluation.text_files import STDIN, read_sentences
from selfkd_fairseq.evaluation.translation_scores import TextOptions

DESCRIPTION = """\
Compare systems, each trained with one or several seeds, on one test set: BLEU, chrF and TER by sacreBLEU, perplexity
with a 95 % bootstrap interval, accuracy, calibration; mean and standard deviation over the seeds; each run tested
against the baseline's run of the same seed, and the means against each other, by sacreBLEU's own paired test."""

EPILOG = """\
a RUN is the folder of one training:
  results/evaluate-SPLIT.json    by selfkd-evaluate
  results/generate-SPLIT.txt     by fairseq-generate --results-path RUN/results; without it, as for language models,
                                 there are perplexity, accuracy and calibration alone
  log.json, provenance.json      of the training: learning curves, and where the run comes from; may be missing
Its system is called NAME, else as the folder above it: multirun/multi30k/self_kd/1 is a run of self_kd. Its seed is
that in the settings of the checkpoint. All runs must have been evaluated on the same data.

OUTPUT gets table.md, table.csv, comparison.json (all numbers, with command, commit, seed, versions, device and data
checksums of each row) and plots: scores.png, calibration.png, curves.png, alpha.png, soft_target.png and
soft_target_words.png. It appears when it is whole; an earlier result of this command is replaced, any other folder
refused. On stdout comes the table; messages go to stderr.
exit status: 0 done; 1 bad input; 2 bad options; 130 Ctrl-C; 141 nobody reads the output.

example:
  selfkd-compare multirun/multi30k/*/* --baseline label_smoothing --references raw/test.de --output results/multi30k"""


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, got {text!r}")
    return int(text)


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(PROGRAM, DESCRIPTION, EPILOG)
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="folders of trainings")
    parser.add_argument("--baseline", required=True, metavar="NAME", help="system that the others are tested against")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--gen-subset", default="test", metavar="SPLIT", help="split of the data (%(default)s)")
    parser.add_argument(
        "--target-lang", metavar="LANG", help="language of the translations (default: that of the trainings)"
    )
    add_text_options(parser)
    parser.add_argument(
        "--test", choices=list(TESTS), default="bootstrap",
        help="paired bootstrap, or paired approximate randomisation (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=_positive, metavar="N",
        help="resamples or trials of the test, and resamples of the perplexity (default: sacreBLEU's own, "
        + ", ".join(f"{samples} for {test}" for test, samples in DEFAULT_SAMPLES.items()) + ")",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=_positive, default=DEFAULT_SEED, metavar="N",
        help="of the resampling (%(default)s, sacreBLEU's own; its SACREBLEU_SEED is not read)",
    )  # fmt: skip
    return parser


def _sentences(path: Path | None) -> list[str] | None:
    return None if path is None else read_sentences(path)


def _text_options(options: argparse.Namespace, runs: Sequence[Run]) -> TextOptions:
    given = {"--references": options.references, "--tokenised-references": options.tokenised_references}
    for name, path in given.items():
        if path is not None and runs[0].translations is None:
            raise ComparisonError(f"{name} goes with translations: {runs[0].translations_file} is missing")
        if path == STDIN:
            raise ComparisonError(f"{name} takes the name of a file")
    return TextOptions(
        options.target_lang,
        options.lowercase,
        options.tokenize,
        options.detokenised,
        options.remove_bpe,
        _sentences(options.references),
        _sentences(options.tokenised_references),
    )


def _scoring(options: argparse.Namespace) -> dict[str, Any]:
    """The options of scoring, ready for JSON, with the checksums of the files."""
    from selfkd_fairseq.data.raw_text import sha256_of

    scoring = {
        name: getattr(options, name)
        for name in ("target_lang", "lowercase", "tokenize", "detokenised", "remove_bpe", "nbest")
    }
    for name in ("references", "tokenised_references"):
        path = getattr(options, name)
        scoring[name] = path and {"path": str(path), "sha256": sha256_of(path)}
    return scoring


def _write(folder: Path, comparison: Comparison, scoring: dict[str, Any]) -> None:
    import torch

    from selfkd_fairseq.evaluation.comparison_plots import draw_plots
    from selfkd_fairseq.runs.provenance import provenance

    here = provenance(torch.device("cpu"))
    plots = draw_plots(comparison, folder)
    contents = {
        "table.md": as_page(comparison, here, plots),
        "table.csv": as_csv(comparison),
        RECORD: as_json(comparison, here, scoring),
    }
    for name, content in contents.items():
        with open(folder / name, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit status. The table is printed on stdout, alone; everything else goes to stderr, each failure in one
        line.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)

    def work() -> str:
        check_place(options.output)
        named = [parse_run(text) for text in options.runs]
        runs = [read_run(system, folder, options.gen_subset, options.nbest) for system, folder in named]
        samples = options.samples or DEFAULT_SAMPLES[options.test]
        how = Resampling(options.test, samples, options.seed)
        comparison = compare(runs, options.gen_subset, options.baseline, _text_options(options, runs), how)
        write_folder(options.output, lambda folder: _write(folder, comparison, _scoring(options)))
        for note in comparison.notes:
            parser.report(f"note: {note}")
        return as_text(comparison)

    return run_command(
        parser,
        work,
        ScoringError,
        place=f" (while working on {options.output})",
        interrupted="interrupted; nothing is written",
    )


if __name__ == "__main__":
    sys.exit(main())
