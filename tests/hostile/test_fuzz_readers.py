"""Random input to the parsers of the command lines and to the readers of text and JSON: their own errors alone."""

import contextlib
import copy
import io
import json
import math
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import given

from selfkd_fairseq.cli import average_checkpoints, benchmark, compare, evaluate, neighbours, prepare, score
from selfkd_fairseq.evaluation.errors import ComparisonError, ScoringError
from selfkd_fairseq.evaluation.generate_output import read_generate_output
from selfkd_fairseq.evaluation.runs import parse_run, read_evaluation
from selfkd_fairseq.evaluation.training_log import read_training_log
from tests.evaluation.run_folders import bins, evaluation, word_shares
from tests.hostile.fuzzing import fuzzed

PARSERS = {
    module.__name__.rsplit(".", 1)[1]: module.make_parser()
    for module in (average_checkpoints, benchmark, compare, evaluate, neighbours, prepare, score)
}
NUMBERS = [
    "0",
    "1",
    "-1",
    "+1",
    "01",
    "1e9",
    "1e999",
    "nan",
    "-inf",
    "0x10",
    "²",
    "٣",
    "१२",
    "1_0",
    " 1",
    "1 ",
    "1.0",
    "9" * 400,
    "9" * 5000,
]
ODD = [
    "",
    " ",
    "-",
    "--",
    "---",
    "=",
    "@file",
    "%s",
    "%(default)s",
    "{}",
    "a\nb",
    "\0",
    "\r",
    "\x1b[2J",
    "\ud800",
    "日本",
    "\u2028",
]


def argument_lists(parser):
    options = sorted(parser._option_string_actions)
    choices = [choice for action in parser._actions for choice in action.choices or ()]
    values = st.one_of(st.sampled_from([*NUMBERS, *ODD, *map(str, choices)]), st.text(max_size=6))
    names = st.one_of(st.sampled_from(options), st.sampled_from(options).map(lambda name: name[: len(name) // 2 + 1]))
    assigned = st.builds("{}={}".format, names, values)
    required = [action.option_strings[0] for action in parser._actions if action.required and action.option_strings]
    start = st.sampled_from([[], ["x"], [part for name in required for part in (name, "x")] + ["x"]])
    return st.builds(lambda a, b: [*a, *b], start, st.lists(st.one_of(names, values, assigned), max_size=6))


COMMAND_LINES = st.sampled_from(sorted(PARSERS)).flatmap(
    lambda name: st.tuples(st.just(name), argument_lists(PARSERS[name]))
)


@fuzzed()
@given(COMMAND_LINES)
def test_command_lines(name_and_arguments):
    name, arguments = name_and_arguments
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            PARSERS[name].parse_args(arguments)
        except SystemExit as end:
            assert end.code in (0, 2)
            assert (err.getvalue() == "" and "usage: " in out.getvalue()) if end.code == 0 else out.getvalue() == ""
            lines = err.getvalue().splitlines()
            assert end.code == 0 or (len(lines) == 1 and lines[0].startswith(f"{PARSERS[name].prog}: error: "))
        except IndexError:
            assert sys.version_info < (3, 10)  # argparse itself, given "-h="
        else:
            assert (out.getvalue(), err.getvalue()) == ("", "")


def only(error, call, *arguments):
    """The result of a call, or None after the one error that it may raise, whose message is one line."""
    try:
        return call(*arguments)
    except error as refusal:
        assert str(refusal) and len(str(refusal).splitlines()) == 1
        return None


@fuzzed()
@given(st.text(max_size=12))
def test_names_of_runs(text):
    found = only(ComparisonError, parse_run, text)
    assert found is None or (found[0] and found[0] == found[0].strip())


ID = st.one_of(st.integers(0, 3).map(str), st.sampled_from(["", "-1", "٣", "00", "9" * 30, "9" * 5000, "1 ", "x"]))
FIELD = st.one_of(
    st.sampled_from(
        ["-0.5", "1e999", "-1e999", "nan", "٣", "", " ", "1_0", "a b", "a@@ b", "a\r", "\0", "\x85", "9" * 400]
    ),
    st.floats(allow_nan=True).map(str),
    st.text(max_size=5),
)
KIND = st.sampled_from("STHDPX")
RECORDS = st.builds(
    lambda kind, sentence, fields: "\t".join([f"{kind}-{sentence}", *fields]), KIND, ID, st.lists(FIELD, max_size=3)
)
OTHER_LINES = st.one_of(
    st.sampled_from(
        ["Generate test with beam=5: BLEU4 = 1", "Generate  with beam=5: ", "Generate x with beam=5", "", "S-", "H"]
    ),
    st.builds(
        "{}Translated {} sentences (".format, FIELD, st.sampled_from(["1", "2", ",", "1,0", ",,", "٣", "9" * 5000])
    ),
    FIELD,
)


def sentence_lines(sentence, nbest, references, details):
    """The lines that fairseq-generate prints of one sentence."""
    lines = [f"S-{sentence}\ta b", *([f"T-{sentence}\tc"] if references else [])]
    for rank in range(nbest):
        lines += [f"H-{sentence}\t-{rank}.5\td e", f"D-{sentence}\t-{rank}.5\td e"]
        lines += [f"P-{sentence}\t-0.1 -0.2"] if details else []
    return lines


@st.composite
def generate_outputs(draw):
    """Mostly a whole output with a few lines removed, doubled, swapped or put in."""
    nbest, references = draw(st.integers(1, 2)), draw(st.booleans())
    lines = [
        line
        for sentence in range(draw(st.integers(0, 3)))
        for line in sentence_lines(sentence, nbest, references, draw(st.booleans()))
    ]
    lines.append("Generate test with beam=5: BLEU4 = 1")
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(lines)))
        lines[place : place + draw(st.integers(0, 1))] = draw(st.lists(st.one_of(RECORDS, OTHER_LINES), max_size=2))
    return draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"])).join(
        [*lines, *draw(st.sampled_from([[""], [], ["", ""]]))]
    )


