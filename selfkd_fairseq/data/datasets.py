"""The datasets that ``selfkd-prepare`` knows: their files, where those come from, and their published settings.

To add a parallel dataset, write one more :class:`ParallelDataset` and list it in :data:`DATASETS`; the pipeline
and the command line take everything from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

from .errors import PreparationError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class ParallelDataset:
    """A corpus of sentence pairs: one gzip file per split and language, one sentence per line, UTF-8.

    Args:
        name: what the command line calls it.
        languages: two-letter codes; any two different ones make a pair.
        stems: for each name of :data:`SPLITS`, the first part of the file name in the corpus's own repository.
        base_url: folder on the web that holds the files.
        sha256: file name -> SHA-256 (hex) of the published, compressed file. Only these files are downloaded.
        lowercase: whether published results on this dataset are lower-cased.
        bpe_merges: joint BPE merges of published results on this dataset.
    """

    name: str
    languages: tuple[str, ...]
    stems: Mapping[str, str]
    base_url: str
    lowercase: bool
    bpe_merges: int
    sha256: Mapping[str, str] = field(default_factory=dict)

    def file_name(self, split: str, language: str) -> str:
        """Name of the published file, for example ``val.en.gz`` for split ``valid`` in English."""
        return f"{self.stems[split]}.{language}.gz"


MULTI30K = ParallelDataset(
    name="multi30k",
    languages=("en", "de", "fr", "cs"),
    stems={"train": "train", "valid": "val", "test": "test_2016_flickr"},
    base_url="https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw",
    # The Transformer-Tiny baseline of Wu et al. (2021): lower-cased, 10,000 joint merges, 9,712 types for en-de.
    lowercase=True,
    bpe_merges=10000,
    sha256={
        "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
        "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
        "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
        "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
        "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
        "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    },
)

DATASETS = {dataset.name: dataset for dataset in (MULTI30K,)}


def find_dataset(name: str) -> ParallelDataset:
    """The dataset called ``name``.

    Raises:
        PreparationError: there is none; the message lists those that there are.
    """
    if name not in DATASETS:
        raise PreparationError(f"unknown dataset {name!r}; known: {', '.join(sorted(DATASETS))}")
    return DATASETS[name]
