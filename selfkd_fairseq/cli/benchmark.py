"""``selfkd-benchmark``: what ``self_kd`` costs beside fairseq's criterions, LSTMs beside plain PyTorch, preparation."""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Tuple

from ..common.fairseq_package import require_fairseq

PROGRAM = "selfkd-benchmark"
require_fairseq(PROGRAM)
# Before torch is imported: its profiler, which counts memory, would say on the screen when it starts and stops.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from tqdm import tqdm

from .. import register
from ..benchmark import language_model, losses, preparation, report, traffic, training_step
from ..benchmark.measure import gpu_seconds, median_seconds, peak_extra_bytes
from .command import OneLineParser, count, print_now, run_command

DESCRIPTION = """\
Measure time and memory of self_kd beside fairseq's own criterions, of the LSTM language models beside a bare PyTorch
loop, and of a preparation of data; count what a loss would move on a GPU, without one. Each part prints a table and
writes it as CSV, with versions and machine; the loss also as a plot (PNG)."""

EPILOG = """\
exit status: 0 done; 1 no place on a disk or a GPU; 2 bad options; 130 Ctrl-C; 141 nobody reads the output.

examples:
  selfkd-benchmark --parts loss training_step --rounds 5
  selfkd-benchmark --parts language_model --threads 1 2
  selfkd-benchmark --parts preparation --pairs 20000 200000 --workers 2"""

BASELINE = "label_smoothed_cross_entropy"
FLOOR = "three products"
PARTS = ("loss", "training_step", "traffic", "language_model", "preparation")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
BAR = 0.9  # of the bare loop's tokens per second, for the task bptt_language_modeling with cross_entropy


def _size(text: str) -> Tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 1 for part in parts):
        raise argparse.ArgumentTypeError(f"a size is N,V,d with whole numbers above 1, got {text!r}")
    tokens, vocabulary, width = map(int, parts)
    if vocabulary < losses.NEAREST_SIZE + 4:
        raise argparse.ArgumentTypeError(f"V must be at least {losses.NEAREST_SIZE + 4}, got {vocabulary}")
    return tokens, vocabulary, width


def _pairs(text: str) -> int:
    pairs = count(text)
    if pairs < 200:
        raise argparse.ArgumentTypeError(f"at least 200 pairs are needed, got {pairs}")
    return pairs


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(PROGRAM, DESCRIPTION, EPILOG)
    parser.add_argument("--output", type=Path, default=Path("benchmarks"), help="folder for CSV and PNG (%(default)s)")
    parser.add_argument(
        "--sizes", type=_size, nargs="+", metavar="N,V,d", help="of the loss, measured or counted (four of each)"
    )
    parser.add_argument("--rounds", type=count, default=15, help="rounds of which the median is taken (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument(
        "--threads", type=count, nargs="+", default=[], metavar="N",
        help="threads of torch on the CPU; several, for --parts language_model: one measurement with each",
    )  # fmt: skip
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=PARTS, help="what to measure: %(choices)s (all)")
    models = list(language_model.RECIPES)
    parser.add_argument("--language-models", choices=models, nargs="+", default=models, help="%(choices)s (all)")
    parser.add_argument("--windows", type=count, help="windows of an epoch of a language model (depends on the model)")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall",
        help="language models: wall time, or CPU time of this process, which other work on the machine hardly moves "
        "(with one thread, without a GPU; %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--pairs", type=_pairs, nargs="+", default=[20_000, 200_000], metavar="N",
        help="sentence pairs of each preparation, at least 200 (20000 200000)",
    )  # fmt: skip
    parser.add_argument("--bpe-merges", type=count, default=10_000, metavar="N", help="of a preparation (%(default)s)")
    parser.add_argument(
        "--workers", type=count, default=os.cpu_count() or 1, metavar="N", help="of a preparation (one per core)"
    )
    return parser


def _gpu_columns(work: Mapping[str, Callable[[], None]], device: torch.device) -> Dict[str, report.Row]:
    """What a GPU is busy for, of each piece of work; no columns on a CPU."""
    if device.type != "cuda":
        return {name: {} for name in work}
    seconds = {name: gpu_seconds(function) for name, function in work.items()}
    return {
        name: {"GPU ms": f"{1000 * x:.2f}", "GPU time / label smoothing": f"{x / seconds[BASELINE]:.3f}"}
        for name, x in seconds.items()
    }


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
    on_gpu = _gpu_columns(work, device)
    return [
        {
            "kind": "loss",
            "size": name,
            "name": key,
            "ms": f"{1000 * seconds[key]:.2f}",
            "time / floor": f"{seconds[key] / seconds[FLOOR]:.3f}",
            "time / label smoothing": f"{seconds[key] / seconds[BASELINE]:.3f}",
            **on_gpu[key],
            "MiB": f"{memory[key] / 2**20:.2f}",
            "memory / label smoothing": f"{memory[key] / memory[BASELINE]:.3f}",
        }
        for key in work
    ]


