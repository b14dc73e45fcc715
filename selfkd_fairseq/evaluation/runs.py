"""The folder of one training (one system, one seed), read back.

RUN/provenance.json                of the training; optional
RUN/log.json                       of fairseq-train (--log-format json --log-file); optional
RUN/checkpoints/*.pt               fairseq's checkpoints
RUN/results/generate-SPLIT.txt     of fairseq-generate --results-path RUN/results; translation only
RUN/results/evaluate-SPLIT.json    of selfkd-evaluate
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import numpy as np

from .calibration import Bin
from .errors import ComparisonError
from .generate_output import GenerateOutput, read_generate_output
from .text_files import read_text
from .training_log import TrainingLog, read_training_log

# Version of evaluate-SPLIT.json that selfkd-evaluate writes and that is read here.
EVALUATION_FORMAT = 1
# Where probability may lie: the target, its nearest words in the output matrix (first and last rank), all others.
NEAREST_WORDS = {"nearest": (1, 1), "nearest 2-10": (2, 10), "nearest 11-100": (11, 100)}
WORD_GROUPS = ("target", *NEAREST_WORDS, "others")


class Evaluation(NamedTuple):
    """What ``evaluate-SPLIT.json`` says of one checkpoint and split of S sentences."""

    seed: int
    """Of the training, from the checkpoint's own settings."""
    target_lang: str | None
    """None for a language model."""
    ids: list[int]
    """Of the sentences, in the order of the raw text."""
    tokens: np.ndarray
    """(S,) int64: tokens of each sentence."""
    nll: np.ndarray
    """(S,) float64: negative log-likelihood of each sentence, a sum in nats."""
    accuracy: float
    """Percent of the tokens."""
    calibration_error: float
    """Expected calibration error, a fraction."""
    bins: list[Bin]
    """That it is made of."""
    word_shares: dict[str, dict[str, float]]
    """``soft_targets`` and ``model`` -> group of words -> share of the probability; empty if there were none."""
    data: dict[str, str] | None
    """File -> SHA-256 of the data; None if it was not recorded."""
    record: dict[str, Any]
    """All of the file but the sentences."""


class Run(NamedTuple):
    """One training of one system."""

    system: str
    """Its name."""
    folder: Path
    """That the training wrote."""
    evaluation: Evaluation
    """Of its checkpoint on the split."""
    translations: GenerateOutput | None
    """Output of ``fairseq-generate``; None if there is none."""
    translations_file: Path
    """Where they are, or would be."""
    log: TrainingLog | None
    """Curves of the training; None if there is no log."""
    provenance: dict[str, Any] | None
    """Of the training."""

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.evaluation.seed


def of_systems(runs: Sequence[Run]) -> dict[str, tuple[int, ...]]:
    """Which runs belong together.

    Args:
        runs: any number.

    Returns:
        System -> indices of its runs, both in the order of ``runs``.
    """
    systems: dict[str, tuple[int, ...]] = {}
    for index, run in enumerate(runs):
        systems[run.system] = (*systems.get(run.system, ()), index)
    return systems


def parse_run(text: str) -> tuple[str, Path]:
    """System and folder of ``[NAME=]RUN``; without NAME the system is called as the folder above RUN.

    A folder of that very name is RUN, whatever ``=`` it holds (hydra makes such names), and so is a path.

    Args:
        text: what stands on the command line.

    Returns:
        (name of the system, folder); whether the folder exists is not looked at.

    Raises:
        ComparisonError: there is no name.
    """
    name, equals, folder = text.partition("=")
    if not equals or os.sep in name or Path(text).is_dir():
        folder = text
        name = Path(os.path.abspath(text)).parent.name  # not resolve(): the user's names, not those behind a link
    if not name.strip() or not folder:
        raise ComparisonError(f"{text!r} gives no name of a system: write NAME=RUN")
    return name.strip(), Path(folder)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(read_text(path))
    except RecursionError as error:
        raise ComparisonError(f"{path} is damaged: it is nested too deeply") from error
    except ValueError as error:
        raise ComparisonError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise ComparisonError(f"{path} is damaged: it holds no JSON object")
    return record


