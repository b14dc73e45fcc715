"""The last step of every kind: ``fairseq-preprocess`` in a process of its own, and a look at what it wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

from .binarised_index import read_header
from .errors import PreparationError
from .files import UNFINISHED, count_lines, publish

# fairseq's dictionary puts these before the types that its file lists; their ids are 0 to 3.
SPECIAL_WORDS = ("<s>", "<pad>", "</s>", "<unk>")


@dataclass(frozen=True)
class BinaryText:
    """What a binarised text holds.

    Args:
        sentences: how many.
        tokens: how many, each sentence's ``</s>`` included.
        special: how many of them are each of :data:`SPECIAL_WORDS`.
    """

    sentences: int
    tokens: int
    special: tuple[int, ...]


def dictionary_types(dictionary: Path) -> int:
    """Number of types of a dictionary, as fairseq counts them.

    Args:
        dictionary: a ``dict.txt``, one type a line.

    Returns:
        Its lines, and fairseq's special words, which are not in the file.
    """
    return count_lines(dictionary) + len(SPECIAL_WORDS)


def read_binary(stem: Path) -> BinaryText:
    """Read a binarised text from end to end.

    Args:
        stem: its path without ``.bin`` and ``.idx``.

    Returns:
        The numbers of its sentences, its tokens and its special words.

    Raises:
        PreparationError: the ``.idx`` file is no index of binarised data.
    """
    import numpy  # here, so that a call that has nothing to do does not wait for the import

    header = read_header(Path(f"{stem}.idx"))
    tokens, special = 0, numpy.zeros(len(SPECIAL_WORDS), dtype=numpy.int64)
    with open(f"{stem}.bin", "rb") as file:
        while True:
            ids = numpy.fromfile(file, header.token_type, 1 << 20)
            if not ids.size:
                break
            tokens += ids.size
            special += numpy.bincount(ids[ids < len(SPECIAL_WORDS)], minlength=len(SPECIAL_WORDS))
    return BinaryText(header.sentences, tokens, tuple(int(number) for number in special))


def run_preprocess(folder: Path, options: Sequence[str], workers: int) -> None:
    """Run ``fairseq-preprocess`` inside ``folder``, which lies two levels below the destination.

    Args:
        folder: empty; takes the results.
        options: what to binarise and how; paths are relative to ``folder``.
        workers: number of processes.

    Raises:
        PreparationError: it failed; the message has the last line of what it printed.
    """
    log = folder.parent / "fairseq-preprocess.log"
    command = [sys.executable, "-m", "fairseq_cli.preprocess", *options, "--destdir", ".", "--workers", str(workers)]
    # Relative paths: fairseq splits some of its paths at commas, and should this process be killed, its child
    # can write nowhere but in a folder that the next run removes.
    with open(log, "wb") as output:
        status = subprocess.run(command, cwd=str(folder), stdout=output, stderr=subprocess.STDOUT).returncode
    if status:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()] or ["no output"]
        raise PreparationError(f"fairseq-preprocess failed with exit status {status}: {lines[-1]} (all of it: {log})")


def binarise(
    dest: Path, texts: Sequence[str], options: Sequence[str], workers: int, complete: Callable[[Path], None]
) -> None:
    """Make ``dest/bin``, which appears only when it is whole.

    Args:
        dest: the destination of the preparation.
        texts: the training texts, relative to ``dest``.
        options: as of :func:`run_preprocess`; ``dest`` is ``../..``.
        workers: at most this many processes; a text gets one per MiB, for starting more would only cost time.
        complete: given the folder before it becomes ``dest/bin``: checks it and adds what else belongs in it.

    Raises:
        PreparationError: ``fairseq-preprocess`` failed, or ``complete`` says so.
    """
    folder = dest / UNFINISHED / "bin"
    if folder.exists():
        shutil.rmtree(str(folder))
    folder.mkdir(parents=True)
    size = max(os.path.getsize(dest / text) for text in texts)
    run_preprocess(folder, options, min(workers, 1 + (size >> 20)))
    (folder / "preprocess.log").unlink()  # holds dates and paths; the stamp tells the settings
    complete(folder)
    publish(folder, dest / "bin")
