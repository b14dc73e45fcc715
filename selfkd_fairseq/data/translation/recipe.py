"""What a translation dataset does to its sentences, apart from what the user can set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

# As in Moses, whose aligner takes no longer word.
LONGEST_WORD = 1000

TOKENS = "tokens"
SUBWORDS = "subwords"


@dataclass(frozen=True)
class Rules:
    """From a raw sentence to its tokens. The rules apply in the order of the fields, as far as they are on.

    Args:
        straight_apostrophes: a right single quotation mark becomes an apostrophe.
        lowercase_first: lower-casing, if it is asked for, comes here; otherwise it comes last.
        normalise: Moses's normalisation of punctuation.
        comma_below: in Romanian, s and t with a cedilla become those with a comma below, the letters of its alphabet.
        only_printable: control characters and the like become spaces.
        tokenise: Moses's tokeniser, with its escapes (``&apos;``); off for text that is tokenised already.
        split_hyphens: the tokeniser splits at hyphens inside words (``@-@``), its "aggressive" mode.
    """

    straight_apostrophes: bool = False
    lowercase_first: bool = False
    normalise: bool = False
    comma_below: bool = False
    only_printable: bool = False
    tokenise: bool = True
    split_hyphens: bool = False


# The order of the Multi30k repository's own script, and of lower-cased tokens in scores.
NORMALISED = Rules(lowercase_first=True, normalise=True)


@dataclass(frozen=True)
class Cleaning:
    """Which training pairs are kept. A pair with a blank side never is.

    Args:
        of: when it is done. ``TOKENS``: with the tokenised text, before validation pairs are held out of it;
            ``SUBWORDS``: after BPE, with the training pairs and the validation pairs that were held out of them.
        longest: most words of a side; None is no bound.
        ratio: the longer side has at most this many times the words of the shorter; None is no bound.
    """

    of: str
    longest: int | None = None
    ratio: float | None = None

    def keeps(self, source: str, target: str) -> bool:
        """Whether a pair is kept, as by Moses's ``clean-corpus-n.perl``.

        Args:
            source: words joined by single spaces.
            target: the same in the other language.

        Returns:
            False if a side is blank; where there is a bound also if a side is too long, the two are too uneven, or a
            word is longer than Moses takes.
        """
        if not source or not target:
            return False
        if self.longest is None and self.ratio is None:
            return True
        lengths = source.count(" ") + 1, target.count(" ") + 1
        if self.longest is not None and max(lengths) > self.longest:
            return False
        if self.ratio is not None and max(lengths) / min(lengths) > self.ratio:
            return False
        return not any(len(side) > LONGEST_WORD and _has_endless_word(side) for side in (source, target))


def _has_endless_word(side: str) -> bool:
    return max(map(len, side.split(" "))) > LONGEST_WORD


@dataclass(frozen=True)
class Recipe:
    """How the text of a dataset is made ready.

    Args:
        rules: for each split that has a text of its own ("train", "test", and "valid" unless it is held out).
        cleaning: of the training pairs.
        held_out: every ``held_out``-th training pair is a validation pair instead; None if validation has a text.
        joined_dictionary: one dictionary for both languages.
    """

    rules: Mapping[str, Rules]
    cleaning: Cleaning
    held_out: int | None = None
    joined_dictionary: bool = True

    def cleaning_of(self, split: str, stage: str) -> Cleaning | None:
        """What cleans a split at a stage.

        Args:
            split: ``train``, ``valid`` or ``test``.
            stage: ``TOKENS`` or ``SUBWORDS``.

        Returns:
            The cleaning; None if nothing is cleaned there.
        """
        cleaned = ("train",) if stage == TOKENS or self.held_out is None else ("train", "valid")
        return self.cleaning if stage == self.cleaning.of and split in cleaned else None
