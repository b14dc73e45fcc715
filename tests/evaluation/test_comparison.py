"""What is compared with what, means and deviations, and what is refused."""

import math

import numpy as np
import pytest

from selfkd_fairseq.evaluation.bootstrap import nll_difference
from selfkd_fairseq.evaluation.comparison import compare
from selfkd_fairseq.evaluation.errors import ScoringError
from selfkd_fairseq.evaluation.runs import read_run
from selfkd_fairseq.evaluation.significance import Resampling
from selfkd_fairseq.evaluation.translation_scores import TextOptions
from tests.evaluation.run_folders import PROVENANCE, evaluation, generate_output, language_model, write_run

HOW = Resampling("bootstrap", 20, 5)
REFERENCES = ["der Hund sieht die Frau .", "die Frau sieht den Hund .", "das Gras ist rot ."]
WORSE = ["der Hund sieht eine Frau .", "die Frau sieht den Mann .", "das Gras ist rot ."]
WORST = ["ein Hund sieht eine Frau .", "die Frau sieht den Mann .", "Gras ist rot ."]


@pytest.fixture
def make(tmp_path):
    """Makes a run: make(system, seed, hypotheses, references, changes of the evaluation)."""
    count = iter(range(99))

    def make(system, seed, hypotheses=None, references=REFERENCES, sums=(2.5, 3.0, 8.0), lengths=(3, 2, 4), **changes):
        generated = None if hypotheses is None else generate_output(hypotheses, references)
        record = evaluation(seed, lengths, sums, **changes)
        return read_run(system, write_run(tmp_path / str(next(count)), record, generated), "test")

    return make


def refused(runs, baseline="a", options=None):
    with pytest.raises(ScoringError) as caught:
        compare(runs, "test", baseline, options or TextOptions(), HOW)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_means_deviations_and_the_order_of_the_rows(make):
    runs = [make("b", 2, accuracy=61.0), make("b", 10, sums=(1, 1, 7), accuracy=64.0), make("a", 2), make("b", 1)]
    comparison = compare(runs, "test", "a", TextOptions(), HOW)
    assert [(result.run.system, result.run.seed) for result in comparison.runs] == [
        ("b", 1), ("b", 2), ("b", 10), ("a", 2),
    ]  # fmt: skip
    system, alone = comparison.systems
    assert (system.system, system.seeds, alone.seeds, alone.deviations) == ("b", [1, 2, 10], [2], {})
    assert system.means["accuracy"] == pytest.approx((60.5 + 61 + 64) / 3)
    assert system.deviations["accuracy"] == pytest.approx(math.sqrt((1.3333**2 + 0.8333**2 + 2.1667**2) / 2), abs=1e-3)
    one, other = math.exp(13.5 / 9), math.exp(9 / 9)
    mean = (2 * one + other) / 3
    assert system.means["ppl"] == pytest.approx(mean)
    assert system.deviations["ppl"] == pytest.approx(math.sqrt((2 * (one - mean) ** 2 + (other - mean) ** 2) / 2))
    assert alone.means["calibration_error"] == 0.03125 and alone.means["nll"] == pytest.approx(1.5)
    assert "bleu" not in alone.means and comparison.signatures == comparison.test_signatures == {}


def test_each_run_is_held_against_the_baselines_run_of_its_seed(make):
    runs = [
        make("a", 1, WORSE), make("a", 2, WORST, sums=(2, 2, 8)), make("b", 1, WORST, sums=(2.5, 3.0, 7.1)),
        make("b", 2, WORST), make("b", 3, WORSE),
    ]  # fmt: skip
    comparison = compare(runs, "test", "a", TextOptions(), HOW)
    own, _, tested, equal, without = comparison.runs
    assert (own.p_values, own.nll_difference, own.note) == ({}, None, "")
    assert set(tested.p_values) == {"bleu", "chrf2", "bleu_tokenised"} == set(comparison.test_signatures)
    assert tested.nll_difference.value == pytest.approx(-0.9 / 9) and tested.note == ""
    assert equal.p_values == {} and "word for word: nothing to test" in equal.note
    assert equal.nll_difference.value == pytest.approx(1.5 / 9)
    assert (without.p_values, without.nll_difference, without.note) == ({}, None, "a has no run of seed 3: no test")
    assert sum("no run of seed 3" in note for note in comparison.notes) == 1
    assert set(comparison.signatures) == {"bleu", "chrf2", "ter", "bleu_tokenised"}
    assert own.values["bleu"] > tested.values["bleu"] == equal.values["bleu"]
    assert [system.p_values for system in comparison.systems] == [{}, {}]  # a seed of b has no pair
    both = compare(runs[:4], "test", "a", TextOptions(), HOW).systems[1]
    assert set(both.p_values) == set(tested.p_values) and all(0 < p <= 1 for p in both.p_values.values())
    single = compare([runs[0], runs[2]], "test", "a", TextOptions(), HOW)
    assert single.systems[1].p_values == single.runs[1].p_values == tested.p_values


