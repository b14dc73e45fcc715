"""What is recorded of the surroundings of a result."""

import hashlib
import json
import shutil
import subprocess
import sys

import torch

from selfkd_fairseq.runs import provenance


def test_everything_is_there_and_goes_into_json(tmp_path):
    (tmp_path / "dict.en.txt").write_text("a 1\n")
    (tmp_path / "train.en-de.en.bin").write_bytes(b"1")
    (tmp_path / "test.bin").write_bytes(b"2")
    (tmp_path / "test.idx").write_bytes(b"3")
    found = provenance.provenance(torch.device("cpu"), tmp_path, ["test"])
    assert json.loads(json.dumps(found)) == found
    assert found["data"] == {
        "sha256": {"dict.en.txt": hashlib.sha256(b"a 1\n").hexdigest(), "test.bin": hashlib.sha256(b"2").hexdigest()}
    }
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "selfkd_fairseq", "numpy", "sacrebleu"} <= set(found["versions"])
    assert found["threads"] >= 1 and found["device"] and found["time"].endswith("+00:00")


def test_commit_is_that_of_the_own_checkout_only(root, tmp_path):
    """The package as a checkout, with a change, without git, and installed below a checkout of something else."""
    package = tmp_path / "selfkd_fairseq"
    shutil.copytree(root / "selfkd_fairseq", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text("")  # nothing but the parts that are asked for

    def commit():
        script = "from selfkd_fairseq.runs import provenance; print(provenance.commit())"
        return subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, text=True, capture_output=True, check=True
        ).stdout.strip()

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert commit() == "None"
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "another project")
    assert commit() == "None"
    git("add", "selfkd_fairseq/*.py")
    git("commit", "-q", "-m", "its own")
    clean = commit()
    assert len(clean) == 40
    (package / "version.py").write_text("__version__ = '9'\n")
    assert commit() == clean + "+changes"
