import csv

import pytest
import torch

from selfkd_fairseq.benchmark import language_model
from selfkd_fairseq.benchmark.measure import median_seconds, peak_extra_bytes
from selfkd_fairseq.cli.benchmark import main


def test_peak_extra_bytes_counts_what_is_held_at_once():
    def one_after_the_other():
        for _ in range(3):
            torch.zeros(1000, 1000)

    def together():
        return [torch.zeros(1000, 1000) for _ in range(3)]

    cpu = torch.device("cpu")
    assert 4_000_000 <= peak_extra_bytes(one_after_the_other, cpu) < 5_000_000
    assert 12_000_000 <= peak_extra_bytes(together, cpu) < 13_000_000


def test_median_seconds_runs_every_piece_in_every_round(monkeypatch):
    calls = []
    work = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = median_seconds(work, 3, torch.device("cpu"))
    assert calls == ["a", "b"] * 4  # one round of warming up
    assert set(seconds) == {"a", "b"} and all(value >= 0 for value in seconds.values())


def test_median_seconds_by_another_clock():
    ticks = iter([0, 10, 12, 20, 26])  # the first is of the warming up
    assert median_seconds({"a": lambda: None}, 2, torch.device("cpu"), clock=lambda: next(ticks)) == {"a": 4}


def test_command_writes_table_csv_and_plot(tmp_path, capsys):
    assert main(["--sizes", "60,100,8", "--rounds", "1", "--parts", "loss", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    with (tmp_path / "loss_cpu_float32.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["name"] for row in rows]
    assert names[:3] == ["three products", "cross_entropy", "label_smoothed_cross_entropy"]
    assert {f"self_kd fused {s}" for s in ("predicted", "nearest", "full", "random")} <= set(names)
    for row in rows:
        assert row["name"] in printed and float(row["ms"]) > 0 and row["torch"] == torch.__version__
    assert (tmp_path / "loss_cpu_float32.png").read_bytes().startswith(b"\x89PNG")


def test_command_compares_a_language_model_with_the_bare_loop(tmp_path, capsys):
    # Two measurements; not with two threads, which wait for each other for minutes where other work is running.
    arguments = "--parts language_model --language-models zaremba_small --windows 1 --rounds 1 --threads 1 1".split()
    threads = torch.get_num_threads()
    try:
        assert main([*arguments, "--output", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert path.name == "language_model_cpu_float32.csv" and f"written: {path}" in printed
    with path.open() as file:
        rows = list(csv.DictReader(file))
    names = [language_model.BARE, *language_model.CRITERIONS]
    assert [(row["threads"], row["name"]) for row in rows] == [(threads, name) for threads in "11" for name in names]
    for i, row in enumerate(rows):
        bare = rows[i // len(names) * len(names)]
        assert row["windows"] == "1" and row["clock"] == "wall"
        assert row["size"] == "zaremba_small 20x20x10002" and row["torch"] == torch.__version__
        milliseconds = float(row["ms / window"])
        assert row["tokens / s"] in printed and abs(float(row["tokens / s"]) - 1000 * 400 / milliseconds) < 1
        assert float(row["speed / bare loop"]) == pytest.approx(float(bare["ms / window"]) / milliseconds, abs=0.002)
        if row["name"] == "cross_entropy":
            assert row["bar"] in ("0.9 met", "0.9 missed")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sizes", "10,20"], "a size is N,V,d with whole numbers above 1, got '10,20'"),
        (["--sizes", "10,8,4"], "V must be at least 20, got 8"),
        (["--rounds", "0"], "argument --rounds: a whole number of at least 1 is needed, got '0'"),
        (["--windows", "x"], "argument --windows: a whole number of at least 1 is needed, got 'x'"),
        (["--threads", "1", "0"], "argument --threads: a whole number of at least 1 is needed, got '0'"),
        (["--threads", "1", "2"], "--threads takes several numbers for --parts language_model alone"),
        (["--clock", "cpu", "--threads", "2"], "--clock cpu needs --device cpu --threads 1"),
        (["--device", "nonsense"], "--device nonsense cannot be used"),
        (["--pairs", "-5", "--parts", "preparation"], "argument --pairs: a whole number of at least 1 is needed"),
        (["--pairs", "300", "199"], "argument --pairs: at least 200 pairs are needed, got 199"),
        (["--workers", "-1"], "argument --workers: a whole number of at least 1 is needed, got '-1'"),
        (["--parts", "los"], "argument --parts: invalid choice: 'los'"),
    ],
)
def test_bad_arguments_end_with_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("selfkd-benchmark: error: ") and message in captured.err


def test_an_output_that_is_no_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["--parts", "traffic", "--output", str(tmp_path / "file")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"selfkd-benchmark: error: File exists ({tmp_path / 'file'})\n"
