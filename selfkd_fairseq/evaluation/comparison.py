"""Several systems with several seeds each, on one test set: scores, uncertainty, and tests against one of them."""

from __future__ import annotations

import statistics
from typing import NamedTuple, Sequence

import numpy as np

from .bootstrap import Interval, nll_difference, perplexity
from .errors import ComparisonError
from .runs import Run, of_systems
from .significance import Resampling
from .translation_scores import TextOptions, TranslationScores, check_references, score_runs


class RunResult(NamedTuple):
    """The numbers of one run."""

    run: Run
    """What was read of it."""
    values: dict[str, float]
    """``bleu``, ``chrf2``, ``ter`` and ``bleu_tokenised`` (percent; with translations only), ``nll`` (nats per token),
    ``ppl``, ``accuracy`` (percent), ``calibration_error`` (a fraction)."""
    ppl: Interval
    """Perplexity, with the interval of the bootstrap over sentences."""
    p_values: dict[str, float]
    """Metric of ``values`` -> p-value against the baseline's run of the same seed."""
    nll_difference: Interval | None
    """Less the baseline's run of the same seed, nats per token; None if there is none."""
    note: str
    """Why there is no test; empty if there is one, or for the baseline itself."""


class SystemResult(NamedTuple):
    """The runs of one system taken together."""

    system: str
    """Its name."""
    seeds: list[int]
    """Of its runs."""
    means: dict[str, float]
    """As the values of a run."""
    deviations: dict[str, float]
    """Sample standard deviations (n - 1); empty with one seed."""
    p_values: dict[str, float]
    """Metric of ``means`` -> p-value of the means against the baseline's over the same seeds; empty if one has no
    pair, and without translations."""
    nll_difference: Interval | None
    """Of the mean over its seeds less the baseline's mean over the same, nats per token; None if one has no pair. The
    interval is that of the bootstrap over sentences: what other seeds would change is in the deviations."""


class Comparison(NamedTuple):
    """All that the tables, the files and the plots are made of."""

    split: str
    """Of the data that the runs were evaluated on."""
    baseline: str
    """Name of the system that the others are tested against."""
    resampling: Resampling
    """Of the tests and the intervals."""
    systems: list[SystemResult]
    """In the order in which the user named them."""
    runs: list[RunResult]
    """In the order of the systems, then of the seeds."""
    signatures: dict[str, str]
    """Metric -> sacreBLEU's signature; empty without translations."""
    test_signatures: dict[str, str]
    """Metric -> sacreBLEU's signature of the test; empty without tests."""
    notes: list[str]
    """For the reader, a line each."""

    def runs_of(self, system: str) -> list[RunResult]:
        """The runs of one system.

        Args:
            system: its name.

        Returns:
            In the order of their seeds; empty if no system is called so.
        """
        return [result for result in self.runs if result.run.system == system]


def check_alike(runs: Sequence[Run], baseline: str) -> None:
    """Refuse to compare what cannot be compared.

    Args:
        runs: at least one.
        baseline: name of a system.

    Raises:
        ComparisonError: no system of that name; two runs of one system and seed; other data, other sentences, another
            language, other references; or translations of some runs only.
    """
    systems = list(dict.fromkeys(run.system for run in runs))
    if baseline not in systems:
        raise ComparisonError(f"no system is called {baseline!r}: there are {', '.join(systems)}")
    seen: dict[tuple[str, int], Run] = {}
    for run in runs:
        other = seen.setdefault((run.system, run.seed), run)
        if other is not run:
            raise ComparisonError(f"{other.folder} and {run.folder} are both {run.system} with seed {run.seed}")
    for run in runs[1:]:
        _check_same_data(runs[0], run)
    translated = [run for run in runs if run.translations is not None]
    lacking = next((run for run in runs if run.translations is None), None)
    if translated and lacking is not None:
        raise ComparisonError(
            f"{lacking.translations_file} is missing, and {translated[0].folder} has translations "
            f"(fairseq-generate ... --results-path {lacking.translations_file.parent} makes it)"
        )
    check_references(runs)


def _check_same_data(first: Run, run: Run) -> None:
    a, b = first.evaluation, run.evaluation
    between = f"{first.folder} and {run.folder}"
    if a.target_lang != b.target_lang:
        raise ComparisonError(f"{between} are of other languages: {a.target_lang} and {b.target_lang}")
    if a.data != b.data:
        there, here = a.data or {}, b.data or {}
        names = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
        raise ComparisonError(f"{between} were evaluated on other data: {', '.join(names) or 'one names none'}")
    if len(a.ids) != len(b.ids):
        raise ComparisonError(f"{between} were evaluated on {len(a.ids)} and {len(b.ids)} sentences")
    if a.ids != b.ids or (a.tokens != b.tokens).any():
        raise ComparisonError(f"{between} were evaluated on other sentences: their numbers of tokens differ")


def _in_order(runs: Sequence[Run]) -> list[Run]:
    systems = list(dict.fromkeys(run.system for run in runs))
    return sorted(runs, key=lambda run: (systems.index(run.system), run.seed))


