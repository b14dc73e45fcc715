"""fairseq's own Trainer from the flags of a ``fairseq-train`` command line."""

from typing import List

import torch
from fairseq import options, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks import setup_task
from fairseq.trainer import Trainer

__all__ = ["build_trainer"]


def build_trainer(arguments: List[str], device: torch.device) -> Trainer:
    """What ``fairseq-train`` makes before its first update, with seed 1; no dataset is loaded.

    Args:
        arguments: of ``fairseq-train``, the folder with the dictionary first.
        device: on a CPU the flag ``--cpu`` is added.

    Returns:
        The trainer, with model and criterion.
    """
    arguments = [*arguments, "--seed", "1", *([] if device.type == "cuda" else ["--cpu"])]
    parsed = options.parse_args_and_arch(options.get_training_parser(), arguments)
    cfg = convert_namespace_to_omegaconf(parsed)
    utils.set_torch_seed(1)
    task = setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    return Trainer(cfg, task, model, criterion)
