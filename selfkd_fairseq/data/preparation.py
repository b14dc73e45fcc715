"""One preparation from end to end: the checks first, then the steps, the stamp last."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Any, Callable

from .binarisation import dictionary_types
from .datasets import SPLITS, ParallelDataset
from .destination import BEGUN, STAMP, check_place, check_same, read_begun, read_stamp
from .errors import PreparationError
from .files import clear_unfinished, count_lines, sole_user, write_json
from .inputs import (
    Origin,
    RawFiles,
    check_base_url,
    download_missing,
    inspect_files,
    present_sums,
    published_sums,
)
from .steps import STEPS, Settings, Work

Report = Callable[[str], None]


def check_settings(dataset: ParallelDataset, settings: Settings, workers: int) -> None:
    """Refuse settings that make no sense.

    Raises:
        PreparationError: says which.
    """
    for language in settings.languages:
        if language not in dataset.languages:
            known = ", ".join(dataset.languages)
            raise PreparationError(f"{dataset.name} has no language {language!r}; it has {known}")
    if settings.source == settings.target:
        raise PreparationError(f"--source and --target are the same language, {settings.source}")
    for option, value, least in (
        ("--bpe-merges", settings.bpe_merges, 1),
        ("--bpe-vocabulary-threshold", settings.bpe_vocabulary_threshold, 0),
        ("--workers", workers, 1),
    ):
        if value < least:
            raise PreparationError(f"{option} must be at least {least}, not {value}")


def tool_versions() -> dict[str, str]:
    """Versions of the packages that decide the output.

    Raises:
        PreparationError: one is not installed.
    """
    versions = {}
    for names in (("sacremoses",), ("subword-nmt",), ("fairseq-fixed", "fairseq")):
        for name in names:
            try:
                versions[name] = metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                continue
        else:
            raise PreparationError(f"{' or '.join(names)} is not installed")
    return versions


def _is_finished(dataset: ParallelDataset, settings: Settings, origin: Origin, dest: Path) -> bool:
    """Whether ``dest`` holds this preparation already, whole. Raw files that are gone by now do not matter.

    Raises:
        PreparationError: ``dest`` holds something else, or a preparation of other settings or input.
    """
    begun = read_begun(dest)
    if begun is None:
        return False
    check_same(dest, "settings", begun["settings"], vars(settings))
    if read_stamp(dest) is None or not (dest / "bin").is_dir():
        return False
    sums = present_sums(dataset, settings.languages, origin.folder)
    if sums is not None:
        check_same(dest, "input", begun["inputs"], sums)
    return True


def _gather(
    dataset: ParallelDataset, settings: Settings, origin: Origin, report: Report
) -> tuple[dict[str, Any], RawFiles | None]:
    """What to begin with, before anything is written, so that bad input leaves no trace.

    Returns:
        The record of settings, versions and input; and the raw files, None if they are still to be downloaded.

    Raises:
        PreparationError: a tool or a file is missing, a file cannot be used, or a download cannot be checked.
    """
    begun: dict[str, Any] = {"settings": vars(settings), "versions": tool_versions()}
    if origin.base_url is not None:
        check_base_url(origin.base_url)
        return {**begun, "inputs": published_sums(dataset, settings.languages)}, None
    files = inspect_files(dataset, settings.languages, origin.folder, report)
    return {**begun, "inputs": {file.path.name: file.sha256 for file in files.values()}}, files


def _begin(dest: Path, begun: dict[str, Any]) -> None:
    """Bind ``dest``, which this process holds, to what ``begun`` says; or check that it is so bound.

    Raises:
        PreparationError: it is bound to something else.
    """
    there = read_begun(dest)
    clear_unfinished(dest)
    if there is None:
        write_json(dest, BEGUN, begun)
        return
    for part, what in (("settings", "settings"), ("inputs", "input"), ("versions", "versions")):
        check_same(dest, what, there[part], begun[part])


def _work_through(work: Work, begun: dict[str, Any]) -> dict[str, Any]:
    """Do every step that is not done yet, write the stamp and return it."""
    dest, settings = work.dest, work.settings
    for step in STEPS:
        step(work)
    pairs = {split: count_lines(dest / "tok" / f"{split}.{settings.source}") for split in SPLITS}
    stamp = {
        **begun,
        "pairs": pairs,
        "dropped_train_pairs": work.raw_lines["train"] - pairs["train"],
        "dictionary_types": dictionary_types(dest / "bin", settings.source),
    }
    write_json(dest, STAMP, stamp)
    clear_unfinished(dest)
    return stamp


def _summary(stamp: dict[str, Any], dest: Path) -> str:
    pairs = ", ".join(f"{split} {stamp['pairs'][split]:,}" for split in SPLITS)
    dropped = stamp["dropped_train_pairs"]
    note = f" ({dropped:,} training pairs with a blank side dropped)" if dropped else ""
    types = stamp["dictionary_types"]
    return f"pairs: {pairs}{note}; joined dictionary: {types:,} types; ready: fairseq-train {dest / 'bin'}"


def prepare(
    dataset: ParallelDataset, settings: Settings, origin: Origin, dest: Path, workers: int, report: Report
) -> Path:
    """Prepare ``dataset`` in ``dest``, or go on with, or find finished, what an earlier call began.

    Args:
        dataset: one of :data:`.datasets.DATASETS`.
        settings: what decides the output.
        origin: where the raw files are or come from.
        dest: absent, empty, or an earlier call's.
        workers: number of processes, at least 1; the output does not depend on it.
        report: takes each line meant for the user.

    Returns:
        The folder to pass to ``fairseq-train``.

    Raises:
        PreparationError: something that the user can mend; nothing unfinished is left under a final name.
        OSError: the disk is full, a folder cannot be written, and so on; as above.
    """
    check_settings(dataset, settings, workers)
    origin = Origin(Path(os.path.realpath(origin.folder)), origin.base_url)
    dest = Path(os.path.realpath(dest))
    check_place(dest, origin.folder, downloaded=origin.base_url is not None)
    if _is_finished(dataset, settings, origin, dest):
        clear_unfinished(dest)  # there only if the earlier call was killed right after it wrote the stamp
        report(f"nothing to do, already prepared: fairseq-train {dest / 'bin'}")
        return dest / "bin"
    begun, files = _gather(dataset, settings, origin, report)
    dest.mkdir(parents=True, exist_ok=True)
    with sole_user(dest):
        _begin(dest, begun)
        if origin.base_url is not None:
            download_missing(begun["inputs"], origin.folder, origin.base_url, report)
        if files is None:
            files = inspect_files(dataset, settings.languages, origin.folder, report)
        raw = {key: file.path for key, file in files.items()}
        raw_lines = {split: files[split, settings.source].lines for split in SPLITS}
        stamp = _work_through(Work(dest, settings, raw, raw_lines, workers, report), begun)
    report(_summary(stamp, dest))
    return dest / "bin"
