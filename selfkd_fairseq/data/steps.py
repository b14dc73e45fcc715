"""The steps between raw files and binarised data, each skipped if its files are there.

A file gets its final name only when it is whole, and what it holds depends on nothing but the settings and the
input. So a run may end at any moment, and the next one goes on from there.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Iterable, Mapping

from . import bpe
from .binarisation import binarise
from .datasets import SPLITS
from .errors import PreparationError
from .files import count_lines, read_lines, write_whole
from .parallel import batches, ordered_map
from .progress import progress_bar
from .raw_text import one_line, read_sentences
from .tokenisation import tokenise_pairs


@dataclass(frozen=True)
class Settings:
    """What, besides the input, decides the output.

    Args:
        dataset: its name.
        source: source language.
        target: target language.
        lowercase: lower-case everything first.
        bpe_merges: at least 1.
        bpe_vocabulary_threshold: subwords counted fewer times than this in their language's training text are
            split again; 0 is off.
    """

    dataset: str
    source: str
    target: str
    lowercase: bool
    bpe_merges: int
    bpe_vocabulary_threshold: int = 0

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target language."""
        return self.source, self.target


@dataclass(frozen=True)
class Work:
    """One preparation at work.

    Args:
        dest: an existing folder.
        settings: see :class:`Settings`.
        raw: (split, language) -> raw file.
        raw_lines: split -> number of sentences on each side of its raw files.
        workers: number of processes, at least 1.
        report: takes each line meant for the user.
    """

    dest: Path
    settings: Settings
    raw: Mapping[tuple[str, str], Path]
    raw_lines: Mapping[str, int]
    workers: int
    report: Callable[[str], None]

    def missing(self, *names: str) -> bool:
        """True if a file or folder of ``dest`` is not there yet."""
        return not all((self.dest / name).exists() for name in names)

    def names(self, folder: str, split: str) -> list[str]:
        """The names of both sides of a split in a folder of ``dest``, source first."""
        return [f"{folder}/{split}.{language}" for language in self.settings.languages]


def _in_batches(
    work: Work,
    function: Callable[[list[Any]], list[Any]],
    items: Iterable[Any],
    label: str,
    total: int,
    write: Callable[[list[Any]], None],
) -> None:
    """Give ``function`` all items in batches and ``write`` its results in order, under a progress bar on stderr.

    Args:
        work: for the number of processes.
        function: list of n items -> list of n results.
        items: read only a little ahead of what is written.
        label: shown before the bar.
        total: number of items; anything else is an error, for then a file changed while it was read.
        write: takes each list of results.
    """
    done = 0
    results = ordered_map(function, batches(items), work.workers)
    with contextlib.closing(results), progress_bar(total=total, desc=label, unit="line", unit_scale=True) as bar:
        for batch in results:
            write(batch)
            done += len(batch)
            bar.update(len(batch))
    if done != total:
        raise PreparationError(f"{label}: {done} lines where there had been {total}; did a file change meanwhile?")


def keep_raw(work: Work) -> None:
    """``raw/{valid,test}.LANG``: the untokenised sentences, one a line for any reader. References for scoring."""
    for split in SPLITS[1:]:
        for name, language in zip(work.names("raw", split), work.settings.languages):
            if work.missing(name):
                with write_whole(work.dest, [name]) as (file,):
                    file.writelines(one_line(text) + "\n" for text in read_sentences(work.raw[split, language]))


def _write_pairs(source: IO[str], target: IO[str], keep_blank: bool, pairs: list[tuple[str, str]]) -> None:
    for pair in pairs:
        if keep_blank or all(pair):
            source.write(pair[0] + "\n")
            target.write(pair[1] + "\n")


def tokenise_splits(work: Work) -> None:
    """``tok/SPLIT.LANG``: see :mod:`.tokenisation`. Training pairs with a blank side go; others stay, in place."""
    languages = work.settings.languages
    function = functools.partial(tokenise_pairs, languages=languages, lowercase=work.settings.lowercase)
    for split in SPLITS:
        names = work.names("tok", split)
        if not work.missing(*names):
            continue
        pairs = zip(*(read_sentences(work.raw[split, language]) for language in languages))
        with write_whole(work.dest, names) as (source, target):
            write = functools.partial(_write_pairs, source, target, split != "train")
            _in_batches(work, function, pairs, f"tokenise {split}", work.raw_lines[split], write)
            if source.tell() == 0:
                raise PreparationError(f"no {split} pair is left after tokenisation: each has a blank side")


def learn_bpe(work: Work) -> None:
    """``bpe/codes`` from both training sides together; ``bpe/vocab.LANG``, the subwords of each side."""
    names = [f"bpe/vocab.{language}" for language in work.settings.languages]
    if not work.missing("bpe/codes", *names):
        return
    counts = [bpe.count_words(read_lines(work.dest / name)) for name in work.names("tok", "train")]
    if work.missing("bpe/codes"):
        work.report(f"learning {work.settings.bpe_merges} joint BPE merges")
        with write_whole(work.dest, ["bpe/codes"]) as (file,):
            bpe.learn_codes(counts[0] + counts[1], work.settings.bpe_merges, file)
    with write_whole(work.dest, names) as files:
        for file, words in zip(files, counts):
            bpe.write_vocabulary(bpe.count_subwords(words, work.dest / "bpe" / "codes"), file)


def _write_lines(file: IO[str], lines: list[str]) -> None:
    file.writelines(line + "\n" for line in lines)


def apply_bpe(work: Work) -> None:
    """``bpe/SPLIT.LANG``: the tokenised text in subwords."""
    codes, threshold = work.dest / "bpe" / "codes", work.settings.bpe_vocabulary_threshold
    for split in SPLITS:
        for name, language in zip(work.names("bpe", split), work.settings.languages):
            if not work.missing(name):
                continue
            vocabulary = work.dest / "bpe" / f"vocab.{language}" if threshold else None
            function = functools.partial(bpe.segment_lines, codes=codes, vocabulary=vocabulary, threshold=threshold)
            text = work.dest / "tok" / f"{split}.{language}"
            with write_whole(work.dest, [name]) as (file,):
                write = functools.partial(_write_lines, file)
                _in_batches(
                    work, function, read_lines(text), f"apply BPE to {split}.{language}", count_lines(text), write
                )


def binarise_text(work: Work) -> None:
    """``bin``: what ``fairseq-train`` takes."""
    if work.missing("bin"):
        work.report("binarising with fairseq-preprocess")
        binarise(work.dest, work.settings.source, work.settings.target, work.workers)


STEPS = (keep_raw, tokenise_splits, learn_bpe, apply_bpe, binarise_text)
