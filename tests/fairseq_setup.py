"""Toy corpora and real fairseq objects for tests."""

import copy
import functools
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests import forked

ROOT = Path(__file__).resolve().parent.parent
LONG = os.environ.get("SELFKD_LONG_TESTS") == "1"  # kills, fuzzing and sweeps at length
SPLITS = {"train": 200, "valid": 24, "test": 12}
# Tensors of a Transformer that fairseq 0.12.2 alone has: a buffer that is never set, and an encoder layer's parameters
# once more for its fused form. Nothing of the model's own.
ONLY_OF_0_12_2 = re.compile(r"\._float_tensor$|\.((in|out)_proj|fc[12])_(weight|bias)$")


def own_tensors(model):
    """The tensors of a model's state, {name: tensor}, but for those that fairseq 0.12.2 alone has."""
    return {name: tensor for name, tensor in model.items() if not ONLY_OF_0_12_2.search(name)}


def command(name):
    """The console command of the environment that runs the tests, as a user would call it."""
    path = shutil.which(name, path=str(Path(sys.executable).parent))
    assert path is not None, f"{name} is not installed beside {sys.executable}"
    return path


def run(name, *arguments, cwd=ROOT, check=True, stdin=None):
    """Run a console command; on an unexpected failure show the end of what it printed."""
    done = subprocess.run(
        [command(name), *map(str, arguments)], cwd=cwd, input=stdin, text=True, capture_output=True, check=False
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{name} failed with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def free_port():
    """A port of this machine that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def two_workers():
    """For each of two data-parallel CPU workers, the flags of fairseq-train that make it one."""
    flags = [
        "--distributed-world-size", "2", "--distributed-backend", "gloo", "--distributed-no-spawn",
        "--distributed-init-method", f"tcp://127.0.0.1:{free_port()}", "--device-id", "0",
        "--ddp-backend", "legacy_ddp",
    ]  # fmt: skip
    return [[*flags, "--distributed-rank", str(rank)] for rank in (0, 1)]


def _sentences(count, seed):
    rng = random.Random(seed)
    return [[rng.randrange(30) for _ in range(rng.randint(3, 9))] for _ in range(count)]


def write_translation(folder):
    """Text of a toy task: the target is the source in another alphabet, reversed."""
    for seed, (split, count) in enumerate(SPLITS.items()):
        sentences = _sentences(count, seed)
        source = "".join(" ".join(f"s{w}" for w in s) + "\n" for s in sentences)
        target = "".join(" ".join(f"t{w}" for w in reversed(s)) + "\n" for s in sentences)
        (folder / f"{split}.src").write_text(source)
        (folder / f"{split}.tgt").write_text(target)


def binarise_translation(folder):
    write_translation(folder)
    forked.run(
        "fairseq-preprocess", "--source-lang", "src", "--target-lang", "tgt", "--joined-dictionary",
        "--trainpref", folder / "train", "--validpref", folder / "valid", "--testpref", folder / "test",
        "--destdir", folder / "bin",
    )  # fmt: skip
    return folder / "bin"


def binarise_language_model(folder):
    write_translation(folder)
    forked.run(
        "fairseq-preprocess", "--only-source", "--trainpref", folder / "train.src",
        "--validpref", folder / "valid.src", "--testpref", folder / "test.src", "--destdir", folder / "bin",
    )  # fmt: skip
    return folder / "bin"


TINY_TRANSFORMER = (
    "--arch transformer_multi30k --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 "
    "--encoder-ffn-embed-dim 16 --decoder-ffn-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2"
).split()
TINY_TRANSFORMER_LM = (
    "--task language_modeling --arch transformer_lm --decoder-layers 1 --decoder-embed-dim 16 "
    "--decoder-ffn-embed-dim 16 --decoder-attention-heads 2 --tokens-per-sample 12"
).split()
TINY_LSTM = (
    "--arch lstm --encoder-embed-dim 12 --encoder-hidden-size 12 --decoder-embed-dim 12 --decoder-hidden-size 12 "
    "--decoder-out-embed-dim 12"
).split()
TINY_LSTM_LM = (
    "--task language_modeling --arch lstm_lm --decoder-embed-dim 12 --decoder-hidden-size 12 "
    "--decoder-out-embed-dim 12 --tokens-per-sample 12"
).split()
NO_DROPOUT = ["--dropout", "0"]


class Setup(NamedTuple):
    """What fairseq-train makes before its first update."""

    cfg: object
    task: object
    model: object
    criterion: object


def parse(*arguments):
    """What fairseq-train parses a command line to."""
    from fairseq import options

    return options.parse_args_and_arch(options.get_training_parser(), list(arguments))


def without_soft_targets(arguments):
    """The arguments but for ``--skd-...`` and their values."""
    left = list(arguments)
    for place in reversed([i for i, argument in enumerate(left) if argument.startswith("--skd-")]):
        del left[place : place + 2]
    return left


def fairseq_settings(*arguments):
    """What fairseq-train makes of a command line."""
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    return convert_namespace_to_omegaconf(parse(*arguments))


# To be copied: Hydra takes longer than most tests of the criterion.
_made_once = functools.lru_cache(maxsize=None)(fairseq_settings)


def settings(*arguments):
    """The same, from that of the line without ``--skd-...``, which are set by hand."""
    parsed, cfg = vars(parse(*arguments)), copy.deepcopy(_made_once(*without_soft_targets(arguments)))
    for group in filter(None, cfg.values()):
        for name in parsed:
            if name.startswith("skd_") and name in group:
                setattr(group, name, parsed[name])
    return cfg


def command_line(data, *flags):
    """Arguments of a small fairseq-train on a CPU."""
    common = "--cpu --seed 5 --max-tokens 200 --optimizer sgd --lr 0.1".split()
    return [str(data), "--user-dir", str(ROOT / "selfkd_fairseq"), *common, *map(str, flags)]


def build(data, *flags, split="train"):
    """Build task, model and criterion from a fairseq-train command line, with the split loaded."""
    from fairseq import utils
    from fairseq.tasks import setup_task

    cfg = settings(*command_line(data, *flags))
    utils.set_torch_seed(cfg.common.seed)
    task = setup_task(cfg.task)
    model = task.build_model(cfg.model)
    criterion = task.build_criterion(cfg.criterion)
    task.load_dataset(split)
    return Setup(cfg, task, model, criterion)


def batches(setup, split="train"):
    """The batches of a split as the trainer would see them."""
    iterator = setup.task.get_batch_iterator(
        setup.task.dataset(split), max_tokens=200, max_positions=(1024, 1024)
        if setup.cfg.task._name == "translation" else 1024, seed=1,
    )  # fmt: skip
    return list(iterator.next_epoch_itr(shuffle=False))
