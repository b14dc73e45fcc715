"""The settings of a translation dataset."""

from __future__ import annotations

from dataclasses import dataclass

from ..kind import Settings


@dataclass(frozen=True)
class TranslationSettings(Settings):
    """What, besides the input, decides the output.

    Args:
        source: source language.
        target: target language.
        lowercase: lower-case all text; before or after it is tokenised is a rule of the recipe.
        bpe_merges: at least 1.
        bpe_vocabulary_threshold: subwords counted fewer times than this in their language's training text are
            split again; 0 is off.
    """

    source: str
    target: str
    lowercase: bool
    bpe_merges: int
    bpe_vocabulary_threshold: int = 0

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target language."""
        return self.source, self.target

    def names(self, folder: str, split: str) -> list[str]:
        """The files of a split.

        Args:
            folder: inside the destination.
            split: ``train``, ``valid`` or ``test``.

        Returns:
            Paths inside the destination of both sides, source first.
        """
        return [f"{folder}/{split}.{language}" for language in self.languages]
