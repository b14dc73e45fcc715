"""Merges are those of subword-nmt, to the last tie."""

import contextlib
import io
import random

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from subword_nmt.learn_bpe import learn_bpe

from selfkd_fairseq.data.translation import bpe_learning
from selfkd_fairseq.data.translation.bpe_learning import learn_merges


def by_subword_nmt(words, merges):
    file = io.StringIO()
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        learn_bpe([f"{word} {count}" for word, count in words.items()], file, merges, is_dict=True)
    return [tuple(line.split(" ")) for line in file.getvalue().split("\n")[1:-1]]


WORDS = st.dictionaries(st.text("abé.-", min_size=1, max_size=12), st.integers(1, 50), min_size=1, max_size=25)


@given(WORDS, st.integers(1, 80))
@hypothesis_settings(max_examples=150, deadline=None)
def test_few_letters_with_many_ties_and_repetitions(words, merges):
    if any(len(word) > 1 for word in words):  # subword-nmt cannot do without
        assert list(learn_merges(words.items(), merges)) == by_subword_nmt(words, merges)


@given(st.integers(1, 40))
@hypothesis_settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_larger_than_a_chunk(monkeypatch, size):
    monkeypatch.setattr(bpe_learning, "_CHUNK", size)
    words = {"lower": 5, "lowest": 2, "newer": 6, "wider": 3, "new": 2}
    assert list(learn_merges(words.items(), 30)) == by_subword_nmt(words, 30)


def test_a_large_vocabulary():
    rng = random.Random(1)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = {}
    for rank in range(1, 4000):
        words["".join(rng.choice(syllables) for _ in range(rng.randint(1, 5)))] = 5000 // rank + 1
    found = list(learn_merges(words.items(), 1500))
    assert len(found) == 1500
    assert found == by_subword_nmt(words, 1500)


@pytest.mark.parametrize("words", [{}, {"a": 9}, {"ab": 1, "cd": 1}])
def test_nothing_to_merge(words):
    assert list(learn_merges(words.items(), 5)) == []
