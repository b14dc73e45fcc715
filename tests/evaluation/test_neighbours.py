"""Nearest words and their soft targets on a matrix small enough for numbers by hand; the tables; the picture."""

import csv
import io
import math

import pytest
import torch
from fairseq.data import Dictionary
from matplotlib import image

from selfkd_fairseq.core import SelfKDOptions
from selfkd_fairseq.evaluation import neighbours_heat_map
from selfkd_fairseq.evaluation.neighbours import Neighbour, as_csv, as_table, find_neighbours, most_frequent_words

# <s> and <pad> lie where a does, and must not be its neighbours. Distances from a: b 5, c 10, <unk> 15, </s> 20.
ROWS = {"<s>": (0, 0), "<pad>": (0, 0), "</s>": (0, 20), "<unk>": (0, -15), "a": (0, 0), "b": (3, 4), "c": (6, 8)}
WEIGHT = torch.tensor(list(ROWS.values()), dtype=torch.float32)
# Mean square 750 / 7, mean (9, 17) / 7: the square is 2 (750 / 7 - 370 / 49).
RMS = math.sqrt(9760 / 49)
# A distance of 5 halves the share: of a, b, c, <unk>, </s> the shares are 16, 8, 4, 2, 1.
HALVES = SelfKDOptions(temperature=5 / math.log(2), temperature_scale="absolute")


@pytest.fixture
def dictionary():
    dictionary = Dictionary()
    for word, count in (("a", 1), ("b", 1200), ("c", 1)):
        dictionary.add_symbol(word, n=count)
    return dictionary


def near(row):
    return [pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for value in row]


def test_distances_and_soft_targets(dictionary):
    (rows,) = find_neighbours(WEIGHT, dictionary, ["a"], 2, HALVES)
    assert list(map(list, rows)) == [
        near(["a", "a", 0, 0.0, 0.0, 4 / 7, 16 / 31, 1]),
        near(["a", "b", 1, 5.0, 5 / RMS, 2 / 7, 8 / 31, 1200]),
        near(["a", "c", 2, 10.0, 10 / RMS, 1 / 7, 4 / 31, 1]),
    ]


def test_floor_and_special_symbols(dictionary):
    (rows,) = find_neighbours(WEIGHT, dictionary, ["a"], 6, HALVES._replace(min_target_prob=0.7))
    # Six neighbours are asked for; there are four words besides a, <s> and <pad>. The floor leaves 0.3 for 15 shares.
    assert [(row.neighbour, row.frequency) for row in rows] == [
        ("a", 1), ("b", 1200), ("c", 1), ("<unk>", None), ("</s>", None),
    ]  # fmt: skip
    for name in ("q_nearest", "q_full"):
        expected = [0.7, *(0.3 * share / 15 for share in (8, 4, 2, 1))]
        assert [getattr(row, name) for row in rows] == pytest.approx(expected, rel=1e-5)


def test_relative_temperature(dictionary):
    (rows,) = find_neighbours(WEIGHT, dictionary, ["b"], 1, SelfKDOptions(temperature=2.0, min_target_prob=0.0))
    odds = math.exp(-5 / (2 * RMS))
    assert rows[1].q_nearest == pytest.approx(odds / (1 + odds), rel=1e-5)


def test_words_beyond_one_chunk_and_equal_rows(dictionary):
    words = ["a", "b", "c"] * 50
    found = find_neighbours(WEIGHT, dictionary, words, 1, HALVES)
    assert [rows[0].word for rows in found] == words
    assert found[:3] == found[147:]
    (rows,) = find_neighbours(torch.ones(7, 2), dictionary, ["a"], 1, SelfKDOptions())
    assert (rows[1].relative_distance, rows[1].q_nearest) == (0, 0.5)


def test_most_frequent_words(dictionary):
    dictionary.add_symbol("d", n=7)
    dictionary.pad_to_multiple_(16)
    assert most_frequent_words(dictionary, 3) == ["b", "d", "a"]
    assert most_frequent_words(dictionary, 99) == ["b", "d", "a", "c"]


