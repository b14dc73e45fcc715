"""Safe loading: the one global that fairseq checkpoints hold is allowed, everything else is refused."""

import argparse
import pickle
import subprocess
import sys

import pytest
import torch

from selfkd_fairseq import checkpoints

pytestmark = pytest.mark.skipif(
    not hasattr(torch.serialization, "add_safe_globals"), reason="this torch has no list of safe globals"
)


class Payload:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_namespace_loads_in_a_fresh_process(tmp_path, root):
    torch.save({"args": argparse.Namespace(arch="transformer_multi30k", lr=[0.5])}, tmp_path / "checkpoint.pt")
    script = (
        "import torch, sys\n"
        "if sys.argv[2] == 'with': import selfkd_fairseq\n"
        "print(torch.load(sys.argv[1], weights_only=True)['args'].arch)\n"
    )

    def load(plugin):
        command = [sys.executable, "-c", script, str(tmp_path / "checkpoint.pt"), plugin]
        return subprocess.run(command, cwd=root, text=True, capture_output=True, check=False)

    assert load("with").stdout.strip().endswith("transformer_multi30k")
    refused = load("without")
    assert refused.returncode != 0 and "argparse.Namespace" in refused.stderr


@pytest.mark.parametrize("where", ["args", "extra_state", "model"])
def test_a_planted_global_is_refused_and_not_run(tmp_path, where):
    harm = tmp_path / "harm"
    torch.save({"args": argparse.Namespace(), where: {"x": Payload(harm)}}, tmp_path / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert not harm.exists()


def test_fairseq_refuses_a_planted_checkpoint(tmp_path):
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    harm = tmp_path / "harm"
    torch.save({"args": None, "cfg": None, "model": {"x": Payload(harm)}}, tmp_path / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint_to_cpu(str(tmp_path / "checkpoint.pt"))
    assert not harm.exists()


def test_exactly_one_global_is_allowed():
    assert (argparse.Namespace,) == checkpoints.CHECKPOINT_GLOBALS
    ours = [g for g in torch.serialization.get_safe_globals() if getattr(g, "__module__", "") == "argparse"]
    assert ours == [argparse.Namespace]
