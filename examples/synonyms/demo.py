"""Train several systems on the synonym corpus, and compare them with each other and with the truth.

    python -m examples.synonyms.demo [--output DIR] [--seed N] [--quick] [--self-kd-flags '...']

``scripts/demo.sh`` runs this in the project's own environment. The README beside this file says what is measured.
"""

import argparse
import fcntl
import math
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Dict, List, Sequence, TextIO, Tuple

from sacrebleu.metrics import BLEU

from selfkd_fairseq.evaluation.generate_output import read_generate_output
from selfkd_fairseq.evaluation.text_files import read_text
from selfkd_fairseq.evaluation.training_log import read_training_log

from . import commands
from .commands import SYSTEMS, Folders, Settings
from .corpus import Pair, draw_corpus, write_corpus
from .grammar import german_vocabulary, most_probable, translations
from .measure import measure_checkpoint, measure_truth, true_distributions
from .processes import ROOT, CommandFailed, Job, run_jobs
from .report import Row, as_csv, as_markdown, draw_figure, explanation

MARKER = ".synonyms-demo"
OUTPUTS = ("corpus", "bin", "runs", "commands.sh", "table.md", "table.csv", "curves.png")
START = time.monotonic()


def say(text: str) -> None:
    """One line of progress with the seconds since the start."""
    print(f"[{time.monotonic() - START:4.0f} s] {text}", flush=True)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description="Systems on a corpus whose truth is known.")
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output", help="folder for everything it writes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the corpus and of the trainings")
    parser.add_argument(
        "--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM",
        help=f"which of them to train: {', '.join(SYSTEMS)} (all)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a minute's check that every step runs; learns nothing")
    parser.add_argument(
        "--self-kd-flags", default="", metavar="FLAGS", help="more flags for self_kd, e.g. '--skd-alpha 0.1'"
    )
    return parser.parse_args(arguments)


def claim_output(folder: Path) -> TextIO:
    """Make the output folder, or empty that of an earlier run; returns an open file that keeps a second run out.

    Raises:
        SystemExit: the folder holds something else, another run is writing to it, or fairseq cannot take its name.
    """
    for part in (":", "${", "\\'"):
        if part in str(folder):
            raise SystemExit(f"demo: fairseq reads {part} in a path as something else; choose another with --output")
    marker = folder / MARKER
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not marker.exists()):
        raise SystemExit(f"demo: {folder} exists and was not made by this demo; choose another with --output")
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(marker, "w")  # noqa: SIM115  # held open, and so locked, as long as the program runs
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"demo: another run is writing to {folder}") from None
    for name in OUTPUTS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return lock


def make_jobs(
    folders: Folders, settings: Settings, systems: Sequence[str], seed: int, self_kd_flags: List[str]
) -> Dict[str, Dict[str, Job]]:
    """Stage -> name -> job, in the order in which they run; also written to ``commands.sh``."""
    extra = {"self_kd": self_kd_flags}
    stages = {
        "binarise": {"corpus": Job(commands.preprocess(folders), folders.corpus / "preprocess.out")},
        "train": {
            s: Job(commands.train(s, folders, settings, seed, extra.get(s, [])), folders.run(s) / "train.out")
            for s in systems
        },
        "translate": {s: Job(commands.generate(s, folders, settings), folders.generated(s)) for s in systems},
    }
    lines = [
        "# What the demo ran, for a shell in the checkout with the environment active. Each stage ran side by side."
    ]
    lines += [commands.as_shell(job.command, job.output) for jobs in stages.values() for job in jobs.values()]
    (folders.output / "commands.sh").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return stages


def report_training(folders: Folders, systems: Sequence[str], epochs: int) -> None:
    states = []
    for system in systems:
        log = folders.log(system)
        curve = read_training_log(log).valid_nll if log.exists() else []
        states.append(f"{system} {len(curve)}/{epochs}" + (f" {curve[-1][1] / math.log(2):.3f}" if curve else ""))
    say("train: epoch and valid nll (bits)   " + "   ".join(states))


def report_translating(folders: Folders, systems: Sequence[str], total: int) -> None:
    counts = []
    for system in systems:
        output = folders.generated(system)
        done = read_text(output).count("\nH-") if output.exists() else 0
        counts.append(f"{system} {done}/{total}")
    say("translate: sentences   " + "   ".join(counts))


