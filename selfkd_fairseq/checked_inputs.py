"""Checkpoints that do not fit and data that are cut short: fairseq's own commands say what is wrong with which file.

When the parameters of a checkpoint are not those of the model, fairseq either passes on torch's list of all that do
not fit, or says only that the architectures should match. Binarised data it takes on trust: of a ``.bin`` that was cut
short it reads what is there, and fails in the middle of an epoch; a word beyond the dictionary ends a training inside
the embedding. With this module imported, each is a :class:`~selfkd_fairseq.one_line_errors.MendableError`, raised when
the file is opened. What fits is loaded by fairseq as before.

A split is read once more for that, right before fairseq, which reads it all into the page cache: it is opened in about
twice the time, 0.2 s more for 4 million sentences of 100 million words.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.data import indexed_dataset
from fairseq.trainer import Trainer

from .checkpoint_damage import UnfitCheckpoint, why_unfit
from .evaluation.binarised_files import check_binarised

__all__ = ["check_inputs"]

_fairseq_models = checkpoint_utils.load_model_ensemble_and_task
_fairseq_restore = Trainer.load_checkpoint
_fairseq_dataset = indexed_dataset.make_dataset


def load_fitting_models(filenames: list[str], *arguments: Any, **options: Any) -> Any:
    """Stand in for fairseq's ``load_model_ensemble_and_task``.

    Args:
        filenames: of the checkpoints, one for each model.
        *arguments: of fairseq's function.
        **options: of fairseq's function.

    Returns:
        As fairseq's function: the models, the settings of the last of them, and the task.

    Raises:
        UnfitCheckpoint: the parameters of a checkpoint are not those of its model, built for the dictionaries at hand.
    """
    try:
        return _fairseq_models(filenames, *arguments, **options)
    except RuntimeError as error:
        names = " or ".join(filenames)
        if "Neither args nor cfg exist" in str(error):
            raise UnfitCheckpoint(
                f"{names} is not a checkpoint of fairseq-train: it has neither cfg nor args"
            ) from error
        if "loading state_dict" not in str(error):
            raise
        raise UnfitCheckpoint(f"{names} {why_unfit(error)}") from error


def restore_fitting(trainer: Trainer, filename: str, *arguments: Any, **options: Any) -> Any:
    """Stand in for ``Trainer.load_checkpoint``.

    Args:
        trainer: of the model.
        filename: of the checkpoint; there need be none.
        *arguments: of fairseq's method.
        **options: of fairseq's method.

    Returns:
        As fairseq's method: the ``extra_state`` of the checkpoint, None without one.

    Raises:
        UnfitCheckpoint: the parameters of the checkpoint are not those of the model.
    """
    try:
        return _fairseq_restore(trainer, filename, *arguments, **options)
    except Exception as error:  # fairseq raises a bare one, while the one that says why is handled
        if not str(error).startswith("Cannot load model parameters") or not _is_misfit(trainer, error.__context__):
            raise
        raise UnfitCheckpoint(f"{filename} {why_unfit(error.__context__ or error)}") from error


def _is_misfit(trainer: Trainer, error: BaseException | None) -> bool:
    """Whether the parameters were at fault: torch's comparison, or a name that fairseq 0.12.2 looked for before it."""
    if isinstance(error, KeyError):
        return error.args[0] in trainer.get_model().state_dict()
    return isinstance(error, RuntimeError) and "loading state_dict" in str(error)


def make_checked_dataset(path: str, impl: str, fix_lua_indexing: bool = False, dictionary: Any = None) -> Any:
    """Stand in for fairseq's ``make_dataset``, by which every task opens a part of a split.

    Args:
        path: of the part, but for ``.idx`` and ``.bin``.
        impl: fairseq's name of the format.
        fix_lua_indexing: for a format of older days.
        dictionary: fairseq's, of V words; None for what is not text, which is not checked.

    Returns:
        As fairseq's function: the dataset, None if there is none.

    Raises:
        EvaluationError: the files do not fit together, or hold a word that is not in the dictionary.
        OSError: a file cannot be read.
    """
    if dictionary is not None and all(os.path.isfile(path + end) for end in (".idx", ".bin")):
        check_binarised(Path(path), dictionary, closed=False)
    return _fairseq_dataset(path, impl, fix_lua_indexing=fix_lua_indexing, dictionary=dictionary)


def check_inputs() -> None:
    """Make fairseq open checkpoints and data by these functions, for this process; a second call changes nothing."""
    checkpoint_utils.load_model_ensemble_and_task = load_fitting_models
    Trainer.load_checkpoint = restore_fitting
    indexed_dataset.make_dataset = make_checked_dataset


check_inputs()
