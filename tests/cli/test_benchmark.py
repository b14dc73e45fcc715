import csv

import pytest
import torch

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


def test_command_writes_table_csv_and_plot(tmp_path, capsys):
    assert main(["--sizes", "60,100,8", "--rounds", "1", "--no-training-step", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    with (tmp_path / "loss_cpu_float32.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["name"] for row in rows]
    assert names[:3] == ["three products", "cross_entropy", "label_smoothed_cross_entropy"]
    assert {f"self_kd fused {s}" for s in ("predicted", "nearest", "full", "random")} <= set(names)
    for row in rows:
        assert row["name"] in printed and float(row["ms"]) > 0 and row["torch"] == torch.__version__
    assert (tmp_path / "loss_cpu_float32.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sizes", "10,20"], "a size is N,V,d with whole numbers above 1, got '10,20'"),
        (["--sizes", "10,8,4"], "V must be at least 20, got 8"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--device", "nonsense"], "--device nonsense cannot be used"),
    ],
)
def test_bad_arguments_end_with_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
