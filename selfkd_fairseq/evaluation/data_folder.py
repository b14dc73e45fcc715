"""Which folder a data path of fairseq's commands means, where it may name several."""

from __future__ import annotations

import os
from pathlib import Path

from fairseq import utils

from .errors import EvaluationError

__all__ = ["find_data_folder"]


def find_data_folder(data: Path) -> Path:
    """The folder that ``fairseq-generate`` reads: of several (``A:B``, shards of the training data), the first.

    Args:
        data: folders of binarised data, separated as in the system's search path.

    Returns:
        The first of them.

    Raises:
        EvaluationError: it is no folder; or the path as a whole is one, in which fairseq would see several.
    """
    first = utils.split_paths(str(data))[0]
    folder = Path(first)
    if folder != data and data.is_dir():
        raise EvaluationError(
            f"{data} is one folder, and fairseq takes the {os.pathsep} in its path for the end of a folder's name: "
            "rename it, or give a link to it"
        )
    if not first or not folder.is_dir():
        raise EvaluationError(f"{first or data} is not a folder of binarised data")
    return folder
