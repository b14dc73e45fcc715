"""Small corpora like WikiText (a zip archive) and the Penn Treebank (three files), for language models."""

import gzip
import random
import zipfile

from selfkd_fairseq.data import preparation
from selfkd_fairseq.data.datasets import WIKITEXT_2
from selfkd_fairseq.data.inputs import Origin
from selfkd_fairseq.data.kind import Settings

COUNTS = {"train": 60, "valid": 11, "test": 9}
WORDS = "the game <unk> Senjō 戦場の @-@ , . was released in Japan naïve café × 12 @.@ 5 \" 's".split()
DATE = (2016, 9, 16, 10, 0, 0)  # fixed, so that the archive has the same bytes each time


def lines(split, count=None):
    """Headings, paragraphs and blank lines, with a space before and after, as in WikiText."""
    rng = random.Random(split)
    made = [" ", f" = The {split} <unk> = ", " "]
    while len(made) < (count or COUNTS[split]):
        made.append(" " + "".join(rng.choice(WORDS) + " " for _ in range(rng.randint(0, 12))))
    if split != "train":
        made[4] = f" only{split} was in {split} "  # words that the training text does not have
    made[-1] = " the end "
    return made


def content(split, count=None):
    """The bytes of a split."""
    return "".join(line + "\n" for line in lines(split, count)).encode()


def write_archive(path, name="wikitext-2", counts=None, compression=zipfile.ZIP_DEFLATED, without=()):
    """Write the zip archive; its path."""
    with zipfile.ZipFile(path, "w") as archive:
        for split in COUNTS:
            if split not in without:
                member = zipfile.ZipInfo(f"{name}/wiki.{split}.tokens", DATE)
                member.compress_type = compression
                archive.writestr(member, content(split, (counts or {}).get(split)))
    return path


def write_files(folder, pattern="wiki.{}.tokens", compress=False):
    """Write the three texts; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in COUNTS:
        name = pattern.format(split) + (".gz" if compress else "")
        (folder / name).write_bytes(gzip.compress(content(split), mtime=7) if compress else content(split))
    return folder


def prepare(raw, dest, workers=1, report=None, dataset=WIKITEXT_2, base_url=None):
    """Call the function under test."""
    call = report or (lambda line: None)
    return preparation.prepare(dataset, Settings(dataset.name), Origin(raw, base_url), dest, workers, call)
