"""Run folders as selfkd-evaluate, fairseq-generate and fairseq-train leave them, for tests."""

import json
import math

PROVENANCE = {
    "command": ["selfkd-evaluate", "a b"],
    "time": "2024-01-01T00:00:00+00:00",
    "commit": "c0ffee",
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "device": "a processor",
    "threads": 1,
    "data": {"path": "bin", "sha256": {"dict.de.txt": "d" * 64, "test.en-de.de.bin": "e" * 64}},
}


def bins(*gaps):
    """Bins of equal width as evaluate-test.json has them, with accuracy less confidence of each; None: no token."""
    return [
        {"from": i / len(gaps), "to": (i + 1) / len(gaps), "tokens": 0 if gap is None else 3,
         "confidence": None if gap is None else (i + 0.75) / len(gaps),
         "accuracy": None if gap is None else (i + 0.75) / len(gaps) + gap}
        for i, gap in enumerate(gaps)
    ]  # fmt: skip


def word_shares(of_targets, of_model):
    """The entry of evaluate-test.json: the share of the target, and all else on the nearest word."""
    groups = ("target", "nearest", "nearest 2-10", "nearest 11-100", "others")
    pairs = zip(("soft_targets", "model"), (of_targets, of_model))
    return {name: dict(zip(groups, (share, 1 - share, 0.0, 0.0, 0.0))) for name, share in pairs}


def evaluation(seed, lengths, sums, target_lang="de", **changes):
    """The content of evaluate-test.json, with tokens and nll of each sentence; ``changes`` replace whole entries."""
    mean = sum(sums) / sum(lengths)
    return {
        "format": 1,
        "split": "test",
        "sentences": len(lengths),
        "tokens": sum(lengths),
        "nll": {"nats_per_token": mean, "bits_per_token": mean / math.log(2), "ppl": math.exp(mean)},
        "accuracy": 60.5,
        "calibration": {"expected_calibration_error": 0.03125, "bins": []},
        "per_sentence": {"id": list(range(len(lengths))), "tokens": list(lengths), "nll": list(sums)},
        "checkpoint": {"path": "checkpoints/checkpoint_best.pt", "sha256": "f" * 64, "epoch": 2, "num_updates": 7},
        "training": {"seed": seed, "criterion": {"_name": "self_kd"}, "model": "m", "target_lang": target_lang},
        "provenance": PROVENANCE,
        **changes,
    }


def generate_output(hypotheses, references):
    """The content of generate-test.txt."""
    lines = []
    for index, (hypothesis, reference) in enumerate(zip(hypotheses, references)):
        lines += [f"T-{index}\t{reference}", f"H-{index}\t-0.5\t{hypothesis}"]
    return "".join(line + "\n" for line in [*lines, "Generate test with beam=5: BLEU4 = 1.0"])


def training_log(valid_nll, alpha=None):
    """The content of log.json: one update an epoch, losses in bits."""
    lines = ["{'_name': None, 'a config': 1}"]
    for update, nll in enumerate(valid_nll, 1):
        distillation = {} if alpha is None else {"alpha": str(alpha * update), "skd_target_prob": "0.75"}
        lines.append(json.dumps({"epoch": update, "nll_loss": str(nll), **distillation, "num_updates": str(update)}))
        lines.append(json.dumps({"valid_nll_loss": str(nll + 0.5), "valid_num_updates": str(update)}))
    return "".join(line + "\n" for line in lines)


def write_run(folder, record, generated=None, log=None, provenance=None):
    """Write a run folder; what is None is left out."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    (folder / "results" / "evaluate-test.json").write_text(json.dumps(record), encoding="utf-8")
    if generated is not None:
        (folder / "results" / "generate-test.txt").write_text(generated, encoding="utf-8")
    if log is not None:
        (folder / "log.json").write_text(log, encoding="utf-8")
    if provenance is not None:
        (folder / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    return folder


def language_model(folder, seed=1, sums=(2.5, 3.0, 8.0), log=None, **changes):
    """A run folder without translations: three sentences of 3, 2 and 4 tokens."""
    return write_run(folder, evaluation(seed, [3, 2, 4], sums, target_lang=None, **changes), log=log)
