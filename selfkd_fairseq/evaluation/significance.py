"""Paired significance tests of translations, by sacreBLEU's own implementation.

Several seeds are tested together by the mean of their scores: a sentence is drawn, or changes sides, with its
translations of all seeds. So the sentences are what chance draws, and the seeds are those at hand.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

# name of the test -> sacreBLEU's name for it
TESTS = {"bootstrap": "bs", "randomisation": "ar"}
# What sacreBLEU's command line takes: resamples, or trials.
DEFAULT_SAMPLES = {"bootstrap": 1000, "randomisation": 10000}
# sacreBLEU's own seed where the environment has none.
DEFAULT_SEED = 12345


class Resampling(NamedTuple):
    """How differences are tested, and how often sentences are drawn."""

    test: str
    """One of :data:`TESTS`."""
    samples: int
    """Number of resamples, or of trials; at least 1 (sacreBLEU takes 0 for its default)."""
    seed: int
    """At least 1 (sacreBLEU takes 0 for no seed)."""


class PairedResult(NamedTuple):
    """Several systems against a baseline, by one metric."""

    metric: str
    """As sacreBLEU names it in its results, for example ``"chrF2"``."""
    p_values: dict[Any, float]
    """System -> two-sided p-value."""
    signature: str
    """sacreBLEU's, with the test, its samples and the seed."""


@contextlib.contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """Set the seed in the environment, the only place where sacreBLEU looks for it."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before


class _MeanOfSeeds:
    """What sacreBLEU's tests ask of a metric: the mean of its scores, of sentences with a translation of each seed."""

    def __init__(self, metric: Any):
        self._metric = metric
        self._seeds = 0

    def _extract_corpus_statistics(self, hypotheses: Sequence[Sequence[str]], references: Any) -> list[list[float]]:
        of_seeds = [self._metric._extract_corpus_statistics(lines, references) for lines in zip(*hypotheses)]
        self._seeds = len(of_seeds)
        return [list(itertools.chain(*of_sentence)) for of_sentence in zip(*of_seeds)]

    def _aggregate_and_compute(self, of_sentences: Any) -> Any:
        return self._compute_score_from_stats(np.sum(of_sentences, axis=0))

    def _compute_score_from_stats(self, sums: Any) -> Any:
        from sacrebleu.metrics.base import Score

        scores = [self._metric._compute_score_from_stats(part) for part in np.split(sums, self._seeds)]
        return Score(scores[0].name, statistics.mean(score.score for score in scores))

    def get_signature(self) -> Any:
        return self._metric.get_signature()


def paired_test(
    baseline: Sequence[Sequence[str]],
    systems: Mapping[Any, Sequence[Sequence[str]]],
    references: Sequence[str],
    metric: Any,
    resampling: Resampling,
) -> PairedResult:
    """Test each system against the baseline, as ``sacrebleu --paired-bs`` and ``--paired-ar`` do.

    Args:
        baseline: of each seed a hypothesis for each sentence; at least one seed.
        systems: name, of any type -> the same of as many seeds.
        references: one for each.
        metric: sacreBLEU's ``Metric``.
        resampling: the test.

    Returns:
        With one seed the p-values that sacreBLEU's command line prints for files of these lines; with several those of
        the means over the seeds; and the signature.
    """
    from sacrebleu.significance import PairedTest

    # As sacreBLEU's command line reads them: without white space at the end.
    named: list[tuple[str, Any]] = [
        (str(name), list(zip(*([line.rstrip() for line in lines] for lines in seeds))))
        for name, seeds in [("", baseline), *systems.items()]
    ]
    stripped = [[line.rstrip() for line in references]]
    with _sacrebleu_seed(resampling.seed):
        of_seeds: Any = _MeanOfSeeds(metric)
        test = PairedTest(named, {"": of_seeds}, stripped, TESTS[resampling.test], resampling.samples)
        signatures, scores = test()
    ((name, signature),) = signatures.items()
    results: list[Any] = scores[name][1:]  # after the baseline's own
    p_values = {system: float(result.p_value) for system, result in zip(systems, results)}
    return PairedResult(name, p_values, signature.format())
