"""Paired significance tests of translations, by sacreBLEU's own implementation."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

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
    p_values: dict[str, float]
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


def paired_test(
    baseline: Sequence[str],
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    metric: Any,
    resampling: Resampling,
) -> PairedResult:
    """Test each system against the baseline, as ``sacrebleu --paired-bs`` and ``--paired-ar`` do.

    Args:
        baseline: a hypothesis for each sentence.
        systems: name -> a hypothesis for each of the same sentences.
        references: one for each.
        metric: sacreBLEU's ``Metric``.
        resampling: the test.

    Returns:
        The p-values that sacreBLEU's command line prints for files of these lines, and the signature.
    """
    from sacrebleu.significance import PairedTest

    # As sacreBLEU's command line reads them: without white space at the end.
    named: list[tuple[str, Sequence[str]]] = [
        (name, [line.rstrip() for line in lines]) for name, lines in [("", baseline), *systems.items()]
    ]
    stripped = [[line.rstrip() for line in references]]
    with _sacrebleu_seed(resampling.seed):
        test = PairedTest(named, {"": metric}, stripped, TESTS[resampling.test], resampling.samples)
        signatures, scores = test()
    ((name, signature),) = signatures.items()
    results: list[Any] = scores[name][1:]  # after the baseline's own
    p_values = {system: float(result.p_value) for system, result in zip(systems, results)}
    return PairedResult(name, p_values, signature.format())
