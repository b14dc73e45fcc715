"""``selfkd-prepare``: from a published corpus to the folder that ``fairseq-train`` takes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Sequence

from selfkd_fairseq.cli.command import OneLineParser, run_command
from selfkd_fairseq.data.datasets import DATASETS, find_dataset
from selfkd_fairseq.data.destination import DOWNLOAD
from selfkd_fairseq.data.errors import PreparationError, UsageError
from selfkd_fairseq.data.inputs import Origin
from selfkd_fairseq.data.kind import Report
from selfkd_fairseq.data.preparation import prepare

PROGRAM = "selfkd-prepare"

DESCRIPTION = """\
Prepare a corpus for fairseq. For translation: clean, normalise, tokenise (Moses) and lower-case as published results
on the dataset do, learn and apply a joint BPE, binarise. For language models: binarise the published text as it is.
An interrupted call is taken up where it stopped; a finished one is recognised and nothing is done."""

EPILOG = """\
what DEST holds in the end, for every dataset:
  bin/                       what fairseq-train takes
  stamp.json                 written last: settings, versions, SHA-256 of the raw files, sizes, dictionary types
  selfkd-prepare.json        written first: what DEST was begun with
  download/                  the downloaded files, without --raw and --download-dir
  .unfinished/               during a run only

translation (multi30k, iwslt14, iwslt15, wmt14, wmt16; S and T: the two languages):
  bin/                       also bpe.codes, for fairseq-interactive --bpe subword_nmt --bpe-codes, and dict.S.txt,
                             dict.T.txt (the same for multi30k, wmt14 and wmt16: a joined dictionary)
  bpe/codes, vocab.S/.T      the joint merges; the subwords of each side of tok/train with their counts
  bpe/{train,valid,test}.S/.T    the text in subwords
  tok/{train,valid,test}.S/.T    the tokenised text
  raw/{valid,test}.S/.T      the untokenised text, for example the references of detokenised BLEU (of iwslt15 it is
                             published tokenised; without valid where validation is held out of training)
  multi30k  en, de, fr, cs. Hyphens inside words are left alone; a training pair with a blank side is dropped.
  iwslt14   de, en. fairseq's preparation: titles and descriptions of the talks are kept, what else stands about them
            is not; training pairs of 1 to 175 tokens, no side more than 1.5 times as long as the other; every 23rd is
            for validation; the test text is dev2010, dev2012, tst2010, tst2011 and tst2012.
  iwslt15   en, vi. The text as the Stanford NLP group tokenised it; tst2012 is for validation, tst2013 for the test.
  wmt14     en, de. fairseq's preparation: Europarl v7, Common Crawl, News Commentary v12; hyphens are split; every
            100th pair is for validation; pairs of 1 to 250 subwords, no side more than 1.5 times as long as the
            other; newstest2014 (all 3,003 sentences) for the test.
  wmt16     en, ro. As wmt14, with Europarl v8 and SETIMES2; newsdev2016 for validation, newstest2016 for the test.
  Validation and test texts of their own are kept whole, in place, blank lines too. The tokeniser escapes as Moses
  does (&apos; and so on); a Moses detokeniser undoes that. Test sets of WMT come by sacreBLEU and its cache
  ($SACREBLEU, or ~/.sacrebleu); with --raw they are files there, and sacrebleu --echo prints them.

language modelling (ptb, wikitext-2, wikitext-103):
  bin/dict.txt               every word of the training text and no other; <unk> is fairseq's own
  text/{train,valid,test}    the published text; text/counts.json: its lines, words and different words
  Nothing is lower-cased, tokenised or split, and no line is left out: a token is a word between white space, or the
  </s> that fairseq puts at the end of each line, also of a blank one (the <eos> of published token counts). It is
  checked that bin holds these tokens, and that no training word became <unk>.

of all text:
  Only a line feed ends a sentence. Characters that some programs take for an end of line (U+2028, U+0085, form
  feed, a lone carriage return) become spaces. The result depends on the settings, the raw files and the versions in
  stamp.json alone, not on --workers. Archives are read, never unpacked; one that holds a path out of its folder is
  refused. Where nobody has published the SHA-256 of a file, the one found is told, recorded, and checked from then on.

