"""Checkpoints that do not fit and data that are cut short: fairseq's own commands say what is wrong with which file.

When the parameters of a checkpoint are not those of the model, fairseq either passes on torch's list of all that do
not fit, or says only that the architectures should match. Binarised data it takes on trust: of a ``.bin`` that was cut
short it reads what is there, and fails in the middle of an epoch; a word beyond the dictionary ends a training inside
the embedding. Here each is a :class:`~selfkd_fairseq.common.errors.MendableError`, raised when the file is opened. What
fits is loaded by fairseq as before.

A split is read once more for that, right before fairseq, which reads it all into the page cache: it is opened in about
twice the time, 0.2 s more for 4 million sentences of 100 million words.
"""

from __future__ import annotations

import functools
import inspect
import os
from pathlib import Path
from typing import Any, Callable

from fairseq import checkpoint_utils
from fairseq.data import indexed_dataset
from fairseq.trainer import Trainer

from ..checkpoints.damage import UnfitCheckpoint, why_unfit
from ..evaluation.binarised_files import check_binarised
from .stand_ins import stand_in

__all__ = ["check_inputs"]

Function = Callable[..., Any]


def _loading_fitting_models(load: Function) -> Function:
    """Of fairseq's ``load_model_ensemble_and_task``: an UnfitCheckpoint where the parameters are not the model's."""

    @functools.wraps(load)
    def load_fitting_models(filenames: list[str], *arguments: Any, **options: Any) -> Any:
        try:
            return load(filenames, *arguments, **options)
        except RuntimeError as error:
            names = " or ".join(filenames)
            if "Neither args nor cfg exist" in str(error):
                raise UnfitCheckpoint(
                    f"{names} is not a checkpoint of fairseq-train: it has neither cfg nor args"
                ) from error
            if "loading state_dict" not in str(error):
                raise
            raise UnfitCheckpoint(f"{names} {why_unfit(error)}") from error

    return load_fitting_models


def _restoring_what_fits(restore: Function) -> Function:
    """Of ``Trainer.load_checkpoint``: an UnfitCheckpoint where the parameters are not the model's."""

    @functools.wraps(restore)
    def restore_fitting(trainer: Trainer, filename: str, *arguments: Any, **options: Any) -> Any:
        try:
            return restore(trainer, filename, *arguments, **options)
        except Exception as error:  # fairseq raises a bare one, while the one that says why is handled
            if not str(error).startswith("Cannot load model parameters") or not _is_misfit(trainer, error.__context__):
                raise
            raise UnfitCheckpoint(f"{filename} {why_unfit(error.__context__ or error)}") from error

    return restore_fitting


def _is_misfit(trainer: Trainer, error: BaseException | None) -> bool:
    """Whether the parameters were at fault: torch's comparison, or a name that fairseq 0.12.2 looked for before it."""
    if isinstance(error, KeyError):
        return error.args[0] in trainer.get_model().state_dict()
    return isinstance(error, RuntimeError) and "loading state_dict" in str(error)


def _checking_datasets(make: Function) -> Function:
    """Of ``make_dataset``, by which every task opens a part of a split: text is looked through first."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def make_checked_dataset(path: str, *arguments: Any, **options: Any) -> Any:
        dictionary = signature.bind(path, *arguments, **options).arguments.get("dictionary")
        if dictionary is not None and all(os.path.isfile(path + end) for end in (".idx", ".bin")):
            check_binarised(Path(path), dictionary, closed=False)
        return make(path, *arguments, **options)

    return make_checked_dataset


def check_inputs() -> None:
    """Make fairseq open checkpoints and data in that way, for this process; a second call changes nothing."""
    stand_in(checkpoint_utils, "load_model_ensemble_and_task", _loading_fitting_models)
    stand_in(Trainer, "load_checkpoint", _restoring_what_fits)
    stand_in(indexed_dataset, "make_dataset", _checking_datasets)
