"""Safe writing: a copy that dies in the middle leaves the old checkpoint whole."""

import errno
import os
import shutil
import signal
import stat

import pytest
from fairseq import file_io
from fairseq.file_io import PathManager

from selfkd_fairseq import hardening
from tests.fairseq_setup import TINY_TRANSFORMER
from tests.in_process import fairseq
from tests.resume.processes import CONTEXT, kill_at_file_size
from tests.resume.trainings import checkpoint, updates_done

OLD, NEW = b"old" * 10_000, b"new!" * 50_000
NO_SPACE = 7


def _copy(name, folder, size):
    """In a process of its own: copy; the system kills it after ``size`` bytes, or refuses more if that is negative."""
    hardening.install() if name == "hardened" else hardening.remove()
    kill_at_file_size(abs(size))
    if size < 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        copied = PathManager.copy(str(folder / "new.pt"), str(folder / "checkpoint_last.pt"), overwrite=True)
    except OSError:  # iopath returns False instead
        copied = False
    os._exit(0 if copied else NO_SPACE)


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
    assert copy_until("hardened", len(NEW) // 2) == (-signal.SIGXFSZ, OLD)
    # What it left is overwritten by the next copy, under the name that fairseq's own unfinished files have.
    assert {path.name for path in tmp_path.iterdir()} == {"new.pt", "checkpoint_last.pt", "checkpoint_last.pt.tmp"}
    assert copy_until("hardened", 2 * len(NEW)) == (0, NEW)
    assert {path.name for path in tmp_path.iterdir()} == {"new.pt", "checkpoint_last.pt"}


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(copy_until, tmp_path):
    assert copy_until("hardened", -len(NEW) // 2) == (NO_SPACE, OLD)
    assert {path.name for path in tmp_path.iterdir()} == {"new.pt", "checkpoint_last.pt"}


def test_fairseqs_own_copy_is_not_like_that(copy_until):
    """If this fails, fairseq has been mended, and hardening.whole_copies can go."""
    status, left = copy_until("fairseq", len(NEW) // 2)
    assert status == -signal.SIGXFSZ and left == NEW[: len(NEW) // 2]


class Files:
    """What iopath does, written down."""

    _path_handlers = {"s3://": None}

    def __init__(self):
        self.copied = []

    def copy(self, src_path, dst_path, overwrite):
        self.copied.append((src_path, dst_path, overwrite))
        if "s3://" not in src_path + dst_path:
            shutil.copyfile(src_path, dst_path)
        return True


def test_a_copy_that_must_not_overwrite_and_a_path_of_iopath_are_left_to_fairseq(monkeypatch, tmp_path):
    hardening.install()  # once more changes nothing
    files = Files()
    monkeypatch.setattr(file_io, "IOPathManager", files)
    source, destination, last = (str(tmp_path / name) for name in ("a.pt", "b.pt", "last.pt"))
    (tmp_path / "a.pt").write_bytes(NEW)
    calls = [(source, "s3://b.pt", True), ("s3://a.pt", destination, True), (source, destination, False)]
    for call in calls:
        assert PathManager.copy(*call) is True
    assert files.copied == calls
    assert PathManager.copy(source, last, overwrite=True) is True
    assert files.copied == [*calls, (source, f"{last}.tmp", True)]  # fairseq's own function, and then a renaming
    assert (tmp_path / "last.pt").read_bytes() == NEW and not (tmp_path / "last.pt.tmp").exists()


def test_a_copy_that_fails_is_fairseqs_to_report(monkeypatch, tmp_path):
    monkeypatch.setattr(Files, "copy", lambda *arguments, **options: False)
    monkeypatch.setattr(file_io, "IOPathManager", Files())
    (tmp_path / "last.pt").write_bytes(OLD)
    assert PathManager.copy(str(tmp_path / "a.pt"), str(tmp_path / "last.pt"), overwrite=True) is False
    assert (tmp_path / "last.pt").read_bytes() == OLD


def test_a_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.pt").write_bytes(OLD)
    (tmp_path / "last.pt").symlink_to(tmp_path / "elsewhere" / "x.pt")
    (tmp_path / "new.pt").write_bytes(NEW)
    assert PathManager.copy(str(tmp_path / "new.pt"), str(tmp_path / "last.pt"), overwrite=True)
    assert (tmp_path / "last.pt").is_symlink() and (tmp_path / "elsewhere" / "x.pt").read_bytes() == NEW


@pytest.fixture
def folder_that_cannot_be_flushed(monkeypatch):
    """As on some network file systems: the folders that the system was asked for."""
    fsync, folders = os.fsync, []

    def fsync_of_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            folders.append(descriptor)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_of_files)
    return folders


def test_a_training_goes_on_where_a_folder_cannot_be_flushed(folder_that_cannot_be_flushed, tiny_translation, tmp_path):
    train = [*TINY_TRANSFORMER, "--criterion", "self_kd", "--optimizer", "sgd", "--lr", "0.1", "--max-tokens", "400"]
    fairseq("train", tiny_translation, *train, "--num-workers", "0", "--max-epoch", "2", "--save-dir", tmp_path / "run")
    assert folder_that_cannot_be_flushed
    assert updates_done(checkpoint(tmp_path / "run")) == updates_done(checkpoint(tmp_path / "run", "checkpoint2.pt"))
