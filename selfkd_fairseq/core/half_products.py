"""Products of matrices in half precision, summed in float32 and not rounded in between.

torch 2.8 and later have such products on GPUs, at the price of any other. Elsewhere they are rounded to half precision,
one at a time, and what float16 cannot hold is kept from arising.
"""

import functools

import torch
from torch import Tensor

from .arguments import numbers_at_hand

__all__ = ["add_product"]


def add_product(result: Tensor, a: Tensor, b: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """``result = beta result + alpha a b``, in place.

    Args:
        result: (m, n), float32 or better; with ``beta`` 0 it is overwritten and never read.
        a: (m, k), of the dtype of ``result`` or of half precision.
        b: (k, n), of the dtype of ``a``.
        beta: of what is there.
        alpha: of the product.

    Returns:
        ``result``; no gradient flows.
    """
    if a.dtype == result.dtype:
        return torch.addmm(result, a, b, beta=beta, alpha=alpha, out=result)
    if _is_there(a.device.type, a.dtype) if numbers_at_hand(a) or a.is_cuda else _in_this_torch():
        return torch.addmm(result, a, b, out_dtype=result.dtype, beta=beta, alpha=alpha, out=result)
    product = _rounded_product(a, b)
    return torch.mul(product, alpha, out=result) if beta == 0 else result.mul_(beta).add_(product, alpha=alpha)


def _in_this_torch() -> bool:
    return "dtype_out" in torch.ops.aten.addmm.overloads()


@functools.lru_cache(maxsize=None)
def _is_there(device: str, dtype: torch.dtype) -> bool:
    """Whether torch has the product here, and it is right. Tried once: a GPU is waited for once."""
    if not _in_this_torch():
        return False
    a, b = torch.full((16, 8), 3.0, dtype=dtype, device=device), torch.full((8, 16), 1001.0, dtype=dtype, device=device)
    result = torch.ones(16, 16, device=device)
    try:
        torch.addmm(result, a, b, out_dtype=torch.float32, beta=2.0, alpha=10.0, out=result)
    except (RuntimeError, TypeError):
        return False
    # Beyond the range of float16, and finer than half precision.
    return bool((result == 2.0 + 10.0 * 8 * 3.0 * b[0, 0].float()).all())


def _rounded_product(a: Tensor, b: Tensor) -> Tensor:
    """``a b`` in float32, rounded once to half precision on the way. What float16 could not hold is scaled first."""
    if a.dtype != torch.float16:
        return torch.mm(a, b).to(torch.float32)
    bound = torch.linalg.vector_norm(a, 1, dim=1, dtype=torch.float32).max() * b.abs().max()
    scale = torch.exp2(torch.log2(3e4 / bound).floor()).clamp_max(1.0)
    return torch.mm(a, (b * scale).to(b.dtype)).to(torch.float32) / scale
