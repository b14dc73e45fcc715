"""Downloads from a loopback server that misbehaves on demand."""

import errno
import hashlib
import os
import random

import pytest

from selfkd_fairseq.data import download
from selfkd_fairseq.data.errors import PreparationError
from tests.data.corpus import tree
from tests.data.server import cut, ignore_range, send, serve, status, wrong_range

CONTENT = random.Random(0).getrandbits(8 * 200_000).to_bytes(200_000, "big")
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Download:
    """One file on a server, and what a download of it did."""

    def __init__(self, server, folder):
        self.server, self.path, self.part = server, folder / "f.gz", folder / "f.gz.part"
        self.slept, self.reports = [], []

    def run(self, sha256=SHA256, name="f.gz"):
        download.download(f"{self.server.url}/{name}", self.path, sha256, self.reports.append)

    @property
    def ranges(self):
        return [wanted for _, wanted in self.server.requests]


@pytest.fixture
def one(tmp_path, monkeypatch):
    with serve() as server:
        server.files["f.gz"] = CONTENT
        state = Download(server, tmp_path)
        monkeypatch.setattr(download.time, "sleep", state.slept.append)
        yield state


def test_success_in_a_folder_that_is_made(one, tmp_path):
    one.path = tmp_path / "new" / "folder" / "f.gz"
    one.run()
    assert tree(tmp_path / "new") == {"folder": None, "folder/f.gz": CONTENT}
    assert one.server.requests == [("/raw/f.gz", None)]
    assert (one.slept, one.reports) == ([], [])


def test_server_that_turns_away_pythons_own_name(one):
    names = []

    def note(handler, content, offset):
        names.append(handler.headers["User-Agent"])
        send(handler, content, offset)

    one.server.script = [note]
    one.run()
    assert names[0].startswith("selfkd-prepare/")


def test_wrong_checksum_leaves_nothing(one, tmp_path):
    with pytest.raises(PreparationError, match=f"not the published file: SHA-256 {SHA256}, published 0000"):
        one.run(sha256="0" * 64)
    assert tree(tmp_path) == {}
    assert len(one.server.requests) == 1


def test_missing_on_the_server_is_not_tried_again(one, tmp_path):
    with pytest.raises(PreparationError, match="cannot download http://.*/g.gz: HTTP 404"):
        one.run(name="g.gz")
    assert len(one.server.requests) == 1
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_passing_failure_is_tried_again(one, code):
    one.server.script = [status(code)]
    one.run()
    assert one.path.read_bytes() == CONTENT
    assert one.slept == [1]
    assert len(one.reports) == 1
    assert f"HTTP {code}" in one.reports[0]


def test_gives_up_after_all_attempts_with_growing_pauses(one):
    one.server.script = [status(500)] * 9
    with pytest.raises(PreparationError, match=r"HTTP 500 .*gave up after 5 attempts"):
        one.run()
    assert len(one.server.requests) == 5
    assert one.slept == [1, 2, 4, 8]
    assert not one.path.exists()


def test_broken_transfer_is_gone_on_with(one, tmp_path):
    one.server.script = [cut(70_000), cut(50_000)]
    one.run()
    assert one.ranges == [None, "bytes=70000-", "bytes=120000-"]
    assert tree(tmp_path) == {"f.gz": CONTENT}
    assert "broke off after 70000 of 200000 bytes" in one.reports[0]


def test_transfer_that_always_breaks_off_keeps_the_part_only(one, tmp_path):
    one.server.script = [cut(1000)] * 5
    with pytest.raises(PreparationError, match="gave up after 5 attempts"):
        one.run()
    assert tree(tmp_path) == {"f.gz.part": CONTENT[:5000]}


def test_part_of_an_earlier_call_is_gone_on_with(one, tmp_path):
    one.part.write_bytes(CONTENT[:150_000])
    one.run()
    assert one.ranges == ["bytes=150000-"]
    assert tree(tmp_path) == {"f.gz": CONTENT}


def test_server_without_ranges_starts_afresh(one, tmp_path):
    one.part.write_bytes(b"stale" * 100)
    one.server.script = [ignore_range]
    one.run()
    assert one.ranges == ["bytes=500-"]
    assert tree(tmp_path) == {"f.gz": CONTENT}


def test_answer_with_another_range_starts_afresh(one, tmp_path):
    one.part.write_bytes(CONTENT[:500])
    one.server.script = [wrong_range]
    one.run()
    assert one.ranges == ["bytes=500-", None]
    assert tree(tmp_path) == {"f.gz": CONTENT}


def test_part_of_another_file_starts_afresh(one, tmp_path):
    one.part.write_bytes(b"stale" * 100)
    one.run()
    assert one.ranges == ["bytes=500-", None]
    assert tree(tmp_path) == {"f.gz": CONTENT}
    assert "starts afresh" in one.reports[0]


def test_part_that_is_too_long_starts_afresh(one, tmp_path):
    one.part.write_bytes(CONTENT + b"more")
    one.run()
    assert one.ranges == ["bytes=200004-", None]
    assert tree(tmp_path) == {"f.gz": CONTENT}


def test_whole_part_needs_no_request(one, tmp_path):
    one.part.write_bytes(CONTENT)
    one.run()
    assert one.server.requests == []
    assert tree(tmp_path) == {"f.gz": CONTENT}


def test_no_server(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    with serve() as server:
        url = server.url
    with pytest.raises(PreparationError, match="cannot download .*refused.*gave up after 5 attempts"):
        download.download(f"{url}/f.gz", tmp_path / "f.gz", SHA256, lambda line: None)
    assert len(slept) == 4


def test_server_that_does_not_answer(one, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.1)

    def silent(handler, content, offset):
        handler.connection.recv(1)  # returns when the client has hung up

    one.server.script = [silent]
    one.run()
    assert one.path.read_bytes() == CONTENT
    assert len(one.reports) == 1
    assert "timed out" in one.reports[0]


def test_full_disk_is_not_tried_again(one, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download, "open", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        one.run()
    assert len(one.server.requests) == 1
    assert one.slept == []
    assert tree(tmp_path) == {}
