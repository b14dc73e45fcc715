"""Half precision as a user has it: ``fairseq-train`` on a GPU. Without one, test_precision.py shows what a CPU can."""

import functools

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
    "bf16": ["--bf16"],
    "amp": ["--amp"],
}


@pytest.fixture(scope="module")
def losses(tiny_translation, tmp_path_factory):
    """A call that trains and gives the logged losses of the updates, in bits."""

    @functools.lru_cache(maxsize=None)
    def train(*flags):
        folder = tmp_path_factory.mktemp("gpu")
        run(
            "fairseq-train", tiny_translation, "--user-dir", ROOT / "selfkd_fairseq", *TIED, *OURS, *flags,
            "--optimizer", "adam", "--lr", "0.01", "--max-tokens", 200, "--max-update", UPDATES, "--seed", 2,
            "--save-dir", folder, "--log-file", folder / "log.json", "--no-progress-bar", "--log-format", "json",
            "--log-interval", 1, "--num-workers", 0,
        )  # fmt: skip
        assert all(bool(tensor.isfinite().all()) for tensor in checkpoint(folder)["model"].values())
        records = logged(folder / "log.json")
        return [float(record["loss"]) for (kind, _), record in sorted(records.items()) if kind == "update"]

    return train


@pytest.mark.parametrize("support", ["predicted", "nearest", "full", "random", "default"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_trains_as_in_float32(precision, support, losses):
    supported = [] if support == "default" else ["--skd-teacher", "embedding", "--skd-support", support]
    low, exact = losses(*PRECISIONS[precision], *supported), losses(*supported)
    assert len(exact) == UPDATES and exact[-1] < 0.97 * exact[0]  # it learns
    assert low == pytest.approx(exact, rel=2e-2)
