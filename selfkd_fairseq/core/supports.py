"""Which words share probability with the target: the supports of ``docs/method.md``, and the options of soft targets.

A support of n words is a target and n others; ``full`` is the whole vocabulary and needs no choosing. Padding and bos
are in no support except as the target.

To add a support: write a function that returns its words (N, n), enter its name in :data:`SUPPORTS` and call it in
:func:`support_words`. ``CONTRIBUTING.md`` names what goes with it: the definition for the tests, and the documentation.
"""

import math
from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

__all__ = [
    "SUPPORTS",
    "TEMPERATURE_SCALES",
    "SoftTargetOptions",
    "Support",
    "at_least_float32",
    "centred",
    "check_floating",
    "check_ignore_index",
    "check_neighbours",
    "check_word_ids",
    "make_support",
    "nearest_words",
    "predicted_words",
    "random_words",
    "support_words",
    "words_in_vocabulary",
]

SUPPORTS = ("predicted", "nearest", "full", "random")
TEMPERATURE_SCALES = ("relative", "absolute")


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype to reduce in.

    Args:
        dtype: of a tensor, floating point.

    Returns:
        float32 for half precision, else ``dtype`` itself.
    """
    return torch.promote_types(dtype, torch.float32)


class SoftTargetOptions(NamedTuple):
    """How soft targets are made. The defaults are those of the criterion ``self_kd``.

    Attributes:
        support: which words share probability with the target, one of :data:`SUPPORTS`.
        support_size: n, the number of words in the support beside the target, in [1, V); ``full`` does not read it.
        temperature: tau, above 0 and finite.
        temperature_scale: ``relative`` (tau in units of the root mean square distance of two rows of W) or
            ``absolute`` (tau in units of the embedding).
        min_target_prob: m, the floor of the target's own probability, in [0, 1].
    """

    support: str = "predicted"
    support_size: int = 1
    temperature: float = 1.0
    temperature_scale: str = "relative"
    min_target_prob: float = 0.5

    def check(self, vocabulary_size: Optional[int] = None) -> None:
        """Check that every option is in its range.

        Args:
            vocabulary_size: V, which ``support_size`` must be below; None: not known yet.

        Raises:
            ValueError: one is not; the message names argument, value and what is allowed.
        """
        if self.support not in SUPPORTS:
            raise ValueError(f"support must be one of {', '.join(SUPPORTS)}, got {self.support!r}")
        if self.support_size < 1:
            raise ValueError(f"support_size must be at least 1, got {self.support_size}")
        if vocabulary_size is not None and self.support_size >= vocabulary_size:
            raise ValueError(
                f"support_size must be less than the vocabulary size {vocabulary_size}, got {self.support_size}"
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature must be above 0 and finite, got {self.temperature}")
        if self.temperature_scale not in TEMPERATURE_SCALES:
            raise ValueError(
                f"temperature_scale must be one of {', '.join(TEMPERATURE_SCALES)}, got {self.temperature_scale!r}"
            )
        if not 0.0 <= self.min_target_prob <= 1.0:
            raise ValueError(f"min_target_prob must be in [0, 1], got {self.min_target_prob}")


class Support(NamedTuple):
    """The words that share probability, target first.

    Attributes:
        indices: (N, K) int64, word ids; column 0 is the target.
        valid: (N, K) bool, False where a column holds no word of the support (an excluded word, or the target
            a second time). Column 0 is always True.
    """

    indices: Tensor
    valid: Tensor


def centred(weight: Tensor) -> Tensor:
    """Rows less their mean: distances stay, and their products do not cancel.

    Args:
        weight: (V, d), any float dtype; no gradient flows.

    Returns:
        (V, d), float32 or better.
    """
    weight = weight.detach().to(at_least_float32(weight.dtype))
    return weight - weight.mean(dim=0)


def words_in_vocabulary(words: Sequence[Optional[int]], vocabulary_size: int) -> Tuple[int, ...]:
    """Leave out what names no word of the vocabulary: None, and ids such as -100.

    Args:
        words: ids, in any order, some perhaps twice.
        vocabulary_size: V.

    Returns:
        Each id in [0, V) once, in ascending order.
    """
    return tuple(sorted({word for word in words if word is not None and 0 <= word < vocabulary_size}))


def check_word_ids(name: str, words: Tensor, vocabulary_size: int) -> None:
    """Check that a tensor holds words of the vocabulary.

    Args:
        name: of the argument, for the message.
        words: word ids, of any shape.
        vocabulary_size: V.

    Raises:
        ValueError: it is not int64, or, on the CPU, not in [0, V).
    """
    if words.dtype != torch.long:
        raise ValueError(f"{name} must be int64 word ids, got {words.dtype}")
    # Reading numbers back would make a GPU wait; there an index out of range stops the kernel anyway.
    if words.device.type == "cpu" and words.numel() > 0:
        low, high = int(words.min()), int(words.max())
        if low < 0 or high >= vocabulary_size:
            raise ValueError(f"{name} must be in [0, {vocabulary_size}), got {low if low < 0 else high}")


def check_neighbours(neighbours: Optional[Tensor], vocabulary_size: int, support_size: int) -> None:
    """Check cached neighbours.

    Args:
        neighbours: (V, n) int64 in [0, V), or None.
        vocabulary_size: V.
        support_size: n.

    Raises:
        ValueError: they are of another shape or dtype, or, on the CPU, out of range.
    """
    if neighbours is None:
        return
    if neighbours.shape != (vocabulary_size, support_size) or neighbours.dtype != torch.long:
        raise ValueError(
            f"neighbours must be int64 (V, support_size) = {(vocabulary_size, support_size)}, got {neighbours.dtype} "
            f"{tuple(neighbours.shape)}"
        )
    check_word_ids("neighbours", neighbours, vocabulary_size)


def check_floating(**tensors: Optional[Tensor]) -> None:
    """Check that tensors are of a floating-point dtype.

    Args:
        **tensors: name of the argument -> tensor of any shape, or None.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")


