"""Half precision as a user has it: ``fairseq-train`` on a GPU. Without one, test_precision.py shows what a CPU can."""

import functools
import subprocess
import sys

import pytest
import torch

from tests.criterions.test_precision import OURS, TIED
from tests.fairseq_setup import ROOT, run
from tests.resume.trainings import checkpoint, logged

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
UPDATES = 8
PRECISIONS = {
    "fp16": ["--fp16"],
    "memory-efficient fp16": ["--memory-efficient-fp16"],
    "bf16": [],
    "amp": ["--amp"],
}
# What fairseq-hydra-train does for common.bf16=true: on a command line --bf16 asks for a TPU.
TRAIN_IN_BF16 = """
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli.train import main
cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser()))
cfg.common.bf16 = True
main(cfg)
"""


@pytest.fixture(scope="module")
def losses(tiny_translation, tmp_path_factory):
    """A call that trains and gives the logged losses of the updates, in bits."""

    @functools.lru_cache(maxsize=None)
    def train(precision, *flags):
        folder = tmp_path_factory.mktemp("gpu")
        arguments = [
            tiny_translation, "--user-dir", ROOT / "selfkd_fairseq", *TIED, *OURS, *flags,
            *PRECISIONS.get(precision, []),
            "--optimizer", "adam", "--lr", "0.01", "--max-tokens", 200, "--max-update", UPDATES, "--seed", 2,
            "--save-dir", folder, "--log-file", folder / "log.json", "--no-progress-bar", "--log-format", "json",
            "--log-interval", 1, "--num-workers", 0,
        ]  # fmt: skip
        if precision == "bf16":
            command = [sys.executable, "-c", TRAIN_IN_BF16, *map(str, arguments)]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        else:
            run("fairseq-train", *arguments)
        assert all(bool(tensor.isfinite().all()) for tensor in checkpoint(folder)["model"].values())
        records = logged(folder / "log.json")
        return [float(record["loss"]) for (kind, _), record in sorted(records.items()) if kind == "update"]

    return train


@pytest.mark.parametrize("support", ["predicted", "nearest", "full", "random", "default"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_trains_as_in_float32(precision, support, losses):
    supported = [] if support == "default" else ["--skd-teacher", "embedding", "--skd-support", support]
    low, exact = losses(precision, *supported), losses("float32", *supported)
    assert len(exact) == UPDATES and exact[-1] < 0.97 * exact[0]  # it learns
    assert low == pytest.approx(exact, rel=2e-2)
