"""Soft targets: how much probability each word of a support gets. Equations: ``docs/method.md``.

Notation: N target tokens, V words, W (V, d) the output embedding matrix, t_i the target word of token i, S_i its
support. q is a softmax over S_i of the score of each word,

    q_ik = exp(score_ik) / sum over j in S_i of exp(score_ij)                for k in S_i, 0 elsewhere
    score_ik = s(t_i, k)                              teacher ``embedding``; s: a similarity (:mod:`.geometry`)
    score_ik = z0_ik / T + lambda s(t_i, k)           teacher ``self``; z0: the logits of another pass

With the gate ``others`` q_it is softmax over S_i of z0_i / T at t_i, as the other pass says; the other words share the
rest in proportion to exp(score_ik).

If q_it is below the floor m, it is raised to m and the other entries are scaled so that the row still sums to 1. q is a
constant for autograd. Every support excludes a given set of words (padding, bos), except as the target.

The idea that the soft targets come from the model's own embedding space is that of Hahn and Choi (RANLP 2019,
arXiv 1908.01851); the exact equations are this project's reading of it.
"""

import functools
import math
from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .arguments import at_least_float32
from .geometry import SIMILARITIES, rms_distance
from .options import SelfKDOptions
from .supports import SUPPORTS, Choice, Support, make_support

__all__ = [
    "SoftTargets",
    "Shuffle",
    "effective_temperature",
    "entropy",
    "make_shuffle",
    "of_partners",
    "probabilities",
    "shuffled_words",
    "soft_targets",
    "sparse_soft_targets",
]


class SoftTargets(NamedTuple):
    """Soft targets over a sparse support. No tensor here carries a gradient.

    Attributes:
        indices: (N, K) int64, word ids; column 0 is the target.
        probs: (N, K) float32 or float64, q; each row sums to 1, and is 0 where ``valid`` is False.
        measures: (N, K) like ``probs``, of each word and the target: Euclidean distance of their rows of W, or cosine;
            None where the scores do not read W.
        valid: (N, K) bool, see :class:`Support`.
    """

    indices: Tensor
    probs: Tensor
    measures: Optional[Tensor]
    valid: Tensor


class Shuffle(NamedTuple):
    """One fixed permutation pi of the words that are not excluded, which are left where they are.

    For a target t it stands for a permutation of the other words: pi, but for the word that pi sends to t, which goes
    where t would.

    Attributes:
        forth: (V,) int64, pi.
        back: (V,) int64, its inverse.
    """

    forth: Tensor
    back: Tensor

    def columns(self, values: Tensor, target: Tensor) -> Tensor:
        """Move what belongs to pi(k) to column k.

        Args:
            values: (N, V), any dtype.
            target: (N,) int64, whose columns stay.

        Returns:
            (N, V), a new tensor.
        """
        column = target.unsqueeze(1)
        shuffled = values.index_select(1, self.forth)
        # Column t has now what belongs to pi(t), and the column that pi sends to t what belongs to t.
        displaced = shuffled.gather(1, column)
        shuffled.scatter_(1, self.back[column], displaced)
        return shuffled.scatter_(1, column, values.gather(1, column))

    def words(self, indices: Tensor, back: bool = False) -> Tensor:
        """Send each word k beside the target to pi(k).

        Args:
            indices: (N, K) int64; column 0 is the target.
            back: the inverse permutation instead.

        Returns:
            (N, K) int64; a word that is the target once more stays.
        """
        permutation = self.back if back else self.forth
        target = indices[:, :1]
        sent = permutation[indices]
        sent = torch.where(sent == target, permutation[target].expand_as(sent), sent)
        return torch.where(indices == target, indices, sent)