def check_ignore_index(ignore_index: Optional[int]) -> None:
    """Check that an id can be compared with int64 word ids.

    Args:
        ignore_index: any int, or None.

    Raises:
        ValueError: it is beyond the range of int64.
    """
    if ignore_index is not None and not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index must be an int64 number, got {ignore_index}")


def make_support(target: Tensor, words: Tensor, excluded: Sequence[int]) -> Support:
    """Put the target before its words, and mark which of them count: not the target again, nor an excluded word.

    Args:
        target: (N,) int64.
        words: (N, n) int64; a word may stand in a row only once.
        excluded: word ids that are in no support except as the target.

    Returns:
        a :class:`Support` with K = n + 1 columns.
    """
    valid = words != target.unsqueeze(1)
    for word in excluded:
        valid &= words != word
    return Support(
        indices=torch.cat([target.unsqueeze(1), words], dim=1),
        valid=torch.cat([torch.ones_like(target, dtype=torch.bool).unsqueeze(1), valid], dim=1),
    )


def predicted_words(scores: Tensor, size: int, excluded: Sequence[int]) -> Tensor:
    """The n words that the model finds most probable, excluded words last.

    Args:
        scores: (N, V) logits or log-probabilities; only their order is used, no gradient flows.
        size: n, in [1, V).
        excluded: word ids that are never predicted (padding, bos).

    Returns:
        (N, n) int64. It may hold the target, and excluded words where n is close to V.
    """
    scores = scores.detach()
    if excluded:
        scores = scores.index_fill(1, torch.tensor(sorted(excluded), device=scores.device), -math.inf)
    if size == 1:  # of equal scores, the word that argmax calls the prediction
        return scores.max(dim=1).indices.unsqueeze(1)
    return scores.topk(size, dim=1).indices


