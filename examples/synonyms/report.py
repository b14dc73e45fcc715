"""The demo's table (Markdown and CSV) and figure."""

import csv
import io
import math
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import matplotlib

from selfkd_fairseq.evaluation.training_log import TrainingLog
from selfkd_fairseq.runs import provenance

from .distribution import Measurement

matplotlib.use("Agg")  # a figure in a file, also where there is no display
import matplotlib.pyplot as plt  # noqa: E402

__all__ = ["COLUMNS", "Row", "as_csv", "as_markdown", "draw_figure", "explanation"]

COLORS = {
    "cross_entropy": "tab:blue",
    "label_smoothing": "tab:orange",
    "self_kd": "tab:green",
    "self_kd_shuffled": "tab:gray",
}


class Row(NamedTuple):
    """One system. ``valid_nll`` in nats; ``correct`` is a fraction; ``test`` is measured on the test set."""

    system: str
    valid_nll: float
    bleu: float
    correct: float
    test: Measurement


# header -> how a cell is written
COLUMNS = {
    "system": lambda row: row.system,
    "valid nll": lambda row: f"{row.valid_nll / math.log(2):.3f}",
    "ppl": lambda row: f"{math.exp(row.valid_nll):.3f}",
    "BLEU": lambda row: f"{row.bleu:.1f}",
    "correct %": lambda row: f"{100 * row.correct:.1f}",
    "KL": lambda row: f"{row.test.kl:.3f}",
    "KL amb.": lambda row: f"{row.test.kl_ambiguous:.3f}",
    "p(ref.)": lambda row: f"{row.test.reference_prob:.3f}",
    "p(other)": lambda row: f"{row.test.other_correct_prob:.3f}",
    "p(wrong)": lambda row: f"{row.test.wrong_prob:.3f}",
}


def _cells(rows: Sequence[Row]) -> List[List[str]]:
    return [list(COLUMNS)] + [[cell(row) for cell in COLUMNS.values()] for row in rows]


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table with aligned columns."""
    cells = _cells(rows)
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]

    def line(values):
        first, *rest = (
            value.ljust(w) if i == 0 else value.rjust(w) for i, (value, w) in enumerate(zip(values, widths))
        )
        return "| " + " | ".join([first, *rest]) + " |\n"

    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|\n"
    return line(cells[0]) + rule + "".join(line(values) for values in cells[1:])


def as_csv(rows: Sequence[Row]) -> str:
    """The same cells, comma-separated."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_cells(rows))
    return text.getvalue()


def explanation(truth: Measurement, bleu_signature: str, command: str) -> str:
    """What the columns mean, and what it takes to get the table again (command and versions)."""
    found = provenance.versions().items()
    versions = [
        f"{package} {version}" for package, version in found if package in ("python", "torch") or "fairseq" in package
    ]
    return (
        f"`{command}`, {', '.join(versions)}. {truth.positions} test positions, of which {truth.ambiguous_positions} "
        "are ambiguous (several words are correct).\n\n"
        "- truth: the distribution that the corpus was drawn from; its BLEU is that of the most probable translation\n"
        "- valid nll: bits per token on the validation set; ppl: 2 to that power\n"
        f"- BLEU: against the one reference that was drawn; sacreBLEU {bleu_signature}\n"
        "- correct: translations that are one of the correct ones\n"
        "- KL: KL(truth || model) of the next word in nats, mean over all positions; amb.: over ambiguous positions\n"
        "- p: mean probability, over ambiguous positions, of the reference word, of the other correct words together, "
        "and of all wrong words together\n"
        "- self_kd_shuffled: a control, self_kd with the rows of the embedding matrix in another order\n"
    )


def draw_figure(curves: Dict[str, TrainingLog], rows: Sequence[Row], path: Path) -> None:
    """Learning curves, alpha, and where the probability goes at ambiguous positions.

    Args:
        curves: system -> curves.
        rows: the table; the first row is the truth.
        path: a PNG file.
    """
    figure = plt.figure(figsize=(11, 5), dpi=130, layout="constrained")
    grid = figure.add_gridspec(4, 2, width_ratios=(3, 2))
    learning = figure.add_subplot(grid[:3, 0])
    _draw_learning_curves(learning, curves, rows[0])
    _draw_alpha(figure.add_subplot(grid[3, 0], sharex=learning), curves)
    _draw_probabilities(figure.add_subplot(grid[:, 1]), rows)
    figure.savefig(path)
    plt.close(figure)


def _draw_learning_curves(axes, curves, truth: Row) -> None:
    floor = truth.valid_nll / math.log(2)
    final = floor
    for system, curve in curves.items():
        updates, nats = zip(*curve.valid_nll)
        nll = [value / math.log(2) for value in nats]
        axes.plot(updates, nll, marker=".", color=COLORS[system], label=system)
        final = max(final, nll[-1])
    axes.axhline(floor, color="black", linestyle="--", label="truth (a perfect model)")
    # the first epochs are far above: show where the systems differ
    start = max(curve.valid_nll[0][1] for curve in curves.values()) / math.log(2)
    axes.set_ylim(0.9 * floor, min(final + 2 * (final - floor), 1.05 * start))
    axes.set_ylabel("validation nll (bits per token)")
    axes.set_title(f"Learning curves (they start at {start:.1f} bits)", loc="left")
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_alpha(axes, curves) -> None:
    for system, curve in curves.items():
        if curve.alpha:
            updates, values = zip(*curve.alpha)
            axes.plot(updates, values, color=COLORS[system])
    axes.set_ylabel("alpha\n(self_kd)")
    axes.set_xlabel("updates")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _draw_probabilities(axes, rows: Sequence[Row]) -> None:
    parts = (
        ("the reference word", [row.test.reference_prob for row in rows], "0.45"),
        ("other correct words", [row.test.other_correct_prob for row in rows], "tab:purple"),
        ("wrong words", [row.test.wrong_prob for row in rows], "tab:red"),
    )
    names = [row.system for row in rows]
    left = [0.0] * len(rows)
    for label, values, color in parts:
        container = axes.barh(names, values, left=left, color=color, label=label)
        last = label == parts[-1][0]  # often too small to hold its number
        axes.bar_label(
            container, fmt="%.3f", label_type="edge" if last else "center", padding=4 if last else 0,
            color=color if last else "white",
        )  # fmt: skip
        left = [start + value for start, value in zip(left, values)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1.16)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel("mean probability, where several words are correct")
    axes.set_title("Probability of ...", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.12), ncol=3, frameon=False, columnspacing=1.0)
