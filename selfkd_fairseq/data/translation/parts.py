"""The published texts that a split is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ..raw_text import RawFile, Text, find_raw_file
from .settings import TranslationSettings


@dataclass(frozen=True)
class Part:
    """One parallel text, in a file for each language.

    Args:
        file: name of the file, of the path inside ``archive`` if there is one; ``{language}``, ``{source}`` and
            ``{target}`` stand for two-letter codes.
        archive: the published archive that holds it; None if the file is published as it is.
        test_set: sacreBLEU's name of the set, if sacreBLEU is where it comes from.
        extract: see :class:`Text`.
    """

    file: str
    archive: str | None = None
    test_set: str | None = None
    extract: Callable[[str], str | None] | None = None

    def name(self, settings: TranslationSettings, language: str) -> str:
        """Name of the file of one language.

        Args:
            settings: say which pair of languages.
            language: one of the pair.

        Returns:
            ``file`` with the languages filled in.
        """
        return self.file.format(language=language, source=settings.source, target=settings.target)

    def find(self, settings: TranslationSettings, language: str, raw: Path) -> Text | None:
        """Look for the text of one language.

        Args:
            settings: say which languages there are.
            language: one of them.
            raw: the archive itself, or a folder that holds the archive, or what was in it (with its folders or
                without), or the published file.

        Returns:
            Where the text is; None if it is not there. Nothing is opened.
        """
        name = self.name(settings, language)
        if self.archive is not None:
            path = raw if raw.is_file() else raw / self.archive
            if path.is_file():
                return Text(RawFile(path, self.archive), name, self.extract)
        for place in dict.fromkeys((name, name.rsplit("/", 1)[-1])):
            file = find_raw_file(raw, place)
            if file is not None:
                return Text(file, None, self.extract)
        return None

    def wanted(self, settings: TranslationSettings, language: str) -> str:
        """What to ask the user for when the text is missing.

        Args:
            settings: say which pair of languages.
            language: one of the pair.

        Returns:
            The archive, or the file; with the command that prints it if it is a test set of sacreBLEU.
        """
        name = self.name(settings, language)
        if self.test_set is not None:
            side = "src" if language == settings.source else "ref"
            pair = f"{settings.source}-{settings.target}"
            return f"{name} [printed by: sacrebleu -t {self.test_set} -l {pair} --echo {side}]"
        return self.archive or name
