"""The comparison of outcomes; the long run that uses it is scripts/test_fairseq.sh."""

import pytest

from tests.peer import compare_outcomes


def write_junit(path, **outcomes):
    """A JUnit file as pytest writes it, with tests of one class by their names."""
    cases = []
    for name, outcome in outcomes.items():
        told = "" if outcome == "passed" else f'<{outcome} message="why not&#10;a second line"/>'
        cases.append(f'<testcase classname="tests.test_train.TestTrain" name="{name}">{told}</testcase>')
    path.write_text(f'<testsuites><testsuite name="pytest">{"".join(cases)}</testsuite></testsuites>')
    return path


def compare(tmp_path, alone, plugin):
    files = write_junit(tmp_path / "alone.xml", **alone), write_junit(tmp_path / "plugin.xml", **plugin)
    return compare_outcomes.main([f"{name}={path}" for name, path in zip(("alone", "plugin"), files)])


def test_report(tmp_path, capsys):
    alone = {"test_a": "passed", "test_b": "failure", "test_c": "error", "test_d": "skipped"}
    assert compare(tmp_path, alone, {**alone, "test_b": "passed"}) == 0
    assert capsys.readouterr().out == (
        "| module | tests | passed alone | passed plugin |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| test_train | 4 | 1 | 2 |\n"
        "| all | 4 | 1 | 2 |\n"
        "\nFailed alone, passed plugin (why not): 1\n\n- test_train::TestTrain::test_b\n"
        "\nFailed in every run (why not): 1\n\n- test_train::TestTrain::test_c\n"
        "\nSkipped in every run (why not): 1\n\n- test_train::TestTrain::test_d\n"
    )


@pytest.mark.parametrize("outcome", ["failure", "error", "skipped", None])
def test_a_lost_test_is_an_error(outcome, tmp_path, capsys):
    """Also one that is not even collected with the plugin."""
    plugin = {"test_b": "passed", **({"test_a": outcome} if outcome else {})}
    assert compare(tmp_path, {"test_a": "passed", "test_b": "passed"}, plugin) == 1
    assert "test_train::TestTrain::test_a passes in another run, but not plugin" in capsys.readouterr().err


def test_a_failed_subtest_counts(tmp_path):
    """A test with subtests has several entries of one name; that the last of them passed is not enough."""
    path = write_junit(tmp_path / "run.xml", test_a="failure")
    case = '<testcase classname="tests.test_train.TestTrain" name="test_a"></testcase>'
    path.write_text(path.read_text().replace("</testsuite>", f"{case}</testsuite>"))
    assert compare_outcomes.read_run(path) == {
        "test_train::TestTrain::test_a": compare_outcomes.Outcome("failed", "why not")
    }


@pytest.mark.parametrize("content", [None, "", "no XML", "<testsuites/>"])
def test_a_file_without_outcomes_is_an_error(content, tmp_path, capsys):
    path = tmp_path / "run.xml"
    if content is not None:
        path.write_text(content)
    assert compare_outcomes.main([f"alone={path}"]) == 2
    assert capsys.readouterr().err.startswith("compare_outcomes.py: ")