def test_seeds_taken_together(make):
    """Against the means by hand over the seeds of both; a system with a seed that the baseline lacks has none."""
    base = [make("a", 1), make("a", 2, sums=(2, 2, 8))]
    ours = [make("b", 1, sums=(2.5, 3.0, 7.1)), make("b", 2, sums=(1.0, 2.0, 8.5))]
    comparison = compare([*base, *ours, make("c", 1), make("c", 3), make("d", 2)], "test", "a", TextOptions(), HOW)
    own, together, lacking, single = (system.nll_difference for system in comparison.systems)
    assert own is lacking is None
    ours, theirs = np.array([1.75, 2.5, 7.8]), np.array([2.25, 2.5, 8.0])
    assert together == pytest.approx(nll_difference(ours, theirs, np.array([3, 2, 4]), HOW.samples, HOW.seed))
    assert together.value == pytest.approx(-0.7 / 9) and together.low < together.value < together.high
    assert single == comparison.runs[-1].nll_difference


def test_pairs_with_other_references_than_those_of_the_output(make):
    runs = [make("a", 1, WORSE), make("b", 1, WORST)]
    plain = ["Der Hund sieht eine Frau.", "Die Frau sieht den Mann.", "Das Gras ist rot."]
    cased, lower = (
        compare(runs, "test", "a", TextOptions("de", lowercase, plain_references=plain), HOW).runs[0].values
        for lowercase in (False, True)
    )
    assert lower["bleu"] == pytest.approx(100) and cased["bleu"] < 90
    assert lower["bleu_tokenised"] == cased["bleu_tokenised"] < 90  # these are still the T- lines


def test_notes(make, tmp_path):
    runs = [make("a", 1), read_run("b", language_model(tmp_path / "lm"), "test")]
    assert "are of other languages: de and None" in refused(runs)
    notes = compare(runs[:1], "test", "a", TextOptions(), HOW).notes
    assert "no run has results/generate-test.txt" in notes[0] and "some runs of a have no log.json" in notes[1]
    assert compare(runs[1:], "test", "b", TextOptions(), HOW).notes == [notes[1].replace("of a", "of b")]
    unknown = [make("a", 1, WORSE, [f"{line} <<unk>>" for line in REFERENCES])]
    assert "3 references (T- lines) hold <<unk>>" in compare(unknown, "test", "a", TextOptions(), HOW).notes[0]
    both = TextOptions(plain_references=REFERENCES, token_references=REFERENCES)
    assert not any("<<unk>>" in note for note in compare(unknown, "test", "a", both, HOW).notes)
    decoded = [unknown[0]._replace(translations=unknown[0].translations._replace(decoded=True))]
    assert any("give --detokenised" in note for note in compare(decoded, "test", "a", both, HOW).notes)
    told = both._replace(detokenised=True)
    assert not any("give --detokenised" in note for note in compare(decoded, "test", "a", told, HOW).notes)


def test_what_cannot_be_compared(make):
    first = make("a", 1)
    assert refused([first], "c") == "no system is called 'c': there are a"
    assert "are both a with seed 1" in refused([first, make("b", 1), make("a", 1)])
    other = {**PROVENANCE, "data": {"sha256": {**PROVENANCE["data"]["sha256"], "test.en-de.de.bin": "0"}}}
    message = refused([first, make("b", 1, provenance=other)])
    assert message.endswith("were evaluated on other data: test.en-de.de.bin")
    assert "evaluated on 3 and 2 sentences" in refused([first, make("b", 1, sums=(1, 2), lengths=(5, 4))])
    assert "their numbers of tokens differ" in refused([first, make("b", 1, lengths=(3, 3, 3))])
    one, two = make("a", 1, WORSE), make("b", 1)
    assert f"{two.translations_file} is missing, and {one.folder} has translations" in refused([one, two])
    two = make("b", 1, WORSE, [*REFERENCES[:2], "x"])
    message = refused([one, two])
    assert message.endswith("have other references (T- lines): sentence 2") and str(two.translations_file) in message


def test_what_cannot_be_scored(make):
    run = make("a", 1, WORSE)
    short = TextOptions(plain_references=REFERENCES[:2])
    assert refused([run], options=short) == f"{run.translations_file}: 3 hypotheses, but 2 references"
    subwords = make("a", 1, ["a@@ b"] * 3)
    assert f"{subwords.translations_file}: sentence 1 holds subwords" in refused([subwords])
    assert "give --target-lang" in refused([make("a", 1, WORSE, target_lang=None)])
