"""Safe loading: what fairseq checkpoints hold is allowed (test_checkpoint_globals), everything else is refused.

And safe writing: a copy that dies in the middle leaves the old checkpoint whole.
"""

import argparse
import os
import pickle
import signal
import subprocess
import sys

import pytest
import torch
from fairseq import checkpoint_utils, file_io
from fairseq.dataclass.configs import EMAConfig
from fairseq.file_io import PathManager
from fairseq.models.ema.ema import EMA

from selfkd_fairseq import checkpoints
from tests.forked import CONTEXT
from tests.hostile.payloads import Opens
from tests.resume.processes import kill_at_file_size


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
    torch.save({"args": argparse.Namespace(), where: {"x": Opens(harm)}}, tmp_path / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert not harm.exists()


def as_seed_of_an_average(path):
    """What ``--ema-seed-model`` of fairseq-train does."""
    return EMA(torch.nn.Linear(1, 1), EMAConfig(store_ema=True, ema_seed_model=path)).get_model().state_dict()


@pytest.mark.parametrize("torch_default", [True, False], ids=["torch 2.6", "before torch 2.6"])
@pytest.mark.parametrize("load", [checkpoint_utils.load_checkpoint_to_cpu, as_seed_of_an_average])
def test_fairseq_refuses_a_planted_checkpoint(tmp_path, monkeypatch, load, torch_default):
    harm, path = tmp_path / "harm", tmp_path / "checkpoint.pt"
    if not torch_default:  # the switch by which people go back to what torch did before
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    average = torch.nn.Linear(1, 1).state_dict()
    state = {"args": None, "cfg": None, "model": {}, "extra_state": {"ema": average}, "optimizer_history": []}
    torch.save({**state, "x": Opens(harm)}, path)
    with pytest.raises(pickle.UnpicklingError):
        load(str(path))
    torch.save({**state, "cfg": {"model": {"x": "exit()"}}}, path)
    with pytest.raises(checkpoints.RunningSetting, match=r"checkpoint.pt is refused: .* its setting x "):
        load(str(path))
    assert not harm.exists()
    torch.save(state, path)
    if load is as_seed_of_an_average:
        assert all(torch.equal(value, average[key]) for key, value in load(str(path)).items())


def test_averaged_parameters_are_read_from_a_file_that_holds_nothing_else(tmp_path):
    """``--ema-seed-model`` reads no model and no settings."""
    average = torch.nn.Linear(1, 1).state_dict()
    torch.save({"extra_state": {"ema": average}}, tmp_path / "checkpoint.pt")
    loaded = as_seed_of_an_average(str(tmp_path / "checkpoint.pt"))
    assert all(torch.equal(value, average[key]) for key, value in loaded.items())


# --------------------------------------------------------------------------------------------------------- copies

OLD, NEW = b"old" * 10_000, b"new!" * 50_000
NO_SPACE = 7


def _copy(name, folder, size):
    """In a process of its own: copy; the system kills it after ``size`` bytes, or refuses more if that is negative."""
    copies = {"ours": PathManager.copy, "fairseq": checkpoints._fairseq_copy}
    kill_at_file_size(abs(size))
    if size < 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        copies[name](str(folder / "new.pt"), str(folder / "checkpoint_last.pt"), overwrite=True)
    except OSError:
        os._exit(NO_SPACE)


@pytest.fixture
def copy_until(tmp_path):
    """A call that copies over an old checkpoint in a process that cannot write it all: its exit status, the result."""
    (tmp_path / "new.pt").write_bytes(NEW)
    (tmp_path / "checkpoint_last.pt").write_bytes(OLD)

    def copy(name, size):
        process = CONTEXT.Process(target=_copy, args=(name, tmp_path, size))
        process.start()
        process.join(60)
        return process.exitcode, (tmp_path / "checkpoint_last.pt").read_bytes()

    return copy


def test_a_process_killed_in_the_middle_of_a_copy_leaves_the_old_checkpoint_whole(copy_until, tmp_path):
    assert copy_until("ours", len(NEW) // 2) == (-signal.SIGXFSZ, OLD)
    # What it left is overwritten by the next copy, under the name that fairseq's own unfinished files have.
    assert {path.name for path in tmp_path.iterdir()} == {"new.pt", "checkpoint_last.pt", "checkpoint_last.pt.tmp"}
    assert copy_until("ours", 2 * len(NEW)) == (0, NEW)
    assert {path.name for path in tmp_path.iterdir()} == {"new.pt", "checkpoint_last.pt"}


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(copy_until, tmp_path):
    assert copy_until("ours", -len(NEW) // 2) == (NO_SPACE, OLD)
    assert {path.name for path in tmp_path.iterdir()} == {"new.pt", "checkpoint_last.pt"}


def test_fairseqs_own_copy_is_not_like_that(copy_until):
    """If this fails, fairseq has been mended, and copy_whole can go."""
    status, left = copy_until("fairseq", len(NEW) // 2)
    assert status == -signal.SIGXFSZ and left == NEW[: len(NEW) // 2]


def test_a_copy_that_must_not_overwrite_and_a_path_of_iopath_are_left_to_fairseq(monkeypatch, tmp_path):
    class RemoteFiles:
        _path_handlers = {"s3://": None}
        copied = []

        def copy(self, src_path, dst_path, overwrite):
            self.copied.append((src_path, dst_path, overwrite))
            return True

    checkpoints.copy_checkpoints_whole()  # once more changes nothing
    monkeypatch.setattr(file_io, "IOPathManager", RemoteFiles())
    source, destination = str(tmp_path / "a.pt"), str(tmp_path / "b.pt")
    (tmp_path / "a.pt").write_bytes(NEW)
    calls = [(source, "s3://b.pt", True), ("s3://a.pt", destination, True), (source, destination, False)]
    for call in calls:
        assert PathManager.copy(*call)
    assert RemoteFiles.copied == calls and not (tmp_path / "b.pt").exists()
    assert PathManager.copy(source, destination, overwrite=True)
    assert RemoteFiles.copied == calls and (tmp_path / "b.pt").read_bytes() == NEW
