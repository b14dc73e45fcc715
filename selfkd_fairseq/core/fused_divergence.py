"""What L_SKD of the fused loss is, whichever words share probability: what it reads, what it adds chunk by chunk.

    L_SKD = T^2 sum_i KL(q_i || pT_i)        pT_i = softmax(z_i / T), over all words or over the words of the support
    dL_SKD/dz_ik = T (pT_ik - q_ik)

Equations: ``docs/method.md``; over few words: :mod:`.fused_sparse_divergence`, over every word:
:mod:`.fused_full_divergence`; the loss around it: :mod:`.fused_linear_loss`.
"""

from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .options import SelfKDOptions

__all__ = ["Chunk", "Divergence", "DivergenceInputs", "Terms", "project"]


class DivergenceInputs(NamedTuple):
    """What L_SKD is made of, checked; no gradient flows through any of it.

    Attributes:
        embedding: (V, d), the output matrix as the soft targets see it: not cast by autocast.
        weight: (V, d), the same in the dtype of the features.
        bias: (V,) in that dtype, or None.
        target: (N,) int64.
        teacher_features: (N, d) of the teacher's pass, or None.
        paired: whether tokens 2 i and 2 i + 1 are one in two passes, each the teacher of the other; chunks are even.
        alpha: weight of the term.
        options: how soft targets are made and compared.
        excluded: word ids in [0, V) that are in no support except as the target.
        neighbours: (V, n) int64 or None.
        generator: of the support ``random``.
        chunk_size: most tokens of a chunk.
        dtype: to compute in, float32 or float64.
        keep: (N,) bool, False for tokens that do not count; None: all do.
        compiled: whether the passes over the logits are those of :mod:`.compiled_rows`.
    """

    embedding: Tensor
    weight: Tensor
    bias: Optional[Tensor]
    target: Tensor
    teacher_features: Optional[Tensor]
    paired: bool
    alpha: float
    options: SelfKDOptions
    excluded: Sequence[int]
    neighbours: Optional[Tensor]
    generator: Optional[torch.Generator]
    chunk_size: int
    dtype: torch.dtype
    keep: Optional[Tensor] = None
    compiled: bool = False

    def kept(self, tokens: slice) -> Optional[Tensor]:
        """``keep`` of a chunk.

        Args:
            tokens: which of the N.

        Returns:
            (C,) bool, or None.
        """
        return None if self.keep is None else self.keep[tokens]


class Chunk(NamedTuple):
    """The model's side of a chunk of C tokens.

    Attributes:
        tokens: which of the N.
        z: (C, V) logits, as :meth:`Divergence.prepared` leaves them; may be overwritten.
        probs: (C, V) softmax of them, float32 or better as all that follows; becomes dL/dz but for what L_CE takes
            from it. None in compiled passes, which write no such tensor.
        best_logit: (C,) the largest.
        best_word: (C,) int64, its word.
        excess: (C,) logsumexp(z) less the largest logit.
        predicted: (C, n) int64, words of the support ``predicted``; None with others.
        keep: (C,) bool, False for tokens that do not count; None: all do.
    """

    tokens: slice
    z: Tensor
    probs: Optional[Tensor]
    best_logit: Tensor
    best_word: Tensor
    excess: Tensor
    predicted: Optional[Tensor]
    keep: Optional[Tensor]


class Terms(NamedTuple):
    """What a chunk of C tokens adds to the sums, token by token: those that do not count, too.

    Attributes:
        loss: (C,) T^2 KL(q || pT), in nats.
        target_prob: (C,) q of the target.
        entropy: (C,) of q, in nats.
        measure: (C,) sum of the distances (or cosines) of the target and every other word of the support.
        num_pairs: () int64, how many those are over the tokens that count; 0 where W is not read.
        gradient: of a sparse support: (C, K) words, the target first, and (C, K) what the term adds to their dL/dz.
    """

    loss: Tensor
    target_prob: Tensor
    entropy: Tensor
    measure: Tensor
    num_pairs: Tensor
    gradient: Optional[Tuple[Tensor, Tensor]] = None


class Divergence:
    """L_SKD and its statistics, a chunk of tokens at a time.

    Args:
        inputs: see :class:`DivergenceInputs`.
    """

    def __init__(self, inputs: DivergenceInputs):
        self.inputs = inputs
        self.student_temperature = inputs.options.student_temperature

    @property
    def share_of_probs(self) -> float:
        """Of p in dL/dz where a sparse support adds nothing; the target's label-smoothed share is left out."""
        return 1.0 - self.inputs.alpha if self.inputs.options.normalise == "support" else 1.0

    def prepared(self, z: Tensor, best_logit: Tensor) -> Tensor:
        """The logits as :meth:`add` wants them, before the softmax is taken of them.

        Args:
            z: (C, V) in the dtype of the features; may be overwritten, but not where that is of half precision.
            best_logit: (C,) the largest, float32 or better.

        Returns:
            (C, V): ``z`` itself, or with ``full`` ``z`` less the largest, in the dtype of ``best_logit``.
        """
        return z

    def add(self, chunk: Chunk, wants_gradient: bool) -> Terms:
        """Sums of a chunk. With the support ``full`` ``chunk.probs`` become (1 - alpha) p + alpha dL_SKD/dz.

        Args:
            chunk: of tokens in the order of ``inputs.target``.
            wants_gradient: whether it is read afterwards.

        Returns:
            :class:`Terms` of the chunk.
        """
        raise NotImplementedError


def project(features: Tensor, weight: Tensor, bias: Optional[Tensor], out: Tensor) -> Tensor:
    """Logits of a chunk.

    Args:
        features: (C, d).
        weight: (V, d) of the same dtype.
        bias: (V,) or None.
        out: (C, V) of that dtype, overwritten.

    Returns:
        ``out``, (C, V); no gradient flows.
    """
    if bias is None:
        return torch.mm(features, weight.t(), out=out)
    return torch.addmm(bias, features, weight.t(), out=out)
