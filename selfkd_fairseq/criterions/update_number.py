"""Tell a criterion how many updates have been done, with any stock fairseq task and model.

fairseq passes the update number to ``task.train_step`` and to the modules of the model, but not to the criterion.
A criterion that counts its own calls would be wrong under ``--update-freq`` and after a resume, so the number is
taken where fairseq itself hands it over: the task's ``train_step`` is wrapped, once per task object.
"""

import functools
from typing import Any, Dict

from torch import nn

from .output_embedding import UnsupportedModelError, find_output_embedding

__all__ = ["pass_update_number_to_criterion", "refuse_unsupported_models"]


def pass_update_number_to_criterion(task: Any) -> None:
    """Make ``task.train_step`` call ``criterion.set_num_updates(update_num)`` before it does its work.

    Any criterion without ``set_num_updates`` is left alone. Calling this again for the same task changes nothing.
    An :class:`UnsupportedModelError` ends the program with its one line instead of a traceback, before fairseq
    writes a crash checkpoint.

    Args:
        task: a fairseq task, the one that the trainer will use.
    """
    train_step = task.train_step

    def train_step_with_update_number(
        sample: Dict[str, Any],
        model: nn.Module,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(update_num)
        try:
            return train_step(sample, model, criterion, optimizer, update_num, *args, **kwargs)
        except UnsupportedModelError as error:
            raise SystemExit(str(error)) from None

    _replace_once(task, "train_step", train_step_with_update_number)


def refuse_unsupported_models(task: Any) -> None:
    """Make the next ``task.begin_epoch`` end the program, with the one line of :class:`UnsupportedModelError`.

    In mid-epoch it would be too late: fairseq's reading thread runs then, and a program that ends beside it may end
    in an abort instead. One look is enough: the task has its own ``begin_epoch`` back after it, so that other trainings
    with the same task are not looked at. Calling this again before that changes nothing.

    Args:
        task: a fairseq task, the one that the trainer will use.
    """
    begin_epoch = task.begin_epoch
    before = {name: value for name, value in vars(task).items() if name == "begin_epoch"}

    def begin_epoch_of_supported_model(epoch: int, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if vars(task).get("begin_epoch") is begin_epoch_of_supported_model:
            vars(task).pop("begin_epoch")
            vars(task).update(before)
        try:
            find_output_embedding(model)
        except UnsupportedModelError as error:
            raise SystemExit(str(error)) from None
        return begin_epoch(epoch, model, *args, **kwargs)

    _replace_once(task, "begin_epoch", begin_epoch_of_supported_model)


def _replace_once(task: Any, name: str, replacement: Any) -> None:
    """Put ``replacement`` in the place of a method that it calls, unless this was done for the task before."""
    method = getattr(task, name)
    if not getattr(method, "calls_the_task_s_own", False):
        functools.update_wrapper(replacement, method)
        replacement.calls_the_task_s_own = True
        setattr(task, name, replacement)
