"""Byte pair encoding."""

import io
from collections import Counter

import pytest

from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.translation import bpe
from selfkd_fairseq.data.translation.recipe import SUBWORDS, Cleaning

# The words of Sennrich et al. (2016), section 3.2.
COUNTS = {"low": 5, "lower": 2, "newest": 6, "widest": 3}


def learnt(counts, merges):
    file = io.StringIO()
    bpe.learn_codes(counts.items(), merges, file)
    return file.getvalue().split("\n")


def write_codes(path, *merges):
    path.write_text("#version: 0.2\n" + "".join(merge + "\n" for merge in merges))
    return path


def test_first_merges_by_hand():
    # "s t" and "e s" occur 9 times each (newest, widest); of equals subword-nmt takes the last in the alphabet.
    # Then "e st" (9), then "l o" (7). The last letter of a word carries its end.
    assert learnt(COUNTS, 3) == ["#version: 0.2", "s t</w>", "e st</w>", "l o", ""]


def test_order_of_the_words_does_not_matter():
    assert learnt(COUNTS, 12) == learnt(dict(reversed(list(COUNTS.items()))), 12)


def test_fewer_merges_if_nothing_more_occurs_twice():
    codes = learnt({"ab": 3, "cd": 1}, 100)
    assert codes == ["#version: 0.2", "a b</w>", ""]


@pytest.mark.parametrize("counts", [{}, {"a": 9}, {"a": 9, "b": 2}, {"ab": 1}, {"ab": 1, "cd": 1}])
def test_nothing_to_learn(counts):
    file = io.StringIO()
    with pytest.raises(PreparationError, match="too small to learn BPE"):
        bpe.learn_codes(counts.items(), 10, file)
    assert file.getvalue() == ""


def test_subwords_are_counted_by_the_counts_of_their_words(tmp_path):
    codes = write_codes(tmp_path / "codes", "s t</w>", "e st</w>", "l o")
    expected = Counter({"lo@@": 7, "w": 5, "w@@": 11, "e@@": 8, "r": 2, "n@@": 6, "est": 9, "i@@": 3, "d@@": 3})
    assert bpe.count_subwords(COUNTS.items(), codes) == expected


def test_vocabulary_lists_the_most_frequent_first_and_ties_by_code_point():
    file = io.StringIO()
    bpe.write_vocabulary({"b": 2, "ä": 2, "a": 2, "c@@": 7}, file)
    assert file.getvalue() == "c@@ 7\na 2\nb 2\nä 2\n"


def test_lines_in_subwords(tmp_path):
    codes = write_codes(tmp_path / "codes", "s t</w>", "e st</w>", "l o")
    pairs = [("low est", "est"), ("", "low"), ("ä", "")]
    expected = [("lo@@ w est", "est"), ("", "lo@@ w"), ("ä", "")]
    assert bpe.segment_pairs(pairs, codes, (None, None), 0) == expected


def segment(sentence, codes, vocabulary=None, threshold=0):
    ((first, second),) = bpe.segment_pairs([(sentence, sentence)], codes, (vocabulary, None), threshold)
    return first, second


def test_rare_subwords_are_split_again(tmp_path):
    codes = write_codes(tmp_path / "codes", "s t</w>", "e st</w>", "l o")
    vocabulary = tmp_path / "vocab"
    vocabulary.write_text("lo@@ 1\nl@@ 9\no@@ 9\nw 9\nest 9\n")
    assert segment("low est", codes, vocabulary, 2) == ("l@@ o@@ w est", "lo@@ w est")
    assert segment("low est", codes, vocabulary, 1) == ("lo@@ w est", "lo@@ w est")


def test_a_replaced_file_of_merges_is_read_anew(tmp_path):
    codes = write_codes(tmp_path / "codes", "l o")
    assert segment("low", codes)[0] == "lo@@ w"
    write_codes(tmp_path / "other", "o w</w>").replace(codes)
    assert segment("low", codes)[0] == "l@@ ow"


def test_pairs_that_are_not_kept_leave_a_gap(tmp_path):
    codes = write_codes(tmp_path / "codes", "l o")
    pairs = [("low", "w"), ("w", "low"), ("lo", "low")]  # 2 and 1 subwords, 1 and 2, 2 and 2
    done = bpe.segment_pairs(pairs, codes, (None, None), 0, Cleaning(SUBWORDS, longest=9, ratio=1.5))
    assert done == [None, None, ("l@@ o", "lo@@ w")]


def test_no_more_words_are_remembered_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(bpe, "WORDS_REMEMBERED", 10)
    codes = write_codes(tmp_path / "codes", "l o")
    words = [f"lo{number}" for number in range(100)]
    assert segment(" ".join(words[:5]), codes)[0].count("@@") == 10 - 5
    for word in words:
        segment(word, codes)
    bpe.count_subwords([(word, 1) for word in words], codes)
    assert len(bpe.load_segmenter(codes).cache) <= 10
