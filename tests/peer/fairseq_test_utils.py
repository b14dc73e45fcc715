"""What fairseq's tests import from ``tests.utils``, a module that fairseq's source package leaves out.

setuptools packs ``tests/test*.py`` and no other file of that folder. ``scripts/test_fairseq.sh`` puts this module in
the gap; names, arguments and behaviour are those that the tests rely on, the code is this project's own.
"""

from __future__ import annotations

import io
import random
import unittest
import unittest.mock
from argparse import Namespace
from pathlib import Path
from typing import Any, Iterator, Sequence

import torch
from fairseq import options
from fairseq.data import Dictionary
from fairseq.data.language_pair_dataset import collate
from fairseq.models import FairseqEncoder, FairseqEncoderDecoderModel, FairseqIncrementalDecoder
from fairseq.tasks import LegacyFairseqTask
from fairseq_cli import generate, interactive, preprocess, train, validate
from torch import Tensor
from torch.nn import functional as F

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TRAINING_FLAGS: list[str] = []  # in front of the flags of each test that trains


# ---- corpora and command lines, for the tests that train


def create_dummy_data(data_dir: str, num_examples: int = 100, maxlen: int = 20, alignment: bool = False) -> None:
    """Write train, valid and test as lines of random letters, .in and .out, and if asked for word alignments."""
    for seed, split in enumerate(("train", "valid", "test")):
        draw = random.Random(seed)
        # Every length equally often: test_max_positions keeps short sentences, fairseq 0.12.3 no batch of fewer than 8.
        lengths = [1 + i % maxlen for i in range(num_examples)]
        pairs = [[draw.choices(LETTERS, k=k) for k in (draw.randint(1, maxlen), length)] for length in lengths]
        folder = Path(data_dir)
        (folder / f"{split}.in").write_text("".join(" ".join(source) + "\n" for source, _ in pairs))
        (folder / f"{split}.out").write_text("".join(" ".join(target) + "\n" for _, target in pairs))
        if alignment:
            links = [
                " ".join(f"{draw.randrange(len(source))}-{i}" for i in range(len(target))) for source, target in pairs
            ]
            (folder / f"{split}.align").write_text("".join(line + "\n" for line in links))


def _splits(data_dir: str, suffix: str = "") -> list[str]:
    return [flag for s in ("train", "valid", "test") for flag in (f"--{s}pref", f"{data_dir}/{s}{suffix}")]


def _preprocess(data_dir: str, flags: Sequence[str]) -> None:
    preprocess.main(options.get_preprocessing_parser().parse_args(["--destdir", data_dir, *flags]))


def preprocess_translation_data(data_dir: str, extra_flags: Sequence[str] | None = None) -> None:
    _preprocess(data_dir, ["--source-lang", "in", "--target-lang", "out", *_splits(data_dir), *(extra_flags or [])])


def preprocess_lm_data(data_dir: str) -> None:
    _preprocess(data_dir, ["--only-source", *_splits(data_dir, ".out")])


def preprocess_summarization_data(data_dir: str, extra_flags: Sequence[str] | None = None) -> None:
    raise unittest.SkipTest("summarisation data is not restated here")


def create_laser_data_and_config_json(data_dir: str) -> Any:
    raise unittest.SkipTest("the data of examples/laser is not restated here")


def _train(data_dir: str, arch: str, task: str, flags: Sequence[str]) -> None:
    settings = ["--max-tokens", "500", "--max-epoch", "1", "--num-workers", "0", "--no-progress-bar"]
    settings += ["--optimizer", "adam", "--lr", "0.001", "--distributed-world-size", "1"]
    settings += ["--ddp-backend", "legacy_ddp", *TRAINING_FLAGS]  # the adaptive softmax takes no other
    command = [data_dir, "--task", task, "--arch", arch, "--save-dir", data_dir, *settings, *flags]
    train.main(options.parse_args_and_arch(options.get_training_parser(), command))


def _validate(data_dir: str, task: str, flags: Sequence[str]) -> None:
    path = f"{data_dir}/checkpoint_last.pt"
    settings = ["--valid-subset", "valid", "--max-tokens", "500", "--num-workers", "0", "--no-progress-bar"]
    command = [data_dir, "--task", task, "--path", path, *settings, *flags]
    validate.main(options.parse_args_and_arch(options.get_validation_parser(), command))


