"""Training epochs of the LSTM language models: fairseq's own training loop against a loop of plain PyTorch."""

import functools
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Tuple

import numpy as np
import torch
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from torch import Tensor, nn

from ..tasks.stream_windows import TokenStream
from .bare_lstm import BareAWDLSTM, BareLoop, BareZaremba
from .fairseq_trainer import build_trainer
from .zipf import zipf_words

__all__ = ["BARE", "CRITERIONS", "RECIPES", "Recipe", "bare_loop", "epochs", "language_model_trainer", "train_epoch"]

BARE = "bare PyTorch loop"
NSPECIAL = 4  # words of every fairseq dictionary: <s>, <pad>, </s>, <unk>
CRITERIONS = {
    "cross_entropy": ["--criterion", "cross_entropy"],
    **{
        f"self_kd {support}": [
            "--criterion", "self_kd", "--skd-alpha", "0.1", "--skd-warmup-updates", "0", "--skd-teacher", "embedding",
            "--skd-support", support, "--skd-temperature", temperature,
        ]
        for support, temperature in (("predicted", "1"), ("full", "0.25"))
    },
    "self_kd both passes": ["--criterion", "self_kd", "--skd-alpha", "0.2", "--skd-warmup-updates", "0"],  # the default
}  # fmt: skip


class Recipe(NamedTuple):
    """A model and how it is trained (examples/language_model/ptb), with plain SGD and windows of one length.

    Attributes:
        bare: makes the bare model; its parameters have the order and the shapes of the fairseq model's.
        flags: of the fairseq model, beside those that follow.
        batch: streams.
        window: time steps.
        windows: of an epoch to time; an epoch of the corpus has more, the cost per window is the same.
        per_stream: see :class:`BareLoop`; for fairseq it is --sentence-avg.
        lr: learning rate.
        clip_norm: largest norm of the gradient.
        weight_decay: of SGD.
        vocabulary: V words, the special ones included.
    """

    bare: Callable[[int], nn.Module]
    flags: List[str]
    batch: int
    window: int
    windows: int
    per_stream: bool
    lr: float
    clip_norm: float
    weight_decay: float = 0.0
    vocabulary: int = 10002  # of the Penn Treebank


RECIPES = {
    "zaremba_small": Recipe(
        lambda vocabulary: BareZaremba(vocabulary, 200, 2, 0.0),
        ["--arch", "lstm_lm_zaremba_small"],
        batch=20, window=20, windows=20, per_stream=True, lr=1.0, clip_norm=5.0,
    ),
    "tied_small": Recipe(
        lambda vocabulary: BareZaremba(vocabulary, 200, 2, 0.5, tied=True),
        ["--arch", "lstm_lm_zaremba_small", "--share-decoder-input-output-embed", "--dropout", "0.5"],
        batch=20, window=35, windows=10, per_stream=True, lr=1.0, clip_norm=5.0,
    ),
    "zaremba_medium": Recipe(
        lambda vocabulary: BareZaremba(vocabulary, 650, 2, 0.5),
        ["--arch", "lstm_lm_zaremba_medium"],
        batch=20, window=35, windows=5, per_stream=True, lr=1.0, clip_norm=5.0,
    ),
    "awd_lstm_ptb": Recipe(
        lambda vocabulary: BareAWDLSTM(vocabulary, 400, 1150, 3),
        ["--arch", "awd_lstm_ptb"],
        batch=20, window=70, windows=2, per_stream=False, lr=30.0, clip_norm=0.25, weight_decay=1.2e-6,
    ),
}  # fmt: skip


def zipf_text(recipe: Recipe) -> Tensor:
    """The text of one epoch: words drawn by Zipf's law (the word of rank r: 1 / r), of a fixed seed.

    Args:
        recipe: says how many words, and of what vocabulary.

    Returns:
        (S + 1,) int64 on the CPU, in [4, V): no special words; S = batch * window * windows.
    """
    count = recipe.batch * recipe.window * recipe.windows + 1
    return zipf_words(recipe.vocabulary - NSPECIAL, count, torch.Generator().manual_seed(1)) + NSPECIAL