@functools.lru_cache(maxsize=8)
def _permutation(vocabulary_size: int, excluded: Tuple[int, ...]) -> Shuffle:
    allowed = torch.ones(vocabulary_size, dtype=torch.bool)
    allowed[list(excluded)] = False
    words = allowed.nonzero().squeeze(1)
    forth = torch.arange(vocabulary_size)
    # Of a seed of its own: the same in every process, update and run, and no other draw is moved by it.
    forth[words] = words[torch.randperm(len(words), generator=torch.Generator().manual_seed(1908))]
    return Shuffle(forth, forth.argsort())


def make_shuffle(
    options: SelfKDOptions, vocabulary_size: int, excluded: Sequence[int], device: torch.device
) -> Optional[Shuffle]:
    """The permutation of the controls ``shuffled`` and ``shuffled_rows``: always the same for a vocabulary.

    Args:
        options: assumed checked.
        vocabulary_size: V.
        excluded: word ids in [0, V) that stay where they are.
        device: of the result.

    Returns:
        :class:`Shuffle`, or None with another control.
    """
    if not options.control.startswith("shuffled"):
        return None
    return Shuffle(*(words.to(device) for words in _permutation(vocabulary_size, tuple(excluded))))


def effective_temperature(weight: Tensor, options: SelfKDOptions, rms: Optional[Tensor] = None) -> Tensor:
    """The temperature tau' of the soft targets, in units of the measure of their similarity.

    It is kept above 0 so that a matrix of equal rows, whose distances are all 0, gives equal shares and not NaN, and so
    that distances divided by it are within the range of the dtype.

    Args:
        weight: (V, d), any float dtype; no gradient flows.
        options: tau, its scale and the similarity; assumed checked.
        rms: () :func:`~.geometry.rms_distance` of ``weight`` where it is known; None: it is computed.

    Returns:
        () float32 (float64 for a float64 ``weight``).
    """
    dtype = at_least_float32(weight.dtype)
    least, most = math.sqrt(torch.finfo(dtype).tiny), torch.finfo(dtype).max
    temperature = min(max(options.temperature, least), most)
    if options.temperature_scale == "absolute" or not SIMILARITIES[options.similarity].measure.has_unit:
        return torch.full((), temperature, dtype=dtype, device=weight.device)
    return (temperature * (rms_distance(weight) if rms is None else rms)).clamp(least, most)


def probabilities(scores: Tensor, valid: Tensor, min_target_prob: float, of_target: Optional[Tensor] = None) -> Tensor:
    """Probabilities q over a support whose column 0 is the target, with the floor applied.

    Args:
        scores: (N, K), float32 or better.
        valid: (N, K) bool, True where the column holds a word of the support; column 0 is True.
        min_target_prob: m in [0, 1].
        of_target: (N, 1) like ``scores``, what the target keeps before the floor; None: its share by its score.

    Returns:
        (N, K) like ``scores``; each row sums to 1; 0 where ``valid`` is False.
    """
    if of_target is not None:
        is_alone = ~valid[:, 1:].any(dim=1, keepdim=True)
        of_target = of_target.clamp_min(min_target_prob).masked_fill(is_alone, 1.0)
        of_others = torch.softmax(scores[:, 1:].masked_fill(~valid[:, 1:], -math.inf), dim=1)
        return torch.cat([of_target, (1.0 - of_target) * of_others.masked_fill(is_alone, 0.0)], dim=1)
    probs = torch.softmax(scores.masked_fill(~valid, -math.inf), dim=1)
    target_prob = probs[:, :1]
    below_floor = target_prob < min_target_prob
    # Where the floor applies target_prob < m <= 1, so the divisor is positive; elsewhere the ratio is unused.
    others = torch.where(below_floor, probs * ((1.0 - min_target_prob) / (1.0 - target_prob)), probs)
    floored_target = torch.where(below_floor, torch.full_like(target_prob, min_target_prob), target_prob)
    return torch.cat([floored_target, others[:, 1:]], dim=1)


