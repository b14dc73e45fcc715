"""The text before BPE. Expected sentences are written by hand from Moses's rules."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from selfkd_fairseq.data.translation.tokenisation import tokenise, tokenise_pairs


@pytest.mark.parametrize(
    ("language", "sentence", "expected"),
    [
        ("en", "A man in a T-shirt, smiling.", "a man in a t-shirt , smiling ."),
        ("en", "The dog's <toy> & ball", "the dog &apos;s &lt; toy &gt; &amp; ball"),
        ("en", "  5,300 people ;  3.5 km  ", "5,300 people ; 3.5 km"),
        ("de", "Zwei „alte“ Männer – im Freien…", "zwei &quot; alte &quot; männer - im freien ..."),
        ("fr", "L'eau de l’étang", "l&apos; eau de l&apos; étang"),
        ("cs", "Žlutý kůň: běží!", "žlutý kůň : běží !"),
    ],
)
def test_lowercased_normalised_tokenised_escaped(language, sentence, expected):
    assert tokenise(sentence, language, lowercase=True) == expected


def test_case_is_kept_on_demand():
    assert tokenise("Zwei Männer.", "de", lowercase=False) == "Zwei Männer ."


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\r", "\x0b", "\x0c", "\x1c", "\xa0", "\t", "\u3000"])
def test_every_white_space_separates_words(mark):
    assert tokenise(f"a{mark}b", "en", lowercase=True) == "a b"


@pytest.mark.parametrize("sentence", ["", "   ", "\u2028", "\r", "\x00\x01", "\xa0\t"])
def test_nothing_is_left_of_blanks_and_control_characters(sentence):
    assert tokenise(sentence, "de", lowercase=True) == ""


@given(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=40))
@hypothesis_settings(max_examples=100, deadline=None)
def test_a_result_is_one_line_of_words_with_single_spaces(sentence):
    text = tokenise(sentence, "en", lowercase=True)
    assert text == " ".join(text.split())
    assert len(text.splitlines()) == bool(text)


def test_pairs_keep_their_order_and_their_language():
    pairs = [("L'eau", "The dog's"), ("", "One")]
    assert tokenise_pairs(pairs, ("fr", "en"), True) == [("l&apos; eau", "the dog &apos;s"), ("", "one")]
