"""Which words share probability with the target: the supports of ``docs/method.md``.

A support of n words is a target and n others; ``full`` is the whole vocabulary and needs no choosing. Padding and bos
are in no support except as the target.

To add a support: write a function that returns its words (N, n) and enter it in :data:`SUPPORTS`. ``CONTRIBUTING.md``
names what goes with it: the definition for the tests, and the documentation.
"""

import math
from typing import Callable, Dict, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .arguments import numbers_at_hand, word_ids, words_in_vocabulary
from .geometry import centred

__all__ = [
    "SUPPORTS",
    "Choice",
    "Support",
    "largest",
    "make_support",
    "mark_support",
    "nearest_words",
    "predicted_words",
    "random_words",
]


class Support(NamedTuple):
    """The words that share probability, target first.

    Attributes:
        indices: (N, K) int64, word ids; column 0 is the target.
        valid: (N, K) bool, False where a column holds no word of the support (an excluded word, or the target
            a second time). Column 0 is always True.
    """

    indices: Tensor
    valid: Tensor


class Choice(NamedTuple):
    """What a support may look at, to choose the words of N tokens.

    Attributes:
        scores: (N, V) logits or log-probabilities of the model, or None; read by ``predicted`` alone.
        weight: (V, d), the output embedding matrix; no gradient flows.
        target: (N,) int64, in [0, V).
        size: n, in [1, V).
        excluded: word ids that are in no support except as the target.
        beside_target: leave the target out of the choice, so that ``predicted`` finds n other words.
        neighbours: (V, n) int64, cached result of :func:`nearest_words` for every word, or None.
        generator: CPU generator of ``random``; None: torch's own.
    """

    scores: Optional[Tensor]
    weight: Tensor
    target: Tensor
    size: int
    excluded: Sequence[int] = ()
    beside_target: bool = False
    neighbours: Optional[Tensor] = None
    generator: Optional[torch.Generator] = None


def make_support(target: Tensor, words: Tensor, excluded: Sequence[int]) -> Support:
    """Put the target before its words, and mark which of them count: not the target again, nor an excluded word.

    Args:
        target: (N,) int64.
        words: (N, n) int64; a word may stand in a row only once.
        excluded: word ids that are in no support except as the target.

    Returns:
        a :class:`Support` with K = n + 1 columns.
    """
    return mark_support(torch.cat([target.unsqueeze(1), words], dim=1), excluded)


def mark_support(indices: Tensor, excluded: Sequence[int]) -> Support:
    """As :func:`make_support`, of targets and words that stand together already.

    Args:
        indices: (N, K) int64, the target first.
        excluded: word ids that are in no support except as the target.

    Returns:
        a :class:`Support` with these columns.
    """
    target, words = indices[:, :1], indices[:, 1:]
    valid = words != target
    for word in excluded:
        valid &= words != word
    return Support(indices, torch.cat([torch.ones_like(target, dtype=torch.bool), valid], dim=1))


def predicted_words(scores: Tensor, size: int, excluded: Sequence[int], target: Optional[Tensor] = None) -> Tensor:
    """The n words that the model finds most probable, excluded words last.

    Args:
        scores: (N, V) logits or log-probabilities; only their order is used, no gradient flows.
        size: n, in [1, V).
        excluded: word ids that are never predicted (padding, bos).
        target: (N,) int64, words to leave out, one for each token; None: none.

    Returns:
        (N, n) int64. It may hold excluded words where n is close to V, and the target where it is not left out.
    """
    scores = scores.detach()
    if excluded:
        scores = scores.index_fill(1, word_ids(sorted(excluded), scores.device), -math.inf)
    if target is not None:
        scores = scores.scatter(1, target.unsqueeze(1), -math.inf)
    if size == 1:  # of equal scores, the word that argmax calls the prediction
        return scores.max(dim=1).indices.unsqueeze(1)
    return scores.topk(size, dim=1).indices


_BLOCK = 64  # words that are looked at together, of which only the largest score counts at first


def largest(scores: Tensor, size: int) -> Tuple[Tensor, Tensor]:
    """The n largest scores and their words, by one reading of all, and a second look at few.

    The n largest lie in the n blocks of words with the largest maxima. To find a maximum is quick everywhere; to sort,
    or to carry along where it lies, is not.

    Args:
        scores: (N, V), any float dtype; no gradient flows.
        size: n, in [1, V).

    Returns:
        (N, n) scores in falling order and (N, n) int64 words. Of equal scores the first one with n = 1, any with more.
    """
    vocabulary = scores.size(1)
    blocks = vocabulary // _BLOCK
    one_is_quick = size == 1 and not numbers_at_hand(scores)
    if one_is_quick or blocks < 2 * size:
        return scores.max(dim=1, keepdim=True) if size == 1 else scores.topk(size, dim=1)
    words = torch.arange(vocabulary, device=scores.device)
    in_blocks, rest = words[: blocks * _BLOCK].view(blocks, _BLOCK), words[blocks * _BLOCK :]
    of_blocks = scores[:, : in_blocks.numel()].unflatten(1, in_blocks.shape).amax(dim=2)
    chosen = of_blocks.max(dim=1, keepdim=True).indices if size == 1 else of_blocks.topk(size, dim=1).indices
    candidates = torch.cat([in_blocks[chosen].flatten(1), rest.expand(scores.size(0), -1)], dim=1)
    values = scores.gather(1, candidates)
    best = values.max(dim=1, keepdim=True) if size == 1 else values.topk(size, dim=1)
    return best[0], candidates.gather(1, best[1])


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
    excluded_ids = word_ids(sorted(excluded), weight.device)
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


def _predicted(choice: Choice) -> Tensor:
    if choice.scores is None:
        raise ValueError("the support predicted needs the scores of the model")
    target = choice.target if choice.beside_target else None
    return predicted_words(choice.scores, choice.size, choice.excluded, target)


def _nearest(choice: Choice) -> Tensor:
    if choice.neighbours is not None:
        return choice.neighbours[choice.target]
    distinct, inverse = choice.target.unique(return_inverse=True)
    return nearest_words(choice.weight, distinct, choice.size, choice.excluded)[inverse]


def _random(choice: Choice) -> Tensor:
    return random_words(choice.target, choice.weight.size(0), choice.size, choice.excluded, choice.generator)


# Name -> the words (N, n) beside the target; a row may hold the target and excluded words, which make_support marks.
# None: every word.
SUPPORTS: Dict[str, Optional[Callable[[Choice], Tensor]]] = {
    "predicted": _predicted,
    "nearest": _nearest,
    "full": None,
    "random": _random,
}