def of_partners(rows: Tensor) -> Tensor:
    """Where two passes of each token stand one below the other: for each of them what belongs to the other.

    Args:
        rows: (N, V), of any dtype; rows 2 i and 2 i + 1 are of one token.

    Returns:
        (N, V), a new tensor with rows 2 i and 2 i + 1 in each other's place; no gradient flows.
    """
    partners: Tensor = rows.detach().unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return partners


def entropy(probs: Tensor) -> Tensor:
    """Entropy of each row, in nats.

    Args:
        probs: (N, K), rows sum to 1; no gradient is meant to flow.

    Returns:
        (N,), at least 0.
    """
    entropies: Tensor = torch.special.entr(probs).sum(dim=1)
    return entropies


def _scores(
    options: SelfKDOptions, measures: Optional[Tensor], temperature: Optional[Tensor], teacher_scores: Optional[Tensor]
) -> Optional[Tensor]:
    """Scores of words of the shape of what is given; None: all words are equal."""
    scores = None
    if measures is not None:
        assert temperature is not None
        scores = SIMILARITIES[options.similarity].score(measures.clone(), temperature)
    if teacher_scores is not None:
        softened = teacher_scores / options.student_temperature
        scores = softened if scores is None else softened.to(scores.dtype) + options.embedding_weight * scores
    return scores


def _kept_by_target(options: SelfKDOptions, teacher_scores: Tensor, valid: Tensor) -> Tensor:
    """What the other pass gives to the target, column 0, over the words of the support: (N, 1)."""
    softened = (teacher_scores / options.student_temperature).masked_fill(~valid, -math.inf)
    return torch.softmax(softened, dim=1)[:, :1]


def shuffled_words(indices: Tensor, options: SelfKDOptions, shuffle: Optional[Shuffle]) -> Tuple[Tensor, Tensor]:
    """What the controls that shuffle make of the words of a sparse support.

    Args:
        indices: (N, K) int64, words of the support.
        options: assumed checked.
        shuffle: for the controls that shuffle, else None.

    Returns:
        (N, K) int64 each: the words whose rows of W stand for theirs (others with ``shuffled_rows``), and the words
        that get their shares (others with ``shuffled``). Column 0 is the target always.
    """
    if shuffle is None:
        return indices, indices
    if options.control == "shuffled_rows":
        return shuffle.words(indices), indices
    return indices, shuffle.words(indices, back=True)


@torch.no_grad()
def sparse_soft_targets(
    support: Support,
    options: SelfKDOptions,
    dtype: torch.dtype,
    measures: Optional[Tensor],
    temperature: Optional[Tensor],
    teacher_scores: Optional[Tensor] = None,
) -> SoftTargets:
    """Soft targets over a sparse support.

    Args:
        support: see :class:`Support`.
        options: assumed checked.
        dtype: of the result, float32 or float64.
        measures: (N, K) of the rows that :func:`shuffled_words` names and the first of them; None where W is not read.
        temperature: (), tau', above 0, of :func:`effective_temperature`; None where W is not read.
        teacher_scores: (N, K) z0 of the words of the support, for the teacher ``self``, else None.

    Returns:
        :class:`SoftTargets` of the words of the support; no gradient flows.
    """
    indices, valid = support
    scores = _scores(options, measures, temperature, teacher_scores)
    if scores is None:
        scores = torch.zeros(indices.shape, device=indices.device)
    kept = None
    if options.spares_target:
        assert teacher_scores is not None
        kept = _kept_by_target(options, teacher_scores, valid).to(dtype)
    return SoftTargets(indices, probabilities(scores.to(dtype), valid, options.min_target_prob, kept), measures, valid)


