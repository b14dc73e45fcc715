"""The plots of a comparison, each a PNG file: scores, calibration, learning curves, alpha, soft targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence, Tuple

from .comparison import Comparison, RunResult, SystemResult
from .runs import WORD_GROUPS, Run

DPI = 130

Points = Sequence[Tuple[float, float]]
Range = Tuple[float, float, float]  # a value, and from where to where its bar goes


def _figure(panels: int, width: float = 5.5) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it would choose a backend for the whole process.
    figure = Figure(figsize=(width * panels, 4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _colours(comparison: Comparison) -> dict[str, Any]:
    from matplotlib import colormaps

    palette = colormaps["tab10" if len(comparison.systems) <= 10 else "tab20"]
    return {system.system: palette(index % palette.N) for index, system in enumerate(comparison.systems)}


def _draw_curves(
    axes: Any, comparison: Comparison, colours: dict[str, Any], curve_of: Callable[[Run], Points]
) -> list[Points]:
    """One line for a system; with several seeds their mean where all have a point, in a band from lowest to highest."""
    drawn = []
    for system, colour in colours.items():
        curves = [curve for result in comparison.runs_of(system) if (curve := curve_of(result.run))]
        if not curves:
            continue
        drawn += curves
        points = list(map(dict, curves))
        places = sorted(set(points[0]).intersection(*points[1:]))
        values = [[of_seed[place] for of_seed in points] for place in places]
        label = f"{system} (mean of {len(curves)})" if len(curves) > 1 else system
        axes.plot(places, [sum(found) / len(found) for found in values], color=colour, linewidth=1.7, label=label)
        if len(curves) > 1:
            axes.fill_between(places, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.2, lw=0)
    axes.grid(alpha=0.3)
    return drawn


def _legend(figure: Any, all_axes: Sequence[Any]) -> None:
    """Below all panels, where it hides no line."""
    lines = {line.get_label(): line for axes in all_axes for line in axes.get_legend_handles_labels()[0]}
    several = any(axes.collections for axes in all_axes)
    title = "line: mean over the seeds; band: from the lowest seed to the highest" if several else None
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=min(len(lines), 2 * len(all_axes)),
        fontsize="small", title=title, title_fontsize="small",
    )  # fmt: skip


def _show_the_end(axes: Any, curves: Sequence[Points]) -> None:
    """Cut off the first updates, which are far above, where the differences would vanish beside them."""
    values = [value for curve in curves for _, value in curve]
    lowest, highest = min(values), max(values)
    late = [value for curve in curves for update, value in curve if update >= curve[-1][0] / 3]
    top = max(late)
    if highest - lowest > 1.5 * (top - lowest) > 0:
        axes.set_ylim(lowest - 0.05 * (top - lowest), top + 0.05 * (top - lowest))
        axes.set_title(f"{axes.get_title('left')} (it starts at {highest:.1f})", loc="left")


def _logged(name: str) -> Callable[[Run], Points]:
    """The curve of that name in the log of a run; empty without a log."""
    return lambda run: getattr(run.log, name) if run.log else []


def _curve_plot(comparison: Comparison, path: Path, panels: dict[str, str], nll: bool) -> bool:
    """Draw the panels (title -> curve of the log) that have curves; False, and no file, if none has."""
    curves_of = {title: _logged(name) for title, name in panels.items()}
    shown = {title: of for title, of in curves_of.items() if any(of(result.run) for result in comparison.runs)}
    if not shown:
        return False
    figure, all_axes = _figure(len(shown))
    colours = _colours(comparison)
    for axes, (title, curve_of) in zip(all_axes, shown.items()):
        curves = _draw_curves(axes, comparison, colours, curve_of)
        axes.set_xlabel("updates")
        axes.set_title(title, loc="left")
        if nll:
            axes.set_ylabel("nats per token")
            _show_the_end(axes, curves)
        else:
            axes.set_ylim(0, max(1.05 * max(value for curve in curves for _, value in curve), 1e-3))
    _legend(figure, all_axes)
    figure.savefig(path)
    return True


class _Panel(NamedTuple):
    """One number of all runs and systems; None: there is none."""

    title: str
    of_run: Callable[[RunResult], Range | None]
    of_system: Callable[[SystemResult], Range | None]
    differences: bool = False


def _mean(name: str) -> Callable[[SystemResult], Range]:
    """The mean of a value, and a standard deviation to both sides."""

    def of(system: SystemResult) -> Range:
        mean, deviation = system.means[name], system.deviations.get(name, 0.0)
        return mean, mean - deviation, mean + deviation

    return of


def _score_panels(comparison: Comparison) -> list[_Panel]:
    panels = []
    if "bleu" in comparison.runs[0].values:
        title = "BLEU (systems: ± standard deviation)"
        panels.append(_Panel(title, lambda result: (result.values["bleu"],) * 3, _mean("bleu")))
    if any(result.nll_difference for result in comparison.runs):
        title = f"nll less {comparison.baseline}'s, nats per token (95 %)"
        panels.append(_Panel(title, lambda run: run.nll_difference, lambda system: system.nll_difference, True))
    else:  # the intervals of single runs: whether two differ they do not say
        title = "perplexity (runs: 95 %, systems: ± standard deviation)"
        panels.append(_Panel(title, lambda result: result.ppl, _mean("ppl")))
    return panels


def _draw_range(axes: Any, found: Range | None, height: float, **style: Any) -> None:
    if found is not None:
        value, low, high = found
        error = [[max(value - low, 0.0)], [max(high - value, 0.0)]] if high > low else None
        axes.errorbar(value, height, xerr=error, **style)


def _draw_panel(axes: Any, comparison: Comparison, panel: _Panel) -> None:
    """A dot for each run, below the diamond of its system."""
    colours = _colours(comparison)
    for place, system in enumerate(comparison.systems):
        colour = colours[system.system]
        results = comparison.runs_of(system.system)
        for index, result in enumerate(results):
            height = place + 0.12 + 0.3 * (index + 0.5) / len(results)
            _draw_range(
                axes, panel.of_run(result), height, color=colour, fmt="o", markersize=3.5, linewidth=0.8, alpha=0.7
            )
        _draw_range(axes, panel.of_system(system), place - 0.08, color=colour, fmt="D", capsize=4)
    if panel.differences:
        axes.axvline(0, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(comparison.systems)), [system.system for system in comparison.systems])
    axes.set_ylim(len(comparison.systems) - 0.4, -0.5)
    axes.grid(alpha=0.3, axis="x")
    axes.set_title(panel.title, loc="left", fontsize="medium")


def _score_plot(comparison: Comparison, path: Path) -> None:
    panels = _score_panels(comparison)
    figure, all_axes = _figure(len(panels))
    figure.set_figheight(1.2 + 0.7 * len(comparison.systems))
    for axes, panel in zip(all_axes, panels):
        _draw_panel(axes, comparison, panel)
    for axes in all_axes[1:]:
        axes.tick_params(labelleft=False)
    figure.supxlabel("dots: runs; diamonds: all seeds of a system", fontsize="small")
    figure.savefig(path)


def _gaps(run: Run) -> Points:
    """(confidence, accuracy less confidence) of each bin that has tokens; the place is the middle of the bin."""
    return [
        ((found.low + found.high) / 2, found.accuracy - found.confidence)
        for found in run.evaluation.bins
        if found.accuracy is not None and found.confidence is not None
    ]


def _calibration_plot(comparison: Comparison, path: Path) -> bool:
    """Draw how far accuracy is from confidence; False, and no file, if no run has bins."""
    if not any(_gaps(result.run) for result in comparison.runs):
        return False
    figure, (axes,) = _figure(1, 7)
    figure.set_figheight(5)
    axes.axhline(0, color="black", linewidth=1, linestyle="--")
    _draw_curves(axes, comparison, _colours(comparison), _gaps)
    axes.set(xlim=(0, 1), xlabel="confidence: probability of the most probable word", ylabel="accuracy - confidence")
    axes.set_title("Calibration (above 0: too unsure, below: too sure)", loc="left")
    _legend(figure, [axes])
    figure.savefig(path)
    return True


def _word_plot(comparison: Comparison, path: Path) -> bool:
    """Draw what lies on which words, means over the seeds; False, and no file, if no run has shares."""
    shares = {}
    for system in comparison.systems:
        evaluations = [result.run.evaluation for result in comparison.runs_of(system.system)]
        of_runs = [evaluation.word_shares for evaluation in evaluations if evaluation.word_shares]
        if of_runs:
            shares[system.system] = of_runs
    if not shares:
        return False
    titles = {"soft_targets": "Probability of the soft targets", "model": "Probability of the model"}
    figure, all_axes = _figure(len(titles))
    figure.set_figheight(1.8 + 0.5 * len(shares))
    for axes, (name, title) in zip(all_axes, titles.items()):
        left = [0.0] * len(shares)
        for group in WORD_GROUPS:
            means = [sum(run[name][group] for run in runs) / len(runs) for runs in shares.values()]
            axes.barh(range(len(shares)), means, left=left, label=group, edgecolor="white", linewidth=0.5)
            left = [start + mean for start, mean in zip(left, means)]
        axes.set(xlim=(0, 1), ylim=(len(shares) - 0.4, -0.6))
        axes.set_title(title, loc="left")
    all_axes[0].set_yticks(range(len(shares)), list(shares))
    all_axes[1].set_yticks([])
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    figure.savefig(path)
    return True


def draw_plots(comparison: Comparison, folder: Path) -> list[str]:
    """Write the plots that there are numbers for.

    Args:
        comparison: of the runs.
        folder: an existing one.

    Returns:
        The names of the files, among ``scores.png``, ``calibration.png``, ``curves.png``, ``alpha.png``,
        ``soft_target.png``, ``soft_target_words.png``.
    """
    curves = {
        "curves.png": {"Training nll": "train_nll", "Validation nll": "valid_nll"},
        "alpha.png": {"alpha": "alpha"},
        "soft_target.png": {"Soft-target probability of the target word": "target_prob"},
    }
    _score_plot(comparison, folder / "scores.png")
    drawn = ["scores.png"]
    if _calibration_plot(comparison, folder / "calibration.png"):
        drawn.append("calibration.png")
    for name, panels in curves.items():
        if _curve_plot(comparison, folder / name, panels, name == "curves.png"):
            drawn.append(name)
    if _word_plot(comparison, folder / "soft_target_words.png"):
        drawn.append("soft_target_words.png")
    return drawn
