"""Read a trained model's own next-word distribution and score it against the truth."""

import logging
import math
from pathlib import Path
from typing import Dict, List, Sequence

import torch
from fairseq import checkpoint_utils

from selfkd_fairseq import register
from selfkd_fairseq.common.quiet import quiet

from .corpus import Pair
from .distribution import END_OF_SENTENCE, Measurement, PositionScore, average, next_word_distributions, score_position
from .grammar import translations

register()  # the models, and what torch's safe mode must take to load fairseq's checkpoints
# importing fairseq sets the root logger to DEBUG, which makes other libraries print
logging.getLogger().setLevel(logging.WARNING)

__all__ = ["measure_checkpoint", "measure_truth", "true_distributions"]


def true_distributions(pairs: Sequence[Pair]) -> List[List[Dict[str, float]]]:
    """For each pair, the true next-word distribution at each position of its target."""
    return [next_word_distributions(translations(pair.meaning), pair.target) for pair in pairs]


def measure_truth(pairs: Sequence[Pair], truth: Sequence[Sequence[Dict[str, float]]]) -> Measurement:
    """What a perfect model would score: the truth in the place of the model."""
    scores: List[PositionScore] = []
    for pair, distributions in zip(pairs, truth):
        for word, distribution in zip((*pair.target, END_OF_SENTENCE), distributions):
            logarithms = {w: math.log(p) for w, p in distribution.items()}
            scores.append(score_position(distribution, logarithms, word))
    return average(scores)


@quiet()
def measure_checkpoint(
    checkpoint: Path,
    data: Path,
    pairs: Sequence[Pair],
    truth: Sequence[Sequence[Dict[str, float]]],
    batch_size: int = 50,
) -> Measurement:
    """Score the model of a checkpoint along the targets of the pairs, in evaluation mode on the CPU.

    Args:
        checkpoint: a fairseq checkpoint of a translation model.
        data: the binarised corpus (its dictionaries are used).
        pairs: sources and targets.
        truth: :func:`true_distributions` of the pairs.
        batch_size: sentences scored at once.

    Raises:
        ValueError: a correct word is missing from the model's dictionary.
    """
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    model = models[0].eval()
    scores: List[PositionScore] = []
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        lprobs = _log_probabilities(model, task, batch)  # (B, T, V)
        for pair, rows, distributions in zip(batch, lprobs, truth[start : start + batch_size]):
            for word, row, distribution in zip((*pair.target, END_OF_SENTENCE), rows, distributions):
                indices = {w: _index(task.target_dictionary, w) for w in distribution}
                scores.append(score_position(distribution, {w: float(row[i]) for w, i in indices.items()}, word))
    return average(scores)


def _index(dictionary, word: str) -> int:
    if word == END_OF_SENTENCE:
        return dictionary.eos()
    index = dictionary.index(word)
    if index == dictionary.unk():
        raise ValueError(f"the target dictionary has no {word!r}, which is a correct word")
    return index


@torch.no_grad()
def _log_probabilities(model, task, pairs: Sequence[Pair]) -> torch.Tensor:
    """Log-probabilities (B, T, V) in nats, float64, of the next word at each position of the targets."""
    source_dictionary, target_dictionary = task.source_dictionary, task.target_dictionary
    sources = [[source_dictionary.index(word) for word in pair.source] + [source_dictionary.eos()] for pair in pairs]
    # as in training, the decoder starts from the end-of-sentence symbol
    prefixes = [[target_dictionary.eos()] + [target_dictionary.index(word) for word in pair.target] for pair in pairs]
    lengths = torch.tensor([len(source) for source in sources])
    net_output = model(
        # fairseq pads sources on the left
        src_tokens=_pad(sources, source_dictionary.pad(), left=True),
        src_lengths=lengths,
        prev_output_tokens=_pad(prefixes, target_dictionary.pad(), left=False),
    )
    return torch.log_softmax(net_output[0].double(), dim=-1)


def _pad(rows: Sequence[Sequence[int]], padding: int, left: bool) -> torch.Tensor:
    width = max(len(row) for row in rows)
    result = torch.full((len(rows), width), padding)
    for padded, row in zip(result, rows):
        span = slice(width - len(row), None) if left else slice(len(row))
        padded[span] = torch.tensor(row)
    return result
