"""How time and memory of ``selfkd-prepare`` grow with the corpus: generated pairs, prepared in fresh processes."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

import torch

from .zipf import zipf_words

__all__ = ["Measurement", "measure", "watch", "write_corpus"]

# More words than any of these corpora uses, so that ten times the text has several times the different words.
LEXICON = 2_000_000
TEST_PAIRS = 100
# The training files of wmt14, unpacked, with their share of the pairs.
FILES = {"europarl-v7.de-en": 0.45, "commoncrawl.de-en": 0.45, "news-commentary-v12.de-en": 0.1}
TEST_FILE = "newstest2014.en-de"
_LENGTHS = (8, 32)  # words of a sentence
_SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstvwz" for vowel in "aeiou"]
_BATCH = 5000
_SECONDS_BETWEEN_LOOKS = 0.2
_BINARISATION = b"fairseq_cli.preprocess"


class Measurement(NamedTuple):
    """One preparation.

    Args:
        seconds: wall time, from the start of the process to its end.
        cpu_seconds: time on all cores, of the process and of all that it started.
        bytes: most memory that its processes held together at a time (proportional set size: memory that several
            share is counted once).
        bytes_before: the same before ``fairseq-preprocess`` started, the last step.
    """

    seconds: float
    cpu_seconds: float
    bytes: int
    bytes_before: int


def _word(number: int) -> str:
    """Word of a rank: the frequent ones are short."""
    word = _SYLLABLES[number % len(_SYLLABLES)]
    while number >= len(_SYLLABLES):
        number //= len(_SYLLABLES)
        word += _SYLLABLES[number % len(_SYLLABLES)]
    return word


def _sentences(count: int, generator: torch.Generator) -> Iterator[tuple[str, str]]:
    """Pairs of sentences of about the same length, their words drawn by Zipf's law."""
    for begin in range(0, count, _BATCH):
        lengths = torch.randint(*_LENGTHS, (min(_BATCH, count - begin),), generator=generator).tolist()
        words = iter(zipf_words(LEXICON, 2 * sum(lengths), generator).tolist())
        for length in lengths:
            source, target = (" ".join(_word(next(words)) for _ in range(length)) for _ in range(2))
            # The two languages have few words in common.
            yield f"{source.capitalize()}.", re.sub("a(?=[a-z])", "ä", f"{target.capitalize()}.")


def write_corpus(folder: Path, pairs: int, seed: int = 1) -> None:
    """Write raw files for ``selfkd-prepare wmt14 --source en --target de --raw FOLDER``.

    Args:
        folder: made if need be.
        pairs: for training, at least 200.
        seed: of the words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    counts = {name: round(share * pairs) for name, share in FILES.items()}
    for name, count in {**counts, TEST_FILE: TEST_PAIRS}.items():
        with open(folder / f"{name}.en", "w", encoding="utf-8") as source, open(
            folder / f"{name}.de", "w", encoding="utf-8"
        ) as target:
            for first, second in _sentences(count, generator):
                source.write(first + "\n")
                target.write(second + "\n")


def _descendants(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(errors="replace").rsplit(") ", 1)[1].split()[1])
        except OSError:  # it has ended
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def _look(root: int) -> tuple[int, bool]:
    """Memory of a process and all below it (proportional set size, bytes); whether the binarisation is among them."""
    total, binarises = 0, False
    for process in _descendants(root):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            binarises |= _BINARISATION in Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        total += 1024 * int(found.group(1)) if found else 0
    return total, binarises


def _cpu_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    import resource  # not on the path of an import of this package: Windows has none

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def watch(command: Sequence[str]) -> Measurement:
    """Run a command and measure it. Needs Linux's /proc.

    Args:
        command: the program and its arguments; no shell.

    Returns:
        Time in seconds and memory in bytes, of the command and of all that it started.

    Raises:
        RuntimeError: it failed; the message is the end of what it printed.
    """
    peak = peak_before = 0
    started, cpu_started = time.perf_counter(), _cpu_seconds()
    process = subprocess.Popen([*command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed: list[str] = []
    reader = threading.Thread(target=lambda: printed.append(process.communicate()[0]))
    reader.start()
    while reader.is_alive():
        held, binarises = _look(process.pid)
        peak = max(peak, held)
        peak_before = peak_before if binarises else max(peak_before, held)
        reader.join(_SECONDS_BETWEEN_LOOKS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {printed[0][-1000:]}")
    return Measurement(seconds, _cpu_seconds() - cpu_started, peak, peak_before)


def measure(raw: Path, merges: int, workers: int) -> Measurement:
    """Prepare what :func:`write_corpus` wrote, with ``selfkd-prepare`` in a process of its own, see :func:`watch`.

    Args:
        raw: the raw files; the result is written beside them, and removed.
        merges: of BPE.
        workers: processes of the preparation.

    Returns:
        Time in seconds and memory in bytes, of the command and of all that it started.
    """
    with tempfile.TemporaryDirectory(dir=str(raw.parent)) as folder:
        command = [sys.executable, "-m", "selfkd_fairseq.cli.prepare", "wmt14", "--source", "en", "--target", "de"]
        command += ["--raw", str(raw), "--dest", f"{folder}/dest", "--bpe-merges", str(merges)]
        return watch([*command, "--workers", str(workers)])
