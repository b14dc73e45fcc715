"""Every reader of text: a byte-order mark and carriage returns change nothing, and only a line feed ends a line."""

import ast
import gzip
import io
import json
import sys
from types import SimpleNamespace

import pytest

from selfkd_fairseq.cli import score
from selfkd_fairseq.data import raw_text
from selfkd_fairseq.evaluation import runs, text_files, training_log
from tests.evaluation import run_folders
from tests.fairseq_setup import ROOT

# The modules that open files or take text of bytes, and whose files they are. Those of a user are read by READERS.
OPENING = {
    "benchmark/preparation.py": "the system's, and written",
    "benchmark/report.py": "written",
    "checkpoints/average.py": "binary",
    "checkpoints/damage.py": "binary",
    "cli/command.py": "the null device",
    "cli/compare.py": "written",
    "common/fairseq_package.py": "pip's",
    "data/archives.py": "binary",
    "data/binarisation.py": "binary, and fairseq's log",
    "data/binarised_index.py": "binary",
    "data/destination.py": "this package's own",
    "data/download.py": "binary",
    "data/files.py": "this package's own",
    "data/language_model/steps.py": "this package's own",
    "data/raw_text.py": "a user's",
    "data/translation/bpe.py": "this package's own",
    "data/translation/word_counts.py": "written",
    "evaluation/comparison_folder.py": "this package's own",
    "evaluation/text_files.py": "a user's",
    "runs/multirun.py": "this package's own",
    "runs/provenance.py": "the system's",
}
# Characters that str.splitlines or universal newlines take for the end of a line stay in theirs.
WORDS = ["Der Hund\u2028 rennt\x85 .", "", "Ein\rHaus\x0c steht hier .", "kunst\u2029 ist lang"]
SUBWORDS = ["Der Hu@@ nd\u2028 rennt\x85 .", "", "Ein\rHaus\x0c steht hi@@ er .", "kunst\u2029 ist lang@@"]
FORMS = {
    "byte-order mark": lambda text: "\ufeff" + text,
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "two carriage returns": lambda text: text.replace("\n", "\r\r\n"),
    "both": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    "both, the end of the last line missing": lambda text: "\ufeff" + text.replace("\n", "\r\n")[:-1],
}
WHOLE = tuple(FORMS)[:-1]  # an output of fairseq-generate without its last line feed is cut off


def lines(texts):
    return "".join(line + "\n" for line in texts)


def test_modules_that_open_files_are_known():
    names = {"open", "read_text", "read_bytes", "decode", "stdin", "fdopen", "TextIOWrapper", "fileinput"}
    opening = {
        path.relative_to(ROOT / "selfkd_fairseq").as_posix()
        for path in (ROOT / "selfkd_fairseq").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id == "open") or getattr(node, "attr", "") in names
    }
    assert opening == set(OPENING)


def raw_sentences(write):
    path = write("raw", lines(SUBWORDS))
    return list(raw_text.read_sentences(raw_text.Text(raw_text.RawFile(path, path.name))))


def run_folder(write):
    """A run folder, all of whose files are written so."""
    record = run_folders.evaluation(1, [3, 1, 2, 2], [2.0, 1.0, 8.0, 3.0])
    write("results/evaluate-test.json", json.dumps(record, indent=1) + "\n")
    write("results/generate-test.txt", run_folders.generate_output([x.replace("\r", " ") for x in SUBWORDS], WORDS))
    write("provenance.json", json.dumps(run_folders.PROVENANCE, indent=1) + "\n")
    folder = write("log.json", run_folders.training_log([5, 4, 3], 0.1)).parent
    found = runs.read_run("system", folder, "test")._asdict()
    return {name: repr(found[name]) for name in ("evaluation", "translations", "log", "provenance")}


def standard_input(write):
    sys.stdin = SimpleNamespace(buffer=io.BytesIO(write("stdin", lines(SUBWORDS)).read_bytes()))
    return text_files.read_sentences(text_files.STDIN)


def packed(write):
    path = write("packed.gz", lines(SUBWORDS))
    path.write_bytes(gzip.compress(path.read_bytes()))
    return text_files.read_sentences(path)


READERS = {
    "raw text": raw_sentences,
    "sentences": lambda write: text_files.read_sentences(write("sentences", lines(SUBWORDS))),
    "packed": packed,
    "stdin": standard_input,
    "training log": lambda write: training_log.read_training_log(write("log", run_folders.training_log([5, 4, 3]))),
    "run folder": run_folder,
}


def in_form(folder, form):
    def write(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(form(text).encode())
        return path

    return write


@pytest.mark.parametrize(
    ("reader", "form"), [(reader, form) for reader in READERS for form in (WHOLE if reader == "run folder" else FORMS)]
)
def test_reader(reader, form, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", sys.stdin)
    expected = READERS[reader](in_form(tmp_path / "plain", str))
    assert READERS[reader](in_form(tmp_path / "other", FORMS[form])) == expected
    if isinstance(expected, list):
        assert expected == SUBWORDS


@pytest.mark.parametrize("form", WHOLE)
def test_scores(form, tmp_path, capsys):
    """selfkd-score, whichever file has the form: none of its scores moves."""

    def printed(*arguments):
        assert score.main([*map(str, arguments), "--target-lang", "de", "--remove-bpe"]) == 0
        return capsys.readouterr()

    def files(write):
        output = run_folders.generate_output([x.replace("\r", " ") for x in SUBWORDS], WORDS)
        return write("output", output), write("hypotheses", lines(SUBWORDS)), write("references", lines(WORDS))

    plain, other = files(in_form(tmp_path / "plain", str)), files(in_form(tmp_path / "other", FORMS[form]))
    assert printed(other[0]) == printed(plain[0])
    for flag in ("--references", "--tokenised-references"):
        expected = printed("--hypotheses", plain[1], flag, plain[2])
        assert "chrF2" in expected.out and " = 100.0\n" in expected.out
        assert printed("--hypotheses", other[1], flag, plain[2]) == expected
        assert printed("--hypotheses", plain[1], flag, other[2]) == expected
