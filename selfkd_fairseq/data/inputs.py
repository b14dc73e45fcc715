"""The raw files of a preparation: where they are or come from, and whether they can be used."""

from __future__ import annotations

import functools
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from .archives import check_archive
from .errors import PreparationError
from .kind import Dataset, Report, S
from .raw_text import InspectedText, Text, fingerprint, inspect_text, sha256_of


@dataclass(frozen=True)
class Origin:
    """Where raw files come from.

    Args:
        path: the folder that holds the files or will hold them; or an archive, for a dataset that is one.
        base_url: folder on the web to download them from; None if they are in ``path`` already.
    """

    path: Path
    base_url: str | None = None


@dataclass(frozen=True)
class Inputs:
    """Raw files that were read from end to end.

    Args:
        sums: name of a raw file -> SHA-256.
        texts: name of a text -> the text.
    """

    sums: Mapping[str, str]
    texts: Mapping[str, InspectedText]


def published_sums(dataset: Dataset[S], settings: S) -> dict[str, str | None]:
    """Look up the SHA-256 of the files that would be downloaded.

    Args:
        dataset: whose files they are.
        settings: say which of them are needed.

    Returns:
        Name of the file -> hex digest, None where the dataset says that nobody knows it.

    Raises:
        PreparationError: the dataset says nothing of one, so a download of it could not be checked.
    """
    names = dataset.published_names(settings)
    unknown = [name for name in names if name not in dataset.sha256]
    if unknown:
        raise PreparationError(
            f"no SHA-256 is known for {', '.join(unknown)}, so they are not downloaded; get them and pass --raw"
        )
    return {name: dataset.sha256[name] for name in names}


def check_base_url(base_url: str) -> None:
    """Refuse anything but an http(s) address.

    Args:
        base_url: what the user gave.

    Raises:
        PreparationError: it is something else.
    """
    address = urllib.parse.urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.netloc:
        raise PreparationError(f"--base-url must be an http or https address, not {base_url!r}")


def download_missing(
    dataset: Dataset[S], settings: S, sums: Mapping[str, str | None], folder: Path, base_url: str, report: Report
) -> None:
    """Download the files that are not there yet.

    Args:
        dataset: whose files they are.
        settings: what the user asked for.
        sums: name of a file -> hex SHA-256 that it must have, None if unknown.
        folder: where to.
        base_url: folder on the web that holds them.
        report: takes each line meant for the user.

    Raises:
        PreparationError: a download failed, or a file that is there is another one than the published.
    """
    for name, sha256 in sums.items():
        path = folder / name
        if not path.exists():
            dataset.fetch(name, settings, base_url, path, sha256, report)
        elif sha256 is not None and sha256_of(path) != sha256:
            raise PreparationError(f"{path} is not the published file; remove it, or pass its folder as --raw")


def _sums(texts: Mapping[str, Text]) -> dict[str, str]:
    files = {text.file.name: text.file for text in texts.values()}  # an archive holds several texts
    return {name: fingerprint(file) for name, file in files.items()}


def inspect_files(dataset: Dataset[S], settings: S, raw: Path, report: Report) -> Inputs:
    """Read every raw text once, from end to end; warn of files that are not the published ones.

    Args:
        dataset: whose files they are.
        settings: say which of them are needed.
        raw: the folder of the files, or an archive.
        report: takes each line meant for the user.

    Returns:
        The texts, with what was found out about them, and the sums of their files.

    Raises:
        PreparationError: a file is missing or damaged, a text is empty or has a word that fairseq keeps for itself,
            or the texts do not go together.
        OSError: a file cannot be read.
    """
    found = dataset.find(settings, raw)
    report(f"checking the raw files in {raw}")
    for archive in sorted({text.file.path for text in found.values() if text.member is not None}):
        check_archive(archive)
    texts = {
        name: inspect_text(text, functools.partial(dataset.reserved_word, settings, name))
        for name, text in found.items()
    }
    dataset.check_texts(texts, report)
    sums = _sums(found)
    paths = {text.file.name: text.file.path for text in found.values()}
    for name, sha256 in sums.items():
        published = dataset.sha256.get(name)
        if published not in (None, sha256):
            report(f"warning: {paths[name]} is not the published file: SHA-256 {sha256}, published {published}")
    return Inputs(sums, texts)


def present_sums(dataset: Dataset[S], settings: S, raw: Path) -> dict[str, str] | None:
    """Take the sums of the raw files once more.

    Args:
        dataset: whose files they are.
        settings: say which of them are needed.
        raw: the folder of the files, or an archive.

    Returns:
        Name of the file -> hex SHA-256; None if they are not all there (any more).

    Raises:
        PreparationError: a file is damaged.
    """
    try:
        texts = dataset.find(settings, raw)
    except PreparationError:
        return None
    return _sums(texts)
