"""A small raw corpus under the file names of Multi30k, and what tests of every kind of dataset look at."""

import gzip
import random

from selfkd_fairseq.data import preparation
from selfkd_fairseq.data.datasets import MULTI30K
from selfkd_fairseq.data.inputs import Origin
from selfkd_fairseq.data.translation.settings import TranslationSettings

STEMS = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
COUNTS = {"train": 50, "valid": 7, "test": 6}
TEXTS = {
    "en": "Two young men walk near the river; a dog's ball, red-brown (old) trees and 5,300 people stand still",
    "de": "Zwei junge Männer gehen am Fluss; „ein“ Hund, rot-braune (alte) Bäume und 5.300 Leute stehen still",
    "fr": "Deux jeunes hommes marchent près de l'eau ; «un» chien, arbres rouges et 5 300 gens",
    "cs": "Dva mladí muži jdou u řeky; „pes“, hnědé (staré) stromy a 5 300 lidí stojí",
}
WORDS = {language: text.split() for language, text in TEXTS.items()}


def sentences(language, count, seed):
    """Sentences of 3 to 9 words of the language, with its punctuation."""
    rng = random.Random(f"{language} {seed}")
    return [" ".join(rng.choice(WORDS[language]) for _ in range(rng.randint(3, 9))) + "." for _ in range(count)]


def write_side(folder, name, lines, compress=True):
    """Write one side of a split, gzip (without a date) unless told otherwise; the path."""
    content = "".join(line + "\n" for line in lines).encode("utf-8")
    path = folder / (name + ".gz" if compress else name)
    path.write_bytes(gzip.compress(content, mtime=0) if compress else content)
    return path


def write_corpus(folder, languages=("en", "de"), counts=None, compress=True):
    """Write all raw files; split -> language -> lines."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {}
    for seed, (split, stem) in enumerate(STEMS.items()):
        for language in languages:
            lines = sentences(language, (counts or COUNTS)[split], seed)
            text.setdefault(split, {})[language] = lines
            write_side(folder, f"{stem}.{language}", lines, compress)
    return text


def settings(**changes):
    """Settings of a small English-German preparation."""
    defaults = dict(dataset="multi30k", source="en", target="de", lowercase=True, bpe_merges=60)
    return TranslationSettings(**{**defaults, **changes})


def prepare(raw, dest, workers=1, report=None, dataset=MULTI30K, base_url=None, **changes):
    """Call the function under test with small defaults."""
    origin = Origin(raw, base_url)
    return preparation.prepare(dataset, settings(**changes), origin, dest, workers, report or (lambda line: None))


def tree(folder):
    """Relative path -> bytes (None for a folder) of everything in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def state(folder):
    """Everything in a folder with the times of the last changes."""
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def read(path):
    """The lines of a text file, split at line feeds only."""
    content = path.read_bytes().decode("utf-8")
    assert content.endswith("\n")
    return content[:-1].split("\n")