@fuzzed()
@given(generate_outputs(), st.booleans())
def test_generate_output(text, nbest):
    output = only(ScoringError, read_generate_output, text, "generate.txt", nbest)
    if output is not None:
        assert output.hypotheses and (output.references is None or len(output.references) == len(output.hypotheses))


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=3),
        st.sampled_from(
            [10**400, -(10**400), 2**63, 2**64, -(2**63), 1e308, 5e-324, "\ud800", "9" * 5000, "nan", "1e999"]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("abc"), inner, max_size=2)),
    max_leaves=5,
)


def paths_into(value, path=()):
    """Every place inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_into(inner, (*path, key))


def put(record, path, value):
    if not path:
        return value
    record = copy.copy(record)
    record[path[0]] = put(record[path[0]], path[1:], value)
    return record


@st.composite
def changed_json(draw, record, ends=("", "", "", "", "}", "\0", "[" * 100_000)):
    """The text of a JSON record with some values changed or taken away, or with some characters changed."""
    for _ in range(draw(st.integers(0, 3))):
        record = put(record, draw(st.sampled_from(list(paths_into(record)))), draw(VALUES))
    text = json.dumps(record)
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(text)))
        text = (
            text[:place]
            + draw(st.sampled_from(["", "[" * 100_000, "NaN", "1e999", "-", '"', "\\ud800", "9" * 5000]))
            + text[place + draw(st.integers(0, 9)) :]
        )
    return text + draw(st.sampled_from(ends))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "evaluate-test.json"


EVALUATION = evaluation(
    1, [3, 2, 4], [2.5, 3.0, 8.0], word_shares=word_shares(0.75, 0.5),
    calibration={"expected_calibration_error": 0.1, "bins": bins(0.1, None)},
)  # fmt: skip


@fuzzed()
@given(changed_json(EVALUATION))
def test_evaluations(file, text):
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    found = only(ScoringError, read_evaluation, file, "test")
    if found is not None:
        assert len(found.ids) == len(found.tokens) == len(found.nll) and math.isfinite(found.accuracy)


LOG_RECORD = {
    "epoch": 1,
    "nll_loss": "3",
    "loss": "4",
    "alpha": "0.5",
    "skd_target_prob": "0.7",
    "num_updates": "100",
    "train_nll_loss": "3",
    "train_num_updates": "100",
    "valid_nll_loss": "2",
    "valid_num_updates": 100,
}


@fuzzed()
@given(st.lists(changed_json(LOG_RECORD, ends=("", "\n", "\r", "}")), max_size=3), st.sampled_from(["\n", "\n", " | "]))
def test_logs(file, lines, separator):
    file.write_text(separator.join(lines), encoding="utf-8", errors="surrogatepass")
    log = only(ScoringError, read_training_log, file)
    for curve in log or ():
        assert [update for update, _ in curve] == sorted(update for update, _ in curve)
        assert all(math.isfinite(value) for _, value in curve)


@pytest.mark.parametrize("text", ["9" * 10, "9" * 5000, "²", "0", "0" * 30])
def test_counts_fit_the_integers_of_fairseq(capsys, text):
    with pytest.raises(SystemExit) as caught:
        PARSERS["evaluate"].parse_args(["x", "--path", "x", "--results-path", "x", "--max-tokens", text])
    err = capsys.readouterr().err
    assert caught.value.code == 2 and "a whole number of at " in err and err.count("\n") == 1 and len(err) < 5200
