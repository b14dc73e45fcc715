"""BLEU, chrF and TER of translations, each by sacreBLEU's own class and with its signature."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Sequence

from selfkd_fairseq.data.translation.tokenisation import tokenise

from .detokenisation import detokenise
from .errors import ScoringError
from .metrics import make_metrics

# What fairseq's post_process undoes; its own option takes the same names.
BPE_SYMBOLS = ("@@ ", "subword_nmt", "sentencepiece", "wordpiece", "letter", "_EOW")


class ScoredText(NamedTuple):
    """Hypotheses and references, both as plain text and as tokens; four lists of one length.

    Attributes:
        plain_hypotheses: one per sentence, without subwords.
        plain_references: of the same sentences.
        token_hypotheses: tokens joined by single spaces.
        token_references: of the same sentences.
    """

    plain_hypotheses: list[str]
    plain_references: list[str]
    token_hypotheses: list[str]
    token_references: list[str]


def remove_bpe(sentences: Sequence[str], symbol: str | None) -> list[str]:
    """Words of subwords, by fairseq's own function.

    Args:
        sentences: tokens, separated by spaces.
        symbol: one of :data:`BPE_SYMBOLS`, or None to leave the sentences as they are.

    Returns:
        One sentence for each, words separated by spaces.

    Raises:
        ScoringError: None, and the marks of subword-nmt are in the text: its scores would be those of subwords.
    """
    if symbol is not None:
        from fairseq.data.data_utils import post_process

        return [post_process(sentence, symbol) for sentence in sentences]
    for number, sentence in enumerate(sentences, 1):
        if "@@ " in sentence or sentence.endswith("@@"):
            raise ScoringError(f"sentence {number} holds subwords ('@@ '): give --remove-bpe")
    return list(sentences)


def _check_lengths(hypotheses: Sequence[str], *all_references: Sequence[str] | None) -> None:
    for references in all_references:
        if references is not None and len(references) != len(hypotheses):
            raise ScoringError(f"{len(hypotheses)} hypotheses, but {len(references)} references")
    if not hypotheses:
        raise ScoringError("there are no hypotheses")


def make_texts(
    hypotheses: Sequence[str],
    output_references: Sequence[str] | None,
    language: str,
    *,
    detokenised: bool = False,
    plain_references: Sequence[str] | None = None,
    token_references: Sequence[str] | None = None,
) -> ScoredText:
    """Bring hypotheses and references into both forms.

    Plain text is made of tokens by :func:`detokenise`, tokens of plain text as ``selfkd-prepare`` makes them
    (lower-cased, normalised, Moses). A form that is given is taken as it is.

    Args:
        hypotheses: one per sentence, without subwords.
        output_references: T- lines, in the same form as the hypotheses; None if there are none.
        language: of the text, a code as sacremoses takes it.
        detokenised: hypotheses and ``output_references`` are plain text, not tokens.
        plain_references: plain text, used for that form in place of ``output_references``.
        token_references: tokens, used for that form in place of ``output_references``.

    Returns:
        Hypotheses and references in both forms, one of each per sentence.

    Raises:
        ScoringError: no references, or not as many as hypotheses.
    """
    _check_lengths(hypotheses, output_references, plain_references, token_references)

    def plain(tokens: Sequence[str]) -> list[str]:
        return [detokenise(sentence, language) for sentence in tokens]

    def tokens(sentences: Sequence[str]) -> list[str]:
        return [tokenise(sentence, language, lowercase=True) for sentence in sentences]

    if output_references is not None:
        if detokenised:
            plain_references = output_references if plain_references is None else plain_references
        else:
            token_references = output_references if token_references is None else token_references
    if plain_references is None:
        if token_references is None:
            raise ScoringError("no references: the output has no T- lines; give --references")
        plain_references = plain(token_references)
    if token_references is None:
        token_references = tokens(plain_references)
    return ScoredText(
        list(hypotheses) if detokenised else plain(hypotheses),
        list(plain_references),
        tokens(hypotheses) if detokenised else list(hypotheses),
        list(token_references),
    )


class MetricScore(NamedTuple):
    """One score of sacreBLEU and the metric that made it."""

    form: str
    """``"detokenised"`` or ``"tokenised"``: which form of the text was scored."""
    score: Any
    """sacreBLEU's ``Score``; ``score.score`` is in percent."""
    signature: str
    """Of sacreBLEU: metric, settings and version."""

    def as_text(self, width: int) -> str:
        """As sacreBLEU prints it with ``--format text``.

        Args:
            width: decimals of the score, which is in percent.

        Returns:
            One line, with the signature.
        """
        return str(self.score.format(width, signature=self.signature))

    def as_dict(self, width: int) -> dict[str, Any]:
        """As sacreBLEU prints it with ``--format json``.

        Args:
            width: decimals that the score, which is in percent, is rounded to.

        Returns:
            Name of the field -> value.
        """
        fields: dict[str, Any] = json.loads(self.score.format(width, signature=self.signature, is_json=True))
        return fields


def score_texts(
    texts: ScoredText, language: str, lowercase: bool = False, tokenizer: str | None = None
) -> list[MetricScore]:
    """The scores of each of :func:`make_metrics`.

    Args:
        texts: the sentences.
        language: of the text; sacreBLEU chooses its tokenizer by it.
        lowercase: BLEU and chrF of the plain text ignore case.
        tokenizer: a name of sacreBLEU's, for BLEU of the plain text; None: its own choice.

    Returns:
        One score per metric, in percent, with sacreBLEU's signature.

    Raises:
        ScoringError: the tokenizer needs a package that is not installed.
    """
    plain = (texts.plain_hypotheses, texts.plain_references)
    tokens = (texts.token_hypotheses, texts.token_references)
    scores = []
    for form, metric in make_metrics(language, lowercase, tokenizer):
        hypotheses, references = plain if form == "detokenised" else tokens
        # As sacreBLEU's command line reads them: without white space at the end.
        score = metric.corpus_score([x.rstrip() for x in hypotheses], [[x.rstrip() for x in references]])
        scores.append(MetricScore(form, score, metric.get_signature().format()))
    return scores
