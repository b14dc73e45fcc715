"""Words as natural text has them: few very often, most of them rarely."""

import torch
from torch import Tensor

__all__ = ["zipf_words"]


def zipf_words(vocabulary: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw words by Zipf's law: the word of rank r with a probability in proportion to 1 / r.

    Args:
        vocabulary: V words, the most frequent first.
        count: N, how many to draw, with replacement.
        generator: on the CPU; moves on by the draw.

    Returns:
        (N,) int64 on the CPU, in [0, V).
    """
    weights = 1.0 / torch.arange(1, vocabulary + 1, dtype=torch.float64)
    return torch.multinomial(weights, count, replacement=True, generator=generator)
