"""Raw sentences -> normalised, lower-cased, Moses-tokenised sentences."""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

from ..raw_text import one_line
from .recipe import NORMALISED, Cleaning, Rules

# s and t, small and capital, with a cedilla -> with a comma below.
_COMMA_BELOW = {0x015E: 0x0218, 0x015F: 0x0219, 0x0162: 0x021A, 0x0163: 0x021B}
# Languages whose rule for quotation marks sacremoses has. Moses has the German one for all others, sacremoses none.
_QUOTES_OF_SACREMOSES = ("en", "cs", "cz", "de", "es", "fr")


@functools.lru_cache(maxsize=None)
def _normaliser(language: str) -> Any:
    from sacremoses import MosesPunctNormalizer

    normaliser = MosesPunctNormalizer(lang=language, perl_parity=True)
    if language not in _QUOTES_OF_SACREMOSES:
        normaliser.substitutions += normaliser.DE_ES_FR_QUOTATION_FOLLOWED_BY_COMMA
    return normaliser


@functools.lru_cache(maxsize=None)
def _tokeniser(language: str) -> Any:
    from sacremoses import MosesTokenizer

    return MosesTokenizer(lang=language)


def _printable(sentence: str) -> str:
    """With a space for each character of Unicode's category C (control, format, private use, unassigned)."""
    if sentence.isprintable():  # the quick answer to most
        return sentence
    return "".join(" " if unicodedata.category(mark)[0] == "C" else mark for mark in sentence)


def tokenise(sentence: str, language: str, lowercase: bool, rules: Rules = NORMALISED) -> str:
    """Split a sentence into tokens.

    The tokeniser escapes the characters ``& < > | [ ] ' "`` as Moses does by default (``&apos;`` and so on), which a
    Moses detokeniser undoes. Every other white space becomes a space, so a result is one line for any reader.

    Args:
        sentence: plain text.
        language: two-letter code.
        lowercase: make it lower-case too.
        rules: what is done, in which order.

    Returns:
        Tokens joined by single spaces; ``""`` if nothing is left.
    """
    text = one_line(sentence)  # the normaliser would glue the words around a carriage return
    if rules.straight_apostrophes:
        text = text.replace("\u2019", "'")
    if lowercase and rules.lowercase_first:
        text = text.lower()
    if rules.normalise:
        # With the end of its line, as Moses reads it: a rule for full stops before quotation marks needs what follows.
        text = _normaliser(language).normalize(text + "\n")
    if rules.comma_below and language == "ro":
        text = text.translate(_COMMA_BELOW)
    if rules.only_printable:
        text = _printable(text)
    if rules.tokenise:
        text = _tokeniser(language).tokenize(
            text, aggressive_dash_splits=rules.split_hyphens, return_str=True, escape=True
        )
    if lowercase and not rules.lowercase_first:
        text = text.lower()
    return " ".join(text.split())


def tokenise_pairs(
    pairs: list[tuple[str, str]],
    languages: tuple[str, str],
    lowercase: bool,
    rules: Rules,
    cleaning: Cleaning | None = None,
) -> list[tuple[str, str] | None]:
    """:func:`tokenise` on both sides of each pair.

    Args:
        pairs: plain text.
        languages: of the two sides, two-letter codes.
        lowercase: as of :func:`tokenise`.
        rules: as of :func:`tokenise`.
        cleaning: which pairs of tokenised sentences are kept; None keeps all.

    Returns:
        A pair for each pair; None in place of one that is not kept.
    """
    source, target = languages
    done: list[tuple[str, str] | None] = []
    for first, second in pairs:
        pair = tokenise(first, source, lowercase, rules), tokenise(second, target, lowercase, rules)
        done.append(pair if cleaning is None or cleaning.keeps(*pair) else None)
    return done
