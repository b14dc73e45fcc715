"""Plain text of tokens. What is expected is what Moses's detokenizer.perl printed for the same tokens."""

import json

import pytest

from selfkd_fairseq.cli import score
from selfkd_fairseq.evaluation.detokenisation import detokenise

MOSES = [
    # A number before the full stop, and numbers in several tokens.
    ("cs", "na tričku má číslo 93 .", "na tričku má číslo 93."),
    ("cs", "hráč s číslem 7 běží za hráčem s číslem 12 .", "hráč s číslem 7 běží za hráčem s číslem 12."),
    ("cs", "cena byla 3 , 50 koruny .", "cena byla 3,50 koruny."),
    ("cs", "bylo jich 12 , 5", "bylo jich 12,5"),
    ("cs", "1 . 234 . 567 , 8 .", "1.234.567,8."),
    ("cs", "( 5 ) $ 6 7 , a 8 , .", "(5) $6 7, a 8,."),
    ("cs", "93 , a", "93, a"),
    # Dashes inside words.
    ("cs", "pošli e - mail domů .", "pošli e-mail domů."),
    ("cs", "chce - li jít , e – mailem - li něco", "chce-li jít, e–mailem-li něco"),
    ("cs", "e - mail .", "e-mail."),
    ("cs", "pes - kočka a e - mail", "pes - kočka a e - mail"),
    ("cs", "d&apos; - li to", "d' - li to"),
    ("cs", "a @-@ b - li c @-@ 3 , 5", "a-b-li c-3, 5"),
    ("cs", "„ ano “ , řekl &quot; on &quot;", "„ano“, řekl \"on\""),
    # An apostrophe with nothing to lean on.
    ("en", "he said ( &apos;tis &amp; &apos;twas ) .", "he said ('tis & 'twas)."),
    ("en", "&apos;s it &apos;s 90 &apos;s boys &apos; .", "'s it's 90's boys'."),
    ("en", "( 5 % &apos;s ) , &quot; &apos;cause", "(5% 's), \"'cause"),
    ("fi", "EU : ssa , EU: Ssa ja : kissa n :", "EU:ssa, EU:ssa ja: kissa n:"),
    ("fi", "EU : ssansakin 20 : een", "EU:ssansakin 20: een"),
    # Languages whose rules sacremoses has right.
    ("fr", "l&apos; homme n&apos; est pas là !", "l'homme n'est pas là !"),
    ("de", "er sagte : &quot; ja &amp; nein &quot; .", 'er sagte: "ja & nein".'),
    ("ro", "are numărul 93 .", "are numărul 93."),
    ("vi", "số 93 .", "số 93."),
]  # fmt: skip


@pytest.mark.parametrize(("language", "tokens", "text"), MOSES)
def test_as_moses(language, tokens, text):
    assert detokenise(tokens, language) == text


def test_tokens_of_the_references_themselves_score_100(tmp_path, capsys):
    pairs = [(tokens, text) for language, tokens, text in MOSES if language == "cs"]
    for name, lines in (("hyp.tok", [tokens for tokens, _ in pairs]), ("ref.cs", [text for _, text in pairs])):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = ["--hypotheses", str(tmp_path / "hyp.tok"), "--references", str(tmp_path / "ref.cs")]
    assert score.main([*files, "--target-lang", "cs", "--format", "json"]) == 0
    scores = json.loads(capsys.readouterr().out)["detokenised"]
    assert scores["BLEU"]["score"] == scores["chrF2"]["score"] == 100
