"""The sentences of a split of binarised data, as batches that leave none out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable, NamedTuple

import numpy as np
from fairseq import utils
from fairseq.data import data_utils

from ..tasks.bptt_language_modeling import BPTTLanguageModelingTask
from .binarised_files import check_binarised
from .damage import one_message
from .errors import EvaluationError
from .trained_model import TrainedModel

__all__ = ["TASKS", "Split", "read_split"]

# What can be read here.
TASKS = ("translation", "language_modeling", "bptt_language_modeling")


class Split(NamedTuple):
    """A split, ready to be scored once."""

    batches: Iterable[Any]
    """fairseq's batches. In the order of their ``id``, their targets are the text from its first word to its last."""
    lengths: np.ndarray
    """(S,) integers: targets of each sentence (line) of the raw text, in its order, each with its ``</s>``."""


def read_split(
    trained: TrainedModel, data: Path, split: str, max_tokens: int | None, max_sentences: int | None
) -> Split:
    """Load a split and make its batches.

    A translation is one item of the data; a language model of the task ``language_modeling`` reads the blocks that it
    was trained with, as in fairseq-validate; one of ``bptt_language_modeling`` reads the whole split as one stream,
    as in fairseq-eval-lm with ``--batch-size 1``, so that the first token of all is not scored.

    Args:
        trained: a model and its task, one of :data:`TASKS`.
        data: the folder that the task was set up on.
        split: for example ``"test"``.
        max_tokens: most tokens in a batch, padding included; of a stream, the length of its windows.
        max_sentences: most sentences in a batch. One of the two is given.

    Returns:
        The batches, which can be read once, and the number of targets of each sentence.

    Raises:
        EvaluationError: there is nothing to score, or something that the model or a batch cannot hold.
        OSError: there is no such split.
    """
    task = trained.task
    _check_files(task, data, split)
    with one_message(f"{split} of {data} is damaged"):
        task.load_dataset(split, combine=False, epoch=1, task_cfg=trained.settings.task)
    lengths = _sentence_lengths(trained, data, split)
    if lengths.sum() < 1:
        raise EvaluationError(f"{split} of {data} is a single token: there is nothing to evaluate")
    if isinstance(task, BPTTLanguageModelingTask):
        if max_sentences not in (None, 1):
            raise EvaluationError("this language model reads the text as one stream: leave out --batch-size")
        task.cfg.tokens_per_sample = min(max_tokens or task.cfg.tokens_per_sample, int(lengths.sum()))
        max_tokens, max_sentences = None, 1
    else:
        _check_sizes(trained, split, max_tokens)
    iterator = task.get_batch_iterator(
        task.dataset(split),
        max_tokens=max_tokens,
        max_sentences=max_sentences,
        required_batch_size_multiple=1,  # with any other, fairseq 0.12.3 leaves out the end of a last batch
    )
    return Split(iterator.next_epoch_itr(shuffle=False), lengths)


def _check_files(task: Any, data: Path, split: str) -> None:
    """Raise EvaluationError if a file of the split is empty, which fairseq cannot read, or damaged."""
    files = [*data.glob(f"{split}.bin"), *data.glob(f"{split}.*.bin")]
    if any(file.stat().st_size == 0 for file in files):
        raise EvaluationError(f"{split} of {data} is empty: there is nothing to evaluate")
    source, target = (getattr(task.cfg, f"{side}_lang", None) for side in ("source", "target"))
    prefixes = {data / split: task.target_dictionary}
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        prefixes[data / f"{split}.{pair}.{source}"] = task.source_dictionary
        prefixes[data / f"{split}.{pair}.{target}"] = task.target_dictionary
    for prefix, dictionary in prefixes.items():
        if all(Path(f"{prefix}{end}").exists() for end in (".idx", ".bin")):
            check_binarised(prefix, dictionary)


def _sentence_lengths(trained: TrainedModel, data: Path, split: str) -> np.ndarray:
    settings = trained.settings.task
    if settings._name == "translation":
        lengths = trained.task.dataset(split).tgt_sizes
        if lengths is None:
            raise EvaluationError(f"{split} of {data} has no references")
        return np.array(lengths, dtype=np.int64)
    lines = data_utils.load_indexed_dataset(str(data / split), trained.task.source_dictionary, settings.dataset_impl)
    lengths = np.array(lines.sizes, dtype=np.int64)
    if isinstance(trained.task, BPTTLanguageModelingTask):
        lengths[0] -= 1
    return lengths


def _check_sizes(trained: TrainedModel, split: str, max_tokens: int | None) -> None:
    """Raise EvaluationError if an item is too long for the model or for a batch; fairseq would leave it out, or end."""
    dataset = trained.task.dataset(split)
    items = np.arange(len(dataset))
    limits = utils.resolve_max_positions(trained.task.max_positions(), trained.model.max_positions())
    _, too_long = dataset.filter_indices_by_size(items, limits)
    if too_long:
        raise EvaluationError(f"item {too_long[0]} of {split} is longer than the model's {limits} positions")
    longest = int(dataset.num_tokens_vec(items).max())
    if max_tokens is not None and longest > max_tokens:
        raise EvaluationError(f"{split} has a sentence of {longest} tokens: give --max-tokens {longest} or more")