def language_model_trainer(recipe: Recipe, criterion: List[str], text: Tensor, device: torch.device) -> Trainer:
    """Trainer of fairseq for the task ``bptt_language_modeling`` with the text as its training split.

    Args:
        recipe: what to train.
        criterion: flags of the criterion.
        text: (S + 1,) int64 on the CPU, V at most 65,536; see :func:`zipf_text`.
        device: to train on.

    Returns:
        The trainer, before its first update.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = range(recipe.vocabulary - NSPECIAL)
        (Path(folder) / "dict.txt").write_text("".join(f"w{i} {recipe.vocabulary - i}\n" for i in words))
        arguments = [
            folder, "--task", "bptt_language_modeling", *recipe.flags, *criterion, "--tokens-per-sample",
            recipe.window, "--batch-size", recipe.batch, "--optimizer", "sgd", "--lr", recipe.lr, "--lr-scheduler",
            "fixed", "--weight-decay", recipe.weight_decay, "--clip-norm", recipe.clip_norm, "--num-workers", 0,
            "--no-save", "--disable-validation", "--log-format", "json", "--log-interval", 500,
            *(["--sentence-avg"] if recipe.per_stream else []),
        ]  # fmt: skip
        trainer = build_trainer([str(argument) for argument in arguments], device)
    trainer.task.datasets["train"] = TokenStream(text.numpy().astype(np.uint16))
    return trainer


def train_epoch(trainer: Trainer) -> None:
    """The next epoch, by ``fairseq-train``'s own function: iterator, updates, meters and log lines.

    Args:
        trainer: of :func:`language_model_trainer`; its model and optimizer go on, its streams start from zeros.
    """
    from fairseq_cli.train import train  # here, because importing it sets up the root logger

    metrics.reset()  # the meters are global: those of another run may be there
    metrics.log_start_time("wall", priority=790, round=2)
    itr = trainer.get_train_iterator(epoch=1, load_dataset=False)
    train(trainer.cfg, trainer, trainer.task, itr)


def bare_loop(recipe: Recipe, model: nn.Module, text: Tensor, device: torch.device) -> BareLoop:
    """The bare loop on the same text, from the same weights.

    Args:
        recipe: what to train.
        model: of fairseq; its weights are copied.
        text: (S + 1,) int64, S a multiple of batch * window; see :func:`zipf_text`.
        device: to train on.

    Returns:
        The loop, before its first epoch.
    """
    bare = recipe.bare(recipe.vocabulary)
    weights = list(model.parameters())
    bare.to(device, weights[0].dtype)
    with torch.no_grad():
        for own, other in zip(bare.parameters(), weights):
            own.copy_(other)
    inputs, last = text[:-1].view(recipe.batch, -1), text[1:].view(recipe.batch, -1)[:, -1:]
    return BareLoop(
        bare, torch.cat([inputs, last], dim=1).t().contiguous().to(device), recipe.window,
        per_stream=recipe.per_stream, lr=recipe.lr, clip_norm=recipe.clip_norm, weight_decay=recipe.weight_decay,
    )  # fmt: skip


def epochs(recipe: Recipe, device: torch.device) -> Tuple[Dict[str, Callable[[], object]], int]:
    """The pieces of work to time: the bare loop, then each criterion through fairseq.

    Args:
        recipe: what to train; every piece starts from the same weights.
        device: to train on.

    Returns:
        (name -> a function that trains one epoch, number of target tokens in an epoch)
    """
    text = zipf_text(recipe)
    trainers = {name: language_model_trainer(recipe, flags, text, device) for name, flags in CRITERIONS.items()}
    bare = bare_loop(recipe, trainers["cross_entropy"].model, text, device)
    work: Dict[str, Callable[[], object]] = {BARE: bare.epoch}
    for name, trainer in trainers.items():
        work[name] = functools.partial(train_epoch, trainer)
    return work, len(text) - 1
