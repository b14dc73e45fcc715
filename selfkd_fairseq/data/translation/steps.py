"""The steps from the raw files of a translation dataset to binarised data, each skipped if its files are there."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
from pathlib import Path
from typing import Any, Callable, Generator, Iterable, Iterator, Optional, Tuple

from ..binarisation import binarise
from ..binarised_index import read_header
from ..errors import PreparationError
from ..files import UNFINISHED, count_lines, read_lines, write_whole
from ..kind import SPLITS
from ..kind import Work as AnyWork
from ..parallel import batches, ordered_map
from ..progress import progress_bar
from ..raw_text import InspectedText, one_line
from . import bpe
from .recipe import SUBWORDS, TOKENS, Recipe
from .settings import TranslationSettings
from .tokenisation import tokenise_pairs
from .word_counts import count_words, merge_counts

Work = AnyWork[TranslationSettings]
# None stands for a pair that cleaning dropped.
Pair = Optional[Tuple[str, str]]


def _recipe(work: Work) -> Recipe:
    recipe: Recipe = work.dataset.recipe
    return recipe


def _names_of(work: Work, split: str, language: str) -> list[str]:
    return [name for name in work.texts if name.split(".")[:2] == [split, language]]


def texts_of(work: Work, split: str, language: str) -> list[InspectedText]:
    """The raw texts that one side of a split is made of.

    Args:
        work: the preparation.
        split: ``train``, ``valid`` or ``test``.
        language: one of the pair.

    Returns:
        The texts, in order.
    """
    return [work.texts[name] for name in _names_of(work, split, language)]


def _sentences(work: Work, split: str, language: str) -> Iterator[str]:
    return itertools.chain.from_iterable(work.sentences(name) for name in _names_of(work, split, language))


def _map_pairs(
    work: Work, function: Callable[[list[Any]], list[Pair]], pairs: Iterable[Any], label: str, total: int
) -> Generator[Pair, None, None]:
    """Give ``function`` all pairs in batches and yield its results in order, under a progress bar on stderr.

    Args:
        work: for the number of processes.
        function: list of n pairs -> list of n results.
        pairs: read only a little ahead of what is yielded.
        label: shown before the bar.
        total: number of pairs; anything else is an error, for then a file changed while it was read.
    """
    done = 0
    results = ordered_map(function, batches(pairs), work.workers)
    with contextlib.closing(results), progress_bar(total=total, desc=label, unit="line", unit_scale=True) as bar:
        for batch in results:
            yield from batch
            done += len(batch)
            bar.update(len(batch))
    if done != total:
        raise PreparationError(f"{label}: {done} lines where there had been {total}; did a file change meanwhile?")


def _write_pairs(
    work: Work, folder: str, splits: tuple[str, ...], pairs: Generator[Pair, None, None], held_out: int | None = None
) -> None:
    """Write the pairs that were kept.

    Args:
        work: says where.
        folder: of the destination.
        splits: one, or two if the second is held out of the first.
        pairs: closed in the end.
        held_out: every so many pairs one goes into the second split.

    Raises:
        PreparationError: nothing is left for a split.
    """
    kept = 0
    names = [name for split in splits for name in work.settings.names(folder, split)]
    with contextlib.closing(pairs), write_whole(work.dest, names) as files:
        for pair in pairs:
            if pair is None:
                continue
            kept += 1
            sides = files[2:] if held_out and kept % held_out == 0 else files[:2]
            for file, sentence in zip(sides, pair):
                file.write(sentence + "\n")
        if files[0].tell() == 0:
            raise PreparationError(f"no {splits[0]} pair is left in {folder}: each is blank, too long or too uneven")
        if files[-1].tell() == 0:
            raise PreparationError(f"{kept} training pairs are too few: one in {held_out} is held out for validation")


def keep_raw(work: Work) -> None:
    """Make ``raw/{valid,test}.LANG``: the untokenised sentences, one a line for any reader. References for scoring.

    Args:
        work: the preparation; what is made already stays.

    Raises:
        PreparationError: a raw text is damaged, or has changed since it was inspected.
    """
    for split in SPLITS[1:]:
        for name, language in zip(work.settings.names("raw", split), work.settings.languages):
            if split in _recipe(work).rules and work.missing(name):
                with write_whole(work.dest, [name]) as (file,):
                    file.writelines(one_line(text) + "\n" for text in _sentences(work, split, language))


def tokenise_splits(work: Work) -> None:
    """Make ``tok/SPLIT.LANG``: see :mod:`.tokenisation`. Training pairs may go; others stay, in place.

    Args:
        work: the preparation; what is made already stays.

    Raises:
        PreparationError: a raw text is damaged or has changed since it was inspected, or a worker process died.
    """
    recipe, languages = _recipe(work), work.settings.languages
    for split, rules in recipe.rules.items():
        held_out = recipe.held_out if split == "train" else None
        made = (split, "valid") if held_out else (split,)
        if not work.missing(*(name for each in made for name in work.settings.names("tok", each))):
            continue
        function = functools.partial(
            tokenise_pairs,
            languages=languages,
            lowercase=work.settings.lowercase,
            rules=rules,
            cleaning=recipe.cleaning_of(split, TOKENS),
        )
        # Both are read to their end, where a text that changed meanwhile is noticed: no side comes out shorter.
        pairs = itertools.zip_longest(*(_sentences(work, split, language) for language in languages))
        lines = sum(text.lines for text in texts_of(work, split, languages[0]))
        _write_pairs(work, "tok", made, _map_pairs(work, function, pairs, f"tokenise {split}", lines), held_out)


def _count_words(text: Path, stem: Path, label: str) -> list[Path]:
    lines = progress_bar(iterable=read_lines(text), total=count_lines(text), desc=label, unit="line", unit_scale=True)
    return count_words(lines, stem)


def learn_bpe(work: Work) -> None:
    """Make ``bpe/codes`` from both training sides together; ``bpe/vocab.LANG``, the subwords of each side.

    Args:
        work: the preparation, ``tok`` made; what is made already stays.
    """
    names = [f"bpe/vocab.{language}" for language in work.settings.languages]
    if not work.missing("bpe/codes", *names):
        return
    runs = [
        _count_words(work.dest / text, work.dest / UNFINISHED / f"words.{language}", f"count words of train.{language}")
        for text, language in zip(work.settings.names("tok", "train"), work.settings.languages)
    ]
    if work.missing("bpe/codes"):
        work.report(f"learning {work.settings.bpe_merges} joint BPE merges")
        with write_whole(work.dest, ["bpe/codes"]) as (file,):
            words = merge_counts(itertools.chain.from_iterable(runs))
            learnt = bpe.learn_codes(words, work.settings.bpe_merges, file)
        if learnt < work.settings.bpe_merges:
            work.report(f"no pair of symbols occurs twice after {learnt} merges")
    with write_whole(work.dest, names) as files:
        for file, side in zip(files, runs):
            bpe.write_vocabulary(bpe.count_subwords(merge_counts(side), work.dest / "bpe" / "codes"), file)
    for run in itertools.chain.from_iterable(runs):
        run.unlink()


def apply_bpe(work: Work) -> None:
    """Make ``bpe/SPLIT.LANG``: the tokenised text in subwords. Training pairs may go, and validation pairs among them.

    Args:
        work: the preparation, ``tok`` and the codes made; what is made already stays.

    Raises:
        PreparationError: a worker process died.
    """
    recipe, threshold = _recipe(work), work.settings.bpe_vocabulary_threshold
    vocabularies = [work.dest / "bpe" / f"vocab.{lang}" if threshold else None for lang in work.settings.languages]
    for split in SPLITS:
        if not work.missing(*work.settings.names("bpe", split)):
            continue
        function = functools.partial(
            bpe.segment_pairs,
            codes=work.dest / "bpe" / "codes",
            vocabularies=vocabularies,
            threshold=threshold,
            cleaning=recipe.cleaning_of(split, SUBWORDS),
        )
        texts = [work.dest / name for name in work.settings.names("tok", split)]
        pairs = zip(*(read_lines(text) for text in texts))
        label = f"apply BPE to {split}"
        _write_pairs(work, "bpe", (split,), _map_pairs(work, function, pairs, label, count_lines(texts[0])))


def _complete(work: Work, folder: Path) -> None:
    """See :func:`.binarisation.binarise`: every sentence is there; the merges go with the result."""
    pair = "-".join(work.settings.languages)
    for split in SPLITS:
        for language in work.settings.languages:
            expected = count_lines(work.dest / "bpe" / f"{split}.{language}")
            found = read_header(folder / f"{split}.{pair}.{language}.idx").sentences
            if found != expected:
                raise PreparationError(f"fairseq-preprocess made {found} sentences of {expected} in {split}.{language}")
    shutil.copyfile(str(work.dest / "bpe" / "codes"), str(folder / "bpe.codes"))


def binarise_text(work: Work) -> None:
    """Make ``bin``: what ``fairseq-train`` takes.

    Args:
        work: the preparation, its text in subwords made; what is made already stays.

    Raises:
        PreparationError: ``fairseq-preprocess`` fails, or its result is not the text.
    """
    if not work.missing("bin"):
        return
    work.report("binarising with fairseq-preprocess")
    settings = work.settings
    options = ["--joined-dictionary"] if _recipe(work).joined_dictionary else []
    options += ["--source-lang", settings.source, "--target-lang", settings.target]
    for split in SPLITS:
        options += [f"--{split}pref", f"../../bpe/{split}"]
    binarise(work.dest, settings.names("bpe", "train"), options, work.workers, functools.partial(_complete, work))
