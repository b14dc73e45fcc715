"""``selfkd-neighbours``: what is being distilled, word by word."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

from selfkd_fairseq.common.fairseq_package import require_fairseq

PROGRAM = "selfkd-neighbours"
require_fairseq(PROGRAM)

from selfkd_fairseq import hardening, register
from selfkd_fairseq.cli.command import OneLineParser, count, run_command, write_results
from selfkd_fairseq.core import TEMPERATURE_SCALES, SelfKDOptions
from selfkd_fairseq.core.geometry import SIMILARITIES, rms_distance
from selfkd_fairseq.core.soft_targets import effective_temperature
from selfkd_fairseq.evaluation.data_folder import find_data_folder
from selfkd_fairseq.evaluation.errors import EvaluationError
from selfkd_fairseq.evaluation.neighbours import Neighbour, as_csv, as_table, find_neighbours, most_frequent_words
from selfkd_fairseq.evaluation.neighbours_heat_map import MAX_NEIGHBOURS, MAX_WORDS, draw_heat_map
from selfkd_fairseq.evaluation.trained_embedding import TrainedEmbedding, load_trained_embedding

DESCRIPTION = """\
Look at what is being distilled: for given words, or the most frequent ones, the nearest words in the output embedding
of a checkpoint, their distances, and their soft-target probabilities."""

EPILOG = """\
columns of the table:
  rank            0 for the word itself, 1 for its nearest word
  distance        Euclidean distance of the two rows of the output matrix
  distance / RMS  in units of the root mean square distance of two rows
  q nearest       soft-target probability with the support nearest of --count words; sums to 1 over a word's rows
  q full          the same with the exact support full, where every word of the dictionary shares; its other words are
                  not in the table
  frequency       of the neighbour in the training text, as the dictionary has it: with a joined dictionary, in both
                  languages together; none for </s> and <unk>, which it does not count
Similarity, temperature, scale and floor are those of the checkpoint's own training with self_kd (with the teacher
self: what the matrix adds to it), else those of its teacher embedding; each can be given. The supports predicted and
random choose words otherwise: they depend on the sentence, or on chance.

Words are looked up as the dictionary has them: lower-cased if the text was, 'ab@@' for a piece of a word. Padding and
<s> are neighbours of no word, as in training.

DIR gets neighbours.md, neighbours.csv and neighbours.png (a heat map of the first 100 words and 30 neighbours), each
whole or not at all; files of these names are replaced. On stdout comes the table; messages go to stderr.
exit status: 0 done; 1 bad input; 2 bad options; 130 Ctrl-C; 141 nobody reads the output.

