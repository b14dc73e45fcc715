"""What a whole preparation of a language-model dataset makes. tests/smoke has the real fairseq-preprocess."""

import hashlib
import json
import re
from dataclasses import replace
from importlib import metadata

import pytest

from selfkd_fairseq.data import binarisation, preparation
from selfkd_fairseq.data.datasets import PTB, WIKITEXT_2
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.language_model.dataset import LanguageModelDataset
from tests.data.corpus import state, tree
from tests.data.quick_preprocess import quick_preprocess
from tests.data.server import cut, serve
from tests.data.wiki import COUNTS, content, prepare, write_archive, write_files

pytestmark = pytest.mark.usefixtures("quick_steps")


def words(split):
    """Words of a split, counted by another way than the code's."""
    return re.findall(r"\S+", content(split).decode())


class TestResult:
    def test_layout_and_text(self, wikitext, dest):
        assert prepare(wikitext, dest) == dest / "bin"
        found = tree(dest)
        expected = {"bin", "bin/dict.txt", "text", "text/counts.json", "stamp.json", "selfkd-prepare.json"}
        expected |= {f"bin/{split}.{end}" for split in COUNTS for end in ("bin", "idx")}
        assert set(found) == expected | {f"text/{split}" for split in COUNTS}
        for split in COUNTS:
            assert found[f"text/{split}"] == content(split)

    def test_stamp(self, wikitext, dest):
        lines = []
        prepare(wikitext, dest, report=lines.append)
        stamp = json.loads((dest / "stamp.json").read_text())
        assert stamp["settings"] == {"dataset": "wikitext-2"}
        assert stamp["inputs"] == {"wikitext-2-v1.zip": hashlib.sha256(wikitext.read_bytes()).hexdigest()}
        (fairseq,) = stamp["versions"]
        assert stamp["versions"][fairseq] == metadata.version(fairseq)
        assert stamp["lines"] == COUNTS
        tokens = {split: len(words(split)) + COUNTS[split] for split in COUNTS}
        assert stamp["tokens"] == tokens
        assert stamp["unk_in_text"] == {split: words(split).count("<unk>") for split in COUNTS}
        # "onlyvalid" and "valid" occur in the validation text (twice: in its heading, too), "was" and "in" everywhere
        unknown = {split: sum(word not in set(words("train")) for word in words(split)) for split in ("valid", "test")}
        assert stamp["unknown_words"] == unknown == {"valid": 3, "test": 3}
        types = len(set(words("train")) - {"<unk>"}) + 4
        assert stamp["dictionary_types"] == types
        assert lines[-1] == (
            f"lines: train 60, valid 11, test 9; tokens with one </s> a line: train {tokens['train']}, "
            f"valid {tokens['valid']}, test {tokens['test']}; words not in train: valid 3, test 3; "
            f"dictionary: {types} types; ready: fairseq-train {dest / 'bin'}"
        )

    def test_every_form_of_the_raw_files_gives_the_same(self, wikitext, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        raws = [
            wikitext, write_archive(folder / "wikitext-2-v1.zip").parent,
            write_files(tmp_path / "plain"), write_files(tmp_path / "gz", compress=True),
        ]  # fmt: skip
        for number, raw in enumerate(raws):
            prepare(raw, tmp_path / f"dest{number}")
        trees = [tree(tmp_path / f"dest{number}") for number in range(4)]
        assert trees[0] == trees[1]
        assert trees[2] == trees[3]  # a gzip file is known by what it holds
        for name in set(trees[0]) - {"stamp.json", "selfkd-prepare.json"}:
            assert trees[0][name] == trees[2][name]
        inputs = json.loads(trees[2]["stamp.json"])["inputs"]
        assert inputs == {f"wiki.{split}.tokens": hashlib.sha256(content(split)).hexdigest() for split in COUNTS}

    def test_odd_characters_split_no_line(self, tmp_path, dest):
        raw = write_files(tmp_path / "raw", "ptb.{}.txt")
        (raw / "ptb.train.txt").write_bytes("\ufeffa\rb\u2028c\x85\x0cd\xa0e\r\n\u3000\n f".encode())
        prepare(raw, dest, dataset=PTB)
        assert (dest / "text" / "train").read_bytes() == "a b c  d\xa0e\n\u3000\n f\n".encode()
        stamp = json.loads((dest / "stamp.json").read_text())
        assert (stamp["lines"]["train"], stamp["tokens"]["train"]) == (3, 6 + 3)

    def test_a_text_without_unk(self, tmp_path, dest):
        raw = write_files(tmp_path / "raw", "ptb.{}.txt")
        (raw / "ptb.train.txt").write_text("a b\n\na c\n")
        prepare(raw, dest, dataset=PTB)
        assert json.loads((dest / "stamp.json").read_text())["dictionary_types"] == 3 + 4


def lose_a_token(folder):
    path = folder / "test.bin"
    path.write_bytes(path.read_bytes()[:-2])


def make_up_a_word(folder):
    with open(folder / "dict.txt", "a") as file:
        file.write("madeupword0000 0\n")


def forget_a_word(folder):
    path = folder / "train.bin"
    path.write_bytes(path.read_bytes().replace(b"\4\0", b"\3\0"))


@pytest.mark.parametrize(
    ("change", "message"),
    [(lose_a_token, "tokens of .* in test"), (make_up_a_word, "a dictionary of"), (forget_a_word, "<unk> of")],
)
def test_a_wrong_result_of_fairseq_preprocess_is_not_published(wikitext, dest, monkeypatch, change, message):
    def spoilt(folder, options, workers):
        quick_preprocess(folder, options, workers)
        change(folder)

    with monkeypatch.context() as patch:
        patch.setattr(binarisation, "run_preprocess", spoilt)
        with pytest.raises(PreparationError, match=f"fairseq-preprocess made .*{message}"):
            prepare(wikitext, dest)
    assert not (dest / "bin").exists()
    prepare(wikitext, dest)
    assert (dest / "stamp.json").exists()


class TestAgain:
    def test_second_call_does_nothing(self, wikitext, dest):
        prepare(wikitext, dest)
        before = state(dest)
        lines = []
        prepare(wikitext, dest, workers=3, report=lines.append)
        wikitext.unlink()
        with pytest.raises(PreparationError, match="begun with other settings: dataset is"):
            prepare(wikitext, dest, dataset=PTB)
        prepare(wikitext, dest)
        assert lines == [f"nothing to do, already prepared: fairseq-train {dest / 'bin'}"]
        assert state(dest) == before

    @pytest.mark.parametrize("finished", [True, False])
    @pytest.mark.parametrize("compress", [True, False])
    def test_as_many_lines_of_other_text_are_refused(self, tmp_path, dest, finished, compress):
        raw = write_files(tmp_path / "raw", compress=compress)
        prepare(raw, dest)
        if not finished:
            (dest / "stamp.json").unlink()
        before = state(dest)
        (raw / ("wiki.valid.tokens" + (".gz" if compress else ""))).unlink()
        (raw / "wiki.valid.tokens").write_bytes(content("valid").replace(b"game", b"geme"))
        with pytest.raises(PreparationError, match=r"begun with other input: wiki.valid.tokens is \w{12}\.\.\. there"):
            prepare(raw, dest)
        assert state(dest) == before

    def test_lost_parts_are_made_again(self, wikitext, dest):
        prepare(wikitext, dest)
        clean = tree(dest)
        for name in ("text/valid", "text/counts.json"):
            (dest / name).unlink()
        (dest / "bin").rename(dest.parent / "moved")
        prepare(wikitext, dest)
        assert tree(dest) == clean

    def test_archive_that_changes_under_the_hands(self, wikitext, dest, monkeypatch):
        inspect = preparation.inspect_files

        def inspect_then_change(*arguments):
            found = inspect(*arguments)
            write_archive(wikitext, counts={"valid": 12})
            return found

        monkeypatch.setattr(preparation, "inspect_files", inspect_then_change)
        with pytest.raises(PreparationError, match="wiki.valid.tokens was changed during the preparation"):
            prepare(wikitext, dest)
        assert set(tree(dest / "text")) == {"train"}

    def test_an_error_between_two_steps(self, wikitext, tmp_path, monkeypatch):
        def interrupt(work):
            raise KeyboardInterrupt

        prepare(wikitext, tmp_path / "clean")
        steps = LanguageModelDataset.steps
        for number in range(len(steps)):
            dest = tmp_path / f"dest{number}"
            with monkeypatch.context() as patch:
                patch.setattr(LanguageModelDataset, "steps", (*steps[:number], interrupt))
                with pytest.raises(KeyboardInterrupt):
                    prepare(wikitext, dest)
            prepare(wikitext, dest)
            assert tree(dest) == tree(tmp_path / "clean")


class TestDownload:
    @pytest.fixture
    def published(self, wikitext):
        """The small archive as the published one; and its bytes."""
        data = wikitext.read_bytes()
        return replace(WIKITEXT_2, sha256={"wikitext-2-v1.zip": hashlib.sha256(data).hexdigest()}), data

    def test_same_result_as_from_the_archive(self, wikitext, dest, tmp_path, published, monkeypatch):
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        dataset, data = published
        with serve() as server:
            server.files = {"wikitext-2-v1.zip": data}
            server.script = [cut(100)]
            for _ in range(2):
                prepare(dest / "download", dest, dataset=dataset, base_url=server.url)
            assert server.requests == [("/raw/wikitext-2-v1.zip", None), ("/raw/wikitext-2-v1.zip", "bytes=100-")]
        assert tree(dest / "download") == {"wikitext-2-v1.zip": data}
        prepare(wikitext, tmp_path / "other", dataset=dataset)
        found = {name: content for name, content in tree(dest).items() if not name.startswith("download")}
        assert found == tree(tmp_path / "other")

    def test_another_archive_is_refused(self, dest, published):
        dataset, data = published
        with serve() as server:
            server.files = {"wikitext-2-v1.zip": data + b"more"}
            with pytest.raises(PreparationError, match="wikitext-2-v1.zip is not the published file: SHA-256"):
                prepare(dest / "download", dest, dataset=dataset, base_url=server.url)
        assert set(tree(dest)) == {"download", "selfkd-prepare.json", ".unfinished"}

    def test_three_files(self, tmp_path, dest):
        raw = write_files(tmp_path / "raw", "ptb.{}.txt")
        contents = {path.name: path.read_bytes() for path in raw.iterdir()}
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        dataset = replace(PTB, sha256=sums)
        with serve() as server:
            server.files = contents
            prepare(dest / "download", dest, dataset=dataset, base_url=server.url)
            assert [path for path, _ in server.requests] == [f"/raw/ptb.{split}.txt" for split in COUNTS]
        # the gzip files are the same input
        lines = []
        zipped = write_files(tmp_path / "gz", "ptb.{}.txt", compress=True)
        prepare(zipped, dest, dataset=dataset, report=lines.append)
        assert lines == [f"nothing to do, already prepared: fairseq-train {dest / 'bin'}"]
