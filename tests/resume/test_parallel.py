"""Two data-parallel workers (gloo, legacy_ddp) by the command line: against one process, and stopped and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.fairseq_setup import NO_DROPOUT, TINY_TRANSFORMER, own_tensors, two_workers
from tests.resume.processes import Run
from tests.resume.systems import FORMS, SYSTEMS
from tests.resume.trainings import assert_same_checkpoint, checkpoint, logged, updates_done

N = 6
REFRESH = ["--skd-refresh-updates", "3"]  # 3 divides N
ON_ALL = "--load-checkpoint-on-all-dp-ranks"


def start_two(run, *more):
    """Train in two processes; they go on from the last checkpoint of the folder, if there is one."""
    # Without fairseq's reading thread, which may be at work when a worker ends by --max-update.
    return [run.start("--data-buffer-size", 0, *worker, *more) for worker in two_workers()]


def finish(run, processes):
    for process in processes:
        run.finish(process)


@pytest.mark.parametrize("form", ["nearest", "random"])
def test_two_workers_that_are_stopped_and_resumed_in_mid_epoch_are_bit_equal(form, tiny_translation, tmp_path):
    flags = (*SYSTEMS["transformer"], *FORMS[form], *REFRESH, "--save-interval-updates", N)
    straight, resumed = (Run(tiny_translation, tmp_path / name, flags) for name in ("straight", "resumed"))
    finish(straight, start_two(straight, "--max-update", 2 * N))
    finish(resumed, start_two(resumed, "--max-update", N))
    stopped = checkpoint(resumed.folder)
    assert updates_done(stopped) == N and stopped["extra_state"]["train_iterator"]["iterations_in_epoch"] > 0
    finish(resumed, start_two(resumed, "--max-update", 2 * N, ON_ALL))
    assert updates_done(checkpoint(resumed.folder)) == 2 * N
    assert_same_checkpoint(straight.folder, resumed.folder)
    records = logged(resumed.log)  # and one more: the averages of the epoch up to the stop
    assert {key: records[key] for key in logged(straight.log)} == logged(straight.log)


@pytest.mark.skipif(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6), reason="torch.load is not safe there")
def test_fairseq_does_not_resume_two_workers_unless_each_loads_the_checkpoint(tiny_translation, tmp_path):
    """It sends the second worker a pickle that torch's safe loading refuses. If this fails, it has been mended."""
    run = Run(tiny_translation, tmp_path / "run", SYSTEMS["transformer"])
    finish(run, start_two(run, "--max-update", 1))
    processes = start_two(run, "--max-update", 2)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [1, 1]
    printed = Path(f"{run.folder}.out").read_text(encoding="utf-8")
    assert "Weights only load failed" in printed and "Unsupported global: GLOBAL omegaconf." in printed
    assert updates_done(checkpoint(run.folder)) == 1


def test_two_workers_equal_one_process_with_all_batches(tiny_translation, tmp_path):
    """Two take the batches that --update-freq 2 gives to one. In float32 and with Adam, so not to the last digit."""
    flags = (
        *TINY_TRANSFORMER, *NO_DROPOUT, "--share-all-embeddings", "--criterion", "self_kd", "--skd-alpha", "0.5",
        "--skd-warmup-updates", "4", "--cpu", "--seed", "2", "--optimizer", "adam", "--lr", "0.01", "--batch-size", "8",
        "--max-update", "6", "--no-epoch-checkpoints", "--disable-validation", "--num-workers", "0",
        "--no-progress-bar", "--log-format", "json", "--log-interval", "1",
    )  # fmt: skip
    one, two = (Run(tiny_translation, tmp_path / name, flags) for name in ("one", "two"))
    finish(one, [one.start("--data-buffer-size", 0, "--update-freq", 2)])
    finish(two, start_two(two))
    parameters = checkpoint(two.folder)["model"]
    for name, value in own_tensors(checkpoint(one.folder)["model"]).items():
        # Key biases move by rounding alone, and Adam makes steps of full size of any gradient.
        if not name.endswith("k_proj.bias"):
            assert torch.allclose(value, parameters[name], atol=2e-4), name
    records = logged(two.log)
    assert [update for kind, update in records if kind == "update"] == list(range(1, 7))
    for key, record in logged(one.log).items():
        for name in ("loss", "nll_loss", "skd_loss", "skd_target_prob", "skd_cosine", "alpha", "wpb", "bsz"):
            shown = name if key[0] == "update" else f"train_{name}"
            assert float(record[shown]) == pytest.approx(float(records[key][shown]), abs=2e-3), (key, name)