def _full_soft_targets(
    weight: Tensor,
    target: Tensor,
    options: SelfKDOptions,
    excluded: Sequence[int],
    temperature: Optional[Tensor],
    teacher_scores: Optional[Tensor],
    shuffle: Optional[Shuffle],
) -> SoftTargets:
    """Soft targets over every word: column 0 is the target, column k + 1 is word k."""
    column = target.unsqueeze(1)
    every_word = torch.arange(weight.size(0), device=target.device).expand(target.numel(), -1)
    indices, valid = make_support(target, every_word, excluded)
    measures = None
    if options.reads_embedding:
        measure = SIMILARITIES[options.similarity].measure
        measures = measure.to_every_word(weight, target).scatter_(1, column, measure.of_itself)
        if shuffle is not None and options.control == "shuffled_rows":
            measures = shuffle.columns(measures, target)
    scores = _scores(options, measures, temperature, teacher_scores)
    if scores is None:
        scores = torch.zeros(every_word.shape, device=target.device)
    scores = torch.cat([scores.gather(1, column), scores], dim=1).to(at_least_float32(weight.dtype))
    kept = None
    if options.spares_target:
        assert teacher_scores is not None
        kept = _kept_by_target(options, torch.cat([teacher_scores.gather(1, column), teacher_scores], dim=1), valid)
    probs = probabilities(scores, valid, options.min_target_prob, kept)
    if shuffle is not None and options.control == "shuffled":
        probs = torch.cat([probs[:, :1], shuffle.columns(probs[:, 1:], target)], dim=1)
    if measures is not None:
        measures = torch.cat([measures.gather(1, column), measures], dim=1)
    return SoftTargets(indices, probs, measures, valid)


@torch.no_grad()
def soft_targets(
    scores: Optional[Tensor],
    weight: Tensor,
    target: Tensor,
    options: SelfKDOptions,
    excluded: Sequence[int] = (),
    neighbours: Optional[Tensor] = None,
    generator: Optional[torch.Generator] = None,
    teacher_scores: Optional[Tensor] = None,
) -> SoftTargets:
    """Soft targets of N tokens.

    Args:
        scores: (N, V) logits or log-probabilities of the model; read by the support ``predicted`` alone.
        weight: (V, d), the output embedding matrix; float16, bfloat16, float32 or float64.
        target: (N,) int64, in [0, V).
        options: see :class:`SelfKDOptions`; assumed checked.
        excluded: word ids in [0, V) that are in no support except as the target.
        neighbours: (V, n) int64, cached result of :func:`.supports.nearest_words` for every word (support ``nearest``);
            without it the neighbours of the batch's words are computed from ``weight`` as it is now.
        generator: source of the support ``random``.
        teacher_scores: (N, V) logits or log-probabilities of the model in another pass; read by the teacher
            ``self`` alone.

    Returns:
        :class:`SoftTargets`, float32 or better; no gradient flows. With the support ``full`` K is V + 1.

    Raises:
        ValueError: the support ``predicted`` has no scores, or the teacher ``self`` none of its own.
    """
    if options.needs_teacher_pass and teacher_scores is None:
        raise ValueError("the teacher self needs the logits of another pass")
    temperature = effective_temperature(weight, options) if options.reads_embedding else None
    shuffle = make_shuffle(options, weight.size(0), excluded, weight.device)
    teacher = None
    if options.needs_teacher_pass and teacher_scores is not None:
        teacher = teacher_scores.detach().to(at_least_float32(teacher_scores.dtype))
    words_of = SUPPORTS[options.support]
    if words_of is None:
        return _full_soft_targets(weight, target, options, excluded, temperature, teacher, shuffle)
    beside_target = options.normalise == "support"
    choice = Choice(scores, weight, target, options.support_size, excluded, beside_target, neighbours, generator)
    support = make_support(target, words_of(choice), excluded)
    teacher = None if teacher is None else teacher.gather(1, support.indices)
    rows_of, shares_of = shuffled_words(support.indices, options, shuffle)
    measures = None
    if options.reads_embedding:
        measures = SIMILARITIES[options.similarity].measure.of_support(weight, rows_of)
    dtype = at_least_float32(weight.dtype)
    q = sparse_soft_targets(support, options, dtype, measures, temperature, teacher)
    return q._replace(indices=shares_of)
