"""One preparation from end to end: the checks first, then the steps, the stamp last."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Any, Iterable, Mapping

from ..common.fairseq_package import NOT_INSTALLED, fairseq_versions
from .destination import BEGUN, STAMP, check_place, check_same, read_begun, read_stamp
from .errors import PreparationError
from .files import clear_unfinished, sole_user, write_json
from .inputs import Inputs, Origin, check_base_url, download_missing, inspect_files, present_sums, published_sums
from .kind import Dataset, Report, S, Work, check_least


def tool_versions(tools: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that decide the output.

    Args:
        tools: their names, without fairseq, which every preparation needs and whose package has several names.

    Returns:
        Name under which a package is installed -> its version.

    Raises:
        PreparationError: one is not installed.
    """
    versions = {}
    for name in tools:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise PreparationError(f"{name} is not installed") from None
    fairseq = fairseq_versions()
    if not fairseq:
        raise PreparationError(NOT_INSTALLED)
    return {**versions, **fairseq}


def _is_finished(dataset: Dataset[S], settings: S, origin: Origin, dest: Path) -> bool:
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
    sums = present_sums(dataset, settings, origin.path)
    if sums is not None:
        check_same(dest, "input", begun["inputs"], sums)
    return True


def _gather(dataset: Dataset[S], settings: S, origin: Origin, report: Report) -> tuple[dict[str, Any], Inputs | None]:
    """What to begin with, before anything is written, so that bad input leaves no trace.

    Returns:
        The record of settings, versions and input; and the raw files, None if they are still to be downloaded.

    Raises:
        PreparationError: a tool or a file is missing, a file cannot be used, or a download cannot be checked.
    """
    begun: dict[str, Any] = {"settings": vars(settings), "versions": tool_versions(dataset.tools)}
    if origin.base_url is not None:
        check_base_url(origin.base_url)
        return {**begun, "inputs": published_sums(dataset, settings)}, None
    inputs = inspect_files(dataset, settings, origin.path, report)
    return {**begun, "inputs": inputs.sums}, inputs


def _begin(dest: Path, begun: dict[str, Any]) -> None:
    """Bind ``dest``, which this process holds, to what ``begun`` says; or check that it is so bound.

    Sums that ``begun`` does not know are taken from the earlier call, if that one found them out.

    Raises:
        PreparationError: it is bound to something else.
    """
    there = read_begun(dest)
    clear_unfinished(dest)
    if there is None:
        write_json(dest, BEGUN, begun)
        return
    sums = begun["inputs"]
    sums.update({name: there["inputs"].get(name) for name, sha256 in sums.items() if sha256 is None})
    for part, what in (("settings", "settings"), ("inputs", "input"), ("versions", "versions")):
        check_same(dest, what, there[part], begun[part])


def _settle(dest: Path, begun: dict[str, Any], sums: Mapping[str, str]) -> None:
    """Record the sums that nobody knew before the download, so that the next call can check against them."""
    if None in begun["inputs"].values():
        begun["inputs"] = dict(sums)
        write_json(dest, BEGUN, begun)


def _work_through(dataset: Dataset[S], work: Work[S], begun: dict[str, Any]) -> dict[str, Any]:
    """Do every step that is not done yet, write the stamp and return it."""
    for step in dataset.steps:
        step(work)
    stamp = {**begun, **dataset.record(work)}
    write_json(work.dest, STAMP, stamp)
    clear_unfinished(work.dest)
    return stamp


def prepare(dataset: Dataset[S], settings: S, origin: Origin, dest: Path, workers: int, report: Report) -> Path:
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
    dataset.check_settings(settings)
    check_least("--workers", workers, 1)
    origin = Origin(Path(os.path.realpath(origin.path)), origin.base_url)
    dest = Path(os.path.realpath(dest))
    check_place(dest, origin.path, downloaded=origin.base_url is not None)
    if _is_finished(dataset, settings, origin, dest):
        clear_unfinished(dest)  # there only if the earlier call was killed right after it wrote the stamp
        report(f"nothing to do, already prepared: fairseq-train {dest / 'bin'}")
        return dest / "bin"
    begun, inputs = _gather(dataset, settings, origin, report)
    dest.mkdir(parents=True, exist_ok=True)
    with sole_user(dest):
        _begin(dest, begun)
        if origin.base_url is not None:
            download_missing(dataset, settings, begun["inputs"], origin.path, origin.base_url, report)
        if inputs is None:
            inputs = inspect_files(dataset, settings, origin.path, report)
            _settle(dest, begun, inputs.sums)
        work = Work(dest, settings, inputs.texts, workers, report, dataset)
        stamp = _work_through(dataset, work, begun)
    report(f"{dataset.summary(stamp)}; ready: fairseq-train {dest / 'bin'}")
    return dest / "bin"
