"""A reliability diagram: accuracy against confidence, bin by bin (Guo et al., 2017, arXiv 1706.04599)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Sequence

import numpy as np

from .calibration import Bin, Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_reliability_diagram"]

TITLE_WIDTH = 70  # characters
# Face and edge of a gap. Opaque: where confidence is below accuracy it lies on the bar.
OVERCONFIDENT, UNDERCONFIDENT = ("#f4a6a6", "tab:red"), ("#ffd09b", "tab:orange")


def draw_reliability_diagram(calibration: Calibration, title: Sequence[str]) -> bytes:
    """Accuracy of each bin with the gap to its mean confidence, and below the share of the tokens.

    Args:
        calibration: of at least one token.
        title: the lines above the diagram; of a long one the end is shown.

    Returns:
        The content of a PNG file.
    """
    from matplotlib.figure import Figure

    # A Figure of its own, without pyplot: it is drawn by Agg, and no setting of the process changes.
    figure = Figure(figsize=(5.6, 6.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    _draw_accuracy(upper, [found for found in calibration.bins if found.tokens])
    _draw_shares(lower, calibration.bins)
    lines = (line if len(line) <= TITLE_WIDTH else f"...{line[3 - TITLE_WIDTH :]}" for line in title)
    figure.suptitle("\n".join(lines).replace("$", r"\$"), fontsize=10)  # two dollars would make a formula
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    return content.getvalue()


def _draw_accuracy(axes: Axes, bins: list[Bin]) -> None:
    low, width = np.array([b.low for b in bins]), np.array([b.high - b.low for b in bins])
    accuracy, confidence = (np.array([getattr(b, name) for b in bins]) for name in ("accuracy", "confidence"))
    axes.bar(low, accuracy, width, align="edge", color="tab:blue", edgecolor="white", label="accuracy")
    gaps = {"above": (OVERCONFIDENT, confidence > accuracy), "below": (UNDERCONFIDENT, confidence < accuracy)}
    for side, ((face, edge), shown) in gaps.items():
        if shown.any():
            bottom, top = np.minimum(confidence, accuracy)[shown], np.maximum(confidence, accuracy)[shown]
            axes.bar(
                low[shown], top - bottom, width[shown], bottom, align="edge", color=face, edgecolor=edge,
                hatch="//", label=f"gap: confidence is {side} accuracy",
            )  # fmt: skip
    axes.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", label="confidence equals accuracy")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    axes.legend(loc="upper left", fontsize=9)


def _draw_shares(axes: Axes, bins: list[Bin]) -> None:
    tokens = np.array([b.tokens for b in bins])
    low, width = [b.low for b in bins], [b.high - b.low for b in bins]
    axes.bar(low, 100 * tokens / tokens.sum(), width, align="edge", color="tab:gray", edgecolor="white")
    axes.set(xlabel="confidence: probability of the most probable word", ylabel="% of tokens")