def train_translation_model(
    data_dir: str,
    arch: str,
    extra_flags: Sequence[str] | None = None,
    task: str = "translation",
    run_validation: bool = False,
    lang_flags: Sequence[str] | None = None,
    extra_valid_flags: Sequence[str] | None = None,
) -> None:
    """One epoch of ``fairseq-train``, then if asked for ``fairseq-validate``."""
    languages = ["--source-lang", "in", "--target-lang", "out"] if lang_flags is None else list(lang_flags)
    _train(data_dir, arch, task, [*languages, *(extra_flags or [])])
    if run_validation:
        _validate(data_dir, task, [*languages, *(extra_valid_flags or [])])


def train_language_model(
    data_dir: str,
    arch: str,
    extra_flags: Sequence[str] | None = None,
    run_validation: bool = False,
    extra_valid_flags: Sequence[str] | None = None,
    task: str = "language_modeling",
) -> None:
    """One epoch of ``fairseq-train``, then if asked for ``fairseq-validate``."""
    _train(data_dir, arch, task, ["--tokens-per-sample", "500", *(extra_flags or [])])
    if run_validation:
        _validate(data_dir, task, extra_valid_flags or [])


def generate_main(data_dir: str, extra_flags: Sequence[str] | None = None, path: str | None = None) -> None:
    """``fairseq-generate`` on the validation split, then ``fairseq-interactive`` on one line of input."""
    flags = ["--print-alignment"] if extra_flags is None else list(extra_flags)
    path = path or f"{data_dir}/checkpoint_last.pt"
    settings = ["--gen-subset", "valid", "--beam", "3", "--batch-size", "64", "--max-len-b", "5", "--no-progress-bar"]
    command = [data_dir, "--path", path, *settings, "--num-workers", "0", *flags]
    args = options.parse_args_and_arch(options.get_generation_parser(), command)
    generate.main(args)
    args.buffer_size, args.input, args.batch_size = 0, "-", None
    with unittest.mock.patch("sys.stdin", io.StringIO("w o r d s\n")):
        interactive.main(args)


# ---- a model whose probabilities the test dictates, for the tests of search and of criterions


def dummy_dictionary(vocab_size: int, prefix: str = "token_") -> Dictionary:
    """fairseq's four special symbols and ``vocab_size`` words."""
    dictionary = Dictionary()
    for number in range(vocab_size):
        dictionary.add_symbol(f"{prefix}{number}")
    dictionary.finalize(padding_factor=1)
    return dictionary


class TestDataset(torch.utils.data.Dataset[Any]):
    __test__ = False  # the name is the tests' choice; pytest is not to collect it
    sizes = None

    def __init__(self, data: Sequence[Any]) -> None:
        self.data = data

    def __getitem__(self, index: int) -> Any:
        return self.data[index]

    def __len__(self) -> int:
        return len(self.data)


def dummy_dataloader(
    samples: Sequence[dict[str, Any]], padding_idx: int = 1, eos_idx: int = 2, batch_size: int | None = None
) -> Iterator[dict[str, Any]]:
    """Batches of sentence pairs, collated as fairseq's translation task does; by default a single one."""
    numbered = [{"id": number, **sample} for number, sample in enumerate(samples)]
    return iter(
        torch.utils.data.DataLoader(
            TestDataset(numbered),
            batch_size=batch_size or len(numbered),
            collate_fn=lambda chosen: collate(chosen, padding_idx, eos_idx),
        )
    )


class Encoder(FairseqEncoder):
    """The source tokens (B, S) themselves."""

    def __init__(self, args: Namespace, dictionary: Dictionary) -> None:
        super().__init__(dictionary)
        self.args = args

    def forward(self, src_tokens: Tensor, src_lengths: Tensor | None = None, **kwargs: Any) -> Tensor:
        return src_tokens

    def reorder_encoder_out(self, encoder_out: Tensor, new_order: Tensor) -> Tensor:
        return encoder_out.index_select(0, new_order)


class HalvingEncoder(Encoder):
    """The source tokens two by two, (B, ceil(S / 2), 2): an output of another length than the source."""

    def forward(self, src_tokens: Tensor, src_lengths: Tensor | None = None, **kwargs: Any) -> Tensor:
        return F.pad(src_tokens, (0, src_tokens.size(1) % 2)).view(src_tokens.size(0), -1, 2)


class DemandingEncoder(Encoder):
    """Cannot do without a further argument."""

    def forward(self, src_tokens: Tensor, src_lengths: Tensor | None = None, **kwargs: Any) -> Tensor:
        assert kwargs["fancy_other_input"] is not None
        return src_tokens