@torch.no_grad()
def nearest_words(
    weight: Tensor, words: Tensor, size: int, excluded: Sequence[int], chunk_size: Optional[int] = None
) -> Tensor:
    """The n nearest words of given words in the embedding space, each word itself and excluded words last.

    Args:
        weight: (V, d) output embedding matrix.
        words: (U,) int64 word ids.
        size: n, in [1, V).
        excluded: word ids that are never neighbours.
        chunk_size: words at a time; by default as many as keep a (chunk, V) tensor near 64 MiB.

    Returns:
        (U, n) int64, nearest first. A row may end with the word itself or excluded words where n is close to V.
    """
    weight = centred(weight)
    chunk_size = chunk_size or max(1, (64 << 20) // (weight.size(0) * weight.element_size()))
    square_norms = weight.pow(2).sum(dim=1)
    excluded_ids = torch.tensor(sorted(excluded), device=weight.device, dtype=torch.long)
    neighbours = []
    for chunk in words.split(chunk_size):
        # The square of the distance, without the norm of the word itself: the order of a row is the same.
        distances = torch.addmm(square_norms, weight[chunk], weight.t(), alpha=-2.0)
        distances.index_fill_(1, excluded_ids, math.inf)
        distances.scatter_(1, chunk.unsqueeze(1), math.inf)
        neighbours.append(distances.topk(size, dim=1, largest=False).indices)
    return torch.cat(neighbours) if neighbours else words.new_empty(0, size)


def random_words(
    target: Tensor,
    vocabulary_size: int,
    size: int,
    excluded: Sequence[int],
    generator: Optional[torch.Generator] = None,
) -> Tensor:
    """The n words of each token drawn uniformly, all different, from those that are neither excluded nor the target.

    Args:
        target: (N,) int64.
        vocabulary_size: V.
        size: n; the words that may be drawn must be at least as many.
        excluded: word ids that are never drawn.
        generator: source of randomness, on the CPU so that the draw is the same on every device; by default torch's.

    Returns:
        (N, n) int64 on the device of ``target``.

    Raises:
        ValueError: fewer than n words may be drawn.
    """
    may_be_drawn = torch.ones(vocabulary_size, dtype=torch.bool)
    may_be_drawn[list(words_in_vocabulary(excluded, vocabulary_size))] = False
    allowed = may_be_drawn.nonzero().squeeze(1)
    if size > len(allowed) - 1:
        raise ValueError(f"support_size must be at most {len(allowed) - 1} for the support random, got {size}")
    # Floyd's way to draw without replacement needs n small draws a token, never a (N, V) tensor. Ranks are those
    # among the allowed words without the target: one fewer, and the target's place is skipped afterwards.
    rank_of_word = torch.full((vocabulary_size,), len(allowed), dtype=torch.long)
    rank_of_word[allowed] = torch.arange(len(allowed))
    target_rank = rank_of_word[target.cpu()].unsqueeze(1)
    # A target that is itself excluded has no rank: leaving out any rank at random keeps the draw uniform.
    any_rank = torch.randint(0, len(allowed), target_rank.shape, generator=generator)
    target_rank = torch.where(target_rank == len(allowed), any_rank, target_rank)
    ranks = torch.empty(target.numel(), size, dtype=torch.long)
    number_of_words = len(allowed) - 1
    for column, last in enumerate(range(number_of_words - size, number_of_words)):
        draw = torch.randint(0, last + 1, (target.numel(), 1), generator=generator)
        taken = (ranks[:, :column] == draw).any(dim=1, keepdim=True)
        ranks[:, column : column + 1] = torch.where(taken, torch.full_like(draw, last), draw)
    return allowed[ranks + (ranks >= target_rank).long()].to(target.device)


def support_words(
    scores: Optional[Tensor],
    weight: Tensor,
    target: Tensor,
    options: SoftTargetOptions,
    excluded: Sequence[int] = (),
    neighbours: Optional[Tensor] = None,
    generator: Optional[torch.Generator] = None,
) -> Tensor:
    """The words beside the target, for a sparse support.

    Args:
        scores: (N, V) logits or log-probabilities of the model; read by the support ``predicted`` alone.
        weight: (V, d), the output embedding matrix; no gradient flows.
        target: (N,) int64, in [0, V).
        options: see :class:`SoftTargetOptions`; assumed checked.
        excluded: word ids that are in no support except as the target.
        neighbours: (V, n) int64, cached result of :func:`nearest_words` for every word, or None.
        generator: source of the support ``random``.

    Returns:
        (N, n) int64; a row may hold the target and excluded words, which :func:`make_support` marks.

    Raises:
        ValueError: the support is ``full``, or ``predicted`` without scores.
    """
    if options.support == "predicted":
        if scores is None:
            raise ValueError("the support predicted needs the scores of the model")
        return predicted_words(scores, options.support_size, excluded)
    if options.support == "nearest":
        if neighbours is not None:
            return neighbours[target]
        distinct, inverse = target.unique(return_inverse=True)
        return nearest_words(weight, distinct, options.support_size, excluded)[inverse]
    if options.support == "random":
        return random_words(target, weight.size(0), options.support_size, excluded, generator)
    raise ValueError(f"the support {options.support!r} is not sparse")
