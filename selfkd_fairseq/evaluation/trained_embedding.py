"""The output embedding of a trained model, its dictionary, and how its own soft targets were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.options import SelfKDOptions, options_of_teacher
from ..criterions.output_embedding import UnsupportedModelError, find_output_embedding
from .damage import one_message
from .errors import EvaluationError
from .trained_model import load_trained_model

__all__ = ["TrainedEmbedding", "load_trained_embedding", "soft_targets_of"]


class TrainedEmbedding(NamedTuple):
    """What soft targets of a trained model are made of.

    Attributes:
        weight: (V, d), the output embedding matrix, float32 on the CPU.
        dictionary: fairseq's dictionary of the target words, V of them.
        dictionary_file: where it comes from.
        trained_with: the soft targets of the training; None unless the criterion was ``self_kd``.
    """

    weight: Tensor
    dictionary: Any
    dictionary_file: Path
    trained_with: SelfKDOptions | None


def load_trained_embedding(checkpoint: Path, data: Path) -> TrainedEmbedding:
    """Load the output embedding of a checkpoint, and from a folder of binarised data the dictionary that goes with it.

    Args:
        checkpoint: of any model that ``self_kd`` can train, whatever the criterion was.
        data: folder with ``dict.LANG.txt`` of the target language, or with ``dict.txt`` of a language model.

    Returns:
        The matrix (V, d) in float32 on the CPU, its V words, and the soft targets of the training.

    Raises:
        EvaluationError: as :func:`load_trained_model`; or the model has no plain output matrix.
        OSError: a file cannot be read.
    """
    trained = load_trained_model(checkpoint, data, torch.device("cpu"))
    try:
        embedding = find_output_embedding(trained.model)
    except UnsupportedModelError as error:
        raise EvaluationError(f"{checkpoint}: {error}") from error
    with one_message(f"{checkpoint} does not have the settings of a checkpoint of fairseq-train"):
        trained_with = soft_targets_of(trained.settings.criterion)
    language = getattr(trained.task.cfg, "target_lang", None)
    return TrainedEmbedding(
        embedding.weight.detach(),
        trained.task.target_dictionary,
        data / (f"dict.{language}.txt" if language else "dict.txt"),
        trained_with,
    )


def soft_targets_of(criterion: Any) -> SelfKDOptions | None:
    """How the soft targets of a training were made.

    Args:
        criterion: its settings, as the checkpoint has them.

    Returns:
        The options, checked; None unless the criterion was ``self_kd``.

    Raises:
        ValueError: an option is out of its range.
    """
    if getattr(criterion, "_name", None) != "self_kd":
        return None
    # Where an older checkpoint does not name an option, it was trained with what that option now calls this.
    older = SelfKDOptions(similarity="distance", teacher="embedding", normalise="vocabulary", control="none")
    names = SelfKDOptions._fields
    options = options_of_teacher({name: getattr(criterion, f"skd_{name}", getattr(older, name)) for name in names})
    options.check()
    return options
