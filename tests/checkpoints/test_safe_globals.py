"""The list of allowed globals; numbers of numpy 1 and 2 come back as they were."""

import argparse
import copy
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from fairseq.logging.meters import AverageMeter

from selfkd_fairseq.checkpoints.safe_globals import (
    CHECKPOINT_GLOBALS,
    NumberArray,
    NumberType,
    allow_checkpoint_globals,
)

NUMBERS = {
    "counts of --eval-bleu": np.array([31, 12, 4, 1]),
    "the same of several workers": np.array([torch.tensor(31.0, dtype=torch.float64), torch.tensor(12.0)]),
    "by rows": np.arange(6.0, dtype=np.float32).reshape(2, 3),
    "by columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "cut": np.arange(9)[1::2],
    "one": np.array(3.5),
    "bool": np.array([True, False]),
    "half": np.array([0.5], dtype=np.float16),
    "complex": np.array([1 + 2j]),
    "of the other byte order": np.array([1, 2], dtype=">i4"),
    "scalar int64": np.int64(7),
    "scalar float64": np.float64(0.1),
    "scalar float32": np.float32(0.1),
    "scalar bool": np.bool_(True),
    "scalar uint16": np.uint16(65535),
}


def saved(value, path, module):
    """Save it with numpy's functions under the name of one of its versions."""
    torch.save(value, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    here = np.array(0).__reduce__()[0].__module__.encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content.replace(b"c" + here + b"\n", b"c" + module.encode() + b"\n"))
    assert b"c" + module.encode() + b"\n" in path.read_bytes()
    return path


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("name", list(NUMBERS))
def test_numbers_of_either_numpy(tmp_path, name, module):
    value = NUMBERS[name]
    for _ in range(2):  # what was read is saved as numpy saves it, and read again
        loaded = torch.load(saved(value, tmp_path / "x.pt", module), weights_only=True)
        assert np.array_equal(loaded, value) and np.shape(loaded) == np.shape(value)
        assert loaded.dtype == value.dtype or loaded.dtype == value.dtype.newbyteorder("=")
        assert isinstance(loaded, np.ndarray) or type(loaded) is type(value)
        value = loaded
    for same in (pickle.loads(pickle.dumps(loaded)), copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded, 2))):
        assert np.array_equal(same, loaded)
    assert b"selfkd" not in pickle.dumps(loaded) + pickle.dumps(loaded * 1)


@pytest.mark.parametrize("value", [np.float64(1.5), np.float32(1.5), np.int64(3), np.array([31, 12, 4, 1])], ids=repr)
def test_a_meter_goes_on_counting(tmp_path, value):
    here, there = AverageMeter(round=3), AverageMeter(round=3)
    here.update(value, 2)
    torch.save(here.state_dict(), tmp_path / "x.pt")
    there.load_state_dict(torch.load(tmp_path / "x.pt", weights_only=True))
    for meter in (here, there):
        meter.update(value * 3, 1)
    assert np.array_equal(here.avg, there.avg) and np.array_equal(here.sum, there.sum)
    assert pickle.dumps(here.state_dict()) == pickle.dumps(there.state_dict())


def test_the_documented_list_is_the_true_one(root):
    """It is that of the documentation, to which the notes on fairseq point."""
    assert set(CHECKPOINT_GLOBALS) == {
        "argparse.Namespace", "numpy.ndarray", "numpy.dtype", "_codecs.encode",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    }  # fmt: skip
    allowed = torch._weights_only_unpickler._get_user_allowed_globals()
    assert {name: allowed.get(name) for name in CHECKPOINT_GLOBALS} == CHECKPOINT_GLOBALS
    assert allowed["argparse.Namespace"] is argparse.Namespace
    section = (root / "docs" / "deployment.md").read_text(encoding="utf-8").split("## What a checkpoint may hold\n")[1]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    assert set(re.findall("`(.*?)`", "".join(rows))) == set(CHECKPOINT_GLOBALS)
    notes = (root / "docs" / "fairseq_notes.md").read_text(encoding="utf-8")
    assert "(deployment.md#what-a-checkpoint-may-hold)" in notes


def test_a_second_call_changes_nothing():
    """Neither in a torch that keeps what is allowed in a list."""
    allow_checkpoint_globals()
    before = list(torch.serialization.get_safe_globals())
    allow_checkpoint_globals()
    assert torch.serialization.get_safe_globals() == before


def test_a_state_is_given_once():
    """Another would free the memory that ``torch.from_numpy`` shares by then."""
    array = NumberArray()
    state = (1, (2,), NumberType("i8"), False, bytes(16))
    array.__setstate__(state)
    with pytest.raises(pickle.UnpicklingError, match="numpy.ndarray"):
        array.__setstate__(state)


def test_bytes_have_one_encoding():
    encode = CHECKPOINT_GLOBALS["_codecs.encode"]
    assert encode("aé", "latin1") == b"a\xe9"
    for arguments in (("a", "rot13"), (b"a", "latin1"), ("a", "hex"), ("a", ["latin1"])):
        with pytest.raises(pickle.UnpicklingError, match="_codecs.encode"):
            encode(*arguments)
