"""The carried state of all streams, over all workers, for fairseq's checkpoints."""

from typing import List

import torch
import torch.distributed as dist
from fairseq.distributed import utils as distributed_utils

__all__ = ["gather_streams", "workers"]


def workers() -> int:
    """Number of data-parallel workers."""
    return distributed_utils.get_data_parallel_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_streams(state: List[torch.Tensor]) -> List[torch.Tensor]:
    """The state of every worker's streams, in the order of the streams. Collective: every worker calls it.

    Args:
        state: this worker's, tensors (layers, B, width); no gradient flows.

    Returns:
        Tensors (layers, W * B, width) with W workers, the same on every worker.
    """
    if workers() == 1:
        return state
    flat = torch.cat([part.reshape(-1) for part in state])
    gathered = [torch.empty_like(flat) for _ in range(workers())]
    dist.all_gather(gathered, flat, group=distributed_utils.get_data_parallel_group())
    split = [worker.split([part.numel() for part in state]) for worker in gathered]
    return [torch.cat([parts[i].view_as(part) for parts in split], dim=1) for i, part in enumerate(state)]