def _step_rows(arch: str, rounds: int, device: torch.device, dtype: torch.dtype) -> List[report.Row]:
    work = training_step.training_steps(arch, device, dtype)
    with tqdm(total=rounds + 1, desc=f"training step {arch}", leave=False) as bar:
        seconds = median_seconds(work, rounds, device, bar.update)
    on_gpu = _gpu_columns(work, device)
    return [
        {
            "kind": "training step",
            "size": arch,
            "name": key,
            "ms": f"{1000 * seconds[key]:.2f}",
            "time / label smoothing": f"{seconds[key] / seconds[BASELINE]:.3f}",
            **on_gpu[key],
        }
        for key in work
    ]


def _language_model_rows(name: str, options: argparse.Namespace, device: torch.device) -> List[report.Row]:
    recipe = language_model.RECIPES[name]
    recipe = recipe._replace(windows=options.windows or recipe.windows)
    work, tokens = language_model.epochs(recipe, device)
    with tqdm(total=options.rounds + 1, desc=f"language model {name}", leave=False) as bar:
        seconds = median_seconds(work, options.rounds, device, bar.update, CLOCKS[options.clock])
    bare, cross_entropy = seconds[language_model.BARE], seconds["cross_entropy"]
    verdict = f"{BAR} {'met' if bare / cross_entropy >= BAR else 'missed'}"
    return [
        {
            "kind": "language model",
            "size": f"{name} {recipe.batch}x{recipe.window}x{recipe.vocabulary}",
            "name": key,
            "tokens / s": f"{tokens / seconds[key]:.0f}",
            "ms / window": f"{1000 * seconds[key] / recipe.windows:.2f}",
            "speed / bare loop": f"{bare / seconds[key]:.3f}",
            "time / cross_entropy": f"{seconds[key] / cross_entropy:.3f}",
            "bar": verdict if key == "cross_entropy" else "",
            "windows": recipe.windows,
        }
        for key in work
    ]


def _measure_losses(options: argparse.Namespace, device: torch.device) -> List[Path]:
    rows: List[report.Row] = []
    dtype = getattr(torch, options.dtype)
    compiles = device.type == "cuda"
    if compiles:  # each form for itself; beyond so many torch would give up and run them eagerly
        torch._dynamo.config.cache_size_limit = 1000
    for size in (options.sizes or losses.SIZES) if "loss" in options.parts else ():
        if compiles:
            torch._dynamo.reset()  # as in a training, where V and d are always the same
        new = _loss_rows(size, options.rounds, device, dtype)
        title = f"loss, N x V x d = {new[0]['size']}, {options.dtype}"
        print_now(report.as_table(title, new, ["name", *list(new[0])[3:]]))
        rows += new
    for arch in training_step.architectures(device) if "training_step" in options.parts else ():
        new = _step_rows(arch, options.rounds, device, dtype)
        print_now(report.as_table(f"training step, {arch}, {options.dtype}", new, ["name", *list(new[0])[3:]]))
        rows += new
    where, name = report.machine(device), f"loss_{device.type}_{options.dtype}"
    table, plot = options.output / f"{name}.csv", options.output / f"{name}.png"
    report.write_csv(table, [{**row, "dtype": options.dtype, **where} for row in rows])
    if "loss" not in options.parts:
        return [table]
    report.write_plot(plot, rows, ", ".join(f"{k} {v}" for k, v in where.items()))
    return [table, plot]


def _count_traffic(options: argparse.Namespace) -> List[Path]:
    rows: List[report.Row] = []
    dtype = getattr(torch, options.dtype)
    for size in options.sizes or traffic.SIZES:
        work = traffic.contenders().items()
        counts = {name: traffic.count(loss, size, dtype, casts_are_free) for name, (loss, casts_are_free) in work}
        baseline, floor = counts[BASELINE], traffic.floor_bytes(size, dtype)
        new: List[report.Row] = [
            {
                "size": "x".join(map(str, size)),
                "dtype": options.dtype,
                "name": name,
                "GB moved": f"{x.moved / 1e9:.2f}",
                "moved / floor": f"{x.moved / floor:.2f}",
                "moved / label smoothing": f"{x.moved / baseline.moved:.2f}",
                "GiB at most": f"{x.peak / 2**30:.2f}",
                "memory / label smoothing": f"{x.peak / baseline.peak:.2f}",
                "launches": x.launches,
            }
            for name, x in counts.items()
        ]
        title = f"counted, not measured: a GPU; N x V x d = {new[0]['size']}, {options.dtype}"
        print_now(report.as_table(title, new, list(new[0])[2:]))
        rows += new
    path = options.output / f"traffic_{options.dtype}.csv"
    report.write_csv(path, [{**row, "torch": torch.__version__} for row in rows])
    return [path]


