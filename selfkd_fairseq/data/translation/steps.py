"""The steps from the raw files of a translation dataset to binarised data, each skipped if its files are there."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
from pathlib import Path
from typing import IO, Any, Callable, Iterable

from ..binarisation import binarise, count_sentences
from ..errors import PreparationError
from ..files import count_lines, read_lines, write_whole
from ..kind import SPLITS
from ..kind import Work as AnyWork
from ..parallel import batches, ordered_map
from ..progress import progress_bar
from ..raw_text import one_line
from . import bpe
from .settings import TranslationSettings
from .tokenisation import tokenise_pairs

Work = AnyWork[TranslationSettings]


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
        for name, language in zip(work.settings.names("raw", split), work.settings.languages):
            if work.missing(name):
                with write_whole(work.dest, [name]) as (file,):
                    file.writelines(one_line(text) + "\n" for text in work.sentences(f"{split}.{language}"))


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
        names = work.settings.names("tok", split)
        if not work.missing(*names):
            continue
        # Both are read to their end, where a text that changed meanwhile is noticed: no side comes out shorter.
        pairs = itertools.zip_longest(*(work.sentences(f"{split}.{language}") for language in languages))
        lines = work.texts[f"{split}.{languages[0]}"].lines
        with write_whole(work.dest, names) as (source, target):
            write = functools.partial(_write_pairs, source, target, split != "train")
            _in_batches(work, function, pairs, f"tokenise {split}", lines, write)
            if source.tell() == 0:
                raise PreparationError(f"no {split} pair is left after tokenisation: each has a blank side")


def learn_bpe(work: Work) -> None:
    """``bpe/codes`` from both training sides together; ``bpe/vocab.LANG``, the subwords of each side."""
    names = [f"bpe/vocab.{language}" for language in work.settings.languages]
    if not work.missing("bpe/codes", *names):
        return
    counts = [bpe.count_words(read_lines(work.dest / name)) for name in work.settings.names("tok", "train")]
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
        for name, language in zip(work.settings.names("bpe", split), work.settings.languages):
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


def _complete(work: Work, folder: Path) -> None:
    """See :func:`.binarisation.binarise`: every sentence is there; the merges go with the result."""
    pair = "-".join(work.settings.languages)
    for split in SPLITS:
        for language in work.settings.languages:
            expected = count_lines(work.dest / "bpe" / f"{split}.{language}")
            found = count_sentences(folder / f"{split}.{pair}.{language}.idx")
            if found != expected:
                raise PreparationError(f"fairseq-preprocess made {found} sentences of {expected} in {split}.{language}")
    shutil.copyfile(str(work.dest / "bpe" / "codes"), str(folder / "bpe.codes"))


def binarise_text(work: Work) -> None:
    """``bin``: what ``fairseq-train`` takes."""
    if not work.missing("bin"):
        return
    work.report("binarising with fairseq-preprocess")
    settings = work.settings
    options = ["--joined-dictionary", "--source-lang", settings.source, "--target-lang", settings.target]
    for split in SPLITS:
        options += [f"--{split}pref", f"../../bpe/{split}"]
    binarise(work.dest, settings.names("bpe", "train"), options, work.workers, functools.partial(_complete, work))
