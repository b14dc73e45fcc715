"""What chance drew in the loss under test: an input of the definition, which cannot restate it."""

import torch

from selfkd_fairseq.core import SoftTargetOptions
from selfkd_fairseq.core.supports import support_words
from tests import definition


def drawn_words(support, weight, target, n, excluded, seed, ignore_index=None):
    """{token: its n words} that a generator of this seed draws in the loss; None for a support without chance."""
    if not definition.is_drawn(support):
        return None
    kept = (target != ignore_index).nonzero().squeeze(1) if ignore_index is not None else torch.arange(len(target))
    words = support_words(
        None, weight, target[kept], SoftTargetOptions(support, n), excluded,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return dict(zip(kept.tolist(), words.tolist()))
