"""Whole training steps through fairseq's own Trainer."""

import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.trainer import Trainer

from .fairseq_trainer import build_trainer
from .zipf import zipf_words

__all__ = ["ARCHITECTURES", "CRITERIONS", "architectures", "training_steps"]

# architecture -> size of the vocabulary and batch (sentences, tokens a sentence): about 3,500 target tokens
ARCHITECTURES = {
    "transformer_multi30k": (9708, 250, 14),
    "transformer_selfkd_iwslt": (9996, 140, 25),
    "transformer_selfkd_wmt_big": (32000, 128, 28),
}
_ONLY_ON_GPUS = {"transformer_selfkd_wmt_big"}  # a CPU takes a minute for an update
CRITERIONS = {
    "label_smoothed_cross_entropy": ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"],
    "R-Drop": [
        "--criterion", "label_smoothed_cross_entropy_with_rdrop", "--label-smoothing", "0.1", "--rdrop-alpha", "1"
    ],
    **{
        f"self_kd {name}": [
            "--criterion", "self_kd", "--label-smoothing", "0.1", "--skd-alpha", "0.5", "--skd-warmup-updates", "0",
            *flags,
        ]
        for name, flags in (
            ("both passes", ["--skd-teacher-mode", "both"]),  # the default
            ("both passes, gate others", ["--skd-gate", "others"]),
            ("both passes without the matrix", ["--skd-embedding-weight", "0"]),
            ("before its start", ["--skd-start-update", "1000000"]),
            ("self and cosine", ["--skd-teacher-mode", "train"]),
            ("self", ["--skd-teacher-mode", "train", "--skd-embedding-weight", "0"]),
            ("predicted", ["--skd-teacher", "embedding"]),
            (
                "within the support, predicted 4",
                [
                    "--skd-teacher", "embedding", "--skd-normalise", "support", "--skd-support-size", "4",
                    "--skd-similarity", "gaussian",
                ],
            ),
            ("nearest", ["--skd-teacher", "embedding", "--skd-support", "nearest", "--skd-support-size", "16"]),
            ("full", ["--skd-teacher", "embedding", "--skd-support", "full"]),
        )
    },
}  # fmt: skip


def architectures(device: torch.device) -> List[str]:
    """Those that are measured.

    Args:
        device: to train on.

    Returns:
        Keys of :data:`ARCHITECTURES`.
    """
    return [arch for arch in ARCHITECTURES if device.type == "cuda" or arch not in _ONLY_ON_GPUS]


def _criterions(device: torch.device) -> Dict[str, List[str]]:
    """On a GPU, where those of ``self_kd`` are compiled, eagerly too."""
    if device.type != "cuda":
        return CRITERIONS
    ours = {name: flags for name, flags in CRITERIONS.items() if name.startswith("self_kd")}
    eager = {f"{name}, eager": [*flags, "--skd-implementation", "fused"] for name, flags in ours.items()}
    return {**CRITERIONS, **eager}


def _sample(dictionary: Dictionary, sentences: int, length: int) -> Dict[str, Any]:
    """A batch of sentences of words drawn by Zipf's law, as fairseq's own collater makes it."""
    words = len(dictionary) - dictionary.nspecial
    draw = zipf_words(words, sentences * (length - 1), torch.Generator().manual_seed(1))
    text = draw.view(sentences, length - 1) + dictionary.nspecial
    text = [torch.cat([row, torch.tensor([dictionary.eos()])]) for row in text]
    sizes = [length] * sentences
    dataset = LanguagePairDataset(text, sizes, dictionary, text, sizes, dictionary)
    batch: Dict[str, Any] = dataset.collater([dataset[i] for i in range(sentences)])
    return batch


def _trainer(arch: str, vocabulary: int, flags: List[str], device: torch.device, dtype: torch.dtype) -> Trainer:
    with tempfile.TemporaryDirectory() as folder:
        for language in ("en", "de"):
            lines = "".join(f"w{i} {vocabulary - i}\n" for i in range(vocabulary))
            (Path(folder) / f"dict.{language}.txt").write_text(lines)
        arguments = [
            folder, "--source-lang", "en", "--target-lang", "de", "--arch", arch, "--share-all-embeddings",
            "--optimizer", "adam", "--lr", "1e-4", "--max-tokens", "4096", *flags,
        ]  # fmt: skip
        return build_trainer(arguments, device, dtype)


def training_steps(
    arch: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> Dict[str, Callable[[], None]]:
    """Whole updates, one for each criterion: forward, backward, clipping and the step of Adam.

    Args:
        arch: one of :data:`ARCHITECTURES`.
        device: to train on.
        dtype: float32, float16 or bfloat16.

    Returns:
        Name of the criterion -> a function that does one update on the same batch.
    """
    vocabulary, sentences, length = ARCHITECTURES[arch]
    work: Dict[str, Callable[[], None]] = {}
    for name, flags in _criterions(device).items():
        trainer = _trainer(arch, vocabulary, flags, device, dtype)
        sample = _sample(trainer.task.target_dictionary, sentences, length)
        trainer.reset_dummy_batch(sample)

        def step(trainer: Trainer = trainer, sample: Dict[str, Any] = sample) -> None:
            trainer.train_step([sample])

        work[name] = step
    return work
