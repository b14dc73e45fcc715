"""Regularisation of LSTM language models (Merity et al., 2018, arXiv 1708.02182), in plain PyTorch.

Every part is the identity, or zero, in evaluation mode.
"""

from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "EmbeddingDropout",
    "LockedDropout",
    "WeightDropLSTM",
    "activation_regularisation",
    "check_probability",
    "temporal_activation_regularisation",
]


def check_probability(name: str, value: float) -> float:
    """Check a dropout probability.

    Args:
        name: what the message calls it.
        value: the probability.

    Returns:
        ``value`` itself.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be at least 0 and below 1, not {value}")
    return value


class LockedDropout(nn.Module):
    """Variational dropout: one mask for all time steps of a window (Gal and Ghahramani, 2016).

    Args:
        p: probability that a unit is zero; the others are scaled by 1 / (1 - p).
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = check_probability("dropout", p)

    def forward(self, x: Tensor) -> Tensor:
        """Drop the same units of a sequence at each of its time steps.

        Args:
            x: (T, B, d), floating point; the gradient flows through the units that are kept.

        Returns:
            (T, B, d); ``x`` itself in evaluation mode.
        """
        if not self.training or self.p == 0:
            return x
        return x * F.dropout(x.new_ones(1, *x.shape[1:]), self.p)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"p={self.p}"


class EmbeddingDropout(nn.Module):
    """Dropout of whole words: all occurrences of a dropped word in a window are zero vectors.

    Args:
        p: probability that a word is dropped; the others are scaled by 1 / (1 - p).
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = check_probability("embedding dropout", p)

    def forward(self, embedding: nn.Embedding, words: Tensor) -> Tensor:
        """Look up words in an embedding whose rows are dropped.

        Args:
            embedding: V rows of d.
            words: (T, B), integers in [0, V).

        Returns:
            (T, B, d), in the embedding's dtype; the gradient flows to the rows that are kept.
        """
        vectors: Tensor = embedding(words)
        if not self.training or self.p == 0:
            return vectors
        # A factor a row, applied after the look-up: the same as masking the matrix, without a copy of it.
        factors = F.dropout(vectors.new_ones(embedding.num_embeddings, 1), self.p)
        return vectors * F.embedding(words, factors)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"p={self.p}"


class WeightDropLSTM(nn.LSTM):
    """``nn.LSTM`` (and so cuDNN's) whose hidden-to-hidden matrices lose random entries (DropConnect, Wan et al., 2013).

    One mask for all time steps of a call. The parameters keep the names and shapes of ``nn.LSTM``, and in evaluation
    mode this is ``nn.LSTM``.

    Args:
        *arguments: of ``nn.LSTM``.
        weight_dropout: probability that an entry of a hidden-to-hidden matrix is zero; the others are scaled by
            1 / (1 - weight_dropout). The gradient flows to the entries that are kept.
        **keywords: of ``nn.LSTM``.
    """

    def __init__(self, *arguments: Any, weight_dropout: float = 0.0, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.weight_dropout = check_probability("weight dropout", weight_dropout)

    def forward(  # type: ignore[override]  # of the two overloads the one without packed sequences
        self, input: Tensor, hx: Optional[Tuple[Tensor, Tensor]] = None
    ) -> Tuple[Tensor, Tuple[Tensor, Tensor]]:
        """Run over a window, as ``nn.LSTM`` does.

        Args:
            input: (T, B, d); the gradient flows.
            hx: the state before, h and c, each (layers, B, width); None: zeros.

        Returns:
            ((T, B, width) outputs, the state after, as ``hx``)
        """
        if not self.training or self.weight_dropout == 0:
            return super().forward(input, hx)
        # nn.LSTM computes with this list of its parameters. Only the list is exchanged, for this call: the module
        # and its parameters stay as they are for optimizers, checkpoints and data-parallel wrappers.
        weights = self._flat_weights
        self._flat_weights = [
            F.dropout(weight, self.weight_dropout) if weight is not None and name.startswith("weight_hh") else weight
            for name, weight in zip(self._flat_weights_names, weights)
        ]
        try:
            return super().forward(input, hx)
        finally:
            self._flat_weights = weights

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{super().extra_repr()}, weight_dropout={self.weight_dropout}"


def _mean_square(x: Tensor, counts: Optional[Tensor]) -> Tensor:
    """Mean over the (T, B) positions that count, and over d, of x squared, in float32 at least."""
    square = x.float().pow(2) if x.dtype in (torch.float16, torch.bfloat16) else x.pow(2)
    if counts is None:
        return square.mean() if square.numel() > 0 else square.sum()
    return (square.mean(dim=-1) * counts).sum() / counts.sum().clamp(min=1)


def activation_regularisation(outputs: Tensor, counts: Optional[Tensor] = None) -> Tensor:
    """AR: mean square of the last layer's outputs, as they go into the softmax (after dropout).

    Args:
        outputs: (T, B, d); the gradient flows.
        counts: (T, B) boolean, True where a position counts; None: everywhere.

    Returns:
        A scalar, in float32 at least.
    """
    return _mean_square(outputs, counts)


def temporal_activation_regularisation(outputs: Tensor, counts: Optional[Tensor] = None) -> Tensor:
    """TAR: mean square of the difference between the last layer's outputs (before dropout) at adjacent time steps.

    Args:
        outputs: (T, B, d); the gradient flows.
        counts: (T, B) boolean, True where a position counts; None: everywhere.

    Returns:
        A scalar, in float32 at least; 0 for a single time step.
    """
    return _mean_square(outputs[1:] - outputs[:-1], None if counts is None else counts[1:])
