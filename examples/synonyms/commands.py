"""The fairseq command lines of the demo: one recipe for every system, only the criterion's flags differ."""

import shlex
from pathlib import Path
from typing import Dict, List, NamedTuple

__all__ = ["FULL", "QUICK", "SYSTEMS", "Folders", "Settings", "as_shell", "generate", "preprocess", "train"]


class Settings(NamedTuple):
    """Sizes of the corpus (sentence pairs) and of the runs."""

    train_pairs: int
    valid_pairs: int
    test_pairs: int
    epochs: int
    layers: int
    width: int
    beam: int
    skd_warmup_updates: int


FULL = Settings(
    train_pairs=3000, valid_pairs=500, test_pairs=500, epochs=25, layers=2, width=64, beam=5, skd_warmup_updates=400
)
# only proves that every step runs: nothing is learnt
QUICK = Settings(
    train_pairs=200, valid_pairs=40, test_pairs=30, epochs=2, layers=1, width=16, beam=2, skd_warmup_updates=4
)


def criterion_flags(settings: Settings) -> Dict[str, List[str]]:
    """System name -> its criterion's flags. self_kd has no label smoothing, so that its effect is seen alone.

    self_kd_shuffled is its control: the same soft targets with the rows of the matrix in another order, fixed.
    """
    self_kd = [
        "--criterion", "self_kd", "--label-smoothing", "0", "--skd-alpha", "0.5",
        "--skd-warmup-updates", str(settings.skd_warmup_updates),
    ]  # fmt: skip
    return {
        "cross_entropy": ["--criterion", "cross_entropy"],
        "label_smoothing": ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"],
        "self_kd": self_kd,
        "self_kd_shuffled": [*self_kd, "--skd-control", "shuffled_rows"],
    }


SYSTEMS = tuple(criterion_flags(FULL))


# Without it fairseq leaves out the last batch (the longest sentences) unless its size is a multiple of 8 (issue 5036).
EVERY_SENTENCE = ("--required-batch-size-multiple", "1")


class Folders:
    """Where everything lies below the output folder.

    Args:
        output: the output folder, absolute, so that commands mean the same from anywhere.
    """

    def __init__(self, output: Path):
        self.output = output
        self.corpus = output / "corpus"
        self.data = output / "bin"

    def run(self, system: str) -> Path:
        """Checkpoints, log and translations of a system."""
        return self.output / "runs" / system

    def checkpoint(self, system: str) -> Path:
        """The checkpoint with the lowest validation perplexity."""
        return self.run(system) / "checkpoint_best.pt"

    def log(self, system: str) -> Path:
        """The training log, JSON."""
        return self.run(system) / "log.json"

    def generated(self, system: str) -> Path:
        """What fairseq-generate printed."""
        return self.run(system) / "generate.out"


def preprocess(folders: Folders) -> List[str]:
    """Binarise the corpus. The target dictionary is the grammar's own vocabulary."""
    splits = [(f"--{split}pref", str(folders.corpus / split)) for split in ("train", "valid", "test")]
    return [
        "fairseq-preprocess", "--source-lang", "en", "--target-lang", "de",
        *(argument for split in splits for argument in split),
        "--tgtdict", str(folders.corpus / "dict.de.txt"), "--destdir", str(folders.data),
    ]  # fmt: skip


def train(system: str, folders: Folders, settings: Settings, seed: int, extra_flags: List[str]) -> List[str]:
    """Train a system. The best checkpoint is chosen by ppl, which means the same for every criterion."""
    width, ffn_width = str(settings.width), str(2 * settings.width)
    return [
        "fairseq-train", str(folders.data), "--user-dir", "selfkd_fairseq",
        *criterion_flags(settings)[system], *extra_flags,
        "--arch", "transformer", "--encoder-layers", str(settings.layers), "--decoder-layers", str(settings.layers),
        "--encoder-embed-dim", width, "--decoder-embed-dim", width,
        "--encoder-ffn-embed-dim", ffn_width, "--decoder-ffn-embed-dim", ffn_width,
        "--encoder-attention-heads", "4", "--decoder-attention-heads", "4",
        "--share-decoder-input-output-embed", "--dropout", "0.1",
        "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1",
        "--lr", "0.004", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "200",
        "--max-tokens", "1024", *EVERY_SENTENCE, "--max-epoch", str(settings.epochs), "--seed", str(seed),
        "--cpu", "--num-workers", "0",
        "--best-checkpoint-metric", "ppl", "--no-epoch-checkpoints", "--save-dir", str(folders.run(system)),
        "--log-format", "json", "--log-interval", "20", "--log-file", str(folders.log(system)),
    ]  # fmt: skip


def generate(system: str, folders: Folders, settings: Settings) -> List[str]:
    """Translate the test set with beam search."""
    return [
        "fairseq-generate", str(folders.data), "--user-dir", "selfkd_fairseq",
        "--path", str(folders.checkpoint(system)), "--gen-subset", "test", "--beam", str(settings.beam),
        "--max-tokens", "1024", *EVERY_SENTENCE, "--cpu", "--num-workers", "0",
    ]  # fmt: skip


def as_shell(command: List[str], output: Path) -> str:
    """The command as a line for a shell that runs in the checkout, its output sent to a file."""
    return f"OMP_NUM_THREADS=1 {shlex.join(command)} > {shlex.quote(str(output))} 2>&1"