def run_stages(folders: Folders, settings: Settings, stages: Dict[str, Dict[str, Job]]) -> None:
    """Binarise, train, translate."""
    systems = list(stages["train"])
    say("binarise the corpus")
    run_jobs(stages["binarise"], lambda: None)
    say(f"train {len(systems)} systems side by side, {settings.epochs} epochs each (logs in {folders.output / 'runs'})")
    run_jobs(stages["train"], lambda: report_training(folders, systems, settings.epochs))
    say("translate the test set with the best checkpoint of each")
    run_jobs(stages["translate"], lambda: report_translating(folders, systems, settings.test_pairs))


def score_translations(hypotheses: Sequence[str], pairs: Sequence[Pair], bleu: BLEU) -> Tuple[float, float]:
    """(BLEU against the one reference that was drawn, fraction that is one of the correct translations)."""
    score = bleu.corpus_score(list(hypotheses), [[" ".join(pair.target) for pair in pairs]]).score
    correct = sum(tuple(h.split()) in translations(pair.meaning) for h, pair in zip(hypotheses, pairs))
    return score, correct / len(pairs)


def measure_all(folders: Folders, systems: Sequence[str], corpus: Dict[str, List[Pair]], bleu: BLEU) -> List[Row]:
    """The rows of the table; the first is the truth, which always says the most probable correct translation."""
    valid, test = corpus["valid"], corpus["test"]
    valid_truth, test_truth = true_distributions(valid), true_distributions(test)
    best = [" ".join(most_probable(translations(pair.meaning))) for pair in test]
    score, correct = score_translations(best, test, bleu)
    rows = [Row("truth", measure_truth(valid, valid_truth).nll, score, correct, measure_truth(test, test_truth))]
    for system in systems:
        say(f"measure {system} against the truth")
        output = folders.generated(system)
        hypotheses = read_generate_output(read_text(output), output.name).hypotheses
        score, correct = score_translations(hypotheses, test, bleu)
        on_valid = measure_checkpoint(folders.checkpoint(system), folders.data, valid, valid_truth)
        on_test = measure_checkpoint(folders.checkpoint(system), folders.data, test, test_truth)
        rows.append(Row(system, on_valid.nll, score, correct, on_test))
    return rows


def write_report(folders: Folders, rows: List[Row], bleu: BLEU, options: argparse.Namespace) -> None:
    """Write the table and the figure, show the table, and say where everything is."""
    flags = f" --self-kd-flags {shlex.quote(options.self_kd_flags)}" if options.self_kd_flags else ""
    systems = "" if options.systems == list(SYSTEMS) else f" --systems {' '.join(options.systems)}"
    command = f"bash scripts/demo.sh --seed {options.seed}{' --quick' if options.quick else ''}{systems}{flags}"
    table = as_markdown(rows) + "\n" + explanation(rows[0].test, str(bleu.get_signature()), command)
    (folders.output / "table.md").write_text(table, encoding="utf-8")
    (folders.output / "table.csv").write_text(as_csv(rows), encoding="utf-8")
    curves = {system: read_training_log(folders.log(system)) for system in options.systems}
    draw_figure(curves, rows, folders.output / "curves.png")
    print(f"\n{table}")
    for label, name in (("Table", "table.md"), ("Figure", "curves.png"), ("Commands", "commands.sh")):
        print(f"{label + ':':10}{folders.output / name}")


def run(options: argparse.Namespace) -> None:
    settings = commands.QUICK if options.quick else commands.FULL
    folders = Folders(options.output.resolve())
    lock = claim_output(folders.output)
    with lock:
        folders.corpus.mkdir()
        for system in options.systems:
            folders.run(system).mkdir(parents=True)
        say(f"draw the corpus: {settings.train_pairs} training pairs, seed {options.seed}")
        # the small splits first: they stay the same if the training set grows
        sizes = {"test": settings.test_pairs, "valid": settings.valid_pairs, "train": settings.train_pairs}
        corpus = draw_corpus(sizes, options.seed)
        write_corpus(corpus, folders.corpus, german_vocabulary())
        stages = make_jobs(folders, settings, options.systems, options.seed, shlex.split(options.self_kd_flags))
        run_stages(folders, settings, stages)
        bleu = BLEU(force=True)  # the corpus is made of words: no warning that it looks tokenised
        rows = measure_all(folders, options.systems, corpus, bleu)
        write_report(folders, rows, bleu, options)
        say("done")


def main(arguments: Sequence[str]) -> None:
    # a terminated demo takes its trainings with it, as an interrupted one does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(parse_arguments(arguments))
    except CommandFailed as error:
        raise SystemExit(f"demo: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("demo: interrupted; run it again to start over") from None


if __name__ == "__main__":
    main(sys.argv[1:])
