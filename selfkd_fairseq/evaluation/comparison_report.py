"""A comparison as a page to read (Markdown) and as JSON, with the provenance of each row."""

from __future__ import annotations

import json
import shlex
from typing import Any, Mapping, Sequence

from .bootstrap import Interval
from .comparison import Comparison, RunResult
from .comparison_table import as_markdown, explanations

PROGRAM = "selfkd-compare"
FORMAT = 1
VERSIONS = ("python", "torch", "numpy", "sacrebleu", "sacremoses")  # and fairseq's, whose package has several names


def _short(sha256: Any) -> str:
    return f"`{str(sha256)[:12]}`"


def _where(provenance: Mapping[str, Any] | None) -> str:
    """Commit, versions, device, data and command of one process, in one line."""
    if provenance is None:
        return "not recorded (no provenance.json)"
    found = provenance.get("versions") or {}
    parts = [
        f"commit {provenance.get('commit') or 'unknown'}",
        ", ".join(f"{package} {found[package]}" for package in found if package in VERSIONS or "fairseq" in package),
        str(provenance.get("device", "")),
        str(provenance.get("time", "")),
    ]
    checksums = (provenance.get("data") or {}).get("sha256") or {}
    if checksums:
        parts.append("data " + ", ".join(f"{name} {_short(value)}" for name, value in checksums.items()))
    if provenance.get("resumed"):
        parts.append("gone on with under other conditions (see comparison.json)")
    command = provenance.get("command") or []
    return "; ".join(part for part in parts if part) + (f"; `{shlex.join(map(str, command))}`" if command else "")


def _provenance_lines(result: RunResult) -> list[str]:
    run, record = result.run, result.run.evaluation.record
    checkpoint, training = record["checkpoint"], record["training"]
    criterion = training.get("criterion") or {}
    name = criterion.get("_name") if isinstance(criterion, dict) else criterion
    return [
        f"- {run.system}, seed {run.seed}: `{run.folder}`",
        f"  - training: criterion {name}, model {training.get('model')}; {_where(run.provenance)}",
        f"  - checkpoint: `{checkpoint.get('path')}`, update {checkpoint.get('num_updates')}, "
        f"SHA-256 {_short(checkpoint.get('sha256'))}",
        f"  - evaluation: {_where(record['provenance'])}",
    ]


def as_page(comparison: Comparison, provenance: Mapping[str, Any], plots: Sequence[str]) -> str:
    """``table.md``: the table, what it means, signatures, plots, and the provenance of each row.

    Args:
        comparison: of the runs.
        provenance: of the comparison itself (:func:`selfkd_fairseq.runs.provenance.provenance`).
        plots: file names.

    Returns:
        Markdown.
    """
    lines = [f"# Comparison with {comparison.baseline}, split {comparison.split}", "", as_markdown(comparison)]
    lines += [f"- {line}" for line in explanations(comparison)]
    if comparison.signatures:
        signatures = {**comparison.signatures, **{f"p {k}": v for k, v in comparison.test_signatures.items()}}
        lines += ["", "Signatures of sacreBLEU:", "", *(f"- {name}: `{text}`" for name, text in signatures.items())]
    if comparison.notes:
        lines += ["", "Notes:", "", *(f"- {note}" for note in comparison.notes)]
    if plots:
        lines += ["", *(f"![{name}]({name})" for name in plots)]
    lines += ["", "## Provenance of each row", ""]
    for result in comparison.runs:
        lines += _provenance_lines(result)
    lines += ["", f"This comparison: {_where(provenance)}", ""]
    return "\n".join(lines)


def _named(interval: Interval | None) -> dict[str, float] | None:
    return interval and interval._asdict()


def _run(result: RunResult) -> dict[str, Any]:
    run = result.run
    return {
        "system": run.system,
        "seed": run.seed,
        "folder": str(run.folder),
        "scores": result.values,
        "ppl_interval": [result.ppl.low, result.ppl.high],
        "p_values": result.p_values,
        "nll_difference": _named(result.nll_difference),
        "note": result.note,
        "translations": str(run.translations_file) if run.translations else None,
        "evaluation": run.evaluation.record,
        "training_provenance": run.provenance,
    }


def as_json(comparison: Comparison, provenance: Mapping[str, Any], scoring: Mapping[str, Any]) -> str:
    """``comparison.json``: all numbers unrounded, and all that is known of where they come from.

    Args:
        comparison: of the runs.
        provenance: of the comparison itself (:func:`selfkd_fairseq.runs.provenance.provenance`).
        scoring: the options that translations were scored with.

    Returns:
        One JSON object, indented, with a line end.
    """
    content = {
        "program": PROGRAM,
        "format": FORMAT,
        "split": comparison.split,
        "baseline": comparison.baseline,
        "resampling": comparison.resampling._asdict(),
        "scoring": scoring,
        "signatures": comparison.signatures,
        "test_signatures": comparison.test_signatures,
        "systems": [
            {**system._asdict(), "nll_difference": _named(system.nll_difference)} for system in comparison.systems
        ],
        "runs": [_run(result) for result in comparison.runs],
        "notes": comparison.notes,
        "provenance": provenance,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
