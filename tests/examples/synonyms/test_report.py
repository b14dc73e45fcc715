"""The table, letter by letter."""

import math

from examples.synonyms.distribution import Measurement
from examples.synonyms.report import Row, as_csv, as_markdown, explanation

TRUTH = Measurement(
    kl=0.0, kl_ambiguous=0.0, nll=0.3, reference_prob=0.51, other_correct_prob=0.49, wrong_prob=0.0,
    positions=20, ambiguous_positions=7,
)  # fmt: skip
MODEL = TRUTH._replace(kl=0.1234, kl_ambiguous=0.25, reference_prob=0.5, other_correct_prob=0.4, wrong_prob=0.1)
# half a bit is log(2) / 2 nats, a perplexity of sqrt(2)
ROWS = [Row("truth", 0.5 * math.log(2), 55.55, 1.0, TRUTH), Row("self_kd", math.log(2), 9.0, 0.5, MODEL)]


def test_markdown():
    assert as_markdown(ROWS) == (
        "| system  | valid nll |   ppl | BLEU | correct % |    KL | KL amb. | p(ref.) | p(other) | p(wrong) |\n"
        "|---------|----------:|------:|-----:|----------:|------:|--------:|--------:|---------:|---------:|\n"
        "| truth   |     0.500 | 1.414 | 55.5 |     100.0 | 0.000 |   0.000 |   0.510 |    0.490 |    0.000 |\n"
        "| self_kd |     1.000 | 2.000 |  9.0 |      50.0 | 0.123 |   0.250 |   0.500 |    0.400 |    0.100 |\n"
    )


def test_csv():
    assert as_csv(ROWS).splitlines()[2] == "self_kd,1.000,2.000,9.0,50.0,0.123,0.250,0.500,0.400,0.100"


def test_explanation_says_how_to_get_the_table_again():
    text = explanation(TRUTH, "nrefs:1|tok:13a", "bash scripts/demo.sh --seed 8")
    for part in (
        "bash scripts/demo.sh --seed 8",
        "torch ",
        "fairseq",
        "20 test positions, of which 7",
        "nrefs:1|tok:13a",
    ):
        assert part in text
