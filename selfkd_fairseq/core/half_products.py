"""Products of matrices in half precision, summed in float32 and not rounded in between.

torch 2.8 and later have such products on GPUs, at the price of any other. Elsewhere they are rounded to half precision,
one at a time, and what float16 cannot hold is kept from arising. ``docs/method.md`` says where they are used.
"""

import functools
import math
from typing import Optional

import torch
from torch import Tensor

from .arguments import numbers_at_hand

__all__ = ["product", "summed_in_float32"]


def product(out: Tensor, a: Tensor, b: Tensor, plus: Optional[Tensor] = None, alpha: float = 1.0) -> Tensor:
    """``out = plus + alpha a b``.

    Args:
        out: (A, B), float32 or better; overwritten, and not read unless it is ``plus``.
        a: (A, C), of the dtype of ``out`` or of half precision.
        b: (C, B), of the dtype of ``a``.
        plus: (A, B) or (B,), of the dtype of ``out``, perhaps ``out`` itself; None: nothing.
        alpha: of the product.

    Returns:
        ``out``, (A, B); no gradient flows.
    """
    beta = 0.0 if plus is None else 1.0
    plus = out if plus is None else plus
    if a.dtype == out.dtype:
        return torch.addmm(plus, a, b, beta=beta, alpha=alpha, out=out)
    if summed_in_float32(a):
        return torch.addmm(plus, a, b, out_dtype=out.dtype, beta=beta, alpha=alpha, out=out)
    rounded = _rounded_product(a, b)
    return torch.mul(rounded, alpha, out=out) if beta == 0 else torch.add(plus, rounded, alpha=alpha, out=out)


def summed_in_float32(tensor: Tensor) -> bool:
    """Whether torch itself has the products of such tensors that are not rounded to half precision.

    Args:
        tensor: of half precision, of any shape.

    Returns:
        False too where it has them and they are wrong: they are tried once.
    """
    traced = tensor.device.type == "cpu" and not numbers_at_hand(tensor)
    return _in_this_torch() if traced else _is_there(tensor.device.type, tensor.dtype)


def _in_this_torch() -> bool:
    return "dtype_out" in torch.ops.aten.addmm.overloads()


@functools.lru_cache(maxsize=None)
def _is_there(device: str, dtype: torch.dtype) -> bool:
    """Whether torch has the product here, and it is right. Tried once: a GPU is waited for once."""
    if not _in_this_torch():
        return False
    a, b = torch.full((16, 8), 3.0, dtype=dtype, device=device), torch.full((8, 16), 1001.0, dtype=dtype, device=device)
    out, plus = torch.full((16, 16), math.nan, device=device), torch.ones(16, device=device)
    try:
        torch.addmm(out, a, b, out_dtype=torch.float32, beta=0.0, alpha=10.0, out=out)
        torch.addmm(plus, a, b, out_dtype=torch.float32, alpha=10.0, out=plus.new_empty(16, 16))
        torch.addmm(out, a, b, out_dtype=torch.float32, alpha=10.0, out=out)
    except (RuntimeError, TypeError):
        return False
    # Beyond the range of float16, and finer than half precision.
    return bool((out == 2 * 10.0 * 8 * 3.0 * b[0, 0].float()).all())


def _rounded_product(a: Tensor, b: Tensor) -> Tensor:
    """``a b`` in float32, rounded once to half precision on the way. What float16 could not hold is scaled first."""
    if a.dtype != torch.float16:
        return torch.mm(a, b).to(torch.float32)
    bound = torch.linalg.vector_norm(a, 1, dim=1, dtype=torch.float32).max() * b.abs().max()
    scale = torch.exp2(torch.log2(3e4 / bound).floor()).clamp_max(1.0)
    return torch.mm(a, (b * scale).to(b.dtype)).to(torch.float32) / scale
