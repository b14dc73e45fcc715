"""``selfkd-benchmark``: time and memory of ``self_kd`` against fairseq's criterions, in one run on the same tensors."""

import argparse
from pathlib import Path
from typing import List, Optional, Tuple

import torch
from tqdm import tqdm

from ..benchmark import losses, report, training_step
from ..benchmark.measure import median_seconds, peak_extra_bytes

BASELINE = "label_smoothed_cross_entropy"
FLOOR = "three products"


def _size(text: str) -> Tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 1 for part in parts):
        raise argparse.ArgumentTypeError(f"a size is N,V,d with whole numbers above 1, got {text!r}")
    tokens, vocabulary, width = map(int, parts)
    if vocabulary < losses.NEAREST_SIZE + 4:
        raise argparse.ArgumentTypeError(f"V must be at least {losses.NEAREST_SIZE + 4}, got {vocabulary}")
    return tokens, vocabulary, width


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="selfkd-benchmark", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--output", type=Path, default=Path("benchmarks"), help="folder for CSV and PNG (%(default)s)")
    parser.add_argument("--sizes", type=_size, nargs="+", default=list(losses.SIZES), metavar="N,V,d")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of which the median is taken (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, help="threads of torch on the CPU")
    parser.add_argument("--no-training-step", action="store_true", help="leave out the whole training steps")
    return parser


def _loss_rows(size: Tuple[int, int, int], rounds: int, device: torch.device, dtype: torch.dtype) -> List[report.Row]:
    tensors = losses.make_tensors(size, device, dtype)
    work = losses.contenders(tensors)
    name = "x".join(map(str, size))
    with tqdm(total=rounds + 1, desc=f"loss {name}", leave=False) as bar:
        seconds = median_seconds(work, rounds, device, bar.update)
    refresh = median_seconds({"refresh": lambda: losses.nearest_refresh(tensors)}, 2, device)["refresh"]
    # The neighbours are found anew at every 100 updates: their share belongs to the price of an update.
    seconds["self_kd fused nearest"] += refresh / 100
    memory = {key: peak_extra_bytes(function, device) for key, function in work.items()}
    return [
        {
            "kind": "loss",
            "size": name,
            "name": key,
            "ms": f"{1000 * seconds[key]:.2f}",
            "time / floor": f"{seconds[key] / seconds[FLOOR]:.3f}",
            "time / label smoothing": f"{seconds[key] / seconds[BASELINE]:.3f}",
            "MiB": f"{memory[key] / 2**20:.2f}",
            "memory / label smoothing": f"{memory[key] / memory[BASELINE]:.3f}",
        }
        for key in work
    ]


def _step_rows(arch: str, rounds: int, device: torch.device) -> List[report.Row]:
    work = training_step.training_steps(arch, device)
    with tqdm(total=rounds + 1, desc=f"training step {arch}", leave=False) as bar:
        seconds = median_seconds(work, rounds, device, bar.update)
    return [
        {
            "kind": "training step",
            "size": arch,
            "name": key,
            "ms": f"{1000 * seconds[key]:.2f}",
            "time / label smoothing": f"{seconds[key] / seconds[BASELINE]:.3f}",
        }
        for key in work
    ]


def main(argv: Optional[List[str]] = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        device = torch.device(options.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {options.device} cannot be used: {str(error).splitlines()[0]}")
    options.output.mkdir(parents=True, exist_ok=True)
    where = report.machine(device)
    rows: List[report.Row] = []
    for size in options.sizes:
        new = _loss_rows(size, options.rounds, device, getattr(torch, options.dtype))
        report.print_table(f"loss, N x V x d = {new[0]['size']}, {options.dtype}", new, ["name", *list(new[0])[3:]])
        rows += new
    for arch in () if options.no_training_step else training_step.ARCHITECTURES:
        new = _step_rows(arch, options.rounds, device)
        report.print_table(f"training step, {arch}", new, ["name", *list(new[0])[3:]])
        rows += new
    name = f"loss_{device.type}_{options.dtype}"
    report.write_csv(options.output / f"{name}.csv", [{**row, "dtype": options.dtype, **where} for row in rows])
    report.write_plot(options.output / f"{name}.png", rows, ", ".join(f"{k} {v}" for k, v in where.items()))
    print(f"\nwritten: {options.output / name}.csv {options.output / name}.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
