"""Rows of measurements as a table, a CSV file and a plot."""

import csv
import platform
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch

from ..runs import provenance
from ..version import __version__

__all__ = ["as_table", "machine", "write_csv", "write_plot"]

Row = Dict[str, Any]


def machine(device: torch.device) -> Dict[str, object]:
    """Versions and hardware that a measurement depends on.

    Args:
        device: where the work is done.

    Returns:
        What :func:`.provenance.machine` tells, and the versions of Python, torch, fairseq and this package.
    """
    import fairseq

    return {
        **provenance.machine(device),
        "torch": torch.__version__,
        "fairseq": fairseq.__version__,
        "selfkd_fairseq": __version__,
        "python": platform.python_version(),
    }


def as_table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> str:
    """A plain table.

    Args:
        title: stands above it.
        rows: column -> value, each; numbers are already formatted, with their unit in the name of the column.
        columns: which ones, in order; a row without one has a blank there.

    Returns:
        A blank line, the title, and the table.
    """
    cells = [list(columns)] + [[str(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
        )
        for line in cells
    ]
    return "\n".join(["", title, *lines])


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows, with one column for every key that any row has.

    Args:
        path: the file; one that is there is replaced.
        rows: column -> value, each; units are in the names of the columns.
    """
    columns: List[str] = []
    for row in rows:
        columns += [key for key in row if key not in columns]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_plot(path: Path, rows: Sequence[Row], where: str) -> None:
    """Two panels of bars: time and peak extra memory, each relative to label_smoothed_cross_entropy.

    Args:
        path: the image; its ending says the format.
        rows: those of ``kind`` "loss" are drawn; they have ``size``, ``name`` and both ratios (1 is equal).
        where: stands above the panels: the machine.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    loss_rows = [row for row in rows if row["kind"] == "loss"]
    sizes = list(dict.fromkeys(row["size"] for row in loss_rows))
    names = list(dict.fromkeys(row["name"] for row in loss_rows))
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 0.42 * len(names) + 1.8), sharey=True)
    height = 0.8 / len(sizes)
    for axis, column, title in (
        (axes[0], "time / label smoothing", "time of forward and backward"),
        (axes[1], "memory / label smoothing", "peak extra memory"),
    ):
        for i, size in enumerate(sizes):
            values = {row["name"]: float(row[column]) for row in loss_rows if row["size"] == size}
            axis.barh(
                [y + i * height for y in range(len(names))], [values.get(n, 0.0) for n in names], height, label=size
            )
        axis.axvline(1.0, color="black", linewidth=0.8, linestyle="--")
        axis.set_title(title)
        axis.set_xlabel("relative to fairseq's label_smoothed_cross_entropy")
    axes[0].set_yticks([y + 0.4 - height / 2 for y in range(len(names))], names)
    axes[0].invert_yaxis()
    axes[1].legend(title="N x V x d", loc="center right", bbox_to_anchor=(0.985, 0.4))
    figure.suptitle(where, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
