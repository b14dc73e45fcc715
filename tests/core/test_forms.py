"""What adding to the method takes, so that nothing is forgotten: definition, forms for the tests, documentation."""

import re

import pytest

from selfkd_fairseq.core import (
    CONTROLS,
    GATES,
    NORMALISATIONS,
    SIMILARITIES,
    SUPPORTS,
    TEACHERS,
    TEMPERATURE_SCALES,
    SelfKDOptions,
)
from selfkd_fairseq.core.options import options_of_teacher
from tests import definition
from tests.core.forms import FEW, FORMS

VALUES = {
    "support": SUPPORTS,
    "similarity": SIMILARITIES,
    "teacher": TEACHERS,
    "gate": GATES,
    "normalise": NORMALISATIONS,
    "control": CONTROLS,
    "temperature_scale": TEMPERATURE_SCALES,
}
NAMED = [(option, value) for option, values in VALUES.items() for value in values]


def row_of_options(root, option):
    documented = (root / "docs" / "options.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `--skd-{option.replace('_', '-')}` \|.*", documented, re.MULTILINE)
    assert len(rows) == 1, f"docs/options.md: {len(rows)} rows of --skd-{option.replace('_', '-')}"
    return rows[0]


def test_the_definition_knows_all_of_the_package():
    """Other tests compare with what stands there; ``tests/definition.py`` calls none of the package."""
    assert set(definition.WORDS) == set(SUPPORTS), "tests/definition.py: WORDS has to name the supports of the package"
    assert set(definition.SIMILARITIES) == set(SIMILARITIES), "tests/definition.py: SIMILARITIES"
    assert definition.Options()._asdict() == SelfKDOptions()._asdict(), "tests/definition.py: Options"


@pytest.mark.parametrize("forms", [FORMS, FEW], ids=["all", "few"])
def test_the_forms_of_the_tests_hold_every_option(forms):
    chosen = [SelfKDOptions(**options) for options in forms.values()]
    for options in chosen:
        options.check()
    assert len(set(chosen)) == len(chosen), "two forms are the same"
    for option, values in VALUES.items():
        if option != "temperature_scale":  # of the tests of soft targets: it is a unit, and nothing else
            found = {getattr(options, option) for options in chosen}
            missing = set(values) - found
            assert not missing or (forms is FEW and missing == {"shuffled_rows"}), f"tests/core/forms.py: {missing}"
    sparse = [options for options in chosen if options.support != "full"]
    assert {options.normalise for options in sparse} == set(NORMALISATIONS)
    assert any(options.student_temperature != 1 for options in sparse)
    assert any(options.student_temperature != 1 for options in chosen if options.support == "full")


@pytest.mark.parametrize("option", SelfKDOptions._fields)
def test_every_option_is_documented(option, root):
    by_teacher = [getattr(options_of_teacher({"teacher": teacher}), option) for teacher in ("self", "embedding")]
    cells = [cell.strip().strip("`") for cell in row_of_options(root, option).split("|")[2:4]]
    same = by_teacher[0] == by_teacher[1] or option == "teacher"
    expected = [str(by_teacher[0]), "" if same else str(by_teacher[1])]
    assert cells == expected, f"docs/options.md: the defaults of --skd-{option}, {expected}"
    described = SelfKDOptions.__doc__.split("Attributes:")[1]
    assert re.search(rf"^ +{option}: ", described, re.MULTILINE), "selfkd_fairseq/core/options.py: the docstring"


@pytest.mark.parametrize("option, value", NAMED)
def test_every_value_of_an_option_is_documented(option, value, root):
    assert f"`{value}`" in row_of_options(root, option), f"docs/options.md: {value} in the row of --skd-{option}"
    method = (root / "docs" / "method.md").read_text(encoding="utf-8")
    flag = f"--skd-{option.replace('_', '-')}"
    assert re.search(rf"`({flag} )?{value}`", method), f"docs/method.md: {flag} {value}"
    if option in ("support", "similarity"):
        assert re.search(rf"^\| `{value}`", method, re.MULTILINE), f"docs/method.md: a row of the {option} {value}"
