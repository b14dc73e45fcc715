"""The fused loss on a GPU, eager and compiled: the numbers of the reference on a CPU, and nothing is waited for."""

import functools

import pytest
import torch

from selfkd_fairseq.core.compiled_rows import can_compile
from tests.core.forms import FORMS
from tests.core.test_fused_linear_loss import batch, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("implementation", ["fused", "compiled"])
def test_equals_the_reference_on_a_cpu(form, implementation, really_compiled):
    for tokens in (23, 40):  # the second time a compiler takes the number as one that changes
        tensors = batch(tokens, bias=True)
        arguments = dict(
            FORMS[form], alpha=0.3, label_smoothing=0.1, support_size=4, temperature=0.4, min_target_prob=0.3
        )  # fmt: skip
        on_gpu = {name: tensor.cuda() for name, tensor in tensors.items()}
        values, grads = run(on_gpu, implementation, upstream=3.0, chunk_size=16, **arguments)
        expected_values, expected_grads = run(tensors, "reference", upstream=3.0, **arguments)
        for value, expected in zip(values, expected_values):
            assert value.item() == pytest.approx(expected.item(), rel=1e-10, abs=1e-10)
        for name, expected in expected_grads.items():
            assert torch.allclose(grads[name].cpu(), expected, rtol=1e-10, atol=1e-10), name


@pytest.mark.parametrize("form", [form for form in FORMS if "random" not in form and "nearest" not in form])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("implementation", ["fused", "compiled"])
def test_the_host_never_waits(form, dtype, implementation, really_compiled):
    """``random`` draws on the CPU, and the criterion gives ``nearest`` its neighbours."""
    tensors = {name: tensor.cuda() for name, tensor in batch(40, 64, 16, dtype=dtype).items()}
    step = functools.partial(
        run, tensors, implementation, upstream=128.0, alpha=0.3, label_smoothing=0.1, **FORMS[form]
    )  # fmt: skip
    step()  # what is tried once, or compiled
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_auto_compiles_on_a_gpu(really_compiled):
    can_compile.cache_clear()
    assert can_compile("cuda")
