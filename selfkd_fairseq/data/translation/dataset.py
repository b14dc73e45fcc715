"""Datasets of sentence pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping

from ..binarisation import SPECIAL_WORDS, dictionary_types
from ..download import download
from ..errors import PreparationError
from ..files import count_lines
from ..kind import SPLITS, Dataset, Report, Work, by_split, check_least
from ..raw_text import InspectedText, Text
from .parts import Part
from .recipe import Recipe
from .sacrebleu_sets import copy_test_set
from .settings import TranslationSettings
from .steps import apply_bpe, binarise_text, keep_raw, learn_bpe, texts_of, tokenise_splits
from .tokenisation import tokenise


@dataclass(frozen=True)
class TranslationDataset(Dataset[TranslationSettings]):
    """A corpus of sentence pairs, one sentence per line (or per line of a known markup), UTF-8.

    Args:
        languages: two-letter codes; any two different ones make a pair.
        parts: for each split that has a text of its own, what it is made of, in order.
        recipe: how the text is made ready.
        lowercase: whether published results on this dataset are lower-cased.
        bpe_merges: joint BPE merges of published results on this dataset.
        addresses: name of a published file -> its address, for files that do not lie in ``base_url``.
    """

    languages: tuple[str, ...]
    parts: Mapping[str, tuple[Part, ...]]
    recipe: Recipe
    lowercase: bool
    bpe_merges: int
    addresses: Mapping[str, str] = field(default_factory=dict)

    settings_type = TranslationSettings
    tools = ("sacremoses", "subword-nmt")
    steps = (keep_raw, tokenise_splits, learn_bpe, apply_bpe, binarise_text)

    @property
    def defaults(self) -> dict[str, Any]:
        """Case and merges of published results."""
        return {"lowercase": self.lowercase, "bpe_merges": self.bpe_merges}

    def check_settings(self, settings: TranslationSettings) -> None:
        """Refuse settings that make no sense.

        Args:
            settings: what the user asked for.

        Raises:
            PreparationError: an unknown language, the same one twice, or a number of BPE that is too small.
        """
        for language in settings.languages:
            if language not in self.languages:
                known = ", ".join(self.languages)
                raise PreparationError(f"{self.name} has no language {language!r}; it has {known}")
        if settings.source == settings.target:
            raise PreparationError(f"--source and --target are the same language, {settings.source}")
        check_least("--bpe-merges", settings.bpe_merges, 1)
        check_least("--bpe-vocabulary-threshold", settings.bpe_vocabulary_threshold, 0)

    def _sides(self, settings: TranslationSettings) -> Iterator[tuple[str, Part, str]]:
        """Each text of the pair of languages: its name, its part and its language."""
        for split, parts in self.parts.items():
            for number, part in enumerate(parts, start=1):
                for language in settings.languages:
                    yield f"{split}.{language}" + (f".{number}" if len(parts) > 1 else ""), part, language

    def published_names(self, settings: TranslationSettings) -> list[str]:
        """The archives and files that both languages need.

        Args:
            settings: say which languages.

        Returns:
            Their names, each once.
        """
        names = (part.archive or part.name(settings, language) for _, part, language in self._sides(settings))
        return list(dict.fromkeys(names))

    def fetch(
        self, name: str, settings: TranslationSettings, origin: str, path: Path, sha256: str | None, report: Report
    ) -> None:
        """Bring one published file here. A test set comes by sacreBLEU, whatever ``origin`` is.

        Args:
            name: of the file, one of :meth:`published_names`.
            settings: as there.
            origin: folder on the web, :attr:`base_url` or a mirror of it; a file with an address of its own comes from
                there unless this is a mirror.
            path: where to; appears only when it is whole.
            sha256: hex digest that it must have, None if that is unknown.
            report: takes each line meant for the user.

        Raises:
            PreparationError: it cannot be had, or is another one.
        """
        for _, part, language in self._sides(settings):
            if part.test_set is not None and part.name(settings, language) == name:
                side = "src" if language == settings.source else "ref"
                copy_test_set(part.test_set, f"{settings.source}-{settings.target}", side, path, sha256)
                return
        if origin == self.base_url and name in self.addresses:
            download(self.addresses[name], path, sha256, report)
        else:
            super().fetch(name, settings, origin, path, sha256, report)

    def find(self, settings: TranslationSettings, raw: Path) -> dict[str, Text]:
        """Where the raw texts are.

        Args:
            settings: say which languages.
            raw: a folder with the archives or the texts, or the archive itself if one holds everything.

        Returns:
            ``SPLIT.LANG``, or ``SPLIT.LANG.1`` and so on if a split has several texts -> where the text is; the two
            sides of a text one after the other. No file is opened yet.

        Raises:
            PreparationError: ``raw`` is none of these, or files are missing; the message names all of them.
        """
        archives = {part.archive for parts in self.parts.values() for part in parts}
        all_in_one = len(archives) == 1 and None not in archives
        if not raw.is_dir() and not (raw.is_file() and all_in_one):
            raise PreparationError(f"--raw {raw} is not a folder" + (" or archive" if all_in_one else ""))
        found = {}
        missing: dict[str, list[str]] = {}  # what to ask for -> the names that would do as well
        for name, part, language in self._sides(settings):
            text = part.find(settings, language, raw)
            if text is not None:
                found[name] = text
                continue
            instead = missing.setdefault(part.wanted(settings, language), [])
            if part.archive is not None:
                instead.append(part.name(settings, language))
        if missing:
            lacks = [
                name + (f" (or from it {', '.join(instead)})" if instead else "") for name, instead in missing.items()
            ]
            raise PreparationError(f"--raw {raw} lacks {', '.join(lacks)} (plain or .gz)")
        return found

    def reserved_word(self, settings: TranslationSettings, name: str, sentence: str) -> str | None:
        """Find a word of text that is not tokenised which would become one of fairseq's own (``<unk>`` too).

        Args:
            settings: say whether it is lower-cased first.
            name: of the text; its split and language say what is done to it.
            sentence: out of that text.

        Returns:
            What to call it in a message; None if there is none.
        """
        split, language = name.split(".")[:2]
        rules = self.recipe.rules[split]
        if rules.tokenise:  # which escapes the brackets that each of them has
            return None
        for word in tokenise(sentence, language, settings.lowercase, rules).split():
            for special in SPECIAL_WORDS:
                if word == special:
                    return f"the word {special}"
                if word.endswith(special):  # BPE may cut off what stands before
                    return f"a word that ends in {special}"
        return None

    def check_texts(self, texts: Mapping[str, InspectedText], report: Report) -> None:
        """Refuse texts whose two sides do not have the same number of sentences.

        Args:
            texts: all that :meth:`find` found, in its order.
            report: unused; there are no warnings.

        Raises:
            PreparationError: two sides differ; the message has both numbers.
        """
        inspected = list(texts.values())  # as found, the two sides of a text one after the other
        for source, target in zip(inspected[::2], inspected[1::2]):
            if source.lines != target.lines:
                raise PreparationError(
                    f"the two sides differ in length: {source.text} has {source.lines} lines, "
                    f"{target.text} has {target.lines} lines"
                )

    def record(self, work: Work[TranslationSettings]) -> dict[str, Any]:
        """What the stamp tells of a finished preparation.

        Args:
            work: the preparation, all its steps done.

        Returns:
            ``pairs``, sentence pairs of each split; ``dropped_train_pairs``, those of the raw training text that are in
            no split; ``dictionary_types``, one number for a joined dictionary, else one for each language.
        """
        settings = work.settings
        pairs = {split: count_lines(work.dest / "bpe" / f"{split}.{settings.source}") for split in SPLITS}
        used = pairs["train"] + (pairs["valid"] if self.recipe.held_out else 0)
        types = {lang: dictionary_types(work.dest / "bin" / f"dict.{lang}.txt") for lang in settings.languages}
        return {
            "pairs": pairs,
            "dropped_train_pairs": sum(text.lines for text in texts_of(work, "train", settings.source)) - used,
            "dictionary_types": types[settings.source] if self.recipe.joined_dictionary else types,
        }

    def summary(self, stamp: Mapping[str, Any]) -> str:
        """Pairs, why some were dropped, and the size of the dictionary.

        Args:
            stamp: of a finished preparation, with what :meth:`record` tells.

        Returns:
            One line for the user.
        """
        dropped, types = stamp["dropped_train_pairs"], stamp["dictionary_types"]
        bounded = self.recipe.cleaning.longest is not None
        why = "dropped as blank, too long or too uneven" if bounded else "with a blank side dropped"
        note = f" ({dropped:,} training pairs {why})" if dropped else ""
        dictionary = (
            f"joined dictionary: {types:,} types"
            if self.recipe.joined_dictionary
            else f"types of the dictionaries: {by_split(types)}"
        )
        return f"pairs: {by_split(stamp['pairs'])}{note}; {dictionary}"
