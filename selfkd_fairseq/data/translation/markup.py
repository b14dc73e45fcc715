"""Sentences out of the markup that they were published in."""

from __future__ import annotations

import re

_ABOUT_THE_TALK = ("<url>", "<talkid>", "<keywords>")
_TALK_TAGS = re.compile(r"</?(?:title|description)>")
_SEGMENT = "<seg id"
_SEGMENT_TAGS = re.compile(r'<seg id="[0-9]*">\s*|\s*</seg>\s*')


def talk_sentence(line: str) -> str | None:
    """The sentence in a line of a ``train.tags`` file of IWSLT.

    Titles and descriptions are sentences; their tags go, and those alone.

    Args:
        line: without its end.

    Returns:
        The sentence; None for a line about the talk.
    """
    if any(tag in line for tag in _ABOUT_THE_TALK):
        return None
    return _TALK_TAGS.sub("", line)


def segment_sentence(line: str) -> str | None:
    """The sentence in a line of an evaluation set in SGML or XML (``<seg id="1"> ... </seg>``).

    Args:
        line: without its end.

    Returns:
        The sentence without its tags; None if the line has none.
    """
    return _SEGMENT_TAGS.sub("", line) if _SEGMENT in line else None
