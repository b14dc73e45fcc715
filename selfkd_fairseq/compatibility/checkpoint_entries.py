"""A task's own entry in a checkpoint, which fairseq 0.12.2 neither writes nor reads.

fairseq's later sources, and 0.12.3, ask the task for it (``get_checkpoint_dict``) and hand it back when a
training is resumed (``set_checkpoint_dict``). Without it a training that carries a state between batches goes on from
zeros after a resume in mid-epoch, and a checkpoint of another dictionary is not noticed.
"""

from __future__ import annotations

import functools
from typing import Any

from fairseq import checkpoint_utils
from fairseq.trainer import Trainer


def keep_entries_of_tasks() -> None:
    """Make fairseq 0.12.2 write and read the entry, for this process; nothing to do with 0.12.3."""
    if "get_checkpoint_dict" in checkpoint_utils.save_checkpoint.__code__.co_names:
        return
    save, load = Trainer.save_checkpoint, checkpoint_utils.load_checkpoint

    @functools.wraps(save)
    def save_with_entry(self: Trainer, filename: str, extra_state: dict[str, Any]) -> None:
        entry = self.task.get_checkpoint_dict() if hasattr(self.task, "get_checkpoint_dict") else {}
        save(self, filename, {**extra_state, **entry})

    @functools.wraps(load)
    def load_with_entry(cfg: Any, trainer: Trainer, **keywords: Any) -> tuple[dict[str, Any] | None, Any]:
        extra_state, epoch_itr = load(cfg, trainer, **keywords)
        entry = (extra_state or {}).get(type(trainer.task).__name__)
        # a start from the first batch is no resume: --reset-dataloader, --finetune-from-model
        resumed = epoch_itr.epoch > 1 or epoch_itr.iterations_in_epoch > 0
        if entry and resumed and hasattr(trainer.task, "set_checkpoint_dict"):
            trainer.task.set_checkpoint_dict(entry)
        return extra_state, epoch_itr

    Trainer.save_checkpoint = save_with_entry
    checkpoint_utils.load_checkpoint = load_with_entry
