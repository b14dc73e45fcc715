"""Raw sentences -> lower-cased, normalised, Moses-tokenised sentences."""

from __future__ import annotations

import functools
from typing import Any

from ..raw_text import one_line


@functools.lru_cache(maxsize=None)
def _moses(language: str) -> tuple[Any, Any]:
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    return MosesPunctNormalizer(lang=language), MosesTokenizer(lang=language)


def tokenise(sentence: str, language: str, lowercase: bool) -> str:
    """Tokens of one sentence, joined by single spaces; ``""`` if nothing is left.

    The order (lower-case, normalise the punctuation, tokenise) is that of the Multi30k repository's own script.
    Hyphens inside words are not split. The characters ``& < > | [ ] ' "`` are escaped as Moses does by default
    (``&apos;`` and so on), which a Moses detokeniser undoes. Every other white space becomes a space, so a result
    is one line for any reader.
    """
    normaliser, tokeniser = _moses(language)
    sentence = one_line(sentence)  # the normaliser would glue the words around a carriage return
    text = normaliser.normalize(sentence.lower() if lowercase else sentence)
    tokens = tokeniser.tokenize(text, aggressive_dash_splits=False, return_str=True, escape=True)
    return " ".join(tokens.split())


def tokenise_pairs(pairs: list[tuple[str, str]], languages: tuple[str, str], lowercase: bool) -> list[tuple[str, str]]:
    """:func:`tokenise` on both sides of each pair."""
    source, target = languages
    return [(tokenise(first, source, lowercase), tokenise(second, target, lowercase)) for first, second in pairs]
