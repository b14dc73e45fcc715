"""Forms of the text, and published numbers. tests/cli/test_score.py compares with sacreBLEU's own command line."""

import gzip
import json

import pytest

from selfkd_fairseq.evaluation.errors import ScoringError
from selfkd_fairseq.evaluation.scoring import detokenise, make_texts, remove_bpe, score_texts

TOKENS = ["er sagte : &quot; ja &amp; nein &quot; .", "", "das ist   gut , oder ?"]
PLAIN = ['er sagte: "ja & nein".', "", "das ist gut, oder?"]
TIDY = [" ".join(sentence.split()) for sentence in TOKENS]


def test_detokenise():
    assert [detokenise(sentence, "de") for sentence in TOKENS] == PLAIN
    assert detokenise("l&apos; homme n' est pas là !", "fr") == "l'homme n'est pas là !"
    assert detokenise("he doesn &apos;t", "en") == "he doesn't"


def test_remove_bpe():
    assert remove_bpe(["a b@@ c d@@ e@@ f", "g@@"], "@@ ") == ["a bc def", "g"]
    assert remove_bpe(["a b@@ c"], "subword_nmt") == ["a bc"]
    assert remove_bpe(["\u2581a b \u2581c"], "sentencepiece") == ["ab c"]
    assert remove_bpe(["a@@b @ @"], None) == ["a@@b @ @"]
    for sentence in ("a b@@ c", "a b@@"):
        with pytest.raises(ScoringError, match="sentence 2 holds subwords .'@@ '.: give --remove-bpe"):
            remove_bpe(["a", sentence], None)


def test_forms_of_the_text():
    tokens = make_texts(TOKENS, TOKENS, "de")
    assert tokens == (PLAIN, PLAIN, TOKENS, TOKENS)
    assert make_texts(PLAIN, PLAIN, "de", detokenised=True) == (PLAIN, PLAIN, TIDY, TIDY)
    raw = ["Er!", "", "Gut."]
    assert make_texts(TOKENS, TOKENS, "de", plain_references=raw) == (PLAIN, raw, TOKENS, TOKENS)
    assert make_texts(TOKENS, None, "de", plain_references=raw) == (PLAIN, raw, TOKENS, ["er !", "", "gut ."])
    assert make_texts(TOKENS, None, "de", token_references=["x ,"] * 3) == (PLAIN, ["x,"] * 3, TOKENS, ["x ,"] * 3)
    both = make_texts(TOKENS, TOKENS, "de", plain_references=raw, token_references=["x ,"] * 3)
    assert both == (PLAIN, raw, TOKENS, ["x ,"] * 3)
    plain = make_texts(PLAIN, PLAIN, "de", detokenised=True, token_references=["x ,"] * 3)
    assert plain == (PLAIN, PLAIN, TIDY, ["x ,"] * 3)


def test_lengths_and_missing_references():
    with pytest.raises(ScoringError, match="^3 hypotheses, but 2 references$"):
        make_texts(TOKENS, TOKENS, "de", plain_references=["x", "y"])
    with pytest.raises(ScoringError, match="^3 hypotheses, but 4 references$"):
        make_texts(TOKENS, None, "de", token_references=["x"] * 4)
    with pytest.raises(ScoringError, match="no references"):
        make_texts(TOKENS, None, "de")
    with pytest.raises(ScoringError, match="there are no hypotheses"):
        make_texts([], [], "de")


def test_a_translation_that_is_right_and_one_that_is_wrong():
    lines = ["das ist ein Haus mit einem Dach .", "hier steht ein Baum ."]
    right = score_texts(make_texts(lines, lines, "de"), "de")
    assert [score.score.score for score in right] == pytest.approx([100, 100, 0, 100])
    upper = score_texts(make_texts([line.upper() for line in lines], lines, "de"), "de", lowercase=False)
    assert upper[0].score.score < 50 and upper[1].score.score < 50
    assert [score.score.score for score in upper[2:]] == pytest.approx([0, 100])  # these ignore case
    lower = score_texts(make_texts([line.upper() for line in lines], lines, "de"), "de", lowercase=True)
    assert [score.score.score for score in lower] == pytest.approx([100, 100, 0, 100])


def test_tokenizer_of_the_language():
    texts = make_texts(["他 有 一 只 猫"], ["他 有 一 只 猫"], "zh")
    assert "tok:zh" in score_texts(texts, "zh")[0].signature
    assert "tok:char" in score_texts(texts, "zh", tokenizer="char")[0].signature
    assert "tok:13a" in score_texts(texts, "de")[0].signature


@pytest.mark.parametrize("system", ["label_smoothing", "self_kd"])
def test_published_numbers_of_multi30k(shared_data, root, system):
    # README of the example: the tokenised score was made by sacreBLEU's command line from the tokens of
    # fairseq-generate, of which the detokenised text is stored.
    results = root / "examples" / "translation" / "multi30k" / "results" / system
    with gzip.open(shared_data / "multi30k" / "test_2016_flickr.de.gz", "rt", encoding="utf-8", newline="\n") as file:
        references = file.read().split("\n")[:-1]
    hypotheses = (results / "hypotheses.txt").read_text(encoding="utf-8").split("\n")[:-1]
    texts = make_texts(hypotheses, None, "de", detokenised=True, plain_references=references)
    bleu, chrf, _, tokenised = (score.as_dict(1) for score in score_texts(texts, "de", lowercase=True))
    published = json.loads((results / "sacrebleu.json").read_text(encoding="utf-8"))
    published.append(json.loads((results / "bleu_tokenised.json").read_text(encoding="utf-8")))
    for ours, theirs in zip((bleu, chrf, tokenised), published):
        for key in ("name", "score", "verbose_score"):
            assert ours.get(key) == theirs.get(key)
    assert tokenised["score"] == {"self_kd": 35.6, "label_smoothing": 35.1}[system]
