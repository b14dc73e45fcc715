"""Word counts that do not lie in memory all at once."""

from collections import Counter

import pytest

from selfkd_fairseq.data.translation import word_counts

LINES = ["b a b", "", "a  ä", "c b", "\u00e9 a #"]


@pytest.mark.parametrize("most", [1, 2, 3, 1000])
def test_same_counts_with_any_number_of_runs(tmp_path, monkeypatch, most):
    monkeypatch.setattr(word_counts, "TYPES_IN_MEMORY", most)
    runs = word_counts.count_words(LINES, tmp_path / "deeper" / "words.en")
    assert len(runs) == {1: 5, 2: 5, 3: 3, 1000: 1}[most]  # the last may be empty
    assert [run.name for run in runs] == [f"words.en.{number}" for number in range(len(runs))]
    found = list(word_counts.merge_counts(runs))
    assert dict(found) == Counter(" ".join(LINES).split())
    assert [word for word, _ in found] == sorted(set(" ".join(LINES).split()))


def test_no_word(tmp_path):
    assert list(word_counts.merge_counts(word_counts.count_words(["", ""], tmp_path / "words"))) == []
