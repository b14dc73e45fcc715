"""p-values, against sacreBLEU's own command line."""

import os
import random
import re

import numpy as np
import pytest

from selfkd_fairseq.evaluation.metrics import make_metrics
from selfkd_fairseq.evaluation.scoring import make_texts, score_texts
from selfkd_fairseq.evaluation.significance import Resampling, paired_test
from tests.fairseq_setup import run

WORDS = "Ein Mann mit einem Hut sieht den Hund . Frau Gras Straße ? rot 3.5".split()


def sentences(rng, count=60):
    return [" ".join(rng.choices(WORDS, k=rng.randint(4, 15))) for _ in range(count)]


def worse(rng, references, kept):
    return [" ".join(w if rng.random() < kept else rng.choice(WORDS) for w in r.split()) for r in references]


@pytest.fixture(scope="module")
def texts():
    """References, a baseline and two systems."""
    rng = random.Random(5)
    references = sentences(rng)
    return [references, *(worse(rng, references, kept) for kept in (0.7, 0.68, 0.8))]


@pytest.mark.parametrize(("test", "flag"), [("bootstrap", "--paired-bs"), ("randomisation", "--paired-ar")])
def test_p_values_are_those_of_sacrebleus_command_line(texts, tmp_path, monkeypatch, test, flag):
    files = [tmp_path / name for name in ("references", "base", "one", "two")]
    for path, lines in zip(files, texts):
        path.write_text("".join(f"{line} \n" for line in lines), encoding="utf-8")  # the space at the end is dropped
    monkeypatch.setenv("SACREBLEU_SEED", "77")
    monkeypatch.setenv("NO_COLOR", "1")
    printed = run(
        "sacrebleu", files[0], "-i", *files[1:], "-m", "bleu", "chrf", "-lc", "--chrf-lowercase", "-f", "text",
        flag, f"{flag}-n", "150",
    ).stdout  # fmt: skip
    theirs = re.findall(r"\(p = (0\.\d{4}|1\.0000)\)", printed)
    assert len(theirs) == 4, printed
    monkeypatch.setenv("SACREBLEU_SEED", "78")
    metrics = make_metrics("de", lowercase=True)[:2]
    systems = {"one": [[f"{line}\t" for line in texts[2]]], "two": [texts[3]]}
    ours = [paired_test([texts[1]], systems, texts[0], metric, Resampling(test, 150, 77)) for _, metric in metrics]
    assert [result.metric for result in ours] == ["BLEU", "chrF2"]
    # The command line has a row for each system, with BLEU and chrF side by side.
    p_values = [f"{result.p_values[system]:.4f}" for system in systems for result in ours]
    assert p_values == theirs and len(set(theirs)) > 2
    printed_signatures = re.findall(r" - (?:BLEU|chrF2)\S* +(\S+)", printed)
    assert [result.signature for result in ours] == printed_signatures
    assert os.environ["SACREBLEU_SEED"] == "78"


@pytest.mark.parametrize("test", ["bootstrap", "randomisation"])
def test_several_seeds_by_the_mean_of_their_scores(texts, test):
    references, base, one, two = texts
    for _, metric in make_metrics("de")[:2]:
        how = Resampling(test, 100, 7)
        alone = {name: paired_test([base], {"": [lines]}, references, metric, how).p_values[""]
                 for name, lines in (("one", one), ("two", two))}  # fmt: skip
        systems = {"the same twice": [two, two], "one and two": [one, two], "in turn": [one, base]}
        found = paired_test([base, base], systems, references, metric, how)
        assert found.p_values["the same twice"] == alone["two"]
        if test == "bootstrap":
            assert found.p_values["one and two"] == by_hand([base, base], [one, two], references, metric, how)
            assert found.p_values["in turn"] == by_hand([base, base], [one, base], references, metric, how)


def by_hand(base, system, references, metric, how):
    """The paired bootstrap with whole corpora scored anew for each draw."""

    def mean(seeds, sentences):
        scores = [
            metric.corpus_score([lines[i].rstrip() for i in sentences], [[references[i] for i in sentences]]).score
            for lines in seeds
        ]
        return sum(scores) / len(scores)

    everything = range(len(references))
    draws = np.random.default_rng(how.seed).choice(len(references), size=(how.samples, len(references)), replace=True)
    differences = np.array([abs(mean(system, draw) - mean(base, draw)) for draw in draws])
    real = abs(mean(system, everything) - mean(base, everything))
    return (np.sum(differences - differences.mean() > real) + 1) / (how.samples + 1)


def test_environment_is_left_as_it_was_also_without_a_seed(texts, monkeypatch):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    (_, metric), *_ = make_metrics("de")
    paired_test([texts[1]], {"x": [texts[2]]}, texts[0], metric, Resampling("bootstrap", 10, 3))
    assert "SACREBLEU_SEED" not in os.environ


@pytest.mark.parametrize(("lowercase", "tokenizer"), [(False, None), (True, "intl")])
def test_metrics_are_those_of_the_scores(texts, lowercase, tokenizer):
    made = make_texts(texts[1], texts[0], "de")
    scores = score_texts(made, "de", lowercase, tokenizer)
    metrics = make_metrics("de", lowercase, tokenizer)
    for score, (form, metric) in zip(scores, metrics):
        metric.corpus_score(texts[1], [texts[0]])
        assert (form, metric.get_signature().format()) == (score.form, score.signature)
    assert len(scores) == len(metrics)
