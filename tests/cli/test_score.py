"""``selfkd-score`` as a command: sacreBLEU's own numbers, options, messages, exit status."""

import gzip
import io
import json
import os
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest

from selfkd_fairseq.cli import score as command
from selfkd_fairseq.evaluation.scoring import detokenise
from tests.fairseq_setup import command as console_command

WORDS = "Ein Mann mit einem Hut sieht , der Hund &apos;s läuft . Frau Gras weiß &quot; Straße ? rot 3.5".split()


def write_lines(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write_output(path, hypotheses, references, mark=""):
    lines = []
    for index, (hypothesis, reference) in enumerate(zip(hypotheses, references)):
        lines += [f"T-{index}\t{reference}{mark}", f"H-{index}\t-0.5\t{hypothesis}"]
    return write_lines(path, [*lines, "Generate test with beam=5: BLEU4 = 1.0"])


@pytest.fixture(scope="module")
def texts():
    """Tokens of 40 references and of hypotheses that differ in some words."""
    rng = random.Random(3)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(4, 15))) for _ in range(40)]
    hypotheses = [" ".join(w if rng.random() < 0.8 else rng.choice(WORDS) for w in r.split()) for r in references]
    return SimpleNamespace(
        hypotheses=[h.lower() for h in hypotheses],
        references=references,
        plain_hypotheses=[detokenise(h.lower(), "de") for h in hypotheses],
        plain_references=[detokenise(r, "de") for r in references],
    )


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in (*arguments, "--target-lang", "de")])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def sacrebleu(*arguments):
    environment = {key: value for key, value in os.environ.items() if key != "SACREBLEU_FORMAT"}
    command_line = [console_command("sacrebleu"), *map(str, arguments)]
    done = subprocess.run(command_line, env=environment, text=True, capture_output=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("lowercase", [False, True])
def test_numbers_are_those_of_sacrebleus_command_line(texts, tmp_path, capsys, lowercase):
    generated = write_output(tmp_path / "generate.txt", texts.hypotheses, texts.references)
    hypotheses = write_lines(tmp_path / "hypotheses.txt", texts.plain_hypotheses)
    references = write_lines(tmp_path / "references.txt", texts.plain_references)
    tokens = write_lines(tmp_path / "hypotheses.tok", texts.hypotheses)
    token_references = write_lines(tmp_path / "references.tok", texts.references)
    options = ["--width", "6", *(["--lowercase"] if lowercase else [])]
    status, out, err = run(capsys, generated, "--references", references, "--format", "json", *options)
    assert (status, err) == (0, "")
    ours = json.loads(out)
    flags = ["-w", "6", *(["-lc", "--chrf-lowercase"] if lowercase else [])]
    theirs = sacrebleu(references, "-i", hypotheses, "-m", "bleu", "chrf", "ter", *flags)
    assert list(ours["detokenised"].values()) == theirs
    tokenised = sacrebleu(token_references, "-i", tokens, "-m", "bleu", "-lc", "--tokenize", "none", "-w", "6")
    assert ours["tokenised"] == {"BLEU": tokenised}
    assert (ours["sentences"], ours["target_lang"], ours["hypotheses"]) == (40, "de", str(generated))
    # The same from T- lines alone, from files of tokens, and from plain text.
    from_files = ["--hypotheses", tokens, "--references", references, "--tokenised-references", token_references]
    assert len({run(capsys, *arguments, *options)[1] for arguments in ([generated], from_files)}) == 1
    plain = run(capsys, "--hypotheses", hypotheses, "--references", references, "--detokenised", *options)[1]
    assert plain.splitlines()[:5] == run(capsys, generated, *options)[1].splitlines()[:5]


def test_text_is_the_lines_of_sacrebleu(texts, tmp_path, capsys):
    status, out, err = run(capsys, write_output(tmp_path / "generate.txt", texts.hypotheses, texts.references))
    assert (status, err) == (0, "")
    starts = [
        "sentences: 40", "detokenised text:",
        "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:", "chrF2|nrefs:1|case:mixed|",
        "TER|nrefs:1|case:lc|", "lower-cased tokens:", "BLEU|nrefs:1|case:lc|eff:no|tok:none|smooth:exp|version:",
    ]  # fmt: skip
    assert all(line.startswith(start) for line, start in zip(out.splitlines(), starts))
    assert len(out.splitlines()) == len(starts)


def test_stdin_and_packed_references(texts, tmp_path, capsys, monkeypatch):
    generated = write_output(tmp_path / "generate.txt", texts.hypotheses, texts.references)
    expected = run(capsys, generated)
    packed = tmp_path / "references.gz"
    packed.write_bytes(gzip.compress("\n".join(texts.plain_references).encode()))  # and no end of the last line
    for dash in ([], ["-"]):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(generated.read_bytes())))
        assert run(capsys, *dash, "--references", packed) == expected


def test_subwords(texts, tmp_path, capsys):
    def split(lines):
        return [line.replace("Mann", "M@@ ann").replace("mann", "m@@ ann") for line in lines]

    expected = run(capsys, write_output(tmp_path / "words.txt", texts.hypotheses, texts.references))
    generated = write_output(tmp_path / "generate.txt", split(texts.hypotheses), split(texts.references))
    assert run(capsys, generated, "--remove-bpe") == run(capsys, generated, "--remove-bpe", "subword_nmt") == expected
    status, out, err = run(capsys, generated)
    assert (status, out) == (1, "") and "holds subwords ('@@ '): give --remove-bpe" in err


