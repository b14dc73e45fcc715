"""fairseq's own Trainer from the flags of a ``fairseq-train`` command line."""

from typing import List

import torch
from fairseq import options, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks import setup_task
from fairseq.trainer import Trainer

__all__ = ["build_trainer"]


PRECISIONS = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def build_trainer(arguments: List[str], device: torch.device, dtype: torch.dtype = torch.float32) -> Trainer:
    """What ``fairseq-train`` makes before its first update, with seed 1; no dataset is loaded.

    Args:
        arguments: of ``fairseq-train``, the folder with the dictionary first.
        device: on a CPU the flag ``--cpu`` is added.
        dtype: float32, or what ``common.fp16`` or ``common.bf16`` of ``fairseq-hydra-train`` trains in: on a command
            line ``--bf16`` asks for a TPU.

    Returns:
        The trainer, with model and criterion.
    """
    arguments = [*arguments, "--seed", "1", *([] if device.type == "cuda" else ["--cpu"])]
    parsed = options.parse_args_and_arch(options.get_training_parser(), arguments)
    cfg = convert_namespace_to_omegaconf(parsed)
    if dtype in PRECISIONS:
        setattr(cfg.common, PRECISIONS[dtype], True)
    utils.set_torch_seed(1)
    task = setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    return Trainer(cfg, task, model, criterion)
