"""What adding a support takes, so that none is forgotten: its definition, and its name where users look for it."""

import inspect
import re

import pytest

from selfkd_fairseq.core import SUPPORTS, self_kd_loss
from tests import definition


def test_every_support_is_restated_in_the_definition():
    """Other tests compare with what stands there; ``tests/definition.py`` calls none of the package."""
    assert set(definition.WORDS) == set(SUPPORTS), "tests/definition.py: WORDS has to name the supports of the package"


@pytest.mark.parametrize("support", SUPPORTS)
def test_every_support_is_documented(support, root):
    (argument,) = re.findall(r"^ *support: (?:.*\n)*?(?= *support_size:)", inspect.getdoc(self_kd_loss), re.MULTILINE)
    assert f"``{support}``" in argument, "selfkd_fairseq/core/self_kd_loss.py: the argument support"
    (option,) = re.findall(r"^\| `--skd-support` \|.*", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"`{support}`" in option, "README.md: the row of --skd-support"
    method = (root / "docs" / "method.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{support}`", method, re.MULTILINE), "docs/method.md: the table of supports"