def test_nbest(texts, tmp_path, capsys):
    generated = write_output(tmp_path / "generate.txt", texts.hypotheses, texts.references)
    expected = run(capsys, generated)
    worse = "".join(f"H-{index}\t-0.75\tx\n" for index in range(40))
    generated.write_text(worse + generated.read_text(encoding="utf-8"), encoding="utf-8")
    assert run(capsys, generated, "--nbest") == expected
    assert run(capsys, generated)[0] == 1


def test_unknown_words_of_the_references_are_pointed_out(texts, tmp_path, capsys):
    generated = write_output(tmp_path / "generate.txt", texts.hypotheses, texts.references, " <<unk>>")
    status, _, err = run(capsys, generated)
    assert (status, err.count("\n")) == (0, 1) and "note: 40 references of" in err
    files = [write_lines(tmp_path / name, texts.references) for name in ("plain", "tokens")]
    assert run(capsys, generated, "--references", files[0], "--tokenised-references", files[1])[2] == ""


def test_plain_text_without_detokenised_is_pointed_out(tmp_path, capsys):
    lines = ["T-0\tIst das gut?", "H-0\t-1\tdas ist g@@ ut ?", "D-0\t-1\tdas ist gut?", "P-0\t-1"]
    generated = write_lines(tmp_path / "generate.txt", [*lines, "Generate test with beam=5: BLEU4 = 1.0"])
    status, out, err = run(capsys, generated)
    assert (status, err.count("\n")) == (0, 1) and "note: the D- lines of" in err and "--detokenised" in err
    status, plain, err = run(capsys, generated, "--detokenised")
    assert (status, err) == (0, "") and plain != out


@pytest.mark.parametrize("decoded", ["der hu@@ nd .", "der hund ."])
def test_words_in_subwords_are_no_plain_text(tmp_path, capsys, decoded):
    """Without fairseq's --remove-bpe the D- lines are the H- lines; with its --bpe they are the words of them."""
    lines = ["T-0\tder hu@@ nd .", "H-0\t-1\tder hu@@ nd .", f"D-0\t-1\t{decoded}", "P-0\t-1"]
    generated = write_lines(tmp_path / "generate.txt", [*lines, "Generate test with beam=5: BLEU4 = 100.00"])
    status, out, err = run(capsys, generated, "--remove-bpe")
    assert (status, err) == (0, "") and "chrF2" in out and " = 100.0\n" in out


def test_number_of_sentences_tells_of_a_missing_end(texts, tmp_path, capsys):
    """fairseq-fixed leaves the end of a last batch out, whose IDs may be the last: the output alone cannot tell."""
    generated = write_output(tmp_path / "generate.txt", texts.hypotheses[:32], texts.references[:32])
    status, out, _ = run(capsys, generated)
    assert (status, out.splitlines()[0]) == (0, "sentences: 32")
    assert json.loads(run(capsys, generated, "--format", "json")[1])["sentences"] == 32
    references = write_lines(tmp_path / "references.txt", texts.plain_references)
    status, out, err = run(capsys, generated, "--references", references)
    assert (status, out) == (1, "") and "32 hypotheses, but 40 references" in err


def failures(folder):
    good = write_output(folder / "good", ["a b"], ["a b"])
    binary = folder / "binary"
    binary.write_bytes(b"a\n\xff\n")
    (folder / "short.gz").write_bytes(gzip.compress(b"text" * 99)[:-9])
    (folder / "plain.gz").write_bytes(b"text")
    two = write_lines(folder / "two", ["x", "y"])
    (folder / "empty").touch()
    return {
        "No such file or directory": [folder / "absent"],
        "Is a directory": [folder],
        "ended early": [write_lines(folder / "early", ["T-0\ta", "H-0\t-1\ta"])],
        "binary, line 2: not UTF-8": [binary],
        "1 hypotheses, but 2 references": [good, "--references", two],
        "2 hypotheses, but 1 references": ["--hypotheses", two, "--references", write_lines(folder / "one", [""])],
        "there are no hypotheses": ["--hypotheses", folder / "empty", "--references", folder / "empty"],
        "no references": [write_lines(folder / "bare", ["H-0\t-1\ta"])],
        "short.gz: not a whole .gz file": [good, "--references", folder / "short.gz"],
        "plain.gz: not a whole .gz file": [good, "--references", folder / "plain.gz"],
    }


def test_bad_input_is_one_line_and_status_1(tmp_path, capsys):
    for message, arguments in failures(tmp_path).items():
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (1, ""), message
        assert err.startswith("selfkd-score: error: ") and err.count("\n") == 1 and message in err, (message, err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("generate.txt --hypotheses h --references r", "exclude each other"),
        ("--hypotheses h", "needs --references"),
        ("--hypotheses h --references r --nbest", "--nbest goes with"),
        ("--remove-bpe generate.txt", "invalid choice: 'generate.txt'"),
        ("generate.txt --width -1", "a whole number from 0 to 15 is needed, got '-1'"),
        ("generate.txt --width x", "a whole number from 0 to 15 is needed, got 'x'"),
        ("generate.txt --tokenize x", "invalid choice"),
        ("generate.txt --form json", "unrecognized arguments"),
    ],
)
def test_bad_options_are_one_line_and_status_2(capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        command.main([*options.split(), "--target-lang", "de"])
    captured = capsys.readouterr()
    assert (caught.value.code, captured.out) == (2, "")
    assert captured.err.startswith("selfkd-score: error: ") and captured.err.count("\n") == 1
    assert message in captured.err


def test_language_is_asked_for(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["generate.txt"])
    assert caught.value.code == 2 and "--target-lang" in capsys.readouterr().err


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0 and "selfkd-score generate.txt --target-lang de" in capsys.readouterr().out
