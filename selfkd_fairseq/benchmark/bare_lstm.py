"""LSTM language models trained by a loop of plain PyTorch: the yardstick of the language modelling task.

Nothing here comes from fairseq or from this plugin. Words are (T, B), time first, as ``nn.LSTM`` takes them.
"""

from typing import List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BareAWDLSTM", "BareLoop", "BareZaremba", "Outputs", "locked_dropout"]

State = Tuple[Tensor, ...]  # (layers, B, width) each


class Outputs(NamedTuple):
    """What a bare model gives for one window.

    Attributes:
        logits: (T, B, V), with gradient.
        regularisation: a scalar in nats per token, with gradient; None if the model has none.
        state: after the window, tensors (layers, B, width), with gradient.
    """

    logits: Tensor
    regularisation: Optional[Tensor]
    state: State


class BareZaremba(nn.Module):
    """Embedding, ``nn.LSTM``, Linear, with dropout around each layer (Zaremba et al., 2014).

    Args:
        vocabulary: V words.
        width: of embeddings and layers.
        layers: of the LSTM.
        dropout: on embeddings, between the layers and before the softmax.
        tied: the Linear has the matrix of the embedding.
    """

    def __init__(self, vocabulary: int, width: int, layers: int, dropout: float, tied: bool = False):
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, dropout=dropout)
        self.output = nn.Linear(width, vocabulary)
        if tied:
            self.output.weight = self.embedding.weight

    def forward(self, words: Tensor, state: Optional[State]) -> Outputs:
        """Run over one window.

        Args:
            words: (T, B) int64 in [0, V).
            state: h and c, (layers, B, width) each, that the last window ended in; None for zeros.

        Returns:
            Logits (T, B, V) and the state after the window, with gradient; no regularisation.
        """
        x = F.dropout(self.embedding(words), self.dropout, self.training)
        x, state = self.lstm(x, state)
        return Outputs(self.output(F.dropout(x, self.dropout, self.training)), None, state)


def locked_dropout(x: Tensor, p: float) -> Tensor:
    """Zero the same units at every time step.

    Args:
        x: (T, B, d), floating point; the gradient flows through the units that are kept.
        p: probability that a unit is zero, in [0, 1); the others are scaled by 1 / (1 - p).

    Returns:
        (T, B, d), in the dtype of ``x``.
    """
    return x * F.dropout(x.new_ones(1, *x.shape[1:]), p)


class BareAWDLSTM(nn.Module):
    """AWD-LSTM (Merity et al., 2018) with tied embeddings, for training only: the dropouts are always on.

    Args:
        vocabulary: V words.
        embedding_width: of embeddings and of the last layer.
        width: of the other layers.
        layers: number of LSTM layers.
    """

    DROPOUTE, DROPOUTI, DROPOUTH, DROPOUT, WDROP, ALPHA, BETA = 0.1, 0.4, 0.25, 0.4, 0.5, 2.0, 1.0

    def __init__(self, vocabulary: int, embedding_width: int, width: int, layers: int):
        super().__init__()
        widths = [embedding_width] + [width] * (layers - 1) + [embedding_width]
        self.embedding = nn.Embedding(vocabulary, embedding_width)
        self.layers = nn.ModuleList(nn.LSTM(i, o) for i, o in zip(widths, widths[1:]))
        self.output = nn.Linear(embedding_width, vocabulary)
        self.output.weight = self.embedding.weight

    def forward(self, words: Tensor, state: Optional[State]) -> Outputs:
        """Run over one window.

        Args:
            words: (T, B) int64 in [0, V).
            state: h and c of each layer in turn, (1, B, width) each, that the last window ended in; None for zeros.

        Returns:
            Logits (T, B, V), AR and TAR (a scalar in nats per token) and the state, all with gradient.
        """
        kept = F.dropout(self.embedding.weight.new_ones(self.embedding.num_embeddings, 1), self.DROPOUTE)
        x = locked_dropout(self.embedding(words) * F.embedding(words, kept), self.DROPOUTI)
        new_state: List[Tensor] = []
        for i, layer in enumerate(self.layers):
            x = locked_dropout(x, self.DROPOUTH) if i > 0 else x
            input_to_hidden, hidden_to_hidden, *biases = layer.parameters()
            before = state[2 * i : 2 * i + 2] if state else [x.new_zeros(1, x.size(1), hidden_to_hidden.size(1))] * 2
            weights = [input_to_hidden, F.dropout(hidden_to_hidden, self.WDROP), *biases]
            # torch.lstm(input, state, weights, biases, layers, dropout, training, bidirectional, batch first)
            x, *after = torch.lstm(x, before, weights, True, 1, 0.0, True, False, False)
            new_state += after
        dropped = locked_dropout(x, self.DROPOUT)
        regularisation = self.ALPHA * dropped.pow(2).mean() + self.BETA * (x[1:] - x[:-1]).pow(2).mean()
        return Outputs(self.output(dropped), regularisation, tuple(new_state))


class BareLoop:
    """Epochs of truncated back-propagation through time with SGD.

    Args:
        model: :class:`BareZaremba` or :class:`BareAWDLSTM`.
        tokens: (S + 1, B), int64: B streams, one in each column; S predictions each, S a multiple of ``window``.
        window: time steps of a window.
        per_stream: average the loss over the streams and sum it over the time steps; else average it over both.
        lr: of SGD.
        clip_norm: most that the norm of the gradient may be.
        weight_decay: of SGD.
    """

    def __init__(
        self,
        model: nn.Module,
        tokens: Tensor,
        window: int,
        *,
        per_stream: bool,
        lr: float,
        clip_norm: float,
        weight_decay: float = 0.0,
    ):
        self.model, self.tokens, self.window, self.clip_norm = model, tokens, window, clip_norm
        self.divisor = tokens.size(1) * (1 if per_stream else window)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=weight_decay)
        self.state: Optional[State] = None

    def epoch(self) -> Tensor:
        """All windows, from a zero state; a scalar, the sum of the losses of all tokens in nats, no regularisation."""
        return torch.stack([self.step(start) for start in range(0, len(self.tokens) - 1, self.window)]).sum()

    def step(self, start: int) -> Tensor:
        """One update by one window.

        Args:
            start: its first time step; 0 starts from a zero state, any other from the state of the window before.

        Returns:
            (), the sum of the losses of its tokens in nats, without regularisation and without gradient.
        """
        self.model.train()
        self.optimizer.zero_grad()
        loss, regularisation = self._forward(start)
        total = loss / self.divisor
        if regularisation is not None:
            total = total + regularisation
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return loss.detach()

    def _forward(self, start: int) -> Tuple[Tensor, Optional[Tensor]]:
        # A function of its own, so that the logits are freed before the gradient needs as much memory again: held
        # until the end of the step they cost 10 % of the time on a CPU.
        words, targets = self.tokens[start : start + self.window], self.tokens[start + 1 : start + 1 + self.window]
        logits, regularisation, state = self.model(words, self.state if start > 0 else None)
        self.state = tuple(part.detach() for part in state)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"), regularisation