TABLE = [
    [
        Neighbour("&apos;|", "&apos;|", 0, 0.0, 0.0, 0.75, 0.5, 1234),
        Neighbour("&apos;|", "<unk>", 1, 1.5, 1 / 3, 0.25, 2.5e-6, None),
    ]
]


def test_tables():
    assert as_table(TABLE, markdown=False).splitlines() == [
        "word     neighbour  rank  distance  distance / RMS  q nearest     q full  frequency",
        "&apos;|  &apos;|       0     0.000           0.000     0.7500     0.5000      1,234",
        "&apos;|  <unk>         1     1.500          0.3333     0.2500  2.500e-06",
    ]
    # Markdown would take these for an apostrophe, the end of a cell, and a tag.
    header, rule, first, second = as_table(TABLE, markdown=True).splitlines()
    assert header.startswith("| word ") and rule.endswith("--: |") and first.startswith("| \\&apos;\\| | \\&apos;\\| |")
    assert second.startswith("| \\&apos;\\| | \\<unk\\> ") and len({len(line) for line in (header, rule, first)}) == 1
    header, first, second = csv.reader(io.StringIO(as_csv(TABLE)))
    assert header[:2] == ["word", "neighbour"] and len(header) == 8
    assert first == ["&apos;|", "&apos;|", "0", "0", "0", "0.75", "0.5", "1234"]
    assert second == ["&apos;|", "<unk>", "1", "1.5", "0.333333333", "0.25", "2.5e-06", ""]


def test_heat_map_shows_neighbours_and_shares(dictionary, monkeypatch):
    figures = []
    monkeypatch.setattr(neighbours_heat_map, "_as_png", figures.append)
    found = find_neighbours(WEIGHT, dictionary, ["a", "c"], 6, HALVES)
    neighbours_heat_map.draw_heat_map(found, "the title")
    axes = figures[0].axes[0]
    shares = axes.images[0].get_array()
    assert axes.get_title() == "the title"
    # c: b at 5, a at 10, </s> at the root of 180, <unk> at that of 565
    c_keeps = 1 / (1 + 2**-1 + 2**-2 + 2 ** -(180**0.5 / 5) + 2 ** -(565**0.5 / 5))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a  0.52", f"c  {c_keeps:.2f}"]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert [cells[column, 0] for column in range(4)] == ["b", "c", "<unk>", "</s>"]
    assert shares.shape == (2, 4)
    assert [float(shares[0, column]) for column in range(4)] == pytest.approx([n / 31 for n in (8, 4, 2, 1)])
    # Light text on the dark end of the colours, dark text on the light one.
    colours = [text.get_color() for text in axes.texts]
    assert (colours[0], colours[3]) == ("black", "white")


def picture(rows):
    content, missing = neighbours_heat_map.draw_heat_map(rows, "title")
    return image.imread(io.BytesIO(content)), missing


def rows_of(word, names):
    return [Neighbour(word, name, rank, 1.0, 1.0, 0.5 / (rank + 1), 0.1, 1) for rank, name in enumerate([word, *names])]


def test_heat_map_of_words_that_its_font_lacks(recwarn):
    drawn, missing = picture([rows_of("日本", ["大阪", "$a$ \\frac", "ein" * 30, "щука"])])
    assert missing == "大日本阪" and not recwarn.list
    assert drawn.shape[1] > 600
    assert picture([rows_of("a", ["$", "x$y$z"])])[1] == ""


def test_heat_map_has_an_end(monkeypatch):
    monkeypatch.setattr(neighbours_heat_map, "MAX_WORDS", 3)
    monkeypatch.setattr(neighbours_heat_map, "MAX_NEIGHBOURS", 2)
    figures = []
    monkeypatch.setattr(neighbours_heat_map, "_as_png", figures.append)
    for words in (3, 3000):
        neighbours_heat_map.draw_heat_map([rows_of("a", ["b", "c", "d"])] * words, "title")
    few, many = (tuple(figure.get_size_inches()) for figure in figures)
    assert few == many and len(figures[1].axes[0].texts) == 3 * 2