def _baselines(runs: Sequence[Run], baseline: str) -> list[int | None]:
    """For each run the index of the baseline's run of the same seed; None for the baseline's own and without one."""
    by_seed = {run.seed: index for index, run in enumerate(runs) if run.system == baseline}
    return [None if run.system == baseline else by_seed.get(run.seed) for run in runs]


def _values(run: Run, ppl: Interval, scores: dict[str, float]) -> dict[str, float]:
    evaluation = run.evaluation
    return {
        **scores,
        "nll": float(evaluation.nll.sum() / evaluation.tokens.sum()),
        "ppl": ppl.value,
        "accuracy": evaluation.accuracy,
        "calibration_error": evaluation.calibration_error,
    }


def _result(
    run: Run, reference: Run | None, baseline: str, translated: TranslationScores | None, index: int, how: Resampling
) -> RunResult:
    evaluation = run.evaluation
    ppl = perplexity(evaluation.nll, evaluation.tokens, how.samples, how.seed)
    difference, note = None, ""
    if reference is not None:
        difference = nll_difference(evaluation.nll, reference.evaluation.nll, evaluation.tokens, how.samples, how.seed)
        if translated is not None and (index,) not in translated.p_values:
            note = "its translations are the baseline's, word for word: nothing to test"
    elif run.system != baseline:
        note = f"{baseline} has no run of seed {run.seed}: no test"
    scores = translated.scores[index] if translated is not None else {}
    p_values = translated.p_values.get((index,), {}) if translated is not None else {}
    return RunResult(run, _values(run, ppl, scores), ppl, p_values, difference, note)


def _system(pairs: Sequence[tuple[RunResult, Run | None]], p_values: dict[str, float], how: Resampling) -> SystemResult:
    """Of the runs of one system, each with the baseline's run of its seed."""
    means, deviations, difference = {}, {}, None
    results = [result for result, _ in pairs]
    for name in results[0].values:
        values = [result.values[name] for result in results]
        means[name] = statistics.mean(values)
        if len(values) > 1:
            deviations[name] = statistics.stdev(values)
    references = [reference for _, reference in pairs if reference is not None]
    if len(references) == len(results):
        ours = np.mean([result.run.evaluation.nll for result in results], axis=0)
        theirs = np.mean([reference.evaluation.nll for reference in references], axis=0)
        difference = nll_difference(ours, theirs, references[0].evaluation.tokens, how.samples, how.seed)
    seeds = [result.run.seed for result in results]
    return SystemResult(results[0].run.system, seeds, means, deviations, p_values, difference)


def _notes(results: Sequence[RunResult], translated: TranslationScores | None, options: TextOptions) -> list[str]:
    notes = [f"{result.run.system}, seed {result.run.seed}: {result.note}" for result in results if result.note]
    first = results[0].run
    if translated is None and first.evaluation.target_lang is not None:
        notes.append(f"no run has results/{first.translations_file.name}: BLEU, chrF and TER are left out")
    if translated is not None and translated.unknown_words:
        notes.append(f"{translated.unknown_words} references (T- lines) hold <<unk>> instead of a word")
    decoded = [result.run for result in results if result.run.translations and result.run.translations.decoded]
    if decoded and not options.detokenised:
        notes.append(
            f"the D- lines of {decoded[0].translations_file} are not the words of its H- lines; if they are plain "
            "text, made by fairseq's --tokenizer or by sentencepiece, give --detokenised"
        )
    without = sorted({result.run.system for result in results if result.run.log is None})
    if without:
        notes.append(f"some runs of {', '.join(without)} have no log.json: they are not in the learning curves")
    return notes


def compare(runs: Sequence[Run], split: str, baseline: str, options: TextOptions, how: Resampling) -> Comparison:
    """Compare runs.

    Args:
        runs: at least one.
        split: of the data they were evaluated on.
        baseline: the system that the others are tested against, each run against its run of the same seed.
        options: forms of the text; not read without translations.
        how: test, number of samples and seed; the intervals of the perplexity take the last two.

    Returns:
        Scores of each run and of each system (the units are those of :class:`RunResult`), tests against the baseline,
        and notes for the reader.

    Raises:
        ScoringError: see :func:`check_alike` and :func:`score_runs`.
    """
    check_alike(runs, baseline)
    runs = _in_order(runs)
    baselines = _baselines(runs, baseline)
    translated = score_runs(runs, baselines, options, how) if runs[0].translations is not None else None
    references = [None if reference is None else runs[reference] for reference in baselines]
    results = [
        _result(run, reference, baseline, translated, index, how)
        for index, (run, reference) in enumerate(zip(runs, references))
    ]
    systems = []
    for members in of_systems(runs).values():
        p_values = translated.p_values.get(members, {}) if translated is not None else {}
        systems.append(_system([(results[index], references[index]) for index in members], p_values, how))
    return Comparison(
        split,
        baseline,
        how,
        systems,
        results,
        translated.signatures if translated else {},
        translated.test_signatures if translated else {},
        _notes(results, translated, options),
    )
