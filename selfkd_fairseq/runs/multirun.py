"""What hydra's multirun needs so that several trainings in one process do not touch each other.

In the YAML of a recipe::

    hydra:
      callbacks:
        fresh_job:
          _target_: selfkd_fairseq.runs.multirun.FreshJob

The package must be importable before fairseq reads ``--user-dir``: installed, or with its parent in ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.logging import progress_bar
from fairseq_cli import train
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from .. import register
from .provenance import provenance

__all__ = ["FreshJob", "forget_last_training", "record_provenance"]

RECORD = "provenance.json"

register()  # for --user-dir fairseq imports nothing that was imported before


def forget_last_training() -> None:
    """Clear what fairseq keeps of a training in variables of its modules.

    The best validation loss and the patience counted so far would be those of the training before: the next one would
    write no ``checkpoint_best.pt`` until it beats another system. And its log and TensorBoard records would go into
    the other's files too.
    """
    for function in (checkpoint_utils.save_checkpoint, train.should_stop_early):
        vars(function).clear()
    for logger in (train.logger, progress_bar.logger):
        for handler in [*logger.handlers]:
            if isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
                handler.close()
    for writer in progress_bar._tensorboard_writers.values():
        writer.close()
    progress_bar._tensorboard_writers.clear()


def record_provenance(folder: Path, found: dict[str, Any]) -> None:
    """Write ``provenance.json`` into the folder of a run.

    The first start of the run stays as it is. A later start from which anything but its command and time differs is
    added to the list ``resumed``: then no one version made the result.

    Args:
        folder: an existing folder.
        found: what :func:`.provenance.provenance` gives.
    """
    path = folder / RECORD
    record = {**found, "resumed": []}
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        last = [record, *record["resumed"]][-1]
        if all(last[key] == value for key, value in found.items() if key not in ("command", "time")):
            return
        record["resumed"].append(found)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


class FreshJob(Callback):
    """Hydra's callback: each job starts as in a process of its own, and its folder tells where it comes from."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called in the folder of the run, before the training.

        Args:
            config: of the run, with hydra's own part.
            **kwargs: unused.
        """
        forget_last_training()
        device = torch.device("cuda" if torch.cuda.is_available() and not config.common.get("cpu") else "cpu")
        data = Path(config.task.data.split(os.pathsep)[0])
        record_provenance(Path(config.hydra.runtime.output_dir), provenance(device, data, ("train", "valid")))
