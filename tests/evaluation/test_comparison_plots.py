"""Which plots there are, and the numbers in them."""

import pytest
from matplotlib.figure import Figure

from selfkd_fairseq.evaluation.comparison import compare
from selfkd_fairseq.evaluation.comparison_plots import draw_plots
from selfkd_fairseq.evaluation.runs import read_run
from selfkd_fairseq.evaluation.significance import Resampling
from selfkd_fairseq.evaluation.translation_scores import TextOptions
from tests.evaluation.run_folders import bins, language_model, training_log, word_shares

LOGS = {("base", 1): ([4, 3, 2.5], None), ("kd", 1): ([4, 2, 2], 0.1), ("kd", 2): ([4, 3, 2, 1], 0.3)}


def comparison_of(folder, logs, gaps=None, shares=None):
    runs = []
    for (system, seed), log in logs.items():
        text = None if log is None else training_log(*log)
        found = {"expected_calibration_error": 0.03, "bins": bins(*(gaps or {}).get((system, seed), ()))}
        of_words = (shares or {}).get((system, seed))
        sums = (2.5, 3.0, 8.0) if system == "base" else (2.0, 3.5, 6.0)
        place = language_model(folder / f"{system}{seed}", seed, sums, text, calibration=found, word_shares=of_words)
        runs.append(read_run(system, place, "test"))
    return compare(runs, "test", runs[0].system, TextOptions(), Resampling("bootstrap", 5, 1))


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved: name -> figure."""
    saved = {}
    save = Figure.savefig

    def keep(figure, path):
        saved[path.name] = figure
        save(figure, path)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def lines(axes):
    return {line.get_label(): list(zip(line.get_xdata(), line.get_ydata())) for line in axes.get_lines()}


def test_curves_of_each_system(tmp_path, figures):
    names = draw_plots(comparison_of(tmp_path, LOGS), tmp_path)
    assert names == ["scores.png", "curves.png", "alpha.png", "soft_target.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)
    training, validation = figures["curves.png"].axes
    nats = 0.6931471805599453
    assert lines(training)["base"] == [(1, pytest.approx(4 * nats)), (2, pytest.approx(3 * nats)),
                                       (3, pytest.approx(2.5 * nats))]  # fmt: skip
    # The mean goes as far as both seeds do.
    mean = [(1, pytest.approx(4 * nats)), (2, pytest.approx(2.5 * nats)), (3, pytest.approx(2 * nats))]
    assert lines(training)["kd (mean of 2)"] == mean
    assert len(training.get_lines()) == 2 == len(validation.get_lines())
    # Around it a band from the lowest seed to the highest; none around a single seed.
    (band,) = training.collections
    edges = {tuple(corner) for corner in band.get_paths()[0].vertices.round(4)}
    assert edges == {
        (x, round(bits * nats, 4)) for x, *of_seeds in ((1, 4, 4), (2, 2, 3), (3, 2, 2)) for bits in of_seeds
    }
    (legend,) = figures["curves.png"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["base", "kd (mean of 2)"]
    assert not training.get_legend() and "band: from the lowest seed" in legend.get_title().get_text()
    assert lines(validation)["base"][0] == (1, pytest.approx(4.5 * nats))
    (alpha,) = figures["alpha.png"].axes
    assert lines(alpha)["kd (mean of 2)"] == [(1, pytest.approx(0.2)), (2, pytest.approx(0.4)), (3, pytest.approx(0.6))]
    assert "base" not in lines(alpha)
    colours = [{line.get_color() for line in axes.get_lines()} for axes in (training, alpha)]
    assert len(colours[0]) == 2 and len(colours[1]) == 1 and colours[1] < colours[0]


def drawn_ranges(axes):
    """Of each dot and diamond: value, and the ends of its bar."""
    found = []
    for container in axes.containers:
        point, _, bars = container.lines
        ends = bars[0].get_segments()[0][:, 0].tolist() if bars else None
        found.append((point.get_xdata()[0], ends))
    return found


def test_scores_are_differences_from_the_baseline(tmp_path, figures):
    comparison = comparison_of(tmp_path, dict.fromkeys(LOGS, None))
    draw_plots(comparison, tmp_path)
    (axes,) = figures["scores.png"].axes
    assert axes.get_title("left") == "nll less base's, nats per token (95 %)"
    of_run = comparison.runs[1].nll_difference
    assert of_run is not None and comparison.runs[2].nll_difference is None  # the baseline has no run of that seed
    value, ends = drawn_ranges(axes)[0]
    assert len(axes.containers) == 1 and value == of_run.value == pytest.approx(-2 / 9)
    assert of_run.low < of_run.high and ends == pytest.approx([of_run.low, of_run.high])
    zero = axes.get_lines()[-1]
    assert list(zero.get_xdata()) == [0, 0] and zero.get_linestyle() == "--"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["base", "kd"]


def test_scores_of_one_system_alone(tmp_path, figures):
    comparison = comparison_of(tmp_path, {("base", 1): None, ("base", 2): None})
    draw_plots(comparison, tmp_path)
    (axes,) = figures["scores.png"].axes
    assert axes.get_title("left").startswith("perplexity")
    values = [value for value, _ in drawn_ranges(axes)]
    assert values == [*(result.values["ppl"] for result in comparison.runs), comparison.systems[0].means["ppl"]]


def test_only_what_was_logged_is_drawn(tmp_path):
    without = {key: None for key in LOGS}
    assert draw_plots(comparison_of(tmp_path / "a", without), tmp_path) == ["scores.png"]
    plain = {**without, ("base", 1): LOGS["base", 1]}
    assert draw_plots(comparison_of(tmp_path / "b", plain), tmp_path) == ["scores.png", "curves.png"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["curves.png", "scores.png"]


def test_first_updates_do_not_hide_the_others(tmp_path, figures):
    falling = [20, 12, 8, 4, 3.5, 3.2, 3.1, 3, 3]
    draw_plots(comparison_of(tmp_path, {("base", 1): (falling, None)}), tmp_path)
    axes = figures["curves.png"].axes[0]
    assert axes.get_ylim()[1] < 9 * 0.7 and axes.get_title("left") == "Training nll (it starts at 13.9)"
    assert axes.get_ylim()[0] < 3 * 0.69


def test_calibration_bin_by_bin(tmp_path, figures):
    gaps = {("base", 1): (0.1, None, -0.25), ("kd", 1): (0.2, 0.3, -0.1), ("kd", 2): (0.1, None, -0.2)}
    names = draw_plots(comparison_of(tmp_path, dict.fromkeys(gaps), gaps), tmp_path)
    assert names == ["scores.png", "calibration.png"] and (tmp_path / "calibration.png").is_file()
    drawn = lines(figures["calibration.png"].axes[0])
    # A bin without a token is no point, and the mean has the bins that both seeds have.
    assert drawn["base"] == [(pytest.approx(1 / 6), pytest.approx(0.1)), (pytest.approx(5 / 6), pytest.approx(-0.25))]
    mean = [(pytest.approx(1 / 6), pytest.approx(0.15)), (pytest.approx(5 / 6), pytest.approx(-0.15))]
    assert drawn["kd (mean of 2)"] == mean


def test_words_of_the_soft_targets(tmp_path, figures):
    of_kd = {("kd", 1): word_shares(0.5, 0.25), ("kd", 2): word_shares(0.75, 0.5)}
    of_runs = {("base", 1): None, **of_kd, ("other", 1): word_shares(1, 0)}
    names = draw_plots(comparison_of(tmp_path, dict.fromkeys(of_runs), shares=of_runs), tmp_path)
    assert names == ["scores.png", "soft_target_words.png"] and (tmp_path / "soft_target_words.png").is_file()
    of_targets, of_model = figures["soft_target_words.png"].axes
    # Systems that have none are left out; a bar is the mean over the seeds and begins where the one before it ends.
    assert [label.get_text() for label in of_targets.get_yticklabels()] == ["kd", "other"]
    for axes, means in ((of_targets, [0.625, 1.0]), (of_model, [0.375, 0.0])):
        target, nearest, *others = axes.containers
        assert [bar.get_width() for bar in target] == means
        assert [(bar.get_x(), bar.get_width()) for bar in nearest] == [(mean, 1 - mean) for mean in means]
        assert [len(bars) for bars in others] == [2, 2, 2]
