"""Train and measure forms of the method on the synonym corpus, a row of a table each, with several seeds.

    python -m examples.synonyms.search ROWS RESULTS [--seeds 1 2 3] [--jobs 2] [--work DIR] [--table]

ROWS holds a form a line: its name, a tab, the flags of self_kd (``cross_entropy`` and ``label_smoothing`` are rows
without flags). RESULTS is a CSV that grows by a line for each row and seed; what stands there already is not run again,
so the same command goes on where it was cut off. ``--table`` runs nothing and prints the results as Markdown: means
over the seeds, and in how many of them a form is better than cross-entropy. Each run is that of the demo:

    bash scripts/demo.sh --systems self_kd --seed SEED --self-kd-flags 'FLAGS'
"""

import argparse
import csv
import operator
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Dict, List, NamedTuple, Sequence, Tuple

from .processes import ROOT

BASELINES = ("cross_entropy", "label_smoothing")
MEASURES = ("valid nll", "BLEU", "correct %", "KL", "KL amb.", "p(ref.)", "p(other)", "p(wrong)")
COLUMNS = ("row", "flags", "seed", *MEASURES)


class Form(NamedTuple):
    """A row of the table: its name and the flags of self_kd."""

    name: str
    flags: str


def read_forms(path: Path) -> List[Form]:
    """The rows of a file; empty lines and those that begin with # are passed over."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [Form(*(part.strip() for part in f"{line}\t".split("\t")[:2])) for line in lines]


def finished(results: Path) -> List[Tuple[str, str]]:
    """(flags or name of a baseline, seed) of what the results hold."""
    if not results.exists():
        return []
    with open(results, newline="", encoding="utf-8") as file:
        return [(row["flags"] or row["row"], row["seed"]) for row in csv.DictReader(file)]


def as_table(results: Path) -> str:
    """The results as Markdown, a row for each form; the measures are means over its seeds."""
    with open(results, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    baseline = {line["seed"]: line for line in lines if line["row"] == "cross_entropy"}
    better_than = {name: operator.gt if name in ("BLEU", "correct %", "p(other)") else operator.lt for name in MEASURES}
    table = ["| form | seeds | " + " | ".join(MEASURES) + " |", "| --- |" + " ---: |" * (len(MEASURES) + 1)]
    for name in dict.fromkeys(line["row"] for line in lines):
        of_form = [line for line in lines if line["row"] == name]
        cells = [name, str(len(of_form))]
        for measure in MEASURES:
            values = [float(line[measure]) for line in of_form]
            better = [
                better_than[measure](float(line[measure]), float(baseline[line["seed"]][measure]))
                for line in of_form
                if line["seed"] in baseline
            ]
            wins = "" if name == "cross_entropy" else f" ({sum(better)})"
            digits = 1 if measure in ("BLEU", "correct %") else 3
            cells.append(f"{statistics.mean(values):.{digits}f}{wins}")
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table)


def measure(form: Form, seed: int, folder: Path) -> Dict[str, str]:
    """Run the demo for one system, and read its line of the table."""
    system = form.name if form.name in BASELINES else "self_kd"
    command = [
        sys.executable, "-m", "examples.synonyms.demo", "--output", str(folder), "--seed", str(seed),
        "--systems", system, f"--self-kd-flags={form.flags}",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        (line,) = [line for line in csv.DictReader(file) if line["system"] == system]
    shutil.rmtree(folder)
    return line


def run(forms: Sequence[Form], seeds: Sequence[int], results: Path, jobs: int, work: Path) -> None:
    """Run what is missing, ``jobs`` runs at a time."""
    lock, done = Lock(), finished(results)
    if not results.exists():
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")

    def work_on(task: Tuple[Form, int]) -> None:
        form, seed = task
        try:
            line = measure(form, seed, Path(tempfile.mkdtemp(dir=work)) / "demo")
        except subprocess.CalledProcessError as error:
            print(f"failed: {form} seed {seed}\n{error.output.decode()[-2000:]}", file=sys.stderr, flush=True)
            return
        with lock, open(results, "a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(
                [form.name, form.flags, seed, *(line[name] for name in MEASURES)]
            )
        print(f"{form.name} seed {seed}: {line}", flush=True)

    tasks = [(form, seed) for form in forms for seed in seeds if (form.flags or form.name, str(seed)) not in done]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work_on, tasks))


def main() -> None:
    parser = argparse.ArgumentParser(prog="search", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", type=Path, metavar="ROWS")
    parser.add_argument("results", type=Path, metavar="RESULTS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="folder for the runs")
    parser.add_argument("--table", action="store_true", help="print the results and run nothing")
    options = parser.parse_args()
    if options.table:
        print(as_table(options.results))
        return
    run(read_forms(options.rows), options.seeds, options.results, options.jobs, options.work)


if __name__ == "__main__":
    main()
