"""Several runs' translations of one test set: scores by sacreBLEU, and each run's test against the baseline's."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .errors import ComparisonError, ScoringError
from .metrics import Metric, make_metrics
from .runs import Run, of_systems
from .scoring import ScoredText, make_texts, remove_bpe, score_texts
from .significance import Resampling, paired_test


class TextOptions(NamedTuple):
    """How translations are brought into the forms that are scored; the options of ``selfkd-score``."""

    target_lang: str | None = None
    """None: that of the runs."""
    lowercase: bool = False
    """Ignore case in BLEU and chrF of the plain text."""
    tokenizer: str | None = None
    """Of sacreBLEU, for BLEU of the plain text; None: its own choice."""
    detokenised: bool = False
    """The hypotheses are plain text, not tokens."""
    bpe_symbol: str | None = None
    """What marks subwords that are put together first; None: there are none."""
    plain_references: list[str] | None = None
    """One per sentence; None: they are made from the runs' own."""
    token_references: list[str] | None = None
    """As ``plain_references``."""


class TranslationScores(NamedTuple):
    """Of R runs."""

    scores: list[dict[str, float]]
    """(R) name of the metric -> score, percent. A name is that of sacreBLEU in small letters, of the lower-cased
    tokens with ``_tokenised``."""
    signatures: dict[str, str]
    """Name of the metric -> signature; one for all runs."""
    p_values: dict[tuple[int, ...], dict[str, float]]
    """Runs -> name of the metric -> p-value against the baseline: of each run that has one, and of the means of those
    of a system if all have one; nothing where all translations are equal."""
    test_signatures: dict[str, str]
    """As ``signatures``, of the tests; empty if nothing was tested."""
    unknown_words: int
    """References with ``<<unk>>`` for a word (T- lines) that were scored against."""


def _key(form: str, name: str) -> str:
    return name.lower() + ("_tokenised" if form == "tokenised" else "")


def target_language(runs: Sequence[Run], options: TextOptions) -> str:
    """The language of the translations: that of the options, else that of the trainings.

    Args:
        runs: at least one; the first speaks for all.
        options: forms of the text.

    Returns:
        A code as sacremoses takes it.

    Raises:
        ComparisonError: neither says.
    """
    language = options.target_lang or runs[0].evaluation.target_lang
    if not language:
        raise ComparisonError("the evaluations do not say the language of the translations: give --target-lang")
    return language


def check_references(runs: Sequence[Run]) -> None:
    """Refuse to compare translations with other references.

    Args:
        runs: at least one.

    Raises:
        ComparisonError: not all were given the same references (T- lines); the message names two files.
    """
    first = runs[0]
    expected = first.translations and first.translations.references
    for run in runs[1:]:
        references = run.translations and run.translations.references
        if references == expected:
            continue
        pairs = enumerate(zip(expected or (), references or ()))
        where = next((f"sentence {number}" for number, (a, b) in pairs if a != b), "one has none")
        raise ComparisonError(
            f"{first.translations_file} and {run.translations_file} have other references (T- lines): {where}"
        )


def _texts(run: Run, options: TextOptions, language: str) -> ScoredText:
    assert run.translations is not None
    references = run.translations.references
    try:
        return make_texts(
            remove_bpe(run.translations.hypotheses, options.bpe_symbol),
            remove_bpe(references, options.bpe_symbol) if references is not None else None,
            language,
            detokenised=options.detokenised,
            plain_references=options.plain_references,
            token_references=options.token_references,
        )
    except ScoringError as error:
        raise ComparisonError(f"{run.translations_file}: {error}") from error


def _unknown_words(run: Run, options: TextOptions) -> int:
    if options.plain_references is not None and options.token_references is not None:
        return 0
    assert run.translations is not None
    return sum("<<unk>>" in reference for reference in run.translations.references or ())


def _tested(runs: Sequence[Run], baselines: Sequence[int | None]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """What is tested against what: each run, and those of a system together."""
    groups: list[tuple[int, ...]] = [*((index,) for index in range(len(runs))), *of_systems(runs).values()]
    against = {group: tuple(index for run in group if (index := baselines[run]) is not None) for group in groups}
    return {group: indices for group, indices in against.items() if len(indices) == len(group)}


def _test_runs(
    texts: Sequence[ScoredText],
    tested: dict[tuple[int, ...], tuple[int, ...]],
    metrics: Sequence[Metric],
    resampling: Resampling,
) -> tuple[dict[tuple[int, ...], dict[str, float]], dict[str, str]]:
    """``p_values`` and ``test_signatures`` of :class:`TranslationScores`."""
    p_values: dict[tuple[int, ...], dict[str, float]] = {}
    signatures: dict[str, str] = {}
    for form, metric in metrics:
        hypotheses = [text.plain_hypotheses if form == "detokenised" else text.token_hypotheses for text in texts]
        references = texts[0].plain_references if form == "detokenised" else texts[0].token_references
        for indices in sorted({*tested.values()}):
            baseline = [hypotheses[index] for index in indices]
            # Of equal translations sacreBLEU would say p = 1 / (samples + 1), the surest difference that there is.
            systems = {runs: [hypotheses[run] for run in runs] for runs, of in tested.items() if of == indices}
            systems = {runs: lines for runs, lines in systems.items() if lines != baseline}
            if not systems:
                continue
            result = paired_test(baseline, systems, references, metric, resampling)
            name = _key(form, result.metric)
            signatures[name] = result.signature
            for runs, p_value in result.p_values.items():
                p_values.setdefault(runs, {})[name] = p_value
    return p_values, signatures


def score_runs(
    runs: Sequence[Run], baselines: Sequence[int | None], options: TextOptions, resampling: Resampling
) -> TranslationScores:
    """Score translations and test them.

    Args:
        runs: R of them, all with translations of the same sentences and the same references (T- lines).
        baselines: (R) index of the run that each is tested against; None if there is none.
        options: forms of the text.
        resampling: the test.

    Returns:
        Scores in percent of each run, p-values of each and of those of a system together, with sacreBLEU's signatures.

    Raises:
        ScoringError: references that are missing or of another number; a tokenizer that is missing.
    """
    from sacrebleu.metrics.ter import TER

    language = target_language(runs, options)
    texts = [_texts(run, options, language) for run in runs]
    scored = [score_texts(text, language, options.lowercase, options.tokenizer) for text in texts]
    metrics = make_metrics(language, options.lowercase, options.tokenizer)
    # TER takes too long for a thousand resamples.
    quick = [metric for metric in metrics if not isinstance(metric.metric, TER)]
    p_values, test_signatures = _test_runs(texts, _tested(runs, baselines), quick, resampling)
    return TranslationScores(
        [{_key(score.form, score.score.name): score.score.score for score in scores} for scores in scored],
        {_key(score.form, score.score.name): score.signature for score in scored[0]},
        p_values,
        test_signatures,
        _unknown_words(runs[0], options),
    )
