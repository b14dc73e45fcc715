"""The options that say how translations are scored; ``selfkd-score`` and ``selfkd-compare`` have them."""

from __future__ import annotations

import argparse
from pathlib import Path

from selfkd_fairseq.evaluation.scoring import BPE_SYMBOLS


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a parser, all but the language, which not every command must be given.

    Args:
        parser: of the command, changed in place.
    """
    from sacrebleu.metrics.bleu import BLEU

    parser.add_argument("--references", type=Path, metavar="FILE", help="plain, untokenised references")
    parser.add_argument("--tokenised-references", type=Path, metavar="FILE", help="references in tokens")
    parser.add_argument(
        "--detokenised", action="store_true", help="the hypotheses are plain text (fairseq-generate --tokenizer moses)"
    )
    parser.add_argument(
        "--remove-bpe",
        nargs="?",
        const="@@ ",
        choices=BPE_SYMBOLS,
        metavar="SYMBOL",
        help="put the subwords together first, as fairseq's option does (alone: '@@ ', of subword-nmt); "
        f"one of {', '.join(map(repr, BPE_SYMBOLS))}",
    )
    parser.add_argument("--nbest", action="store_true", help="of several hypotheses, take the one of the best score")
    parser.add_argument("--lowercase", action="store_true", help="ignore case in BLEU and chrF of the plain text")
    parser.add_argument(
        "--tokenize", choices=sorted(BLEU.TOKENIZERS), metavar="NAME",
        help="sacreBLEU's tokenizer for BLEU of the plain text (default: sacreBLEU's own for the language, mostly 13a)",
    )  # fmt: skip
