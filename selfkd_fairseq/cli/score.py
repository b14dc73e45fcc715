"""``selfkd-score``: BLEU, chrF and TER of the output of ``fairseq-generate``."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Sequence

from selfkd_fairseq.cli.command import OneLineParser, run_command
from selfkd_fairseq.cli.text_options import add_text_options
from selfkd_fairseq.evaluation.errors import ScoringError
from selfkd_fairseq.evaluation.generate_output import read_generate_output
from selfkd_fairseq.evaluation.scoring import MetricScore, make_texts, remove_bpe, score_texts
from selfkd_fairseq.evaluation.text_files import STDIN, read_sentences, read_text

PROGRAM = "selfkd-score"

DESCRIPTION = """\
Score translations with sacreBLEU: BLEU, chrF and TER of the detokenised text, and BLEU of the lower-cased tokens
(sacreBLEU's --tokenize none), each with its signature. Every number is sacreBLEU's own."""

EPILOG = """\
what is scored:
  An output of fairseq-generate (or of fairseq-interactive) is read whole and must be whole: every sentence from 0 on,
  once, with all its lines, and the line "Generate ... with beam=..." at the end where it has references (T- lines).
  Hypotheses are its D- lines. Both they and the T- lines are taken for tokens; with --detokenised, for plain text.
  Whether the last sentences of the test set were left out it cannot tell: compare the number of sentences, which is
  printed with the scores, or give the references.

  plain text       of tokens it is made by sacremoses' Moses detokeniser
  tokens           of plain text they are made as selfkd-prepare does: lower-cased, normalised, Moses-tokenised
  references       plain: --references, else made of the tokens; tokens: --tokenised-references, else the T- lines,
                   else made of the plain text. Published detokenised scores take the untokenised references: give
                   --references. T- lines have <<unk>> for a word that is not in the dictionary.

Files are UTF-8, one sentence a line; .gz is unpacked, a byte-order mark and the carriage returns of Windows are left
out. On stdout comes the result alone; messages go to stderr.
exit status: 0 done; 1 bad input; 2 bad options; 130 Ctrl-C; 141 nobody reads the output.

examples:
  fairseq-generate DATA --path average.pt --remove-bpe --required-batch-size-multiple 1 > generate.txt
  selfkd-score generate.txt --target-lang de --references raw/test.de
  selfkd-score --hypotheses hypotheses.txt --detokenised --target-lang de --references raw/test.de --lowercase
the scores of the second are those of:
  sacrebleu raw/test.de -i hypotheses.txt -m bleu chrf ter -lc --chrf-lowercase"""

FORMS = {"detokenised": "detokenised text", "tokenised": "lower-cased tokens"}


def _width(text: str) -> int:
    if not text.isdigit() or int(text) > 15:
        raise argparse.ArgumentTypeError(f"a whole number from 0 to 15 is needed, got {text!r}")
    return int(text)


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(PROGRAM, DESCRIPTION, EPILOG)
    parser.add_argument(
        "output", nargs="?", type=Path, metavar="OUTPUT", help="output of fairseq-generate (default, and -: stdin)"
    )
    parser.add_argument("--hypotheses", type=Path, metavar="FILE", help="instead of OUTPUT: one hypothesis a line")
    parser.add_argument("--target-lang", required=True, metavar="LANG", help="language of the text, for example de")
    add_text_options(parser)
    parser.add_argument("--width", type=_width, default=1, metavar="N", help="decimals of the scores (%(default)s)")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the result (%(default)s)")
    return parser


def _check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.hypotheses is None:
        return
    if options.output is not None:
        parser.error("OUTPUT and --hypotheses exclude each other")
    if options.nbest:
        parser.error("--nbest goes with an output of fairseq-generate, not with --hypotheses")
    if options.references is None and options.tokenised_references is None:
        parser.error("--hypotheses needs --references or --tokenised-references")


def _sentences(path: Path | None) -> list[str] | None:
    return None if path is None else read_sentences(path)


def score(options: argparse.Namespace, report: Callable[[str], None]) -> tuple[int, list[MetricScore]]:
    """Turn the options into scores.

    Args:
        options: of :func:`make_parser`.
        report: takes each note for the user.

    Returns:
        The number of sentences, and the scores.

    Raises:
        ScoringError: something that the user can mend.
        OSError: a file cannot be read.
    """
    output_references = None
    if options.hypotheses is not None:
        hypotheses = _sentences(options.hypotheses) or []
    else:
        path = options.output or STDIN
        name = "stdin" if path == STDIN else str(path)
        hypotheses, output_references, decoded = read_generate_output(read_text(path), name, options.nbest)
        if decoded and not options.detokenised:
            report(f"note: the D- lines of {name} are not the words of its H- lines; if they are plain text, "
                  "made by fairseq's --tokenizer or by sentencepiece, give --detokenised")  # fmt: skip
        if output_references is not None:
            output_references = remove_bpe(output_references, options.remove_bpe)
            unknown = sum("<<unk>>" in reference for reference in output_references)
            if unknown and (options.references is None or options.tokenised_references is None):
                report(f"note: {unknown} references of {name} hold <<unk>> instead of a word")
    texts = make_texts(
        remove_bpe(hypotheses, options.remove_bpe),
        output_references,
        options.target_lang,
        detokenised=options.detokenised,
        plain_references=_sentences(options.references),
        token_references=_sentences(options.tokenised_references),
    )
    return len(hypotheses), score_texts(texts, options.target_lang, options.lowercase, options.tokenize)


def _as_json(options: argparse.Namespace, sentences: int, scores: list[MetricScore]) -> str:
    result: dict[str, Any] = {
        "hypotheses": str(options.hypotheses or options.output or STDIN),
        "references": options.references and str(options.references),
        "tokenised_references": options.tokenised_references and str(options.tokenised_references),
        "sentences": sentences,
        "target_lang": options.target_lang,
        "sacremoses": metadata.version("sacremoses"),
    }
    for form in FORMS:
        result[form] = {s.score.name: s.as_dict(options.width) for s in scores if s.form == form}
    return json.dumps(result, indent=2, ensure_ascii=False)


def _as_text(options: argparse.Namespace, sentences: int, scores: list[MetricScore]) -> str:
    lines = [f"sentences: {sentences}"]
    for form, title in FORMS.items():
        lines += [f"{title}:", *(s.as_text(options.width) for s in scores if s.form == form)]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit status. The scores are printed on stdout, alone; everything else goes to stderr, each failure in one
        line.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    _check_options(parser, options)

    def work() -> str:
        as_format = _as_json if options.format == "json" else _as_text
        return as_format(options, *score(options, parser.report))

    return run_command(parser, work, ScoringError)


if __name__ == "__main__":
    sys.exit(main())
