"""Words and their nearest words as a picture: a cell names the neighbour, its colour is the soft-target probability."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING, Sequence

from .neighbours import Neighbour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MAX_NEIGHBOURS", "MAX_WORDS", "draw_heat_map"]

# A picture of more than these would be larger than a screen shows, and in the end than an image can be.
MAX_WORDS = 100
MAX_NEIGHBOURS = 30
LETTERS = 14  # of a word that fit into a cell


def draw_heat_map(neighbours: Sequence[Sequence[Neighbour]], title: str) -> tuple[bytes, str]:
    """Draw the heat map.

    Args:
        neighbours: for each word itself and its neighbours by rank; at least one word. The first
            :data:`MAX_WORDS` words and :data:`MAX_NEIGHBOURS` neighbours are drawn.
        title: above the picture.

    Returns:
        The PNG, and the characters that matplotlib's font lacks, each once: in the PNG they are boxes.
    """
    import numpy as np
    from matplotlib.figure import Figure

    drawn = [row[: MAX_NEIGHBOURS + 1] for row in neighbours[:MAX_WORDS]]
    columns = max(1, *(len(row) - 1 for row in drawn))
    shares = np.full((len(drawn), columns), np.nan)
    for i, row in enumerate(drawn):
        shares[i, : len(row) - 1] = [neighbour.q_nearest for neighbour in row[1:]]
    figure = Figure(figsize=(3.2 + 1.2 * columns, 1.6 + 0.32 * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, aspect="auto", cmap="viridis")
    middle = sum(image.get_clim()) / 2
    for i, row in enumerate(drawn):
        for j, neighbour in enumerate(row[1:]):
            colour = "white" if neighbour.q_nearest < middle else "black"
            axes.text(j, i, _label(neighbour.neighbour), ha="center", va="center", fontsize=9, color=colour)
    _name_axes(axes, drawn, columns)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, label="soft-target probability of the neighbour")
    return _as_png(figure)


def _name_axes(axes: Axes, drawn: Sequence[Sequence[Neighbour]], columns: int) -> None:
    axes.set_yticks(range(len(drawn)), [f"{_label(row[0].word)}  {row[0].q_nearest:.2f}" for row in drawn])
    axes.set_ylabel("word, and the probability that it keeps")
    axes.set_xticks(range(columns), [str(rank) for rank in range(1, columns + 1)])
    axes.set_xlabel("nearest words, from the nearest on")
    axes.tick_params(length=0)


def _label(word: str) -> str:
    short = word if len(word) <= LETTERS else word[: LETTERS - 1] + "\u2026"
    return short.replace("$", r"\$")  # two dollars would make a formula


def _as_png(figure: Figure) -> tuple[bytes, str]:
    content = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(content, format="png", dpi=110)
    missing = {match[1] for w in caught if (match := re.match(r"Glyph (\d+) .*missing", str(w.message)))}
    return content.getvalue(), "".join(sorted(chr(int(code)) for code in missing))