class _Fields:
    """The fields of an evaluation, each checked as it is taken."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self.record = record

    def damaged(self, reason: str) -> ComparisonError:
        return ComparisonError(f"{self.path} is damaged: {reason} (selfkd-evaluate makes it anew)")

    def get(self, name: str, *kinds: type) -> Any:
        """The field ``a.b.c``, which must be of one of the types."""
        value: Any = self.record
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self.damaged(f"{name} is missing or of a wrong type")
        return value

    def number(self, name: str) -> float:
        try:
            value = float(self.get(name, int, float))
        except OverflowError as error:
            raise self.damaged(f"{name} is too large") from error
        if not math.isfinite(value):
            raise self.damaged(f"{name} is {value}")
        return value

    def bins(self) -> list[Bin]:
        """Those of the calibration; confidence and accuracy of one without tokens are None."""
        found = []
        for at, written in enumerate(self.get("calibration.bins", list)):
            name = f"bin {at} of the calibration"
            fields = _Fields(self.path, {name: written})
            tokens = fields.get(f"{name}.tokens", int)
            means = (fields.number(f"{name}.{key}") if tokens else None for key in ("confidence", "accuracy"))
            found.append(Bin(fields.number(f"{name}.from"), fields.number(f"{name}.to"), tokens, *means))
        return found

    def word_shares(self) -> dict[str, dict[str, float]]:
        """Of what was trained with soft targets; an older record has none."""
        if self.record.get("word_shares") is None:
            return {}
        return {
            name: {group: self.number(f"word_shares.{name}.{group}") for group in WORD_GROUPS}
            for name in ("soft_targets", "model")
        }

    def sentences(self, name: str, dtype: type, count: int) -> np.ndarray:
        """(S,) numbers of ``per_sentence``."""
        try:
            values: np.ndarray = np.asarray(self.get(f"per_sentence.{name}", list), dtype=dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.damaged(f"per_sentence.{name} holds something that is no number") from error
        if values.shape != (count,) or not np.isfinite(values).all():
            raise self.damaged(f"per_sentence.{name} does not hold {count} finite numbers")
        return values


def read_evaluation(path: Path, split: str) -> Evaluation:
    """Read ``evaluate-SPLIT.json``.

    Args:
        path: of the file.
        split: that must be in it.

    Returns:
        Its numbers, those of each sentence among them (nll in nats, sums over tokens), and the rest of the record.

    Raises:
        ComparisonError: it is damaged, of another format, or of another split.
        OSError: it cannot be read.
    """
    fields = _Fields(path, _read_json(path))
    written = fields.record.get("format")
    if written != EVALUATION_FORMAT:
        raise ComparisonError(
            f"{path} is of format {written!r}, and format {EVALUATION_FORMAT} is needed: make it anew with the "
            "selfkd-evaluate of this version"
        )
    if fields.get("split", str) != split:
        raise ComparisonError(f"{path} is of the split {fields.record['split']!r}, not of {split!r}")
    count, total = fields.get("sentences", int), fields.get("tokens", int)
    tokens, nll = fields.sentences("tokens", np.int64, count), fields.sentences("nll", np.float64, count)
    if total < 1 or tokens.sum() != total or tokens.min() < 0:
        raise fields.damaged(f"its sentences have {tokens.sum()} tokens, not {total}")
    if not math.isclose(nll.sum() / total, fields.number("nll.nats_per_token"), rel_tol=1e-3):
        raise fields.damaged("the nll of its sentences is not that of the whole")
    for part in ("training", "checkpoint", "provenance"):
        fields.get(part, dict)
    return Evaluation(
        seed=fields.get("training.seed", int),
        target_lang=fields.get("training.target_lang", str, type(None)),
        ids=fields.sentences("id", np.int64, count).tolist(),
        tokens=tokens,
        nll=nll,
        accuracy=fields.number("accuracy"),
        calibration_error=fields.number("calibration.expected_calibration_error"),
        bins=fields.bins(),
        word_shares=fields.word_shares(),
        data=fields.get("provenance.data.sha256", dict, type(None)),
        record={key: value for key, value in fields.record.items() if key != "per_sentence"},
    )


def _check_folder(folder: Path, evaluation: Path, split: str) -> None:
    """Raise ComparisonError, with what is to be done next, unless the run was evaluated."""
    if not folder.is_dir():
        raise ComparisonError(f"{folder} is no folder of a run" if folder.exists() else f"{folder} does not exist")
    if evaluation.is_file():
        return
    if not any(folder.glob("checkpoints/*.pt")):
        raise ComparisonError(f"{folder} is not trained: checkpoints/*.pt is missing (fairseq-train makes it)")
    raise ComparisonError(
        f"{folder} is not evaluated: results/{evaluation.name} is missing (selfkd-evaluate DATA --path CHECKPOINT "
        f"--gen-subset {split} --results-path {evaluation.parent} makes it)"
    )


def read_run(system: str, folder: Path, split: str, nbest: bool = False) -> Run:
    """Read a run folder.

    Args:
        system: its name.
        folder: of the run.
        split: of the data that was evaluated.
        nbest: the translations hold several hypotheses of a sentence; the best is taken.

    Returns:
        The evaluation and, where they are there, translations, training log and provenance.

    Raises:
        ScoringError: a file is damaged; the message names it.
        ComparisonError: the run is not evaluated, or its files do not go together.
        OSError: a file cannot be read.
    """
    results = folder / "results"
    _check_folder(folder, results / f"evaluate-{split}.json", split)
    evaluation = read_evaluation(results / f"evaluate-{split}.json", split)
    generated, log, provenance = results / f"generate-{split}.txt", folder / "log.json", folder / "provenance.json"
    translations = None
    if generated.exists():
        translations = read_generate_output(read_text(generated), str(generated), nbest)
        if len(translations.hypotheses) != len(evaluation.ids):
            raise ComparisonError(
                f"{generated} has {len(translations.hypotheses)} sentences, evaluate-{split}.json {len(evaluation.ids)}"
            )
    return Run(
        system,
        folder,
        evaluation,
        translations,
        generated,
        read_training_log(log) if log.exists() else None,
        _read_json(provenance) if provenance.exists() else None,
    )