def _measure_language_models(options: argparse.Namespace, device: torch.device) -> List[Path]:
    rows: List[report.Row] = []
    for threads in options.threads or [torch.get_num_threads()]:
        torch.set_num_threads(threads)
        where = {
            "dtype": "float32",
            **report.machine(device),
            "clock": options.clock,
            "rounds": options.rounds,
            "malloc_trim_threshold": os.environ.get("MALLOC_TRIM_THRESHOLD_", "default"),
        }
        for name in options.language_models:
            new = _language_model_rows(name, options, device)
            title = f"language model, B x T x V: {new[0]['size']}, --threads {threads} --clock {options.clock}"
            print_now(report.as_table(title, new, ["name", *list(new[0])[3:]]))
            rows += [{**row, **where} for row in new]
    path = options.output / f"language_model_{device.type}_float32.csv"
    report.write_csv(path, rows)
    return [path]


def _measure_preparation(options: argparse.Namespace) -> List[Path]:
    rows: List[report.Row] = []
    first: Optional[preparation.Measurement] = None
    for pairs in tqdm(options.pairs, desc="preparation", leave=False):
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw"
            preparation.write_corpus(raw, pairs)
            size = sum(path.stat().st_size for path in raw.iterdir())
            found = preparation.measure(raw, options.bpe_merges, options.workers)
        first = first or found
        rows.append(
            {
                "kind": "preparation",
                "pairs": pairs,
                "text MB": f"{size / 1e6:.1f}",
                "seconds": f"{found.seconds:.1f}",
                "CPU seconds": f"{found.cpu_seconds:.1f}",
                "pairs / s": f"{pairs / found.seconds:.0f}",
                "pairs / first": f"{pairs / options.pairs[0]:.2f}",
                "time / first": f"{found.seconds / first.seconds:.2f}",
                "CPU time / first": f"{found.cpu_seconds / first.cpu_seconds:.2f}",
                "MiB": f"{found.bytes / 2**20:.0f}",
                "memory / first": f"{found.bytes / first.bytes:.2f}",
                "MiB before binarisation": f"{found.bytes_before / 2**20:.0f}",
                "bpe merges": options.bpe_merges,
                "workers": options.workers,
            }
        )
    print_now(report.as_table("preparation of generated pairs, as wmt14", rows, list(rows[0])[1:-2]))
    path = options.output / "preparation_cpu.csv"
    report.write_csv(path, [{**row, **report.machine(torch.device("cpu"))} for row in rows])
    return [path]


def _check(parser: OneLineParser, options: argparse.Namespace) -> torch.device:
    """End the program if an option does not fit; the device."""
    if len(options.threads) > 1 and set(options.parts) != {"language_model"}:
        parser.error("--threads takes several numbers for --parts language_model alone")
    try:
        device = torch.device(options.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {options.device} cannot be used: {str(error).splitlines()[0]}")
    if options.clock == "cpu" and (options.threads != [1] or device.type != "cpu"):
        parser.error("--clock cpu needs --device cpu --threads 1: only then CPU time is wall time on an idle machine")
    return device


def _measure(options: argparse.Namespace, device: torch.device) -> str:
    """Measure what is asked for; says where it was written."""
    register()
    if options.threads:
        torch.set_num_threads(options.threads[0])
    options.output.mkdir(parents=True, exist_ok=True)
    written = []
    if {"loss", "training_step"} & set(options.parts):
        written += _measure_losses(options, device)
    if "traffic" in options.parts:
        written += _count_traffic(options)
    if "language_model" in options.parts:
        written += _measure_language_models(options, device)
    if "preparation" in options.parts:
        written += _measure_preparation(options)
    return "".join(f"\nwritten: {path}" for path in written)


def main(argv: Optional[List[str]] = None) -> int:
    """Run the benchmark.

    Args:
        argv: the command line without the program; None: that of the process.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C. A wrong command line ends the program with status 2.
    """
    parser = make_parser()
    options = parser.parse_args(argv)
    device = _check(parser, options)
    place = f" ({options.output})"
    return run_command(parser, lambda: _measure(options, device), torch.cuda.OutOfMemoryError, place)


if __name__ == "__main__":
    raise SystemExit(main())
