"""The metrics of translations, each a class of sacreBLEU with the settings that this package scores with."""

from __future__ import annotations

from typing import Any, NamedTuple

from .errors import ScoringError


class Metric(NamedTuple):
    """A metric and the form of the text that it scores."""

    form: str
    """``"detokenised"`` or ``"tokenised"``."""
    metric: Any
    """sacreBLEU's ``Metric``."""


def make_metrics(language: str, lowercase: bool = False, tokenizer: str | None = None) -> list[Metric]:
    """BLEU, chrF and TER of the plain text, and BLEU of the lower-cased tokens.

    Args:
        language: of the text; sacreBLEU chooses its tokenizer by it.
        lowercase: BLEU and chrF of the plain text ignore case (TER always does, as on sacreBLEU's command line, and
            so does BLEU of the tokens).
        tokenizer: a name of sacreBLEU's, for BLEU of the plain text; None: its own choice.

    Returns:
        The metrics in the order above, each with the form of the text that it scores, in percent.

    Raises:
        ScoringError: the tokenizer needs a package that is not installed.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    try:
        plain_bleu = BLEU(lowercase=lowercase, tokenize=tokenizer, trg_lang=language)
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ScoringError(f"sacreBLEU's tokenizer for this language cannot be used: {reason}") from error
    return [
        Metric("detokenised", plain_bleu),
        Metric("detokenised", CHRF(lowercase=lowercase)),
        Metric("detokenised", TER()),
        Metric("tokenised", BLEU(lowercase=True, tokenize="none", force=True)),
    ]
