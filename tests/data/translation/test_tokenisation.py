"""The text before BPE. Expected sentences are written by hand from Moses's rules."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from selfkd_fairseq.data.datasets import DATASETS
from selfkd_fairseq.data.translation.dataset import TranslationDataset
from selfkd_fairseq.data.translation.recipe import NORMALISED, Cleaning, Rules
from selfkd_fairseq.data.translation.tokenisation import tokenise, tokenise_pairs


@pytest.mark.parametrize(
    ("language", "sentence", "expected"),
    [
        ("en", "A man in a T-shirt, smiling.", "a man in a t-shirt , smiling ."),
        ("en", "The dog's <toy> & ball", "the dog &apos;s &lt; toy &gt; &amp; ball"),
        ("en", "  5,300 people ;  3.5 km  ", "5,300 people ; 3.5 km"),
        ("de", "Zwei „alte“ Männer – im Freien…", "zwei &quot; alte &quot; männer - im freien ..."),
        ("fr", "L'eau du lac, l’eau de l’étang", "l&apos; eau du lac , l&apos; eau de l &quot; étang"),
        ("cs", "Žlutý kůň: běží!", "žlutý kůň : běží !"),
    ],
)
def test_lowercased_normalised_tokenised_escaped(language, sentence, expected):
    assert tokenise(sentence, language, lowercase=True) == expected


QUOTES = "Er rief: „Komm nach Haus.“", '"Ja," sagt er, "und."', 'Ein "Haus". Ein "Hof", ein "Tor."'
OTHERS = (
    "Un chef-d’œuvre, l’eau d’été",
    "«\xa0Oui\xa0», dit-il… « Non. »",
    "‘a’ ‚b‘ ''c'' `d´",
    "5\xa0000 (90 %) : 3\xa0cm",
)
QUOTES_BEFORE_STOPS = [
    "Er rief : &quot; Komm nach Haus &quot; .",
    "&quot; Ja &quot; , sagt er , &quot; und &quot; .",
    "Ein &quot; Haus &quot; . Ein &quot; Hof &quot; , ein &quot; Tor &quot; .",
]
STOPS_BEFORE_QUOTES = [
    "Er rief : &quot; Komm nach Haus . &quot;",
    "&quot; Ja , &quot; sagt er , &quot; und . &quot;",
    "Ein &quot; Haus . &quot; Ein &quot; Hof , &quot; ein &quot; Tor . &quot;",
]
QUOTES_LEFT = [*STOPS_BEFORE_QUOTES[:2], "Ein &quot; Haus &quot; . Ein &quot; Hof &quot; , ein &quot; Tor . &quot;"]


@pytest.mark.parametrize(
    ("language", "quotes", "comma", "apostrophes", "point"),
    [
        ("en", STOPS_BEFORE_QUOTES, ", &quot;", ("l &apos;eau", "&apos;a", "d&apos;"), "."),
        ("de", QUOTES_BEFORE_STOPS, "&quot; ,", ("l &apos; eau", "&apos; a", "d &apos;"), ","),
        ("fr", QUOTES_BEFORE_STOPS, "&quot; ,", ("l&apos; eau", "&apos;a", "d&apos;"), ","),
        ("cs", QUOTES_LEFT, "&quot; ,", ("l &apos; eau", "&apos; a", "d &apos;"), ","),
        ("ro", QUOTES_BEFORE_STOPS, "&quot; ,", ("l &apos; eau", "&apos; a", "d &apos;"), "."),
        ("vi", QUOTES_BEFORE_STOPS, "&quot; ,", ("l &apos; eau", "&apos; a", "d &apos;"), "."),
    ],
)
def test_normalised_and_tokenised_as_by_the_scripts_of_moses(language, quotes, comma, apostrophes, point):
    """Every language of a recipe: what normalize-punctuation.perl and tokenizer.perl printed for these lines."""
    eau, a, d = apostrophes
    assert [tokenise(line, language, False) for line in QUOTES] == quotes
    assert [tokenise(line, language, False) for line in OTHERS] == [
        f"Un chef-d &quot; œuvre , {eau} d &quot; été",
        f"&quot; Oui {comma} dit-il ... &quot; Non . &quot;",
        f"{a} &quot; &apos; b &apos; &quot; c &quot; &apos; {d}",
        f"5{point}000 ( 90 % ) : 3 cm",
    ]


def test_every_language_of_a_recipe_is_tested():
    translation = [dataset for dataset in DATASETS.values() if isinstance(dataset, TranslationDataset)]
    tested = test_normalised_and_tokenised_as_by_the_scripts_of_moses.pytestmark[0].args[1]
    assert {language for dataset in translation for language in dataset.languages} == {case[0] for case in tested}


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
    assert tokenise_pairs(pairs, ("fr", "en"), True, NORMALISED) == [("l&apos; eau", "the dog &apos;s"), ("", "one")]


@pytest.mark.parametrize(
    ("language", "sentence", "rules", "expected"),
    [
        # Each rule alone: what it does, and that nothing else is done.
        ("en", "It’s a “T-shirt”", Rules(), "It ’ s a “ T-shirt ”"),
        ("en", "It’s a T-shirt", Rules(straight_apostrophes=True), "It &apos;s a T-shirt"),
        ("en", "It’s a “T-shirt”", Rules(normalise=True), "It &apos;s a &quot; T-shirt &quot;"),
        ("en", "red-brown", Rules(split_hyphens=True), "red @-@ brown"),
        ("ro", "Ţara Şi ţară, aşa", Rules(comma_below=True), "Țara Și țară , așa"),
        ("en", "Şişli", Rules(comma_below=True), "Şişli"),
        ("en", "a\u200bb\x07c\ue000d\u00ade é", Rules(only_printable=True), "a b c d e é"),
        ("en", "It &apos;s  a T-shirt , “ so ”", Rules(tokenise=False), "It &apos;s a T-shirt , “ so ”"),
    ],
)
def test_rules(language, sentence, rules, expected):
    assert tokenise(sentence, language, False, rules) == expected


def test_lower_case_last_unless_told_otherwise():
    # "Nr." is an abbreviation of German for the tokeniser only with its capital.
    assert tokenise("Nr. 5", "de", True, Rules()) == "nr. 5"
    assert tokenise("Nr. 5", "de", True, Rules(lowercase_first=True)) == "nr . 5"


def test_pairs_that_are_not_kept_leave_a_gap():
    pairs = [("One two three.", "Eins."), ("One.", "Eins."), ("", "Eins.")]
    done = tokenise_pairs(pairs, ("en", "de"), True, Rules(), Cleaning("tokens", longest=9, ratio=1.5))
    assert done == [None, ("one .", "eins ."), None]
