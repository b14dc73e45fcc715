"""A comparison as one table: for the terminal, in Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any, NamedTuple, Sequence

from .bootstrap import Interval
from .comparison import Comparison, RunResult, SystemResult


class Column(NamedTuple):
    """How a number is shown.

    Attributes:
        title: of the column.
        decimals: how many.
    """

    title: str
    decimals: int


# In the order of the table; what no run has gets no column.
COLUMNS = {
    "bleu": Column("BLEU", 1),
    "chrf2": Column("chrF2", 1),
    "ter": Column("TER", 1),
    "bleu_tokenised": Column("BLEU tok.", 1),
    "ppl": Column("ppl", 2),
    "accuracy": Column("acc. %", 1),
    "calibration_error": Column("ECE", 4),
}

EXPLANATIONS = {
    "bleu": "BLEU, chrF2, TER: of the detokenised text, percent",
    "bleu_tokenised": "BLEU tok.: of the lower-cased tokens, percent",
    "ppl": "ppl: exp of the negative log-likelihood per token of the reference (nats); 95 %: bootstrap over sentences",
    "accuracy": "acc. %: tokens whose most probable word is that of the reference",
    "calibration_error": "ECE: expected calibration error, a fraction",
}


def _interval(interval: Interval | None, decimals: int, sign: str = "") -> str:
    return f"{interval.low:{sign}.{decimals}f} to {interval.high:{sign}.{decimals}f}" if interval else ""


def _system_cells(system: SystemResult, titles: Sequence[str]) -> list[str]:
    cells = dict.fromkeys(titles, "")
    cells["system"], cells["seed"] = system.system, f"mean of {len(system.seeds)}"
    for name, mean in system.means.items():
        if name in COLUMNS:
            column = COLUMNS[name]
            cells[column.title] = f"{mean:.{column.decimals}f}"
            if name in system.deviations:
                cells[column.title] += f" ± {system.deviations[name]:.{column.decimals}f}"
        if name in system.p_values:
            cells[f"p {COLUMNS[name].title}"] = f"{system.p_values[name]:.4f}"
    return list({**cells, **_difference(system.nll_difference)}.values())


def _difference(interval: Interval | None) -> dict[str, str]:
    """The cells of a difference from the baseline."""
    if interval is None:
        return {}
    return {"nll diff.": f"{interval.value:+.3f}", "diff. 95 %": _interval(interval, 3, "+")}


def _run_cells(result: RunResult, titles: Sequence[str]) -> list[str]:
    cells = dict.fromkeys(titles, "")
    cells["system"], cells["seed"] = result.run.system, str(result.run.seed)
    for name, column in COLUMNS.items():
        if name in result.values:
            cells[column.title] = f"{result.values[name]:.{column.decimals}f}"
        if name in result.p_values:
            cells[f"p {column.title}"] = f"{result.p_values[name]:.4f}"
    cells["ppl 95 %"] = _interval(result.ppl, COLUMNS["ppl"].decimals)
    return list({**cells, **_difference(result.nll_difference)}.values())


def table(comparison: Comparison) -> list[list[str]]:
    """The cells of the table.

    Args:
        comparison: with at least one run; units are those of :class:`RunResult`.

    Returns:
        The titles, a row of means for each system, a row for each run; all of one length, rounded.
    """
    titles = ["system", "seed"]
    compared = any(result.nll_difference is not None for result in comparison.runs)
    for name, column in COLUMNS.items():
        if name not in comparison.runs[0].values:
            continue
        titles.append(column.title)
        if any(name in result.p_values for result in comparison.runs):
            titles.append(f"p {column.title}")
        if name == "ppl":
            titles += ["ppl 95 %", *(["nll diff.", "diff. 95 %"] if compared else [])]
    return [
        titles,
        *(_system_cells(system, titles) for system in comparison.systems),
        *(_run_cells(result, titles) for result in comparison.runs),
    ]


def explanations(comparison: Comparison) -> list[str]:
    """What the columns mean.

    Args:
        comparison: with at least one run; only columns that its table has are explained.

    Returns:
        A line each, with the unit of the number.
    """
    how = comparison.resampling
    lines = [text for name, text in EXPLANATIONS.items() if name in comparison.runs[0].values]
    lines.append("mean ± sample standard deviation over the seeds; none with one seed")
    against = f"the run of {comparison.baseline} with the same seed"
    if comparison.test_signatures:
        kind = {"bootstrap": "paired bootstrap", "randomisation": "paired approximate randomisation"}[how.test]
        lines.append(
            f"p: sacreBLEU's {kind} against {against}, or of the means over the same seeds, "
            f"{how.samples} samples, seed {how.seed}"
        )
    if any(result.nll_difference is not None for result in comparison.runs):
        lines.append(
            f"nll diff.: nats per token, less those of {against}, or the means over the same seeds; 95 %: paired "
            "bootstrap over sentences"
        )
    return lines


def _aligned(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cells of equal width in each column; the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    return [
        [cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(zip(row, widths))]
        for row in cells
    ]


def as_text(comparison: Comparison) -> str:
    """The table for a terminal.

    Args:
        comparison: with at least one run.

    Returns:
        Lines with aligned columns, the last without its end.
    """
    return "\n".join("  ".join(row).rstrip() for row in _aligned(table(comparison)))


def as_markdown(comparison: Comparison) -> str:
    """The table in Markdown; names are shown as they are, also those with a ``|``.

    Args:
        comparison: with at least one run.

    Returns:
        Whole lines.
    """
    escaped = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in table(comparison)]
    titles, *rows = _aligned(escaped)
    rule = [("-" * (len(title) - 1) + ":") if index else "-" * len(title) for index, title in enumerate(titles)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [titles, rule, *rows])


def _csv_row(comparison: Comparison, kind: str, system: str, values: dict[str, float]) -> dict[str, Any]:
    signatures = {f"{name}_signature": text for name, text in comparison.signatures.items()}
    signatures.update({f"{name}_p_signature": text for name, text in comparison.test_signatures.items()})
    return {"row": kind, "system": system, "split": comparison.split, **values, **signatures}


def _csv_columns(comparison: Comparison) -> list[str]:
    columns = ["row", "system", "seed", "n", "split", "baseline"]
    for name in comparison.runs[0].values:
        columns += [name, f"{name}_deviation"]
        if name in comparison.test_signatures:
            columns.append(f"{name}_p")
        if name == "ppl":
            columns += ["ppl_low", "ppl_high", "nll_difference", "nll_difference_low", "nll_difference_high"]
    columns += [f"{name}_signature" for name in comparison.signatures]
    return [*columns, *(f"{name}_p_signature" for name in comparison.test_signatures), "note"]


def _difference_columns(interval: Interval | None) -> dict[str, float]:
    names = ("nll_difference", "nll_difference_low", "nll_difference_high")
    return dict(zip(names, interval or ()))


def as_csv(comparison: Comparison) -> str:
    """The same rows unrounded, with the metrics' signatures; ``row`` is ``run`` or ``mean``.

    Args:
        comparison: with at least one run; units are those of :class:`RunResult`.

    Returns:
        CSV, the titles first.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _csv_columns(comparison), lineterminator="\n")
    writer.writeheader()
    for system in comparison.systems:
        row = _csv_row(comparison, "mean", system.system, system.means)
        deviations = {f"{name}_deviation": value for name, value in system.deviations.items()}
        row.update({f"{name}_p": value for name, value in system.p_values.items()})
        row.update(_difference_columns(system.nll_difference))
        writer.writerow({**row, "n": len(system.seeds), "baseline": comparison.baseline, **deviations})
    for result in comparison.runs:
        row = _csv_row(comparison, "run", result.run.system, result.values)
        row.update({f"{name}_p": value for name, value in result.p_values.items()})
        row.update(ppl_low=result.ppl.low, ppl_high=result.ppl.high)
        row.update(_difference_columns(result.nll_difference))
        writer.writerow({**row, "seed": result.run.seed, "n": 1, "baseline": comparison.baseline, "note": result.note})
    return text.getvalue()
