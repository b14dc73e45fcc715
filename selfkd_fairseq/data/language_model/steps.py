"""The steps from the raw text of a language-model dataset to binarised data, each skipped if its files are there."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Dict

from ..binarisation import SPECIAL_WORDS, BinaryText, binarise, dictionary_types, read_binary
from ..errors import PreparationError
from ..files import read_lines, write_json, write_whole
from ..kind import SPLITS, Settings
from ..kind import Work as AnyWork
from ..progress import progress_bar
from ..raw_text import one_line

Work = AnyWork[Settings]
Counts = Dict[str, Dict[str, int]]

UNKNOWN = "<unk>"
UNKNOWN_ID = SPECIAL_WORDS.index(UNKNOWN)
# In a raw text, these would become what fairseq's own bookkeeping means by them.
RESERVED_WORDS = tuple(word for word in SPECIAL_WORDS if word != UNKNOWN)
COUNTS = "text/counts.json"


def keep_text(work: Work) -> None:
    """Make ``text/SPLIT``: the raw text, one sentence a line for any reader, blank ones included.

    Args:
        work: the preparation; what is made already stays.

    Raises:
        PreparationError: a raw text is damaged, or has changed since it was inspected.
    """
    for split in SPLITS:
        if not work.missing(f"text/{split}"):
            continue
        lines = work.texts[split].lines
        with write_whole(work.dest, [f"text/{split}"]) as (file,):
            sentences = progress_bar(
                iterable=work.sentences(split), total=lines, desc=f"copy {split}", unit="line", unit_scale=True
            )
            file.writelines(one_line(sentence) + "\n" for sentence in sentences)


def _count(path: Path, label: str, total: int) -> dict[str, int]:
    lines = words = unknown = 0
    types: set[str] = set()
    for line in progress_bar(iterable=read_lines(path), total=total, desc=label, unit="line", unit_scale=True):
        sentence = line.split()
        lines += 1
        words += len(sentence)
        unknown += sentence.count(UNKNOWN)
        types.update(sentence)
    return {"lines": lines, "words": words, "unk": unknown, "types": len(types)}


def count_text(work: Work) -> None:
    """Make ``text/counts.json``: for each split the lines, words, ``<unk>`` among them, and different words.

    Args:
        work: the preparation, ``text`` made; what is made already stays.
    """
    if work.missing(COUNTS):
        counts = {
            split: _count(work.dest / "text" / split, f"count {split}", work.texts[split].lines) for split in SPLITS
        }
        write_json(work.dest, COUNTS, counts)


def read_counts(dest: Path) -> Counts:
    """Read what :func:`count_text` wrote.

    Args:
        dest: a destination that it wrote to.

    Returns:
        Split -> ``lines``, ``words``, ``unk`` and ``types`` -> number.
    """
    counts: Counts = json.loads((dest / COUNTS).read_text(encoding="utf-8"))
    return counts


def check_binary(split: str, binary: BinaryText, counts: dict[str, int]) -> None:
    """Refuse a binarised text that is not the text, word for word, with one ``</s>`` a line.

    Args:
        split: for the message.
        binary: the binarised text.
        counts: of the text, as :func:`count_text` writes them.

    Raises:
        PreparationError: says what differs.
    """
    start, padding, end, unknown = binary.special
    lines, tokens = counts["lines"], counts["words"] + counts["lines"]
    checks = {
        "sentences": (binary.sentences, lines),
        "tokens": (binary.tokens, tokens),
        "</s>": (end, lines),
        "<s>": (start, 0),
        "<pad>": (padding, 0),
    }
    if split == "train":  # words of the other splits need not be in the dictionary
        checks[UNKNOWN] = (unknown, counts["unk"])
    for what, (found, expected) in checks.items():
        if found != expected:
            raise PreparationError(f"fairseq-preprocess made {found} {what} of {expected} in {split}")


def _complete(work: Work, folder: Path) -> None:
    """See :func:`.binarisation.binarise`: the result is the text, and the dictionary has its words alone."""
    counts = read_counts(work.dest)
    for split in SPLITS:
        check_binary(split, read_binary(folder / split), counts[split])
    expected = counts["train"]["types"] - (counts["train"]["unk"] > 0) + len(SPECIAL_WORDS)
    found = dictionary_types(folder / "dict.txt")
    if found != expected:
        raise PreparationError(f"fairseq-preprocess made a dictionary of {found} types, not {expected}")


def binarise_text(work: Work) -> None:
    """Make ``bin``: what ``fairseq-train`` takes. The dictionary has every training word and no made-up one.

    Args:
        work: the preparation, ``text`` and its counts made; what is made already stays.

    Raises:
        PreparationError: ``fairseq-preprocess`` fails, or its result is not the text.
    """
    if not work.missing("bin"):
        return
    work.report("binarising with fairseq-preprocess")
    options = ["--only-source", "--padding-factor", "1"]
    for split in SPLITS:
        options += [f"--{split}pref", f"../../text/{split}"]
    binarise(work.dest, ["text/train"], options, work.workers, functools.partial(_complete, work))