class Decoder(FairseqIncrementalDecoder):
    """Gives the probabilities that ``args`` dictates, whatever the prefix is.

    They are ``args.probs`` (B, T, V), or ``args.beam_probs``, for each step a tensor (beams, V - eos) of the
    probabilities from the end of sentence on; after the last step every sentence ends.
    """

    def __init__(self, args: Namespace, dictionary: Dictionary) -> None:
        super().__init__(dictionary)
        self.args = args

    def forward(
        self, prev_output_tokens: Tensor, encoder_out: Tensor, incremental_state: Any = None, **kwargs: Any
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        size, length = prev_output_tokens.shape
        steps = range(length) if incremental_state is None else [length - 1]
        if hasattr(self.args, "probs"):
            output = self.args.probs[:, list(steps)]
        else:
            output = torch.stack([self._probabilities(step, size) for step in steps], dim=1)
        return output, {"attn": [torch.rand(size, len(steps), encoder_out.size(1))]}

    def _probabilities(self, step: int, size: int) -> Tensor:
        eos = self.dictionary.eos()
        probabilities = torch.zeros(size, len(self.dictionary))
        if step < len(self.args.beam_probs):
            probabilities[:, eos:] = self.args.beam_probs[step]
        else:
            probabilities[:, eos] = 1.0
        return probabilities

    def get_normalized_probs(self, net_output: Any, log_probs: bool, sample: Any = None) -> Tensor:
        probabilities: Tensor = net_output[0]
        return probabilities.log() if log_probs else probabilities

    def max_positions(self) -> int:
        return getattr(self.args, "max_decoder_positions", 100)


class _Model(FairseqEncoderDecoderModel):
    encoder_class = Encoder

    @classmethod
    def build_model(cls, args: Namespace, task: LegacyFairseqTask) -> _Model:
        return cls(cls.encoder_class(args, task.source_dictionary), Decoder(args, task.target_dictionary))


class TestReshapingModel(_Model):
    __test__ = False
    encoder_class = HalvingEncoder


class TestAdditionalInputModel(_Model):
    __test__ = False
    encoder_class = DemandingEncoder


class TestTranslationTask(LegacyFairseqTask):
    __test__ = False

    def __init__(self, args: Namespace, src_dict: Dictionary, tgt_dict: Dictionary) -> None:
        super().__init__(args)
        self.source, self.target = src_dict, tgt_dict

    @classmethod
    def setup_task(cls, args: Namespace, src_dict: Dictionary, tgt_dict: Dictionary) -> TestTranslationTask:
        return cls(args, src_dict, tgt_dict)

    def build_model(self, args: Namespace) -> _Model:
        return _Model.build_model(args, self)

    @property
    def source_dictionary(self) -> Dictionary:
        return self.source

    @property
    def target_dictionary(self) -> Dictionary:
        return self.target


def sequence_generator_setup() -> tuple[Dictionary, int, int, Tensor, Tensor, FairseqEncoderDecoderModel]:
    """Two sentences for a beam of two, made so that the best hypotheses are those that the tests expect.

    Returns:
        (dictionary, first word, second word, source tokens (2, 3), source lengths (2,), model)
    """
    dictionary = dummy_dictionary(vocab_size=2)
    eos, w1, w2 = dictionary.eos(), 4, 5
    steps = [  # per step, for both beams of sentence 1, then of sentence 2: end of sentence, unknown, w1, w2
        [[0, 0, 0.9, 0.1], [0, 0, 0.9, 0.1], [0, 0, 0.7, 0.3], [0, 0, 0.7, 0.3]],
        # prefixes: w1; w2                   w1; w2
        [[1, 0, 0, 0], [0, 0, 0.9, 0.1], [0.3, 0, 0.3, 0.4], [0, 0, 0.1, 0.9]],
        # prefixes: w2 w1; w2 w2             w1 w2; w2 w2
        [[0, 0, 0.1, 0.9], [0.6, 0, 0.2, 0.2], [0.6, 0, 0.4, 0], [0.01, 0, 0, 0.99]],
        # prefixes: w2 w1 w2; w2 w1 w1       w2 w2 w2; w1 w2 w1
        [[1, 0, 0, 0], [0, 0, 0.5, 0.5], [0.1, 0, 0.6, 0.3], [1, 0, 0, 0]],
    ]
    args = Namespace(beam_probs=[torch.tensor(step, dtype=torch.float) for step in steps])
    model = TestTranslationTask.setup_task(args, dictionary, dictionary).build_model(args)
    source = torch.tensor([[w1, w2, eos]] * 2)
    return dictionary, w1, w2, source, torch.tensor([2, 2]), model
