"""The last step: ``fairseq-preprocess`` with a joined dictionary, in a process of its own."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

from .datasets import SPLITS
from .errors import PreparationError
from .files import UNFINISHED, count_lines, publish, read_lines

# fairseq's dictionary puts <s>, <pad>, </s> and <unk> before the types that its file lists.
SPECIAL_TYPES = 4
_INDEX_HEADER = struct.Struct("<9sQBQ")  # magic, version, type of the tokens, number of sentences


def dictionary_types(folder: Path, language: str) -> int:
    """Number of types of the dictionary in a binarised folder, as fairseq counts them (its 4 special ones too)."""
    return count_lines(folder / f"dict.{language}.txt") + SPECIAL_TYPES


def _sentences(index: Path) -> int:
    with open(index, "rb") as file:
        _, _, _, sentences = _INDEX_HEADER.unpack(file.read(_INDEX_HEADER.size))
    return int(sentences)


def _run_preprocess(folder: Path, source: str, target: str, workers: int) -> None:
    """Run ``fairseq-preprocess`` inside ``folder``, which lies two levels below the destination."""
    log = folder.parent / "fairseq-preprocess.log"
    command = [sys.executable, "-m", "fairseq_cli.preprocess", "--joined-dictionary", "--workers", str(workers)]
    command += ["--source-lang", source, "--target-lang", target, "--destdir", "."]
    for split in SPLITS:
        command += [f"--{split}pref", f"../../bpe/{split}"]
    # Relative paths: fairseq splits some of its paths at commas, and should this process be killed, its child
    # can write nowhere but in a folder that the next run removes.
    with open(log, "wb") as output:
        status = subprocess.run(command, cwd=str(folder), stdout=output, stderr=subprocess.STDOUT).returncode
    if status:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()] or ["no output"]
        raise PreparationError(f"fairseq-preprocess failed with exit status {status}: {lines[-1]} (all of it: {log})")


def binarise(dest: Path, source: str, target: str, workers: int) -> None:
    """``dest/bpe`` -> ``dest/bin``, which appears only when it is whole.

    Args:
        dest: the destination of the preparation.
        source: source language.
        target: target language.
        workers: at most this many processes; a text gets one per MiB, for starting more would only cost time.

    Raises:
        PreparationError: ``fairseq-preprocess`` failed, or a file has another number of sentences than its text.
    """
    folder = dest / UNFINISHED / "bin"
    if folder.exists():
        shutil.rmtree(str(folder))
    folder.mkdir(parents=True)
    size = max(os.path.getsize(dest / "bpe" / f"train.{language}") for language in (source, target))
    _run_preprocess(folder, source, target, min(workers, 1 + (size >> 20)))
    (folder / "preprocess.log").unlink()  # holds dates and paths; the stamp tells the settings
    for split in SPLITS:
        for language in (source, target):
            expected = sum(1 for _ in read_lines(dest / "bpe" / f"{split}.{language}"))
            found = _sentences(folder / f"{split}.{source}-{target}.{language}.idx")
            if found != expected:
                raise PreparationError(f"fairseq-preprocess made {found} sentences of {expected} in {split}.{language}")
    shutil.copyfile(str(dest / "bpe" / "codes"), str(folder / "bpe.codes"))
    publish(folder, dest / "bin")
