"""The examples in the documentation run."""

import re


def test_example_without_fairseq(root, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "without_fairseq.md").read_text(), re.DOTALL)
    namespace = {}
    exec(compile(code, "docs/without_fairseq.md", "exec"), namespace)
    assert namespace["losses"][-1] < 0.8 * namespace["losses"][0]
    assert "nll per token" in capsys.readouterr().out
