"""Checks of the tensors that the losses of ``docs/method.md`` are given; each message names the argument."""

from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

__all__ = [
    "at_least_float32",
    "check_floating",
    "check_ignore_index",
    "check_neighbours",
    "check_word_ids",
    "numbers_at_hand",
    "word_ids",
    "word_mask",
    "words_in_vocabulary",
]


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype to reduce in.

    Args:
        dtype: of a tensor, floating point.

    Returns:
        float32 for half precision, else ``dtype`` itself.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def words_in_vocabulary(words: Sequence[Optional[int]], vocabulary_size: int) -> Tuple[int, ...]:
    """Leave out what names no word of the vocabulary: None, and ids such as -100.

    Args:
        words: ids, in any order, some perhaps twice.
        vocabulary_size: V.

    Returns:
        Each id in [0, V) once, in ascending order.
    """
    return tuple(sorted({word for word in words if word is not None and 0 <= word < vocabulary_size}))


def numbers_at_hand(tensor: Tensor) -> bool:
    """Whether reading numbers of a tensor costs nothing.

    Args:
        tensor: of any shape and dtype.

    Returns:
        True for a plain tensor on the CPU. A GPU would have to finish all its work first, and a tensor that is traced
        has no numbers.
    """
    return tensor.device.type == "cpu" and type(tensor) in (Tensor, nn.Parameter)


def word_ids(words: Sequence[int], device: torch.device) -> Tensor:
    """Make a tensor of word ids on a device without copying from the CPU, which a GPU would be waited for.

    Args:
        words: ids in ascending order.
        device: of the result.

    Returns:
        (n,) int64, of as many words.
    """
    starts = [i for i, word in enumerate(words) if i == 0 or word != words[i - 1] + 1]
    runs = [
        torch.arange(words[start], words[end - 1] + 1, device=device)
        for start, end in zip(starts, [*starts[1:], len(words)])
    ]
    if len(runs) == 1:
        return runs[0]
    return torch.cat(runs) if runs else torch.empty(0, dtype=torch.long, device=device)


def word_mask(ids: Tensor, vocabulary_size: int) -> Tensor:
    """Mark words of the vocabulary.

    Args:
        ids: (n,) int64 in [0, V), as :func:`word_ids` makes them.
        vocabulary_size: V.

    Returns:
        (V,) bool on the device of ``ids``, True for these words.
    """
    return torch.zeros(vocabulary_size, dtype=torch.bool, device=ids.device).index_fill_(0, ids, True)


def check_word_ids(name: str, words: Tensor, vocabulary_size: int) -> None:
    """Check that a tensor holds words of the vocabulary.

    Args:
        name: of the argument, for the message.
        words: word ids, of any shape.
        vocabulary_size: V.

    Raises:
        ValueError: it is not int64, or, on the CPU, not in [0, V).
    """
    if words.dtype != torch.long:
        raise ValueError(f"{name} must be int64 word ids, got {words.dtype}")
    # On a GPU an index out of range stops the kernel anyway.
    if numbers_at_hand(words) and words.numel() > 0:
        low, high = int(words.min()), int(words.max())
        if low < 0 or high >= vocabulary_size:
            raise ValueError(f"{name} must be in [0, {vocabulary_size}), got {low if low < 0 else high}")


def check_neighbours(neighbours: Optional[Tensor], vocabulary_size: int, support_size: int) -> None:
    """Check cached neighbours.

    Args:
        neighbours: (V, n) int64 in [0, V), or None.
        vocabulary_size: V.
        support_size: n.

    Raises:
        ValueError: they are of another shape or dtype, or, on the CPU, out of range.
    """
    if neighbours is None:
        return
    if neighbours.shape != (vocabulary_size, support_size) or neighbours.dtype != torch.long:
        raise ValueError(
            f"neighbours must be int64 (V, support_size) = {(vocabulary_size, support_size)}, got {neighbours.dtype} "
            f"{tuple(neighbours.shape)}"
        )
    check_word_ids("neighbours", neighbours, vocabulary_size)


def check_floating(**tensors: Optional[Tensor]) -> None:
    """Check that tensors are of a floating-point dtype.

    Args:
        **tensors: name of the argument -> tensor of any shape, or None.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")


def check_ignore_index(ignore_index: Optional[int]) -> None:
    """Check that an id can be compared with int64 word ids.

    Args:
        ignore_index: any int, or None.

    Raises:
        ValueError: it is beyond the range of int64.
    """
    if ignore_index is not None and not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index must be an int64 number, got {ignore_index}")
