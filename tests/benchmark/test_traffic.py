"""What the loss would move on a GPU, counted: bars that a regression would miss, and what the count stands on."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from selfkd_fairseq.benchmark import traffic
from selfkd_fairseq.core import SelfKDOptions, geometry
from selfkd_fairseq.core.compiled_rows import FullRows, compiled, full_rows, read_rows, write_rows

pytestmark = pytest.mark.skipif(
    "dtype_out" not in torch.ops.aten.addmm.overloads(), reason="needs products summed in float32 (torch 2.8)"
)
HALF = torch.float16
MEMORY = {10000: 0.8, 32000: 0.4, 267736: 0.25}  # of label smoothing's, by V


def counted(name, size, dtype=HALF):
    loss, casts_are_free = traffic.contenders()[name]
    return traffic.count(loss, size, dtype, casts_are_free)


@pytest.mark.parametrize("size", traffic.SIZES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_predicted_moves_less_than_label_smoothing_in_less_memory(size, dtype):
    baseline, floor = counted("label_smoothed_cross_entropy", size, dtype), traffic.floor_bytes(size, dtype)
    eager, fused_by_compiler = (counted(f"self_kd {name} predicted", size, dtype) for name in ("fused", "compiled"))
    assert eager.moved <= 0.85 * baseline.moved
    assert fused_by_compiler.moved <= 0.55 * baseline.moved and fused_by_compiler.moved <= 2 * floor
    for found in (eager, fused_by_compiler):
        assert found.peak <= MEMORY[size[1]] * baseline.peak


@pytest.mark.parametrize("size", traffic.SIZES)
def test_compiled_full_moves_less_than_label_smoothing(size):
    assert counted("self_kd compiled full", size).moved <= 0.9 * counted("label_smoothed_cross_entropy", size).moved


@pytest.mark.parametrize("size", traffic.SIZES)
def test_compiled_passes_over_two_passes_of_each_token(size):
    """The criterion's default: what two passes move, beside label smoothing's one."""
    of_one = counted("label_smoothed_cross_entropy", size).moved
    assert counted("self_kd compiled both passes", size).moved <= 1.55 * of_one


@pytest.mark.parametrize("size", traffic.SIZES[1:3])
def test_launches_of_one_chunk(size):
    """A compiled function is counted as one."""
    assert counted("self_kd compiled predicted", size).launches <= 60


@pytest.mark.parametrize("name", traffic.contenders())
def test_nothing_waits_for_the_device(name):
    assert counted(name, (512, 3000, 64)).moved > 0


@pytest.mark.parametrize("read", [Tensor.item, Tensor.nonzero, Tensor.unique_consecutive])
def test_a_loss_that_waits_cannot_be_counted(read):
    def loss(tensors):
        read(tensors.features.sum())
        return tensors.features.sum()

    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        traffic.count(loss, (8, 9, 4), HALF, False)


def test_bytes_launches_and_memory_of_a_known_loss():
    """A product, a cast, a sum, and their gradients: in units of the (N, V) matrix in half precision."""
    tokens, vocabulary, width = size = (1000, 2000, 1)

    def loss(tensors):
        return nn.functional.linear(tensors.features, tensors.weight).float().sum()

    unit = 2 * tokens * vocabulary
    found = traffic.count(loss, size, HALF, False)
    # Written 1; cast 1 + 2; summed 2. Back: the expanded gradient counts as whole, 2 + 1; two products 1 each.
    assert found.moved / unit == pytest.approx(1 + 3 + 2 + 3 + 2, rel=0.01)
    assert found.peak / unit == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("function", ["read", "write", "full", "pairs"])
def test_a_compiled_function_reads_and_writes_once_as_its_compiler_counts(function, really_compiled):
    """inductor's own count of bytes: each tensor that is given once, and once what is changed."""
    from torch._inductor import config, metrics

    tokens, vocabulary = 64, 20000
    z, dots = torch.randn(tokens, vocabulary).half(), torch.rand(tokens, vocabulary)
    target, left_out = torch.arange(tokens), torch.zeros(vocabulary, dtype=torch.bool)
    products = geometry.Products(torch.rand(vocabulary, 1), torch.rand(vocabulary), torch.ones(()))
    rows = FullRows(target, left_out, dots, products, torch.ones(()), None, None)
    of_pairs = rows._replace(target=target // 2, dots=dots[::2].contiguous(), teacher_logits=z, paired=True)
    of_full = torch.tensor([0.1, 0.8]), 8.0, True
    work = {
        "read": (read_rows, (z, (torch.tensor([0, 1]), left_out), torch.float32), 1),
        "write": (write_rows, (z, torch.randn(tokens)), 2),
        "full": (full_rows, (z, rows, SelfKDOptions("full"), *of_full), 4),
        # Whose logits are given twice, for two uses.
        "pairs": (full_rows, (z, of_pairs, SelfKDOptions("full", teacher="self"), *of_full, z.clone()), 4),
    }
    of_chunk, arguments, units = work[function]
    logger = logging.getLogger("torch._inductor.compile_fx.__inductor_metrics")
    level = logger.level
    logger.setLevel(logging.INFO)  # not the attribute: a logger remembers what it was not enabled for
    metrics.reset()
    try:
        with config.patch(force_disable_caches=True):
            compiled(of_chunk)(*arguments)
    finally:
        logger.setLevel(level)
    assert metrics.num_bytes_accessed / (2 * tokens * vocabulary) == pytest.approx(units, rel=0.03)
