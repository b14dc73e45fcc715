"""Data paths with ``:`` mean to selfkd-evaluate and selfkd-neighbours what they mean to fairseq."""

import os
import shutil
from pathlib import Path

import pytest

from selfkd_fairseq.evaluation.data_folder import find_data_folder
from selfkd_fairseq.evaluation.errors import EvaluationError
from tests.fairseq_setup import TINY_TRANSFORMER
from tests.hostile.commands import COMMANDS, ON_DATA, refused, write_checkpoint
from tests.in_process import fairseq


@pytest.fixture(scope="module")
def checkpoint(tiny_translation, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pt"
    return write_checkpoint(tiny_translation, path, *TINY_TRANSFORMER, "--criterion", "self_kd")


@pytest.fixture
def folders(tiny_translation, tmp_path):
    """Two folders of binarised data; the second has no test set."""
    first, second = (shutil.copytree(tiny_translation, tmp_path / name) for name in ("first", "second"))
    for file in second.glob("test.*"):
        file.unlink()
    return first, second


def several(*folders):
    return os.pathsep.join(map(str, folders))


def written(command, checkpoint, data, folder):
    """Whether a command of ours ends well, and writes something."""
    main, arguments = COMMANDS[command](checkpoint, data, folder)
    return main([str(argument) for argument in arguments]) == 0 and any(folder.iterdir())


def test_of_several_folders_the_first_is_read_as_by_fairseq(folders, checkpoint, tmp_path, capsys):
    data = several(*folders)
    fairseq("generate", data, "--path", checkpoint, "--max-len-b", "10", "--num-workers", "0")
    assert "Generate test with beam=5" in capsys.readouterr().out
    for command in ON_DATA:
        assert written(command, checkpoint, data, tmp_path / command)
    with pytest.raises(FileNotFoundError, match="Dataset not found: test"):
        fairseq("generate", several(*folders[::-1]), "--path", checkpoint, "--num-workers", "0")
    capsys.readouterr()
    errors = refused(capsys, checkpoint, several(*folders[::-1]), tmp_path / "none", ["selfkd-evaluate"])
    assert f"Dataset not found: test ({folders[1]})" in errors["selfkd-evaluate"]


def test_a_folder_with_such_a_name_is_refused_and_a_link_to_it_read(folders, checkpoint, tmp_path, capsys):
    """fairseq cannot read it. Nor is the other folder taken, where there is one of the first part of the name."""
    for prefix in (tmp_path / "absent", folders[0]):
        named = shutil.copytree(folders[0], several(prefix, "12"))
        for error in refused(capsys, checkpoint, named, tmp_path / "none", ON_DATA).values():
            assert error.startswith(f"{named} is one folder, and fairseq takes the {os.pathsep} in its path")
        (tmp_path / "link").symlink_to(named)
        for command in ON_DATA:
            assert written(command, checkpoint, tmp_path / "link", tmp_path / f"{prefix.name}-{command}")
        (tmp_path / "link").unlink()
        capsys.readouterr()


def test_what_is_no_folder(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(folders[0])
    assert find_data_folder(Path()) == Path()
    for data in (tmp_path / "absent", Path(several(tmp_path / "absent", folders[0])), Path(f"{os.pathsep}x")):
        with pytest.raises(EvaluationError, match="is not a folder of binarised data"):
            find_data_folder(data)