examples:
  selfkd-neighbours checkpoints/self_kd/checkpoint_best.pt --data data-bin/multi30k.en-de/bin --output neighbours
  selfkd-neighbours checkpoints/ptb/checkpoint_best.pt --data data-bin/ptb/bin --words bank monday three \\
      --count 5 --output neighbours"""


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(PROGRAM, DESCRIPTION, EPILOG)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="of any model that self_kd can train")
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="the binarised data of its training")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--words", nargs="+", metavar="WORD", help="the words to look at")
    chosen.add_argument("--most-frequent", type=count, default=20, metavar="N", help="or the N most frequent (20)")
    parser.add_argument("--count", type=count, default=8, metavar="N", help="neighbours of each word (%(default)s)")
    parser.add_argument("--skd-similarity", choices=list(SIMILARITIES), help="similarity that they are made of")
    parser.add_argument("--skd-temperature", type=float, metavar="T", help="temperature of the soft targets")
    parser.add_argument("--skd-temperature-scale", choices=TEMPERATURE_SCALES, help="unit of the temperature")
    parser.add_argument("--skd-min-target-prob", type=float, metavar="P", help="floor of the word's own probability")
    return parser


def _soft_target_options(options: argparse.Namespace, trained_with: SelfKDOptions | None) -> SelfKDOptions:
    """Of the command line, the training or the teacher embedding; what the matrix alone says, without a control."""
    soft = trained_with or SelfKDOptions()
    if soft.teacher == "self" and soft.embedding_weight > 0:  # lambda times a score is one of another temperature
        root = 2 if soft.similarity == "gaussian" else 1
        soft = soft._replace(temperature=soft.temperature / soft.embedding_weight ** (1 / root))
    soft = soft._replace(
        teacher="embedding", gate="all", control="none", normalise="vocabulary", student_temperature=1.0
    )  # fmt: skip
    names = ("similarity", "temperature", "temperature_scale", "min_target_prob")
    given = {name: getattr(options, f"skd_{name}") for name in names}
    soft = soft._replace(**{name: value for name, value in given.items() if value is not None})
    try:
        soft.check()
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    return soft


def _words(options: argparse.Namespace, embedding: TrainedEmbedding) -> list[str]:
    """The words to look at, each once; all of them are in the dictionary."""
    dictionary = embedding.dictionary
    if options.words is None:
        words = most_frequent_words(dictionary, options.most_frequent)
        if not words:
            raise EvaluationError(f"{embedding.dictionary_file} holds no word with a frequency: give --words")
        return words
    words = list(dict.fromkeys(options.words))
    absent = [word for word in words if word not in dictionary]
    if absent:
        segmented = any(symbol.endswith("@@") for symbol in dictionary.symbols)
        hint = (
            " (the text is segmented by BPE: a rarer word is there only in pieces, which end in @@)"
            if segmented
            else ""
        )
        raise EvaluationError(f"not in {embedding.dictionary_file}: {' '.join(absent)}{hint}")
    return words


def _notes(checkpoint: Path, embedding: TrainedEmbedding, soft: SelfKDOptions, count: int) -> str:
    """What the numbers of the table are, in two lines."""
    weight, trained = embedding.weight, embedding.trained_with
    if trained is None:
        training = "It was not trained with self_kd."
    else:
        size = "" if trained.support == "full" else f" of {trained.support_size}"
        training = f"It was trained with self_kd, teacher {trained.teacher}, support {trained.support}{size}."
        if trained.teacher == "self":
            training += f" The matrix had the weight {trained.embedding_weight:g} there, which the temperature holds."
            if trained.spares_target:
                training += " There it shared out what the word itself left; here it gives to the word, too."
    unit = ""
    if SIMILARITIES[soft.similarity].measure.has_unit:
        unit = f" {soft.temperature_scale} (as a distance {effective_temperature(weight, soft):.4g})"
    return (
        f"{checkpoint}: output matrix of {weight.size(0):,} words x {weight.size(1)}, RMS distance of two words "
        f"{rms_distance(weight):.4g}. {training}\n"
        f"q nearest: soft targets with the support nearest of {count}; q full: with the exact support full. Both with "
        f"similarity {soft.similarity}, temperature {soft.temperature:g}{unit} and a floor of {soft.min_target_prob:g} "
        "for the word itself."
    )


def _contents(
    parser: OneLineParser, neighbours: list[list[Neighbour]], notes: str, soft: SelfKDOptions, count: int
) -> dict[str, bytes]:
    """The files by name; what their reader should know besides is reported."""
    title = "Nearest words in the output embedding"
    if len(neighbours) > MAX_WORDS or count > MAX_NEIGHBOURS:
        parser.report(f"note: neighbours.png shows up to {MAX_WORDS} words and {MAX_NEIGHBOURS} neighbours of each")
    unit = f" {soft.temperature_scale}" if SIMILARITIES[soft.similarity].measure.has_unit else ""
    settings = f"support nearest of {count}, {soft.similarity}, temperature {soft.temperature:g}{unit}"
    picture, missing = draw_heat_map(neighbours, f"{title} ({settings}, floor {soft.min_target_prob:g})")
    if missing:
        parser.report(
            f"note: matplotlib's font lacks {len(missing)} characters ({missing[:10]}): they are boxes in "
            "neighbours.png, the tables have them; another font can be named in matplotlibrc (font.family)"
        )
    paragraphs = notes.replace("\n", "\n\n")
    text = f"# {title}\n\n{paragraphs}\n\n{as_table(neighbours, markdown=True)}\n"
    return {
        "neighbours.md": text.encode(),
        "neighbours.csv": as_csv(neighbours).encode(),
        "neighbours.png": picture,
    }


def look_at_neighbours(options: argparse.Namespace, parser: OneLineParser) -> str:
    """Do what the options say.

    Args:
        options: of :func:`make_parser`.
        parser: reports each note for the user.

    Returns:
        The table and its notes, as plain text.

    Raises:
        EvaluationError: something that the user can mend.
        OSError: a file cannot be read or written.
    """
    register()
    hardening.install()
    embedding = load_trained_embedding(options.checkpoint, find_data_folder(options.data))
    soft = _soft_target_options(options, embedding.trained_with)
    if options.count >= len(embedding.weight):
        raise EvaluationError(f"--count must be less than the {len(embedding.weight)} words of the dictionary")
    words = _words(options, embedding)
    neighbours = find_neighbours(embedding.weight, embedding.dictionary, words, options.count, soft)
    notes = _notes(options.checkpoint, embedding, soft, options.count)
    write_results(options.output, _contents(parser, neighbours, notes, soft, options.count))
    return f"{as_table(neighbours, markdown=False)}\n\n{notes}"


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
    return run_command(
        parser,
        lambda: look_at_neighbours(options, parser),
        EvaluationError,
        interrupted="interrupted; nothing is written",
    )


if __name__ == "__main__":
    sys.exit(main())
