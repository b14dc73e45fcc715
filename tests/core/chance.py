"""What chance made in the loss under test: inputs of the definition, which cannot restate them."""

import torch

from selfkd_fairseq.core import SUPPORTS, SelfKDOptions
from selfkd_fairseq.core.soft_targets import make_shuffle
from selfkd_fairseq.core.supports import Choice
from tests import definition


def drawn_words(support, weight, target, n, excluded, seed, ignore_index=None):
    """{token: its n words} that a generator (or one of this seed) draws in the loss; None where nothing is drawn."""
    if not definition.is_drawn(support):
        return None
    kept = (target != ignore_index).nonzero().squeeze(1) if ignore_index is not None else torch.arange(len(target))
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    words = SUPPORTS[support](Choice(None, weight, target[kept], n, excluded, generator=generator))
    return dict(zip(kept.tolist(), words.tolist()))


def permutation(options, vocabulary, excluded):
    """The permutation of a vocabulary, a list; None for a form that shuffles nothing."""
    excluded = tuple(sorted(excluded))
    shuffle = make_shuffle(SelfKDOptions(**options), vocabulary, excluded, torch.device("cpu"))
    return None if shuffle is None else shuffle.forth.tolist()


def of_form(options, weight, target, n, excluded, seed, ignore_index=None):
    """Both, as arguments of ``definition.losses``."""
    drawn = drawn_words(options.get("support"), weight, target, n, excluded, seed, ignore_index)
    return {"drawn": drawn, "permutation": permutation(options, weight.size(0), excluded)}
