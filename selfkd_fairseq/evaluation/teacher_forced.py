"""One pass of a model over given text: how probable each token was, given the true tokens before it."""

from __future__ import annotations

from typing import Any, Callable, Iterable, NamedTuple

import numpy as np
import torch
from fairseq import utils

__all__ = ["TokenScores", "score_tokens", "sum_by_sentence"]

# Takes log-probabilities (N', V), targets (N',) and which of them count (N,).
Observer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


class TokenScores(NamedTuple):
    """Numbers of T tokens, in the order of the text; ``</s>`` is a token, padding is none."""

    nll: np.ndarray
    """(T,) float64: negative log-likelihood of the token, in nats."""
    confidence: np.ndarray
    """(T,) float64 in [0, 1]: probability of the word that the model finds most probable."""
    correct: np.ndarray
    """(T,) bool: that word is the token."""


def score_tokens(model: Any, batches: Iterable[Any], padding_idx: int, observe: Observer | None = None) -> TokenScores:
    """Score every target of some batches, without gradient.

    Probabilities are those of ``model.get_normalized_probs``, in the model's float32. Of a batch's (B, L, V) tensor
    only the three numbers of each token are kept.

    Args:
        model: a ``FairseqModel`` in evaluation mode; the batches are moved to its device.
        batches: of fairseq, at least one. Of one ``id`` the tokens come in order, in one batch or over several.
        padding_idx: marks targets that are none.
        observe: is called for each batch with the log-probabilities (N', V) and the targets (N',) int64 of all its
            positions, and the N of them that are no padding, int64.

    Returns:
        The tokens of the smallest ``id`` first.
    """
    device = next(model.parameters()).device
    parts = []
    with torch.no_grad():
        for batch in batches:
            moved = utils.move_to_cuda(batch, device) if device.type == "cuda" else batch
            parts.append([column.cpu().numpy() for column in _score_batch(model, moved, padding_idx, observe)])
    ids, *columns = (np.concatenate(column) for column in zip(*parts))
    order = np.argsort(ids, kind="stable")
    target, best, correct = (column[order] for column in columns)
    return TokenScores(-target.astype(np.float64), np.exp(best.astype(np.float64)), correct)


def _score_batch(model: Any, batch: dict[str, Any], padding_idx: int, observe: Observer | None) -> list[torch.Tensor]:
    """Of each target: ``id``, its log-probability, the highest log-probability, and whether they are of one word."""
    net_output = model(**batch["net_input"])
    lprobs = model.get_normalized_probs(net_output, log_probs=True)
    target = model.get_targets(batch, net_output)
    best, word = lprobs.max(dim=-1)
    ids = batch["id"].unsqueeze(1).expand_as(target)
    of_target = lprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    is_target = target.ne(padding_idx)
    if observe is not None:
        observe(lprobs.flatten(0, 1), target.flatten(), is_target.flatten().nonzero().squeeze(1))
    return [column[is_target] for column in (ids, of_target, best, word.eq(target))]


def sum_by_sentence(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums over consecutive sentences.

    Args:
        values: (T,) float64, of the tokens of all sentences.
        lengths: (S,) integers that add up to T; a sentence of length 0 has the sum 0.

    Returns:
        (S,) float64.
    """
    sentences = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(sentences, weights=values, minlength=len(lengths))
