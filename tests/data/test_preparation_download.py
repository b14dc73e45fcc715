"""A whole preparation that downloads its raw files, from a loopback server."""

import hashlib
from dataclasses import replace

import pytest

from selfkd_fairseq.data.datasets import MULTI30K
from selfkd_fairseq.data.errors import PreparationError
from tests.data.corpus import prepare, tree
from tests.data.server import cut, serve, status

pytestmark = pytest.mark.usefixtures("quick_steps")


class TestDownload:
    @pytest.fixture
    def published(self, raw):
        """The small corpus as a published dataset; and its files."""
        contents = {path.name: path.read_bytes() for path in raw.iterdir()}
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        return replace(MULTI30K, sha256=sums), contents

    def test_same_result_as_from_a_folder(self, raw, dest, tmp_path, published, monkeypatch):
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        dataset, contents = published
        lines = []
        with serve() as server:
            server.files = contents
            server.script = [status(500), cut(100)]
            call = dict(dataset=dataset, base_url=server.url, report=lines.append)
            prepare(dest / "download", dest, **call)
            assert len(server.requests) == 8
            prepare(dest / "download", dest, **call)
            assert len(server.requests) == 8
        assert lines[-1].startswith("nothing to do")
        assert tree(dest / "download") == contents
        prepare(raw, tmp_path / "other", dataset=dataset)
        found = {name: content for name, content in tree(dest).items() if not name.startswith("download")}
        assert found == tree(tmp_path / "other")

    def test_failed_download_is_taken_up_by_the_next_call(self, dest, published):
        dataset, contents = published
        with serve() as server:
            server.files = {**contents, "val.de.gz": contents["val.en.gz"]}
            with pytest.raises(PreparationError, match="val.de.gz is not the published file"):
                prepare(dest / "download", dest, dataset=dataset, base_url=server.url)
            assert set(tree(dest)) == {
                "download", "download/train.en.gz", "download/train.de.gz", "download/val.en.gz",
                "selfkd-prepare.json", ".unfinished",
            }  # fmt: skip
            with pytest.raises(PreparationError, match="bpe_merges is 60 there and 61 here"):
                prepare(dest / "download", dest, dataset=dataset, base_url=server.url, bpe_merges=61)
            server.files, server.requests = contents, []
            prepare(dest / "download", dest, dataset=dataset, base_url=server.url)
            assert [path for path, _ in server.requests] == [
                "/raw/val.de.gz", "/raw/test_2016_flickr.en.gz", "/raw/test_2016_flickr.de.gz",
            ]  # fmt: skip

    def test_pair_without_checksums_is_refused_before_anything_is_written(self, dest):
        with pytest.raises(PreparationError, match="no SHA-256 is known for train.fr.gz"):
            prepare(dest / "download", dest, base_url="http://127.0.0.1:9", target="fr")
        assert not dest.exists()

    def test_bad_address(self, dest):
        with pytest.raises(PreparationError, match="--base-url must be an http or https address"):
            prepare(dest / "download", dest, base_url="file:///tmp")
        assert not dest.exists()
