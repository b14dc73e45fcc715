"""The table in its three forms."""

import csv
import io
import re

import pytest

from selfkd_fairseq.evaluation.comparison import compare
from selfkd_fairseq.evaluation.comparison_table import as_csv, as_markdown, as_text, explanations
from selfkd_fairseq.evaluation.runs import read_run
from selfkd_fairseq.evaluation.significance import Resampling
from selfkd_fairseq.evaluation.translation_scores import TextOptions
from tests.evaluation.run_folders import evaluation, generate_output, language_model, write_run

HOW = Resampling("bootstrap", 20, 5)


@pytest.fixture(scope="module")
def language_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language_models")
    runs = [
        read_run(system, language_model(folder / f"{index}", seed, sums), "test")
        for index, (system, seed, sums) in enumerate(
            [("base", 1, (2.5, 3, 8)), ("base", 2, (2, 3, 8)), ("a|b\\", 1, (2, 3, 7)), ("a|b\\", 3, (2, 2, 2))]
        )
    ]
    return compare(runs, "test", "base", TextOptions(), HOW)


@pytest.fixture(scope="module")
def translations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translations")
    texts = {"base": ["ein Hund bellt laut", "x y z w"], "kd": ["ein Hund bellt sehr", "x y z v"]}
    references = ["ein Hund bellt laut", "x y z v"]
    runs = [
        read_run(
            name, write_run(folder / name, evaluation(1, [5, 5], [4, 6]), generate_output(text, references)), "test"
        )
        for name, text in texts.items()
    ]
    return compare(runs, "test", "base", TextOptions(), HOW)


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


def test_every_row_of_the_markdown_table_has_as_many_cells_as_the_rule(language_models, translations):
    for comparison in (language_models, translations):
        lines = as_markdown(comparison).splitlines()
        assert len(lines) == 2 + len(comparison.systems) + len(comparison.runs)
        assert {len(cells(line)) for line in lines} == {len(cells(lines[0]))}
        assert all(re.fullmatch("-+:?", cell) for cell in cells(lines[1]))
        assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
        assert len({len(line) for line in lines}) == 1
    assert "a\\|b\\\\" in as_markdown(language_models)


def test_text(language_models, translations):
    lines = as_text(language_models).splitlines()
    assert lines[0].split() == "system seed ppl ppl 95 % nll diff. diff. 95 % acc. % ECE".split()
    assert lines[1].split() == "base mean of 2 4.36 ± 0.17 60.5 ± 0.0 0.0312 ± 0.0000".split()
    assert lines[3].split()[:3] == ["base", "1", "4.48"] and len(lines) == 7
    assert lines[5].startswith("a|b\\") and " -0.167  " in lines[5]
    assert [line.count(" +0.000 to +0.000 ") for line in as_text(translations).splitlines()] == [0, 0, 1, 0, 1]
    assert "p BLEU" in as_text(translations).splitlines()[0]
    for row in ("mean of 1", "1"):
        assert re.search(rf"kd +{row} +[\d.]+ +[01]\.\d{{4}} ", as_text(translations))
    assert "mean of 1" in as_text(translations) and "±" not in as_text(translations)


def test_csv_holds_unrounded_numbers_and_signatures(language_models, translations):
    rows = list(csv.DictReader(io.StringIO(as_csv(translations))))
    assert [(row["row"], row["system"], row["seed"], row["n"]) for row in rows] == [
        ("mean", "base", "", "1"), ("mean", "kd", "", "1"), ("run", "base", "1", "1"), ("run", "kd", "1", "1"),
    ]  # fmt: skip
    result = translations.runs[1]
    for name in ("bleu", "chrf2", "bleu_tokenised"):
        assert float(rows[3][name]) == result.values[name] and float(rows[3][f"{name}_p"]) == result.p_values[name]
        assert rows[2][f"{name}_p"] == ""
        assert (
            rows[3][f"{name}_signature"].startswith("nrefs:1|") and "|bs:20|seed:5|" in rows[3][f"{name}_p_signature"]
        )
    assert (float(rows[3]["ppl_low"]), float(rows[3]["ppl_high"])) == result.ppl[1:]
    columns = ("nll_difference", "nll_difference_low", "nll_difference_high")
    assert all([float(row[name]) for name in columns] == [0, 0, 0] for row in (rows[1], rows[3]))
    assert rows[0]["nll_difference"] == rows[2]["nll_difference"] == "" and rows[0]["bleu_deviation"] == ""
    of_models = list(csv.DictReader(io.StringIO(as_csv(language_models))))
    assert "bleu" not in of_models[0] and float(of_models[0]["ppl_deviation"]) > 0
    assert of_models[5]["note"] == "base has no run of seed 3: no test" and of_models[5]["system"] == "a|b\\"
    assert None not in of_models[0] and None not in rows[0]


def test_explanations_name_the_test(language_models, translations):
    assert not any("BLEU" in line or line.startswith("p:") for line in explanations(language_models))
    (line,) = [line for line in explanations(translations) if line.startswith("p:")]
    assert "paired bootstrap against the run of base" in line and "20 samples, seed 5" in line
