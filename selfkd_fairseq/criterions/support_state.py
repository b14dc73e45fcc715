"""What a support keeps between batches: cached neighbours, and the source of random words."""

import hashlib
from typing import Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..core.options import SelfKDOptions
from ..core.supports import nearest_words

__all__ = ["SupportState"]


class SupportState:
    """Neighbours for the support ``nearest`` and a generator for ``random``, as functions of the update number.

    Args:
        options: which support, and its size.
        excluded: word ids that are never neighbours.
        refresh_updates: R, at least 1: neighbours are found anew at every update that R divides, and at the first
            update of a process, so a run that is resumed from such an update repeats the uninterrupted one.
        seed: fairseq's seed; random words depend on it, on the update number and on the rank of the worker, and those
            of a validation not on how many words the training has drawn before it.

    Raises:
        ValueError: ``refresh_updates`` is below 1.
    """

    def __init__(self, options: SelfKDOptions, excluded: Sequence[int], refresh_updates: int, seed: int):
        if refresh_updates < 1:
            raise ValueError(f"refresh_updates must be at least 1, got {refresh_updates}")
        self.options, self.excluded = options, tuple(excluded)
        self.refresh_updates, self.seed = refresh_updates, seed
        # A worker without a batch is given the one that fairseq saw first, which is another one after a resume: it
        # draws too, so what a validation draws must not follow from that.
        self._generators = {True: torch.Generator(), False: torch.Generator()}
        self.num_updates: Optional[int] = None
        # By matrix: one criterion may serve several models (multilingual training). The matrix is kept beside its
        # neighbours, so that its id stays its own.
        self._neighbours: Dict[int, Tuple[Tensor, Tensor]] = {}

    def set_num_updates(self, num_updates: int) -> None:
        """Begin an update; further batches of the same update change nothing.

        Args:
            num_updates: optimizer updates done so far, at least 0.
        """
        if num_updates == self.num_updates:
            return
        if self.num_updates is None or num_updates % self.refresh_updates == 0:
            self._neighbours.clear()
        self.num_updates = num_updates
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if distributed else 0
        for training, generator in self._generators.items():
            # A hash, because torch's CPU generator reads no more than 32 bits of its seed.
            text = f"{self.seed} {num_updates} {rank}" + ("" if training else " validation")
            generator.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little"))

    def generator(self, training: bool) -> torch.Generator:
        """Source of the support ``random``, seeded when the update began.

        Args:
            training: whether the words are for a batch of the training, or for one of a validation.

        Returns:
            A CPU generator, one for each of the two.
        """
        return self._generators[training]

    def neighbours(self, weight: Tensor) -> Optional[Tensor]:
        """Neighbours of every word, found when they are asked for the first time since :meth:`set_num_updates`.

        Args:
            weight: (V, d) output embedding matrix as it is now; no gradient flows.

        Returns:
            (V, n) int64, nearest first; None unless the support is ``nearest``.
        """
        if self.options.support != "nearest":
            return None
        if id(weight) not in self._neighbours:
            every_word = torch.arange(weight.size(0), device=weight.device)
            neighbours = nearest_words(weight, every_word, self.options.support_size, self.excluded)
            self._neighbours[id(weight)] = (weight, neighbours)
        return self._neighbours[id(weight)][1]
