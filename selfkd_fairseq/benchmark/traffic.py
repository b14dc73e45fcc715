"""What a loss would move on a GPU, counted without one: bytes, kernel launches, peak memory.

The tensors are fake: shapes and dtypes, no numbers, so that any size costs nothing, and a loss that reads one back, for
which a GPU would be waited for, ends with an error of PyTorch's. Each operation that PyTorch
dispatches counts as one launch that reads what it is given and writes what it gives, once; views are free. That is
eager execution. A function that is compiled counts as one launch, which reads each tensor that it is given once and
writes once what it changes: what inductor, the compiler behind ``torch.compile``, counts too, as the tests show. (But
for the unit of distance, whose function reads the matrix twice: 2 % of all.)
"""

import contextlib
import functools
import weakref
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import losses

__all__ = ["SIZES", "Traffic", "contenders", "count", "floor_bytes"]

SIZES = ((8192, 32000, 1024), (3584, 32000, 512), (4096, 10000, 512), (4096, 267736, 1024))
_READS_WHAT_IT_WRITES = {"gather", "index", "index_select", "embedding"}
_TOUCHES_WHAT_IT_IS_GIVEN = {"scatter_", "scatter_add_", "scatter_add", "index_fill_", "index_copy_", "index_put_"}
_NOTHING = {
    "_unsafe_view",
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "lift_fresh",
}


class Traffic(NamedTuple):
    """What :func:`count` counts.

    Attributes:
        launches: kernels.
        moved: bytes read and written.
        peak: bytes held at most, beyond what was there before.
    """

    launches: int
    moved: int
    peak: int


def _bytes(tensors: List[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


class _Counter(TorchDispatchMode):
    """Counts what is dispatched while it is the mode."""

    def __init__(self, there: Sequence[Tensor], casts_are_free: bool) -> None:
        super().__init__()
        self.launches = self.moved = self.held = self.peak = 0
        self._casts_are_free = casts_are_free
        self._is_paused = False
        self._storages: Dict[int, Any] = {x.untyped_storage()._cdata: None for x in there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_paused:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        out = func(*args, **kwargs)
        outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        is_free = func.is_view or name in _NOTHING or (name == "_to_copy" and self._casts_are_free)
        if outputs and not is_free:
            self.launches += 1
            self.moved += self._moved(name, inputs, outputs, kwargs.get("out"))
        for x in outputs:
            self._hold(x)
        return out

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted as a compiled one."""

        def counted(*args: Any, out: Optional[Tensor] = None) -> Any:
            given = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
            versions = [x._version for x in given]
            self._is_paused = True
            result = function(*args) if out is None else function(*args, out=out)
            self._is_paused = False
            self.launches += 1
            self.moved += _bytes(given) + (0 if out is None else _bytes([out]))
            self.moved += _bytes([x for x, version in zip(given, versions) if x._version != version])
            for x in tree_leaves(result):
                if isinstance(x, Tensor):
                    self._hold(x)
            return result

        return counted

    @staticmethod
    def _moved(name: str, inputs: List[Tensor], outputs: List[Tensor], out: Any) -> int:
        if name in _TOUCHES_WHAT_IT_IS_GIVEN:
            return 2 * _bytes(inputs[1:])
        read = _bytes(outputs) if name in _READS_WHAT_IT_WRITES else _bytes(inputs)
        return read + _bytes(outputs) - (_bytes([out]) if isinstance(out, Tensor) else 0)

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, int(storage.nbytes())
        if key in self._storages:
            return

        def release() -> None:
            self.held -= size
            self._storages.pop(key, None)

        self._storages[key] = weakref.finalize(storage, release)
        self.held += size
        self.peak = max(self.peak, self.held)


def floor_bytes(size: Tuple[int, int, int], dtype: torch.dtype) -> int:
    """The least that a loss can move which holds the logits of a chunk in the dtype of the features.

    They are written by the product, read for the sums, read and overwritten by the gradient, read by two products; and
    the matrices are read and written.

    Args:
        size: (N, V, d).
        dtype: of features and matrix.

    Returns:
        Number of bytes.
    """
    tokens, vocabulary, width = size
    item = dtype.itemsize
    return 6 * item * tokens * vocabulary + 3 * item * tokens * width + (2 * item + 4) * vocabulary * width


@contextlib.contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """The sizes of chunks, for fake tensors lie on the CPU."""
    from ..core import fused_linear_loss as fused

    chunk_bytes = mock.patch.dict(fused.CHUNK_BYTES, cpu=fused.CHUNK_BYTES["cuda"])
    chunk_tokens = mock.patch.dict(fused.CHUNK_TOKENS, cpu=fused.CHUNK_TOKENS["cuda"])
    with chunk_bytes, chunk_tokens:
        yield


def count(
    loss: Callable[[losses.Tensors], Tensor], size: Tuple[int, int, int], dtype: torch.dtype, casts_are_free: bool
) -> Traffic:
    """Count one forward and backward.

    Args:
        loss: from features, matrix and targets to a scalar, the sum over the tokens in nats.
        size: (N, V, d).
        dtype: of features and matrix.
        casts_are_free: for fairseq's criterions, whose casts a GPU makes within its kernels of the softmax.

    Returns:
        :class:`Traffic`, with the pass that a loss scaler adds: to the sum in nats, a scalar.
    """
    tokens, vocabulary, width = size
    with FakeTensorMode(), _as_on_a_gpu():
        tensors = losses.Tensors(
            torch.empty(tokens, width, dtype=dtype, requires_grad=True),
            torch.empty(vocabulary, width, dtype=dtype, requires_grad=True),
            torch.empty(tokens, dtype=torch.long),
        )
        counter = _Counter(tensors, casts_are_free)
        modules = ("chunk_passes", "fused_full_divergence", "fused_sparse_divergence")
        with contextlib.ExitStack() as stack:
            for module in modules:
                stack.enter_context(mock.patch(f"selfkd_fairseq.core.{module}.compiled", counter.compiled))
            stack.enter_context(counter)
            (128.0 * loss(tensors)).backward()
    return Traffic(counter.launches, counter.moved, counter.peak)


def contenders() -> Dict[str, Tuple[Callable[[losses.Tensors], Tensor], bool]]:
    """The losses to count.

    Returns:
        Name -> (the loss, a scalar, the sum over the tokens in nats; whether its casts are free), for :func:`count`.
    """
    work: Dict[str, Tuple[Callable[[losses.Tensors], Tensor], bool]] = {
        "cross_entropy": (losses.cross_entropy, True),
        "label_smoothed_cross_entropy": (losses.label_smoothed_cross_entropy, True),
    }
    for implementation in ("fused", "compiled"):
        for name, options in losses.COMPILED.items():
            loss = functools.partial(losses.self_kd, implementation=implementation, **options)
            work[f"self_kd {implementation} {name}"] = (loss, False)
    return work
