"""What is wrong with a checkpoint that cannot be read, or that does not fit a model, in one line."""

from __future__ import annotations

import errno
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from ..common.errors import MendableError

__all__ = [
    "RefusedCheckpoint",
    "RunningSetting",
    "UnfitCheckpoint",
    "find_damage",
    "is_out_of_memory",
    "why_no_checkpoint",
    "why_not_loaded",
    "why_unfit",
]

# What torch says of two models, and the same as the end of "it has".
_SIZE = r"size mismatch for (\S+): .*?\[([\d, ]*)\].*?\[([\d, ]*)\]"
_DIFFERENCES = {
    r'Missing key\(s\) in state_dict: "([^"]+)': "no {}",
    r'Unexpected key\(s\) in state_dict: "([^"]+)': "{}, which the model has not",
    _SIZE: "{} of shape ({}), and the model of shape ({})",
}


class RefusedCheckpoint(MendableError, pickle.UnpicklingError):
    """Nothing of a checkpoint is loaded: it is damaged, or could run code. The message is one line."""


class RunningSetting(RefusedCheckpoint):
    """A setting of a checkpoint would run as Python: refused like a pickled global. The message is one line."""


class UnfitCheckpoint(MendableError):
    """The parameters of a checkpoint are not those of the model. The message is one line."""


def find_damage(path: Path) -> str | None:
    """Read a whole checkpoint and compare its checksums; torch does not.

    Args:
        path: of the checkpoint.

    Returns:
        What is wrong, to be put behind the file's name. None if nothing is, or if the file has no checksums, as those
        of torch before 1.6: whether it is a checkpoint, torch.load tells.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        if not file.read(1):
            return "is empty"
        if not zipfile.is_zipfile(file):
            return None
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
        # ValueError and RuntimeError: offsets outside of the file, entries that claim to be encrypted
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, RuntimeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            return "is damaged"
    return None if damaged is None else f"is damaged: {damaged} does not have its checksum"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory does not suffice, which is no fault of the file.

    Args:
        error: what torch raised; of the memory of the CPU that is a plain RuntimeError.

    Returns:
        True if so.
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def why_no_checkpoint(state: Any) -> str | None:
    """Say why what a file holds is no checkpoint of fairseq-train.

    Args:
        state: what ``torch.load`` returned.

    Returns:
        The end of a sentence that begins with the name of the file; None if fairseq can read it.
    """
    parameters = state.get("model") if isinstance(state, dict) else None
    if not isinstance(parameters, dict) or not all(isinstance(name, str) for name in parameters):
        return "is not a checkpoint of fairseq-train: it holds no model"
    if "optimizer_history" not in state and "best_loss" not in state:
        return "is not a checkpoint of fairseq-train: it holds no history of an optimizer"
    return None


def why_not_loaded(error: BaseException) -> str:
    """Say what is wrong with a checkpoint that torch.load refused.

    Args:
        error: what torch.load raised.

    Returns:
        The end of a sentence that begins with the name of the file.
    """
    refused = re.search(r"GLOBAL ([\w.]+(\('\w+'\))?)", str(error))
    return f"holds {refused[1]}, which safe loading refuses" if refused else "is damaged, or not a checkpoint"


def why_unfit(error: BaseException, data: str = "the data") -> str:
    """Say why the parameters of a checkpoint do not go into a model.

    Args:
        error: what ``load_state_dict`` of a fairseq model raised.
        data: the folder whose dictionaries the model was built for, where it is known.

    Returns:
        The end of a sentence that begins with the name of the file: the sizes of the two dictionaries where these
        differ, otherwise the first parameter that does not fit.
    """
    message = " ".join(str(error).split())
    for name, there, here in re.findall(_SIZE, message):
        words, own_words = there.split(",")[0], here.split(",")[0]
        if re.search(r"embed_tokens|output_projection|fc_out", name) and words != own_words:
            return (
                f"was trained with a dictionary of {words} words and {data} has one of {own_words}: binarise the data "
                "with the dictionary that it was trained with (fairseq-preprocess --srcdict, --tgtdict)"
            )
    if isinstance(error, KeyError):  # fairseq 0.12.2 renames parameters before torch compares them
        return f"is of another architecture: it has no {error.args[0]}"
    for pattern, difference in _DIFFERENCES.items():
        found = re.search(pattern, message)
        if found:
            return f"is of another architecture: it has {difference.format(*found.groups())}"
    return f"does not fit the model: {type(error).__name__} {message[:200]}"
