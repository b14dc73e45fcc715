"""Reading the output of fairseq-generate: what is taken from it, and that it is whole."""

import random

import pytest

from selfkd_fairseq.evaluation.errors import ScoringError
from selfkd_fairseq.evaluation.generate_output import read_generate_output

SUMMARY = "Generate test with beam=5: BLEU4 = 35.60, 68.4/43.1/29.9/20.8 (BP=0.966, ratio=0.966, syslen=1, reflen=2)"
TRANSLATED = "2024-01-01 12:00:00 | INFO | fairseq_cli.generate | Translated 1,001 sentences (9 tokens) in 1.0s (1.00"


def block(sentence, *hypotheses, kinds="STHDP", reference=None):
    """The lines of one sentence; a hypothesis is (score, text)."""
    lines = [f"S-{sentence}\tsource {sentence}", f"T-{sentence}\t{reference or f'reference {sentence}'}"]
    for score, text in hypotheses or [(-0.5, f"hypothesis {sentence}")]:
        lines += [f"H-{sentence}\t{score}\t{text}", f"D-{sentence}\t{score}\t{text}", f"P-{sentence}\t-0.1 -0.9"]
    return [line for line in lines if line[0] in kinds]


def output(*blocks, end=(SUMMARY,)):
    return "".join(line + "\n" for line in [line for lines in blocks for line in lines] + list(end))


def read(text, **options):
    return read_generate_output(text, "generate.txt", **options)


