"""Two CPU processes (gloo) with half the sentences each against one process with all of them."""

import pytest
import torch
from fairseq.distributed import ModuleProxyWrapper
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from tests.fairseq_setup import (
    NO_DROPOUT,
    TINY_LSTM,
    TINY_TRANSFORMER,
    batches,
    build,
    finish,
    free_port,
    start,
    two_workers,
)

SUPPORTS = ["predicted", "nearest", "full"]  # random words differ between workers by design


def setup_of(data, flags, support):
    setup = build(
        data, *flags, *NO_DROPOUT, "--criterion", "self_kd", "--label-smoothing", "0.1", "--skd-alpha", "0.4",
        "--skd-warmup-updates", "0", "--skd-support", support, "--skd-support-size", "2",
    )  # fmt: skip
    setup.model.double().train()
    return setup


def half(sample, rank):
    """Every second sentence; the halves are uneven where the batch is."""
    if torch.is_tensor(sample):
        return sample[rank::2]
    if isinstance(sample, dict):
        parts = {key: half(value, rank) for key, value in sample.items()}
        if "target" in parts:
            parts["ntokens"] = int(parts["target"].ne(1).sum())
        return parts
    return sample


def worker(rank, port, data, flags, support, find_unused, results):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    setup = setup_of(data, flags, support)
    sample = batches(setup)[0]
    parallel = DistributedDataParallel(setup.model, find_unused_parameters=find_unused)
    model = ModuleProxyWrapper(parallel)
    with parallel.no_sync():  # a first batch whose gradients are only added up, as under --update-freq
        setup.criterion(model, half(sample, rank))[0].backward()
    loss, _, logged = setup.criterion(model, half(sample, rank))
    loss.backward()
    results[rank] = (
        float(loss), int(logged["ntokens"]), {n: 2 * p.grad for n, p in setup.model.named_parameters()}
    )  # fmt: skip
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "flags, support, find_unused",
    [
        *[([*TINY_TRANSFORMER, *tied], s, False) for s in SUPPORTS for tied in ([], ["--share-all-embeddings"])],
        (TINY_LSTM, "predicted", False),
        (TINY_TRANSFORMER, "predicted", True),
    ],
    ids=lambda value: "tied" if isinstance(value, list) and "--share-all-embeddings" in value else None,
)
def test_pytorch_ddp(flags, support, find_unused, tiny_translation):
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        arguments = (free_port(), tiny_translation, flags, support, find_unused, results)
        multiprocessing.spawn(worker, args=arguments, nprocs=2)
        (loss_0, tokens_0, grads_0), (loss_1, tokens_1, grads_1) = results[0], results[1]
    setup = setup_of(tiny_translation, flags, support)
    sample = batches(setup)[0]
    loss = setup.criterion(setup.model, sample)[0]
    (2 * loss).backward()
    assert tokens_0 + tokens_1 == sample["ntokens"]
    assert loss_0 + loss_1 == pytest.approx(loss.item(), rel=1e-12)
    expected = {name: parameter.grad for name, parameter in setup.model.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert torch.equal(grads_0[name], grads_1[name]), name
        # Softmax does not see the bias of a key projection: its gradient is rounding alone.
        scale = largest if name.endswith("k_proj.bias") else float(gradient.abs().max())
        assert float((grads_0[name] - gradient).abs().max()) <= 1e-9 * scale, name


def train(data, save_dir, *flags):
    return start(
        "fairseq-train", data, "--user-dir", "selfkd_fairseq", "--criterion", "self_kd", *TINY_TRANSFORMER,
        *NO_DROPOUT, "--share-all-embeddings", "--skd-alpha", "0.5", "--skd-warmup-updates", "4", "--cpu",
        "--seed", "2",
        "--optimizer", "adam", "--lr", "0.01", "--batch-size", "8", "--max-update", "6", "--no-epoch-checkpoints",
        "--data-buffer-size", "0", "--disable-validation", "--save-dir", save_dir, *flags,
    )  # fmt: skip


def test_fairseq_legacy_ddp_equals_one_process_with_all_batches(tiny_translation, tmp_path):
    """Two workers take the batches that --update-freq 2 gives to one."""
    finish(train(tiny_translation, tmp_path / "one", "--update-freq", "2"))
    finish(*[train(tiny_translation, tmp_path / "two", *worker) for worker in two_workers()])
    one, two = (
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=True)["model"] for name in ("one", "two")
    )
    for name, value in one.items():
        # Key biases move by rounding alone, and Adam makes steps of full size of any gradient.
        if not name.endswith("k_proj.bias"):
            assert torch.allclose(value, two[name], atol=2e-4), name