On stdout comes one line, the path of DEST/bin; messages and progress go to stderr.
exit status: 0 done, or nothing to do; 1 bad input or a failed step; 2 bad options; 130 Ctrl-C;
             141 nobody reads the output.

examples:
  selfkd-prepare multi30k --source en --target de --raw RAW --dest data-bin/multi30k.en-de
  selfkd-prepare iwslt14 --source de --target en --raw de-en.tgz --dest data-bin/iwslt14.de-en
  selfkd-prepare ptb --dest data-bin/ptb
  selfkd-prepare wikitext-2 --raw wikitext-2-v1.zip --dest data-bin/wikitext-2"""

# Options that a kind of dataset has or has not, each named as a field of its settings.
SETTINGS = ("source", "target", "lowercase", "bpe_merges", "bpe_vocabulary_threshold")


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(PROGRAM, DESCRIPTION, EPILOG)
    parser.add_argument("dataset", metavar="DATASET", help=f"one of: {', '.join(sorted(DATASETS))}")
    parser.add_argument("--dest", required=True, type=Path, help="folder to make: absent, empty, or an earlier call's")
    raw = parser.add_argument_group("raw files")
    raw.add_argument(
        "--raw",
        type=Path,
        metavar="PATH",
        help="folder with the raw files under their published names, plain or .gz, or with the published archives of "
        "them; for iwslt14, wikitext-2 and wikitext-103 also the archive itself",
    )
    raw.add_argument("--download-dir", type=Path, metavar="DIR", help="without --raw: download to DIR (DEST/download)")
    raw.add_argument("--base-url", metavar="URL", help="without --raw: download from a mirror; SHA-256 is checked")
    text = parser.add_argument_group("translation only (defaults: as in the dataset's published baselines)")
    text.add_argument("--source", metavar="LANG", help="source language, for example en (required)")
    text.add_argument("--target", metavar="LANG", help="target language, for example de (required)")
    text.add_argument("--lowercase", action="store_true", default=None, help="lower-case all text (multi30k, iwslt14)")
    text.add_argument("--no-lowercase", action="store_false", dest="lowercase", default=None, help="keep the case")
    text.add_argument("--bpe-merges", type=int, metavar="N", help="joint BPE merges (10000; wmt14 and wmt16: 40000)")
    text.add_argument(
        "--bpe-vocabulary-threshold",
        type=int,
        metavar="N",
        help="split subwords again that occur fewer than N times in their language's training text (default: 0, off)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    return parser


def run(options: argparse.Namespace, report: Report) -> Path:
    """Turn the options into one preparation.

    Args:
        options: of :func:`make_parser`.
        report: takes each line meant for the user.

    Returns:
        The folder to pass to ``fairseq-train``.

    Raises:
        UsageError: the dataset lacks an option, or cannot take one.
        PreparationError: something else that the user can mend.
    """
    dataset = find_dataset(options.dataset)
    given = {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    settings = dataset.make_settings(given)
    if options.raw is not None:
        if options.download_dir is not None or options.base_url is not None:
            raise PreparationError("--raw excludes --download-dir and --base-url")
        origin = Origin(options.raw)
    else:
        base_url = dataset.base_url if options.base_url is None else options.base_url
        origin = Origin(options.download_dir or options.dest / DOWNLOAD, base_url)
    return prepare(dataset, settings, origin, options.dest, options.workers, report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit status. The folder for ``fairseq-train`` is printed on stdout, alone; everything else goes to
        stderr, each failure in one line.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)

    def work() -> Path:
        try:
            return run(options, parser.report)
        except UsageError as error:
            parser.error(str(error))

    return run_command(
        parser,
        work,
        PreparationError,
        place=f" (while working on {options.dest})",
        interrupted="interrupted; the same command goes on from here",
        out_of_memory="out of memory; try fewer --workers",
    )


if __name__ == "__main__":
    sys.exit(main())
