"""What ``fairseq-generate`` prints, read back with a check that all of it is there.

For each sentence, in any order, with tabs between the fields::

    S-ID  source                   (not in every task)
    T-ID  reference                (if the data have one)
    H-ID  score  hypothesis        as the model made it, --remove-bpe applied
    D-ID  score  hypothesis        the same after fairseq's --bpe and --tokenizer
    P-ID  score of each token

H, D and P once for each hypothesis that ``--nbest`` asks for. IDs count from 0 in the order of the test set. Other
lines are log messages; with references the last line of all says ``Generate SUBSET with beam=N: ...``.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from .errors import ScoringError

RECORD = re.compile(r"([STHDP])-([0-9]+)(.*)", re.DOTALL)
LONGEST_ID = 18  # digits
# fairseq up to 0.9 printed it after "| ", then a while as a log message after "date | INFO | fairseq_cli.generate | ".
SUMMARY = re.compile(r"(.*\| )?Generate \S+ with beam=\d+: ")
TRANSLATED = re.compile(r"Translated ([0-9][0-9,]{0,30}) sentences \(")


class GenerateOutput(NamedTuple):
    """The sentences of an output, in the order of the test set."""

    hypotheses: list[str]
    """The best hypothesis of each: D- lines, or H- lines where there are no D- lines."""
    references: list[str] | None
    """T- lines; None if the output has none. Like D- lines, they are plain text after fairseq's ``--tokenizer``."""
    decoded: bool
    """D- lines are not the words of H- lines: fairseq made other text of them (``--tokenizer``, sentencepiece)."""


def _words(text: str) -> list[str]:
    """The words of a line of the output, whether fairseq has put its subwords together or not."""
    return f"{text} ".replace("@@ ", "").split()


