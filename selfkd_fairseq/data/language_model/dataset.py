"""Datasets for language models: one text, in the words that published results are counted in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from ..binarisation import dictionary_types, read_binary
from ..kind import SPLITS, Dataset, Report, Settings, Work, by_split
from ..raw_text import InspectedText, RawFile, Text, find_raw_files
from .steps import RESERVED_WORDS, UNKNOWN_ID, binarise_text, count_text, keep_text, read_counts


@dataclass(frozen=True)
class LanguageModelDataset(Dataset[Settings]):
    """A text that is tokenised and cut down to its vocabulary (``<unk>``) already, and is left as it is.

    Args:
        files: for each name of :data:`SPLITS`, the name of its text.
        lines: for each name of :data:`SPLITS`, the lines of the published text, blank ones included.
        archive: name of the zip archive that holds the texts, in a folder called as the dataset; None if they are
            published one by one.
    """

    files: Mapping[str, str]
    lines: Mapping[str, int]
    archive: str | None = None

    settings_type = Settings
    tools = ()
    steps = (keep_text, count_text, binarise_text)

    def published_names(self, settings: Settings) -> list[str]:
        """The archive, or the text of each split.

        Args:
            settings: unused; every text is needed.

        Returns:
            Names as :meth:`Dataset.published_names` gives them.
        """
        return [self.archive] if self.archive is not None else list(self.files.values())

    def find(self, settings: Settings, raw: Path) -> dict[str, Text]:
        """Where the raw texts are; an archive is taken before loose files.

        Args:
            settings: unused; every text is needed.
            raw: a folder with the archive or the texts, or the archive itself.

        Returns:
            Split -> where its text is. No file is opened yet.

        Raises:
            PreparationError: files are missing; the message names all of them.
        """
        if self.archive is not None:
            path = raw if raw.is_file() else raw / self.archive
            if path.is_file():
                archive = RawFile(path, self.archive)
                return {split: Text(archive, f"{self.name}/{self.files[split]}") for split in SPLITS}
        return {split: Text(file) for split, file in find_raw_files(raw, self.files, self.archive).items()}

    def reserved_word(self, settings: Settings, name: str, sentence: str) -> str | None:
        """Find one of :data:`.steps.RESERVED_WORDS`.

        Args:
            settings: unused; all texts are taken as they are.
            name: unused.
            sentence: out of a raw text.

        Returns:
            What to call it in a message; None if there is none.
        """
        found = (word for word in RESERVED_WORDS if word in sentence and word in sentence.split())
        return next((f"the word {word}" for word in found), None)

    def check_texts(self, texts: Mapping[str, InspectedText], report: Report) -> None:
        """Warn of texts that cannot be the published ones, by the number of their lines.

        Args:
            texts: split -> text, all that :meth:`find` found.
            report: takes each warning.
        """
        for split, text in texts.items():
            if text.lines != self.lines[split]:
                report(f"warning: {text.text} has {text.lines:,} lines, the published text {self.lines[split]:,}")

    def record(self, work: Work[Settings]) -> dict[str, Any]:
        """What the stamp tells of a finished preparation.

        Args:
            work: the preparation, all its steps done.

        Returns:
            For each split ``lines``, ``tokens`` (with one ``</s>`` a line) and ``unk_in_text`` (``<unk>`` in the raw
            text); for all but the training text ``unknown_words``, which that one does not have. And
            ``dictionary_types``, fairseq's special words among them.
        """
        counts = read_counts(work.dest)
        binaries = {split: read_binary(work.dest / "bin" / split) for split in SPLITS}
        return {
            "lines": {split: counts[split]["lines"] for split in SPLITS},
            "tokens": {split: binaries[split].tokens for split in SPLITS},
            "unk_in_text": {split: counts[split]["unk"] for split in SPLITS},
            "unknown_words": {
                split: binaries[split].special[UNKNOWN_ID] - counts[split]["unk"] for split in SPLITS[1:]
            },
            "dictionary_types": dictionary_types(work.dest / "bin" / "dict.txt"),
        }

    def summary(self, stamp: Mapping[str, Any]) -> str:
        """Lines, tokens, unknown words and the size of the dictionary.

        Args:
            stamp: of a finished preparation, with what :meth:`record` tells.

        Returns:
            One line for the user.
        """
        return (
            f"lines: {by_split(stamp['lines'])}; tokens with one </s> a line: {by_split(stamp['tokens'])}; "
            f"words not in train: {by_split(stamp['unknown_words'])}; dictionary: {stamp['dictionary_types']:,} types"
        )