def refused(text, **options):
    with pytest.raises(ScoringError) as caught:
        read(text, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sentences_come_in_the_order_of_the_test_set():
    lines = [line for sentence in range(12) for line in block(sentence)] + ["A-3\t0-0", "| some log", "", SUMMARY]
    random.Random(1).shuffle(lines)
    hypotheses, references, decoded = read("\n".join(lines) + "\n")
    assert not decoded
    assert hypotheses == [f"hypothesis {index}" for index in range(12)]
    assert references == [f"reference {index}" for index in range(12)]


def test_text_is_taken_as_it_is():
    odd = "  a\ttab, a\u2028line \r S-1\tand a D-2 "
    result = read(output(block(0, (-1e-3, odd), reference=odd), block(1, ("-inf", ""))))
    assert result == ([odd, ""], [odd, "reference 1"], False)


def test_d_lines_win_over_h_lines():
    lines = ["S-0\tx", "H-0\t-1\tb@@ pe", "D-0\t-1\tbpe", "P-0\t-1"]
    assert read(output(lines, end=())).hypotheses == ["bpe"]
    assert read(output(lines[:2], end=())).hypotheses == ["b@@ pe"]


@pytest.mark.parametrize(
    ("words", "decoded", "expected"),
    [
        ("a b", "a b", False),
        ("a b@@ c@@", "a bc", False),
        ("a b@@ c@@", "a b@@ c@@", False),
        ("\u2581a b", "\u2581a b", False),
        ("a b@@ c .", "a bc.", True),
        ("a b@@ c .", "a b@@ c.", True),
        ("\u2581a b", "ab", True),
    ],  # fmt: skip
)
def test_whether_fairseq_made_plain_text(words, decoded, expected):
    lines = ["S-0\tx", "H-0\t-1\tz", f"H-0\t-2\t{words}", f"D-0\t-2\t{decoded}", "D-0\t-1\tz"]
    assert read(output(lines, end=()), nbest=True).decoded == expected


def test_output_without_references_has_no_summary():
    lines = [line for sentence in (1, 0) for line in block(sentence, kinds="SHDP")]
    assert read(output(lines, end=["W-0\t0.1\tseconds"])) == (["hypothesis 0", "hypothesis 1"], None, False)


def test_best_of_several_hypotheses():
    three = [(-0.7, "worse"), (-0.25, "best"), (-0.25, "as good"), (-1e2, "worst")]
    text = output(block(0, *three), block(1))
    assert read(text, nbest=True).hypotheses == ["best", "hypothesis 1"]
    assert "sentence 0 has 4 hypotheses: give --nbest" in refused(text)


WHOLE = [*block(0), *block(1), *block(2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no hypothesis"),
        ("a text\nof two lines\n", "holds no hypothesis (no H- line): is it the output of fairseq-generate?"),
        (output(WHOLE)[:-1], "is cut off: its last line has no end"),
        (output(WHOLE, end=()), "ended early: its last line, 'Generate ... with beam=...', is missing"),
        (output(WHOLE[:-1]), "sentence 2 is incomplete: 1 H- lines, 1 D- lines, 0 P- lines"),
        (output(WHOLE[:-2]), "sentence 2 is incomplete: 1 H- lines, 0 D- lines, 0 P- lines"),
        (output(WHOLE[:-3]), "sentence 2 has no hypothesis"),
        (output(WHOLE[:5], WHOLE[10:]), "1 of 3 sentences missing, the first is 1 (fairseq 0.12.3 leaves out"),
        (output(WHOLE[5:]), "1 of 3 sentences missing, the first is 0"),
        (output(WHOLE[:6], WHOLE[7:]), "sentence 1 has no reference (T- line)"),
        (output(WHOLE, WHOLE), "line 16: a second S- line of sentence 0; does the file hold several outputs?"),
        (output(WHOLE, [line for line in WHOLE if line[0] != "S"]), "line 16: a second T- line of sentence 0"),
        (output(WHOLE, end=[SUMMARY, SUMMARY]), "holds several outputs of fairseq-generate, one after another"),
        (output(WHOLE, end=[TRANSLATED, SUMMARY]), "holds 3 sentences of 1001 translated"),
        (output(WHOLE, ["H-3"]), "line 16: an incomplete H- line"),
        (output(WHOLE, ["H-3\t-0.5"]), "line 16: an incomplete H- line"),
        (output(WHOLE, ["T-3 x"]), "line 16: an incomplete T- line"),
        (output(WHOLE, ["D-3\thypothesis\t"]), "line 16: 'hypothesis' is not the score of a hypothesis"),
        (output(WHOLE, ["D-3\tnan\thypothesis"]), "line 16: 'nan' is not the score"),
    ],
)
def test_what_is_not_whole_is_refused(text, message):
    assert message in refused(text)
    assert refused(text).startswith("generate.txt")


SENTENCES = "Translated 3 sentences (29 tokens) in 0.1s ({}290.00 tokens/s)"
RESULT = "Generate test with beam=5: BLEU4 = 35.60, 68.4/43.1/29.9/20.8 (BP=0.966, ratio=0.966, syslen=1, reflen=2)"
LOGGED = "2020-05-01 12:00:00 | INFO | fairseq_cli.generate | "
ENDS = {
    "0.5": ["| " + SENTENCES.format(""), "| " + RESULT],
    "0.6 to 0.9": ["| " + SENTENCES.format("30.00 sentences/s, "), "| " + RESULT],
    "after 0.9": [LOGGED + SENTENCES.format("30.00 sentences/s, "), LOGGED + RESULT],
    "0.10 to 0.12": [LOGGED + SENTENCES.format("30.00 sentences/s, "), RESULT],
}


@pytest.mark.parametrize("version", list(ENDS))
@pytest.mark.parametrize("kinds", ["STHP", "STHDP"])  # D- lines came with 0.10
def test_the_end_of_an_output_of_every_version_of_fairseq(version, kinds):
    lines = [block(sentence, kinds=kinds) for sentence in (2, 0, 1)]
    sentences, summary = ENDS[version]
    assert read(output(*lines, end=[sentences, summary])).references == [f"reference {i}" for i in range(3)]
    assert "ended early" in refused(output(*lines, end=[sentences]))
    assert "several outputs" in refused(output(*lines, end=[sentences, summary, sentences, summary]))
    assert "holds 2 sentences of 3 translated" in refused(output(*lines[1:], end=[sentences, summary]))


def test_a_summary_inside_a_sentence_is_none():
    assert "ended early" in refused(output(block(0, (-1, f"| {RESULT}"), reference=f"x | {RESULT}"), end=()))


def test_every_cut_is_noticed():
    text = output(WHOLE)
    for end in range(len(text)):
        refused(text[:end])
