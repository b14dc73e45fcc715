"""``evaluate-SPLIT.json``: what one pass of a checkpoint over a split gave, and what it was made with."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from .calibration import Calibration
from .errors import EvaluationError
from .teacher_forced import TokenScores, sum_by_sentence
from .trained_model import TrainedModel

__all__ = ["as_json", "measurements", "training_settings"]


def measurements(scores: TokenScores, lengths: np.ndarray, calibration: Calibration) -> dict[str, Any]:
    """The numbers of the record.

    Args:
        scores: of T tokens.
        lengths: (S,) integers that add up to T: tokens of each sentence.
        calibration: of the same tokens.

    Returns:
        ``sentences`` and ``tokens`` (numbers), ``nll`` (nats and bits per token, perplexity), ``accuracy`` (percent
        of tokens), ``calibration`` (fractions) and ``per_sentence`` (NLL as sums of nats).

    Raises:
        EvaluationError: not every token was scored, or the NLL is not finite.
    """
    if len(scores.nll) != lengths.sum():
        raise EvaluationError(
            f"{len(scores.nll)} tokens were scored, but the split has {lengths.sum()}: was the training given options "
            "that leave out or add tokens, such as --add-bos-token or --shorten-method?"
        )
    nats = float(scores.nll.mean())
    ppl = float(np.exp(nats))
    if not np.isfinite(ppl):
        raise EvaluationError(f"the NLL is {nats:g} nats per token: did the training diverge?")
    return {
        "sentences": len(lengths),
        "tokens": len(scores.nll),
        "nll": {"nats_per_token": nats, "bits_per_token": nats / float(np.log(2)), "ppl": ppl},
        "accuracy": 100 * float(scores.correct.mean()),
        "calibration": {
            "expected_calibration_error": calibration.expected_calibration_error,
            "bins": [
                {"from": b.low, "to": b.high, "tokens": b.tokens, "confidence": b.confidence, "accuracy": b.accuracy}
                for b in calibration.bins
            ],
        },
        "per_sentence": {
            "id": list(range(len(lengths))),
            "tokens": lengths.tolist(),
            "nll": sum_by_sentence(scores.nll, lengths).tolist(),
        },
    }


def training_settings(trained: TrainedModel) -> dict[str, Any]:
    """What the checkpoint's own configuration says of the training.

    Args:
        trained: a loaded checkpoint.

    Returns:
        Seed, criterion with its options, model, task and languages, for JSON; None for what its task has not.
    """
    settings = trained.settings
    criterion = settings.criterion
    return {
        "seed": settings.common.seed,
        "criterion": OmegaConf.to_container(criterion) if OmegaConf.is_config(criterion) else vars(criterion),
        "model": settings.model._name,
        "task": settings.task._name,
        "source_lang": getattr(trained.task.cfg, "source_lang", None),
        "target_lang": getattr(trained.task.cfg, "target_lang", None),
    }


def as_json(record: dict[str, Any]) -> str:
    """Write a record as JSON with each of its entries in a line of its own.

    Args:
        record: name -> what JSON can hold.

    Returns:
        Whole lines.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    entries = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in record.items())
    return "{\n" + ",\n".join(entries) + "\n}\n"
