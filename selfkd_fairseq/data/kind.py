"""What a kind of dataset has to supply, so that one preparation serves all kinds."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, ClassVar, Generic, Iterator, Mapping, TypeVar

from .download import download
from .errors import PreparationError, UsageError
from .raw_text import InspectedText, Text, read_again

SPLITS = ("train", "valid", "test")

Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What, besides the input, decides the output. A kind adds its own fields, each named as its option.

    Args:
        dataset: its name.
    """

    dataset: str


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Work(Generic[S]):
    """One preparation at work.

    Args:
        dest: an existing folder.
        settings: what decides the output.
        texts: name -> raw text, as :meth:`Dataset.find` named them.
        workers: number of processes, at least 1.
        report: takes each line meant for the user.
        dataset: what is prepared; a kind's steps know more of it than :class:`Dataset` tells.
    """

    dest: Path
    settings: S
    texts: Mapping[str, InspectedText]
    workers: int
    report: Report
    dataset: Any

    def missing(self, *names: str) -> bool:
        """Whether there is something left to make.

        Args:
            *names: files or folders, as paths inside ``dest``.

        Returns:
            True if one of them is not there yet.
        """
        return not all((self.dest / name).exists() for name in names)

    def sentences(self, name: str) -> Iterator[str]:
        """Read a raw text once more.

        Args:
            name: of the text, one of :attr:`texts`.

        Returns:
            An iterator over its sentences, without their ends of line.

        Raises:
            PreparationError: the text changed since it was inspected; after the last sentence at the latest.
        """
        return read_again(self.texts[name])


@dataclass(frozen=True)
class Dataset(ABC, Generic[S]):
    """A dataset; each kind is a subclass.

    A step gives a file its final name only when it is whole, and what it holds depends on nothing but the settings
    and the input. So a run may end at any moment, and the next one goes on from there.

    Args:
        name: what the command line calls it.
        base_url: folder on the web that holds the published files.
        sha256: name of a published file -> its SHA-256 (hex), or None if nobody has published it. Only these files
            are downloaded. An unknown sum is found out with the first download, told and recorded, and checked from
            then on.

    Attributes:
        settings_type: the settings of this kind.
        tools: packages that decide the output besides fairseq.
        steps: what makes everything in the destination, in order; each passes over what is there already.
    """

    name: str
    base_url: str
    sha256: Mapping[str, str | None]

    settings_type: ClassVar[type]
    tools: ClassVar[tuple[str, ...]]
    steps: ClassVar[tuple[Callable[[Work[Any]], None], ...]]

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings of published results on this dataset, where it has any."""
        return {}

    def make_settings(self, given: Mapping[str, Any]) -> S:
        """The settings from the options that the user gave.

        Args:
            given: name of a field of the settings -> value.

        Returns:
            These, and :attr:`defaults` for the rest.

        Raises:
            UsageError: this kind has no such option, or one is missing.
        """
        fields = [field for field in dataclasses.fields(self.settings_type) if field.name != "dataset"]
        foreign = set(given) - {field.name for field in fields}
        if foreign:
            options = [_option(name, value) for name, value in given.items() if name in foreign]
            raise UsageError(f"{self.name} takes no {', '.join(options)}")
        values = {**self.defaults, **given}
        missing = [
            _option(field.name) for field in fields if field.default is dataclasses.MISSING and field.name not in values
        ]
        if missing:
            raise UsageError(f"the following arguments are required: {', '.join(missing)}")
        settings: S = self.settings_type(dataset=self.name, **values)
        return settings

    def check_settings(self, settings: S) -> None:  # noqa: B027 (a kind may have nothing to check)
        """Refuse settings that make no sense.

        Args:
            settings: what the user asked for.

        Raises:
            PreparationError: says which.
        """

    @abstractmethod
    def published_names(self, settings: S) -> list[str]:
        """The published files that a download needs.

        Args:
            settings: say which texts are needed.

        Returns:
            Their names, each once.
        """

    def fetch(self, name: str, settings: S, origin: str, path: Path, sha256: str | None, report: Report) -> None:
        """Bring one published file here.

        Args:
            name: of the file, one of :meth:`published_names`.
            settings: as there.
            origin: folder on the web, :attr:`base_url` or a mirror of it.
            path: where to; appears only when it is whole.
            sha256: hex digest that it must have, None if that is unknown.
            report: takes each line meant for the user.

        Raises:
            PreparationError: it cannot be had, or is another one.
        """
        download(f"{origin.rstrip('/')}/{name}", path, sha256, report)

    @abstractmethod
    def find(self, settings: S, raw: Path) -> dict[str, Text]:
        """Where the raw texts are.

        Args:
            settings: says which texts are needed.
            raw: what the user gave as ``--raw``, or the folder of downloads.

        Returns:
            Name of the text (split, or split and language) -> where it is. No file is opened yet.

        Raises:
            PreparationError: files are missing; the message names all of them.
        """

    def reserved_word(self, settings: S, name: str, sentence: str) -> str | None:
        """Find a word of a raw sentence that would become one of fairseq's own, such as ``</s>``.

        Args:
            settings: what the user asked for.
            name: of the text, as :meth:`find` gives it.
            sentence: out of that text.

        Returns:
            What to call it in a message; None if there is none.
        """
        return None

    def check_texts(self, texts: Mapping[str, InspectedText], report: Report) -> None:  # noqa: B027 (as above)
        """Refuse raw texts that do not go together; warn of odd ones.

        Args:
            texts: all that :meth:`find` found; none is empty or all blank.
            report: takes each warning.

        Raises:
            PreparationError: says what is wrong.
        """

    @abstractmethod
    def record(self, work: Work[S]) -> dict[str, Any]:
        """What the stamp tells of a finished preparation besides settings, input and versions.

        Args:
            work: the preparation, all its steps done.

        Returns:
            Numbers of lines, words and the like, for JSON.

        Raises:
            PreparationError: the result is not what it should be.
        """

    @abstractmethod
    def summary(self, stamp: Mapping[str, Any]) -> str:
        """Sum up a finished preparation for the user.

        Args:
            stamp: what :meth:`record` tells, and the rest of the stamp.

        Returns:
            One line.
        """


def _option(name: str, value: Any = None) -> str:
    return ("--no-" if value is False else "--") + name.replace("_", "-")


def by_split(numbers: Mapping[str, int]) -> str:
    """Show numbers to the user: ``train 1,234, valid 5``.

    Args:
        numbers: name -> number.

    Returns:
        Part of a line, in the order of ``numbers``.
    """
    return ", ".join(f"{split} {number:,}" for split, number in numbers.items())


def check_least(option: str, value: int, least: int) -> None:
    """Refuse a number that is too small.

    Args:
        option: what the message calls it.
        value: the number.
        least: smallest that is allowed.

    Raises:
        PreparationError: ``value`` is below ``least``.
    """
    if value < least:
        raise PreparationError(f"{option} must be at least {least}, not {value}")
