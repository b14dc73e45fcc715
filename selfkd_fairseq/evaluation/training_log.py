"""The learning curves in the log that ``fairseq-train`` writes with ``--log-format json --log-file``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Tuple

from .text_files import read_text

Curve = List[Tuple[int, float]]
"""(number of updates, value), in the order of the updates."""


class TrainingLog(NamedTuple):
    """The curves of one training; a curve that was not logged is empty."""

    train_nll: Curve
    """Negative log-likelihood of the training set, mean over the tokens since the point before; nats per token."""
    valid_nll: Curve
    """The same of the validation set at each validation."""
    alpha: Curve
    """Weight of the distillation term, a mean as above; in [0, 1]."""
    target_prob: Curve
    """Mean soft-target probability of the target word, as above; in [0, 1]."""


def log_records(text: str) -> Iterator[dict[str, Any]]:
    """The records among the lines of a log.

    Args:
        text: of a training with ``--log-format json``.

    Yields:
        Each JSON object; the other lines, and one that is cut off, are none.
    """
    for line in text.split("\n"):
        start = line.find("{")
        if start < 0:
            continue
        try:
            record = json.loads(line[start:])
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _number(value: Any) -> float:
    """A number from a log, where fairseq writes it as a text. NaN for what is no number, and none of a curve."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _curve(records: dict[int, dict[str, Any]], prefix: str, *names: str, scale: float = 1.0) -> Curve:
    """The first of ``names`` that a record has, at each update where it is a finite number."""
    curve = []
    for update, record in sorted(records.items()):
        value = _number(next((record[prefix + name] for name in names if prefix + name in record), None))
        if math.isfinite(value):
            curve.append((update, scale * value))
    return curve


def read_training_log(path: Path) -> TrainingLog:
    """The curves of a log. After a resume fairseq logs updates again: the last record of an update counts.

    Training curves have a point at each ``--log-interval``; in a training shorter than one, at each epoch.

    Args:
        path: of the log.

    Returns:
        Curves over the number of updates, each empty if the log has none of it; nll in nats per token, a mean.

    Raises:
        ScoringError: it is not UTF-8.
        OSError: it cannot be read.
    """
    kinds: dict[str, dict[int, dict[str, Any]]] = {"": {}, "train_": {}, "valid_": {}}
    for record in log_records(read_text(path)):
        for prefix, of_kind in kinds.items():
            updates = _number(record.get(f"{prefix}num_updates"))
            if math.isfinite(updates):
                of_kind[int(updates)] = record
    train = "" if kinds[""] else "train_"
    nll = ("nll_loss", "loss")  # cross_entropy logs no nll_loss where its loss is the same
    nats = math.log(2)  # fairseq logs bits
    return TrainingLog(
        _curve(kinds[train], train, *nll, scale=nats),
        _curve(kinds["valid_"], "valid_", *nll, scale=nats),
        _curve(kinds[train], train, "alpha"),
        _curve(kinds[train], train, "skd_target_prob"),
    )
