"""What the plugin changes for those who have not asked it to: nothing but what fairseq finds by name."""

import argparse
import json
import os
import pickle
import re
import subprocess
import sys

import pytest
import torch
from fairseq import checkpoint_utils

from tests.fairseq_setup import ROOT
from tests.hostile.payloads import Opens
from tests.resume.trainings import assert_same_checkpoint

REGISTRIES = re.compile(
    r"fairseq\.(criterions|models|optim|tasks)\.(CRITERION|MODEL|ARCH|OPTIMIZER|TASK)_\w+\["
    r"(self_kd|nt_asgd|bptt_language_modeling|BPTTLanguageModelingTask|(awd_lstm|lstm_lm_zaremba|transformer)\w*)\](\[\d+\])?"
)
SAFE_GLOBALS = re.compile(
    r"torch\._weights_only_unpickler\._marked_safe_globals_(set|list\[\d+\])"
)  # a list in torch 2.4
# What selfkd_fairseq.compatibility mends in fairseq 0.12.2.
OF_0_12_2 = {
    "fairseq.checkpoint_utils.load_checkpoint",
    "fairseq.modules.transformer_layer.TransformerEncoderLayerBase._load_from_state_dict",
    "fairseq.trainer.Trainer.save_checkpoint",
}
HARDENED = {
    "fairseq.checkpoint_utils.load_model_ensemble_and_task",
    "fairseq.checkpoint_utils.torch",
    "fairseq.data.indexed_dataset.make_dataset",
    "fairseq.file_io.PathManager.copy",
    "fairseq.nan_detector.NanDetector.add_hooks",
    "fairseq.trainer.Trainer.load_checkpoint",
}


def has_fault(name):
    """Whether the installed fairseq is as the mend of that name expects it."""
    from fairseq.modules.transformer_layer import TransformerEncoderLayerBase

    if name.endswith("_load_from_state_dict"):
        return "_load_from_state_dict" in vars(TransformerEncoderLayerBase)
    source = (ROOT / checkpoint_utils.__file__).read_text(encoding="utf-8")
    return "get_checkpoint_dict" not in source


def python(*arguments, **environment):
    """What a new Python process prints, without SELFKD_HARDENED unless it is given."""
    inherited = {name: value for name, value in os.environ.items() if name != "SELFKD_HARDENED"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env={**inherited, **environment}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_fairseq_and_torch_before_and_after_the_import():
    statements = [
        "import os, selfkd_fairseq",
        "os.environ['SELFKD_HARDENED'] = '1'; selfkd_fairseq.register()",
        "selfkd_fairseq.hardening.remove()",
    ]
    lines = [line for line in python("-m", "tests.changes", *statements).splitlines() if line.startswith("[")]
    imported, hardened, removed = map(json.loads, lines)
    registered = {path for path in imported if REGISTRIES.fullmatch(path)}
    allowed = {path for path in imported if SAFE_GLOBALS.fullmatch(path)}
    assert len(registered) > 60 and allowed
    assert set(imported) - registered - allowed == set(filter(has_fault, OF_0_12_2))

    others = {path for path in set(hardened) - set(imported) if not re.fullmatch(r"fairseq(\.\w+)*\.eval", path)}
    assert others == HARDENED and len(hardened) > len(imported) + 300  # else the first list would say nothing
    assert removed == imported


NEEDED = """
import sys
def print_which():
    print(*sorted({name.split(".")[0] for name in sys.modules} & {"torch", "fairseq", "hydra", "omegaconf"}))
import selfkd_fairseq, selfkd_fairseq.cli.prepare
print_which()
import selfkd_fairseq.core
print_which()
import torch
def load():
    try:
        return torch.load(sys.argv[1], weights_only=True)["args"].arch
    except Exception as error:
        return "argparse.Namespace" in str(error)
print(load())
selfkd_fairseq.register()
from fairseq.criterions import CRITERION_REGISTRY
print(load(), "self_kd" in CRITERION_REGISTRY, "selfkd_fairseq.hardening" in sys.modules)
"""


def test_nothing_is_imported_before_it_is_needed(tmp_path):
    """The core needs torch, the preparation of data not even that; a script has the rest by one call."""
    torch.save({"args": argparse.Namespace(arch="transformer_multi30k")}, tmp_path / "x.pt")
    assert python("-c", NEEDED, tmp_path / "x.pt").splitlines() == [
        "", "torch", "True", "transformer_multi30k True False",
    ]  # fmt: skip


@pytest.fixture
def checkpoint_with(tmp_path):
    """A checkpoint that fairseq reads, with something more in it."""

    def write(**entries):
        extra = {"epoch": 1, "train_iterator": {"epoch": 1}}
        state = {"args": None, "cfg": None, "model": {}, "extra_state": extra}
        torch.save({**state, "optimizer_history": [{"best_loss": 1.0}], **entries}, tmp_path / "x.pt")
        return str(tmp_path / "x.pt")

    return write


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
def test_torchs_own_escape_hatch_opens_what_holds_a_foreign_global(checkpoint_with, tmp_path, monkeypatch):
    path = checkpoint_with(x=Opens(tmp_path / "made"))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    checkpoint_utils.load_checkpoint_to_cpu(path)
    assert (tmp_path / "made").exists()


@pytest.mark.skipif(torch.__version__ < "2.6", reason="needs torch 2.6, whose default is the safe mode")
def test_torchs_safe_mode_refuses_a_planted_pickle(checkpoint_with, tmp_path):
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        checkpoint_utils.load_checkpoint_to_cpu(checkpoint_with(x=Opens(tmp_path / "harm")))
    assert not (tmp_path / "harm").exists()


# Trains without the plugin and then with it, in one process that is new.
TRAIN = """
import sys
from fairseq_cli import train
from tests.in_process import as_a_new_process
data, plain, beside, *flags = sys.argv[1:]
for folder, plugin in ((plain, []), (beside, ["--user-dir", "selfkd_fairseq"])):
    with as_a_new_process("fairseq-train", data, "--save-dir", folder, *plugin, *flags):
        train.cli_main()
    print("selfkd_fairseq" in sys.modules)
"""
FCONV = [
    "--arch", "fconv", "--encoder-layers", "[(16,3) for _ in range(2)]", "--decoder-layers", "[(16, 3)] * 2",
    "--encoder-embed-dim", "16", "--decoder-embed-dim", "16", "--decoder-out-embed-dim", "16",
    "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1", "--optimizer", "nag", "--lr", "0.1",
    "--clip-norm", "0.1", "--max-tokens", "200", "--max-epoch", "2", "--num-workers", "0", "--seed", "1", "--cpu",
    "--no-epoch-checkpoints",
]  # fmt: skip


def test_a_setting_that_fairseq_evaluates_trains_as_without_the_plugin(tiny_translation, tmp_path):
    """Of another criterion and another model than the plugin's."""
    printed = python("-c", TRAIN, tiny_translation, tmp_path / "plain", tmp_path / "beside", *FCONV)
    assert [line for line in printed.splitlines() if line in ("True", "False")] == ["False", "True"]
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        assert_same_checkpoint(tmp_path / "plain", tmp_path / "beside", name)
