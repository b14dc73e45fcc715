"""fairseq's own Trainer in two CPU processes (gloo): what each update saw, its gradients and its logged sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import torch
from fairseq.data.iterators import GroupedIterator
from fairseq.distributed import ModuleProxyWrapper
from fairseq.distributed.utils import distributed_init
from fairseq.trainer import Trainer
from torch import Tensor
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

import tests.resume.processes  # noqa: F401 (lets the server of processes import fairseq before it forks)
from selfkd_fairseq.criterions.output_embedding import find_output_embedding
from tests.fairseq_setup import build, two_workers

Sample = Dict[str, Any]
Update = Dict[str, Any]


class Training:
    """A Trainer in float64, and a record of each of its updates.

    Args:
        data: a folder of binarised data.
        flags: of fairseq-train; those of a worker make it one of two.
        pytorch_ddp: put PyTorch's DDP in the place of ``legacy_ddp``. By hand, because with ``--ddp-backend
            pytorch_ddp`` fairseq names a device, and PyTorch refuses that for a module on the CPU.
    """

    def __init__(self, data: Path, flags: list[str], pytorch_ddp: bool = False) -> None:
        self.setup = build(data, *flags, "--num-workers", "0", "--data-buffer-size", "0")
        settings = self.setup.cfg.distributed_training
        if settings.distributed_world_size > 1 and not torch.distributed.is_initialized():
            distributed_init(self.setup.cfg)
        model = self.setup.model.double()
        self.trainer = Trainer(self.setup.cfg, self.setup.task, model, self.setup.criterion)
        if pytorch_ddp:
            # The encoder layers of fairseq 0.12.2 hold second copies of their weights, which training does not use.
            copies = any(name.endswith("in_proj_weight") for name, _ in model.named_parameters())
            unused = settings.find_unused_parameters or copies
            parallel = DistributedDataParallel(model, find_unused_parameters=unused)
            self.trainer._wrapped_model = ModuleProxyWrapper(parallel)
        # fairseq takes the norm in float32, which torch refuses for float64. Nothing is clipped here.
        self.trainer.clip_grad_norm = lambda _: torch.cat([g.view(-1) for g in self.gradients().values()]).norm()
        self._logged: dict[str, float] = {}
        self._reduce_metrics = self.setup.task.reduce_metrics
        self.setup.task.reduce_metrics = self._keep_sums
        self.trainer.begin_epoch(1)

    def _keep_sums(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        self._logged = {key: float(sum(log[key] for log in logging_outputs)) for key in logging_outputs[0]}
        self._reduce_metrics(logging_outputs, criterion)

    def groups(self, update_freq: int) -> Iterator[list[Sample]]:
        """This worker's batches of the next epoch, an update at a time, as fairseq-train makes them."""
        batches = self.trainer.get_train_iterator(1, load_dataset=False).next_epoch_itr()
        yield from GroupedIterator(batches, update_freq)

    def batch_of(self, sentences: list[int]) -> Sample:
        """One batch of these sentences of the training split."""
        dataset = self.setup.task.dataset("train")
        return dict(dataset.collater([dataset[i] for i in sentences]))

    def gradients(self) -> dict[str, Tensor]:
        """Of each parameter, a copy; zeros where there is none."""
        parameters = self.setup.model.named_parameters()
        return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in parameters}

    def update(self, samples: list[Sample]) -> Update:
        """One update. Its gradients are those that the optimizer was given, means over the sample size."""
        shown = self.trainer.train_step(samples)
        parameters = self.setup.model.named_parameters()
        return {
            "sentences": [sample["id"].tolist() if sample else [] for sample in samples],
            "gradients": self.gradients(),
            "parameters": {name: parameter.detach().clone() for name, parameter in parameters},
            "logged": self._logged,
            "shown": {key: float(value) for key, value in shown.items()},
        }

    def output_embedding(self) -> Tensor:
        """(V, d) as it is now, a copy."""
        return find_output_embedding(self.setup.model).weight.detach().clone()

    def neighbours(self) -> Tensor:
        """(V, n), those that the last update took."""
        neighbours: Tensor = self.setup.criterion.support_state.neighbours(
            find_output_embedding(self.setup.model).weight
        )
        return neighbours

    def save(self, path: Path) -> None:
        """The first worker writes a checkpoint; both wait for it."""
        iterator = {"version": 2, "epoch": 1, "iterations_in_epoch": 1, "shuffle": True}
        self.trainer.consolidate_optimizer()
        self.trainer.save_checkpoint(str(path), {"train_iterator": iterator})
        torch.distributed.barrier()

    def load(self, path: Path) -> Training:
        """Go on from a checkpoint."""
        self.trainer.load_checkpoint(str(path))
        return self


def _worker(rank: int, flags: list[list[str]], body: Callable[..., Any], folder: Path, arguments: Any) -> None:
    torch.set_num_threads(1)
    torch.save(body(flags[rank], *arguments), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def in_two_processes(body: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Call ``body(flags of the worker, *arguments)`` in two processes; what each returns, tensors and plain values."""
    processes = (two_workers(), body, folder, arguments)
    start_processes(_worker, args=processes, nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
