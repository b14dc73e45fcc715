"""Plain text of Moses tokens.

sacremoses makes it. Where its rules are not those of Moses's ``detokenizer.perl``, a step before it puts tokens
together that belong together, or marks a token so that no rule of sacremoses takes it.
"""

from __future__ import annotations

import functools
import re
from typing import Any

# Neither is in a token: the tokeniser drops them.
_MARK = "\0"
_NO_SPACE = "\1"  # before the token
_LETTER = r"[^\W\d_]"


@functools.lru_cache(maxsize=None)
def _detokeniser(language: str) -> Any:
    from sacremoses import MosesDetokenizer

    return MosesDetokenizer(lang=language)


@functools.lru_cache(maxsize=None)
def _finnish_ending() -> str:
    moses = _detokeniser("fi")
    endings = moses.FINNISH_MORPHSET_1, moses.FINNISH_MORPHSET_2, moses.FINNISH_MORPHSET_3
    return "({})({})?({})?".format(*("|".join(each) for each in endings))


def _czech(text: str) -> str:
    # "číslo 93 .": for the two tokens before a number, sacremoses takes the last two of the sentence.
    text = re.sub(r"(?<= )([0-9]+) ([.,]) (?=[0-9]+ )", r"\1\2", text)
    text = re.sub(r" (?=[0-9]+ )", f" {_MARK}", text)
    # "e - mail", "chce - li": it waits for an apostrophe before the dash, and fails on one.
    text = re.sub(rf"(?<={_LETTER}) ([-–]) (?=([lL][iI]|(?i:mail)\S*) \S)", r"\1", text)
    return re.sub(r"(?<=') (?=[-–] )", f" {_MARK}", text)


def _english(text: str) -> str:
    # "( 'tis": it puts this together, whatever comes before the apostrophe.
    return re.sub(rf"(?<![^\W_]) (?='{_LETTER})", f" {_MARK}", text)


def _finnish(text: str) -> str:
    # "EU : ssa": it asks for two endings, and puts nothing together then.
    return re.sub(rf"(?<=: )({_finnish_ending()})(?= )", lambda match: _NO_SPACE + match[1].lower(), text)


_STEPS = {"cs": _czech, "en": _english, "fi": _finnish}


def detokenise(sentence: str, language: str) -> str:
    """Plain text of Moses tokens, as ``detokenizer.perl -l LANGUAGE`` makes it (entities are unescaped).

    Args:
        sentence: tokens, with spaces between them.
        language: two-letter code.

    Returns:
        The sentence as it is written.
    """
    moses = _detokeniser(language)
    if language not in _STEPS:
        return str(moses.detokenize(sentence.split()))
    # As Moses does it: these two come before all else.
    text = moses.unescape_xml(f" {' '.join(sentence.split())} ".replace(" @-@ ", "-"))
    text = moses.detokenize(_STEPS[language](text).split(), unescape=False)
    return re.sub(f"{_MARK}| ?{_NO_SPACE}", "", text)
