"""``selfkd-prepare``: from raw parallel text to the folder that ``fairseq-train`` takes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn, Sequence

from selfkd_fairseq.data.datasets import DATASETS, find_dataset
from selfkd_fairseq.data.destination import DOWNLOAD
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.inputs import Origin
from selfkd_fairseq.data.preparation import prepare
from selfkd_fairseq.data.steps import Settings

PROGRAM = "selfkd-prepare"

DESCRIPTION = """\
Prepare a parallel corpus for fairseq: lower-case, normalise the punctuation, tokenise (Moses), learn and apply a
joint BPE, binarise with a joined dictionary. An interrupted call is taken up where it stopped; a finished one is
recognised and nothing is done."""

EPILOG = """\
what DEST holds in the end (S and T: the two languages):
  bin/                       what fairseq-train takes; also bpe.codes, for fairseq-interactive --bpe subword_nmt
                             --bpe-codes, and dict.S.txt, dict.T.txt (the same joined dictionary)
  bpe/codes, vocab.S/.T      the joint merges; the subwords of each training side with their counts
  bpe/{train,valid,test}.S/.T    the text in subwords
  tok/{train,valid,test}.S/.T    the tokenised text
  raw/{valid,test}.S/.T      the untokenised text, for example the references of detokenised BLEU
  stamp.json                 written last: settings, versions, SHA-256 of the raw files, pairs, dictionary size
  selfkd-prepare.json        written first: what DEST was begun with
  download/                  the downloaded files, without --raw and --download-dir
  .unfinished/               during a run only

what is done to the text:
  Only a line feed ends a sentence. Characters that some programs take for an end of line (U+2028, U+0085, form
  feed, a lone carriage return) become spaces. The tokeniser leaves hyphens inside words alone and escapes as
  Moses does (&apos; and so on); a Moses detokeniser undoes that. A training pair with a blank side is dropped;
  validation and test pairs are all kept, in place, blank or not. The result depends on the settings, the raw
  files and the versions in stamp.json alone, not on --workers.

On stdout comes one line, the path of DEST/bin; messages and progress go to stderr.
exit status: 0 done, or nothing to do; 1 bad input or a failed step; 2 bad options; 130 Ctrl-C.

example:
  selfkd-prepare multi30k --source en --target de --raw RAW --dest data-bin/multi30k.en-de"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other error, instead of the usage and then the line."""
        self.exit(2, f"{PROGRAM}: error: {message} (see {PROGRAM} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = _Parser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("dataset", metavar="DATASET", help=f"one of: {', '.join(sorted(DATASETS))}")
    parser.add_argument("--source", required=True, metavar="LANG", help="source language, for example en")
    parser.add_argument("--target", required=True, metavar="LANG", help="target language, for example de")
    parser.add_argument("--dest", required=True, type=Path, help="folder to make: absent, empty, or an earlier call's")
    raw = parser.add_argument_group("raw files")
    raw.add_argument(
        "--raw", type=Path, metavar="DIR", help="folder with the raw files (train.en.gz or train.en, and so on)"
    )
    raw.add_argument("--download-dir", type=Path, metavar="DIR", help="without --raw: download to DIR (DEST/download)")
    raw.add_argument("--base-url", metavar="URL", help="without --raw: download from a mirror; SHA-256 is checked")
    text = parser.add_argument_group("text (defaults: as in the dataset's published baselines)")
    text.add_argument("--lowercase", action="store_true", default=None, help="lower-case all text (multi30k's default)")
    text.add_argument("--no-lowercase", action="store_false", dest="lowercase", default=None, help="keep the case")
    text.add_argument("--bpe-merges", type=int, metavar="N", help="joint BPE merges (multi30k: 10000)")
    text.add_argument(
        "--bpe-vocabulary-threshold",
        type=int,
        default=0,
        metavar="N",
        help="split subwords again that occur fewer than N times in their language's training text (default: 0, off)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    return parser


def _report(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> Path:
    """Turn the options into one preparation.

    Returns:
        The folder to pass to ``fairseq-train``.

    Raises:
        PreparationError: something that the user can mend.
    """
    dataset = find_dataset(options.dataset)
    settings = Settings(
        dataset=dataset.name,
        source=options.source,
        target=options.target,
        lowercase=dataset.lowercase if options.lowercase is None else options.lowercase,
        bpe_merges=dataset.bpe_merges if options.bpe_merges is None else options.bpe_merges,
        bpe_vocabulary_threshold=options.bpe_vocabulary_threshold,
    )
    if options.raw is not None:
        if options.download_dir is not None or options.base_url is not None:
            raise PreparationError("--raw excludes --download-dir and --base-url")
        origin = Origin(options.raw)
    else:
        base_url = dataset.base_url if options.base_url is None else options.base_url
        origin = Origin(options.download_dir or options.dest / DOWNLOAD, base_url)
    return prepare(dataset, settings, origin, options.dest, options.workers, _report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit status. The folder for ``fairseq-train`` is printed on stdout, alone; everything else goes to
        stderr, each failure in one line.
    """
    options = make_parser().parse_args(arguments)
    try:
        print(run(options))
        return 0
    except KeyboardInterrupt:
        _report("interrupted; the same command goes on from here")
        return 130
    except OSError as error:
        place = f" ({error.filename})" if error.filename else f" (while working on {options.dest})"
        message = f"{error.strerror or error}{place}"
    except MemoryError:
        message = "out of memory; try fewer --workers"
    except PreparationError as error:
        message = str(error)
    _report("error: " + " ".join(message.split("\n")))
    return 1


if __name__ == "__main__":
    sys.exit(main())
