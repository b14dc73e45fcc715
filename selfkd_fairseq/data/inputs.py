"""The raw files of a preparation: where they are or come from, and whether they can be used."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Tuple

from .datasets import SPLITS, ParallelDataset
from .download import download
from .errors import PreparationError
from .raw_text import RawFile, check_pair, find_raw_file, inspect_raw_file, sha256_of

Key = Tuple[str, str]  # split, language
RawFiles = Dict[Key, RawFile]


@dataclass(frozen=True)
class Origin:
    """Where raw files come from.

    Args:
        folder: holds the files, or will hold them.
        base_url: folder on the web to download them from; None if they are in ``folder`` already.
    """

    folder: Path
    base_url: str | None = None


def file_names(dataset: ParallelDataset, languages: tuple[str, str]) -> dict[Key, str]:
    """(split, language) -> name of the published file."""
    return {(split, language): dataset.file_name(split, language) for split in SPLITS for language in languages}


def find_files(dataset: ParallelDataset, languages: tuple[str, str], folder: Path) -> dict[Key, Path]:
    """(split, language) -> file of ``folder``.

    Raises:
        PreparationError: files are missing; the message names all of them.
    """
    if not folder.is_dir():
        raise PreparationError(f"--raw {folder} is not a folder")
    names = file_names(dataset, languages)
    found = {key: find_raw_file(folder, name) for key, name in names.items()}
    missing = [name for key, name in names.items() if found[key] is None]
    if missing:
        raise PreparationError(f"--raw {folder} lacks {', '.join(missing)} (each may also be there without .gz)")
    return {key: path for key, path in found.items() if path is not None}


def published_sums(dataset: ParallelDataset, languages: tuple[str, str]) -> dict[str, str]:
    """Name -> SHA-256 of the files that would be downloaded.

    Raises:
        PreparationError: one has no published SHA-256, so a download of it could not be checked.
    """
    names = list(file_names(dataset, languages).values())
    unknown = [name for name in names if name not in dataset.sha256]
    if unknown:
        raise PreparationError(
            f"no SHA-256 is known for {', '.join(unknown)}, so they are not downloaded; get them and pass --raw"
        )
    return {name: dataset.sha256[name] for name in names}


def check_base_url(base_url: str) -> None:
    """Refuse anything but an http(s) address.

    Raises:
        PreparationError: it is something else.
    """
    address = urllib.parse.urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.netloc:
        raise PreparationError(f"--base-url must be an http or https address, not {base_url!r}")


def download_missing(sums: dict[str, str], folder: Path, base_url: str, report: Callable[[str], None]) -> None:
    """Download those files of ``sums`` (name -> SHA-256) that are not in ``folder`` yet.

    Raises:
        PreparationError: a download failed, or a file that is there is another one than the published.
    """
    for name, sha256 in sums.items():
        path = folder / name
        if not path.exists():
            download(f"{base_url.rstrip('/')}/{name}", path, sha256, report)
        elif sha256_of(path) != sha256:
            raise PreparationError(f"{path} is not the published file; remove it, or pass its folder as --raw")


def inspect_files(
    dataset: ParallelDataset, languages: tuple[str, str], folder: Path, report: Callable[[str], None]
) -> RawFiles:
    """Read every raw file once, from end to end; warn of those that are not the published ones.

    Raises:
        PreparationError: a file is missing, damaged or empty, or two sides differ in length.
        OSError: a file cannot be read.
    """
    paths = find_files(dataset, languages, folder)
    report(f"checking the raw files in {folder}")
    files = {key: inspect_raw_file(path) for key, path in paths.items()}
    for split in SPLITS:
        check_pair(*(files[split, language] for language in languages))
    for file in files.values():
        published = dataset.sha256.get(file.path.name)
        if published not in (None, file.sha256):
            report(f"warning: {file.path} is not the published file: SHA-256 {file.sha256}, published {published}")
    return files


def present_sums(dataset: ParallelDataset, languages: tuple[str, str], folder: Path) -> dict[str, str] | None:
    """Name -> SHA-256 of the raw files of ``folder``; None if they are not all there (any more)."""
    try:
        files = find_files(dataset, languages, folder)
    except PreparationError:
        return None
    return {path.name: sha256_of(path) for path in files.values()}
