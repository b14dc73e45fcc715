"""Datasets of sentence pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from ..binarisation import dictionary_types
from ..errors import PreparationError
from ..files import count_lines
from ..kind import FAIRSEQ, SPLITS, Dataset, Report, Work, by_split, check_least
from ..raw_text import InspectedText, Text, find_raw_files
from .settings import TranslationSettings
from .steps import apply_bpe, binarise_text, keep_raw, learn_bpe, tokenise_splits


@dataclass(frozen=True)
class TranslationDataset(Dataset[TranslationSettings]):
    """A corpus of sentence pairs: one gzip file per split and language, one sentence per line, UTF-8.

    Args:
        languages: two-letter codes; any two different ones make a pair.
        stems: for each name of :data:`SPLITS`, the first part of the file name in the corpus's own repository.
        lowercase: whether published results on this dataset are lower-cased.
        bpe_merges: joint BPE merges of published results on this dataset.
    """

    languages: tuple[str, ...]
    stems: Mapping[str, str]
    lowercase: bool
    bpe_merges: int

    settings_type = TranslationSettings
    tools = (("sacremoses",), ("subword-nmt",), FAIRSEQ)
    steps = (keep_raw, tokenise_splits, learn_bpe, apply_bpe, binarise_text)

    @property
    def defaults(self) -> dict[str, Any]:
        """Case and merges of published results."""
        return {"lowercase": self.lowercase, "bpe_merges": self.bpe_merges}

    def check_settings(self, settings: TranslationSettings) -> None:
        """See :class:`Dataset`."""
        for language in settings.languages:
            if language not in self.languages:
                known = ", ".join(self.languages)
                raise PreparationError(f"{self.name} has no language {language!r}; it has {known}")
        if settings.source == settings.target:
            raise PreparationError(f"--source and --target are the same language, {settings.source}")
        check_least("--bpe-merges", settings.bpe_merges, 1)
        check_least("--bpe-vocabulary-threshold", settings.bpe_vocabulary_threshold, 0)

    def file_name(self, split: str, language: str) -> str:
        """Name of the published file, for example ``val.en.gz`` for split ``valid`` in English."""
        return f"{self.stems[split]}.{language}.gz"

    def _file_names(self, settings: TranslationSettings) -> dict[str, str]:
        return {f"{split}.{lang}": self.file_name(split, lang) for split in SPLITS for lang in settings.languages}

    def published_names(self, settings: TranslationSettings) -> list[str]:
        """See :class:`Dataset`."""
        return list(self._file_names(settings).values())

    def find(self, settings: TranslationSettings, raw: Path) -> dict[str, Text]:
        """See :class:`Dataset`. A text is called ``SPLIT.LANG``."""
        return {name: Text(file) for name, file in find_raw_files(raw, self._file_names(settings)).items()}

    def check_texts(self, texts: Mapping[str, InspectedText], report: Report) -> None:
        """See :class:`Dataset`: both sides of a split have the same number of lines."""
        for split in SPLITS:
            source, target = (text for name, text in texts.items() if name.startswith(f"{split}."))
            if source.lines != target.lines:
                raise PreparationError(
                    f"the two sides differ in length: {source.text} has {source.lines} lines, "
                    f"{target.text} has {target.lines} lines"
                )

    def record(self, work: Work[TranslationSettings]) -> dict[str, Any]:
        """See :class:`Dataset`."""
        source = work.settings.source
        pairs = {split: count_lines(work.dest / "tok" / f"{split}.{source}") for split in SPLITS}
        return {
            "pairs": pairs,
            "dropped_train_pairs": work.texts[f"train.{source}"].lines - pairs["train"],
            "dictionary_types": dictionary_types(work.dest / "bin" / f"dict.{source}.txt"),
        }

    def summary(self, stamp: Mapping[str, Any]) -> str:
        """See :class:`Dataset`."""
        dropped = stamp["dropped_train_pairs"]
        note = f" ({dropped:,} training pairs with a blank side dropped)" if dropped else ""
        return f"pairs: {by_split(stamp['pairs'])}{note}; joined dictionary: {stamp['dictionary_types']:,} types"