class _Records:
    """The lines of an output, sorted by kind and sentence."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: dict[str, dict[int, str]] = {"S": {}, "T": {}}
        self.scored: dict[str, dict[int, list[tuple[float, str]]]] = {"H": {}, "D": {}}
        self.token_scores: dict[int, int] = {}
        self.summaries = 0
        self.translated: list[int] = []

    def add(self, number: int, line: str) -> None:
        """Take in one line; ``number`` counts from 1."""
        record = RECORD.match(line)
        if record is None:
            self.summaries += SUMMARY.match(line) is not None
            translated = TRANSLATED.search(line)
            if translated:
                self.translated.append(int(translated[1].replace(",", "")))
            return
        kind, rest = record[1], record[3]
        if len(record[2]) > LONGEST_ID:
            raise ScoringError(f"{self.name}, line {number}: an ID of {len(record[2])} digits")
        sentence = int(record[2])
        fields = rest.split("\t", 2 if kind in self.scored else 1)
        if fields[0] != "" or len(fields) != (3 if kind in self.scored else 2):
            raise ScoringError(f"{self.name}, line {number}: an incomplete {kind}- line")
        if kind in self.texts:
            if sentence in self.texts[kind]:
                raise ScoringError(
                    f"{self.name}, line {number}: a second {kind}- line of sentence {sentence}; "
                    "does the file hold several outputs?"
                )
            self.texts[kind][sentence] = fields[1]
        elif kind == "P":
            self.token_scores[sentence] = self.token_scores.get(sentence, 0) + 1
        else:
            self.scored[kind].setdefault(sentence, []).append((self._score(number, fields[1]), fields[2]))

    def _score(self, number: int, text: str) -> float:
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if math.isnan(score):
            raise ScoringError(f"{self.name}, line {number}: {text!r} is not the score of a hypothesis")
        return score

    def check_end(self) -> None:
        """Raise ScoringError unless the output came to its end, once."""
        if not self.scored["H"] and not self.scored["D"]:
            raise ScoringError(f"{self.name} holds no hypothesis (no H- line): is it the output of fairseq-generate?")
        if max(self.summaries, len(self.translated)) > 1:
            raise ScoringError(f"{self.name} holds several outputs of fairseq-generate, one after another")
        if self.texts["T"] and not self.summaries:
            raise ScoringError(f"{self.name} ended early: its last line, 'Generate ... with beam=...', is missing")

    def check_sentences(self, nbest: bool) -> None:
        """Raise ScoringError unless each sentence has all its lines, and all sentences from 0 on are there."""
        by_kind = {
            "H": {sentence: len(hypotheses) for sentence, hypotheses in self.scored["H"].items()},
            "D": {sentence: len(hypotheses) for sentence, hypotheses in self.scored["D"].items()},
            "P": self.token_scores,
        }
        # A kind that no sentence has was filtered out on purpose, P- lines for example.
        present = {kind: counts for kind, counts in by_kind.items() if counts}
        found = sorted({*self.texts["S"], *self.texts["T"], *(x for counts in present.values() for x in counts)})
        for sentence in found:
            counts = {kind: of_kind.get(sentence, 0) for kind, of_kind in present.items()}
            self._check_sentence(sentence, counts, nbest)
        missing = found[-1] + 1 - len(found)
        if missing:
            first = next(index for index, sentence in enumerate(found) if index != sentence)
            raise ScoringError(
                f"{self.name}: {missing} of {found[-1] + 1} sentences missing, the first is {first} (fairseq 0.12.3 "
                "leaves out the end of a last batch: give fairseq-generate --required-batch-size-multiple 1)"
            )
        if self.translated and self.translated[0] != len(found):
            raise ScoringError(f"{self.name} holds {len(found)} sentences of {self.translated[0]} translated")

    def decoded(self) -> bool:
        """Whether a D- line is not one of the H- lines of its sentence, subwords of subword-nmt put together in both.

        Either may have subwords still: the H- lines without ``--remove-bpe``, the D- lines without ``--bpe`` as well.
        """
        for sentence, detokenised in self.scored["D"].items():
            hypotheses = [_words(text) for _, text in self.scored["H"].get(sentence, ())]
            if hypotheses and any(_words(text) not in hypotheses for _, text in detokenised):
                return True
        return False

    def _check_sentence(self, sentence: int, counts: dict[str, int], nbest: bool) -> None:
        where = f"{self.name}: sentence {sentence}"
        most = max(counts.values())
        if not most:
            raise ScoringError(f"{where} has no hypothesis")
        if min(counts.values()) < most:
            lines = ", ".join(f"{count} {kind}- lines" for kind, count in counts.items())
            raise ScoringError(f"{where} is incomplete: {lines}")
        if most > 1 and not nbest:
            raise ScoringError(f"{where} has {most} hypotheses: give --nbest if fairseq-generate was asked for several")
        if self.texts["T"] and sentence not in self.texts["T"]:
            raise ScoringError(f"{where} has no reference (T- line)")


def read_generate_output(text: str, name: str, nbest: bool = False) -> GenerateOutput:
    """Read an output of ``fairseq-generate`` (or of ``fairseq-interactive``, which has no references).

    Args:
        text: all of it.
        name: of the file, for messages.
        nbest: a sentence may have several hypotheses; the one with the highest score is taken, the first of equals.

    Returns:
        Hypotheses and references in the order of the sentence numbers; references are None if there are none.

    Raises:
        ScoringError: it is no such output, incomplete, or holds several.
    """
    lines = text.split("\n")
    if lines[-1] != "":
        raise ScoringError(f"{name} is cut off: its last line has no end")
    records = _Records(name)
    for number, line in enumerate(lines[:-1], 1):
        records.add(number, line)
    records.check_end()
    records.check_sentences(nbest)
    scored = records.scored["D"] or records.scored["H"]
    best = [max(scored[sentence], key=lambda hypothesis: hypothesis[0])[1] for sentence in sorted(scored)]
    references = records.texts["T"]
    in_order = [references[sentence] for sentence in sorted(references)] if references else None
    return GenerateOutput(best, in_order, records.decoded())
