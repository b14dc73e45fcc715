"""The published preparations of IWSLT14, IWSLT15, WMT14 and WMT16, restated with sacremoses, on small archives."""

import hashlib
import json
import unicodedata
from dataclasses import replace

import pytest
import sacrebleu
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from selfkd_fairseq.data.datasets import DATASETS
from selfkd_fairseq.data.errors import PreparationError
from tests.data import published
from tests.data.corpus import read, state, tree
from tests.data.server import serve

pytestmark = pytest.mark.usefixtures("quick_steps")
NAMES = tuple(published.PAIRS)
CEDILLA = str.maketrans("ŞşŢţ", "ȘșȚț")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """sacreBLEU's cache, empty; whoever wants to download fails."""
    folder = tmp_path / "sacrebleu"

    def no_network(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr("sacrebleu.dataset.base.download_file", no_network)
    for name in ("wmt14/full", "wmt16", "wmt16/dev"):
        monkeypatch.setattr(sacrebleu.DATASETS[name], "_outdir", str(folder / name))
        monkeypatch.setattr(sacrebleu.DATASETS[name], "_rawdir", str(folder / name / "raw"))
    return folder


def tokens(text, language, train, name):
    """What fairseq's scripts do to a sentence before BPE."""
    if name == "iwslt15":
        return text
    if name.startswith("wmt"):
        if train:
            text = MosesPunctNormalizer(language, perl_parity=True).normalize(text + "\n")
        if language == "ro":
            text = text.translate(CEDILLA)
        if train:
            text = "".join(" " if unicodedata.category(c).startswith("C") else c for c in text)
    if not train:
        text = text.replace("’", "'")
    split_hyphens = name.startswith("wmt")
    text = MosesTokenizer(language).tokenize(text, aggressive_dash_splits=split_hyphens, return_str=True)
    return " ".join((text.lower() if name == "iwslt14" else text).split())


def all_tokens(made, what):
    """(source, target) -> of each pair."""
    return list(
        zip(
            *(
                [tokens(text, language, what == "train", made.name) for text in made.text[what, language]]
                for language in made.languages
            )
        )
    )


def found(dest, folder, split, made):
    return list(zip(*(read(dest / folder / f"{split}.{language}") for language in made.languages)))


def even(pair, longest, ratio=1.5):
    shorter, longer = sorted(len(side.split()) for side in pair)
    return 1 <= shorter and longer <= min(longest, ratio * shorter)


@pytest.mark.parametrize("reverse", [False, True])
class TestSteps:
    def test_iwslt14(self, tmp_path, dest, reverse):
        made = published.corpus("iwslt14", reverse)
        published.prepare(made, made.write(tmp_path / "raw"), dest)
        kept = [pair for pair in all_tokens(made, "train") if even(pair, 175)]
        assert 80 < len(kept) < 120
        assert found(dest, "tok", "train", made) == [pair for n, pair in enumerate(kept, 1) if n % 23]
        assert found(dest, "tok", "valid", made) == [pair for n, pair in enumerate(kept, 1) if n % 23 == 0]
        assert found(dest, "tok", "test", made) == all_tokens(made, "test")
        assert len(found(dest, "bpe", "test", made)) == 40
        for language in made.languages:
            assert read(dest / "raw" / f"test.{language}") == made.text["test", language]
        assert not (dest / "raw" / f"valid.{made.languages[0]}").exists()
        assert read(dest / "bin" / "dict.de.txt") != read(dest / "bin" / "dict.en.txt")

    def test_iwslt15(self, tmp_path, dest, reverse):
        made = published.corpus("iwslt15", reverse)
        published.prepare(made, made.write(tmp_path / "raw"), dest)
        for split in ("train", "valid", "test"):
            assert found(dest, "tok", split, made) == list(zip(*(made.text[split, lang] for lang in made.languages)))
        assert read(dest / "bin" / "dict.en.txt") != read(dest / "bin" / "dict.vi.txt")

    def test_wmt14(self, tmp_path, dest, reverse):
        made = published.corpus("wmt14", reverse)
        published.prepare(made, made.write(tmp_path / "raw"), dest)
        pairs = all_tokens(made, "train")
        assert len(pairs) == 120 + 60 + 30
        assert found(dest, "tok", "train", made) == [pair for n, pair in enumerate(pairs, 1) if n % 100]
        assert found(dest, "tok", "valid", made) == [pairs[99], pairs[199]]
        assert found(dest, "tok", "test", made) == all_tokens(made, "test")
        self.check_cleaned(dest, made, ("train", "valid"))
        assert read(dest / "bin" / "dict.de.txt") == read(dest / "bin" / "dict.en.txt")

    def test_wmt16(self, tmp_path, dest, reverse):
        made = published.corpus("wmt16", reverse)
        published.prepare(made, made.write(tmp_path / "raw"), dest)
        for split in ("train", "valid", "test"):
            assert found(dest, "tok", split, made) == all_tokens(made, split)
        text = (dest / "tok" / "train.ro").read_text("utf-8") + (dest / "tok" / "test.ro").read_text("utf-8")
        assert set(text) & set("ȘșȚț") and not set(text) & set("ŞşŢţ")
        assert read(dest / "raw" / "test.ro") == made.text["test", "ro"]
        self.check_cleaned(dest, made, ("train",))

    def check_cleaned(self, dest, made, splits):
        """After BPE, the pairs that are too long or too uneven in subwords are gone, and no others."""
        for split in ("train", "valid", "test"):
            uncut = found(dest, "tok", split, made)
            subwords = found(dest, "bpe", split, made)
            whole = [tuple(side.replace("@@ ", "") for side in pair) for pair in subwords]
            if split not in splits:
                assert whole == uncut
                continue
            assert all(even(pair, 250) for pair in subwords)
            dropped = list(uncut)
            for pair in whole:
                dropped.remove(pair)
            if split == "train":
                assert 0 < len(dropped) < len(uncut) / 2
                stamp = json.loads((dest / "stamp.json").read_text())
                assert stamp["dropped_train_pairs"] >= len(dropped)
                assert stamp["pairs"]["train"] == len(whole)


@pytest.mark.parametrize("name", NAMES)
class TestRawFiles:
    def test_archives_and_what_is_in_them_give_the_same(self, name, tmp_path):
        made = published.corpus(name)
        published.prepare(made, made.write(tmp_path / "packed"), tmp_path / "a", workers=2)
        published.prepare(made, made.write_unpacked(tmp_path / "unpacked"), tmp_path / "b")
        published.prepare(made, made.write_unpacked(tmp_path / "flat", inside=False), tmp_path / "c")
        for folder in ("raw", "tok", "bpe", "bin"):
            first = tree(tmp_path / "a" / folder)
            assert first and first == tree(tmp_path / "b" / folder) == tree(tmp_path / "c" / folder)

    def test_missing_files_are_named(self, name, tmp_path, dest):
        made = published.corpus(name)
        (tmp_path / "empty").mkdir()
        with pytest.raises(PreparationError) as error:
            published.prepare(made, tmp_path / "empty", dest)
        assert all(wanted in str(error.value) for wanted in made.files)
        if name.startswith("wmt"):
            pair = "-".join(made.languages)
            assert f"[printed by: sacrebleu -t wmt{name[3:]}" in str(error.value)
            assert f"-l {pair} --echo src]" in str(error.value) and f"-l {pair} --echo ref]" in str(error.value)
        assert "\n" not in str(error.value)
        assert not dest.exists()

    def test_damaged_cut_or_evil_archives(self, name, tmp_path, dest):
        made = published.corpus(name)
        raw = made.write(tmp_path / "raw")
        for archive in [file for file in made.files if file.endswith((".tgz", ".zip"))]:
            whole = made.files[archive]
            pack = published.tar if archive.endswith(".tgz") else published.zipped
            for content, message in (
                (whole[:-40], "damaged (tar|zip) archive"),
                (b"<html>404</html>", "damaged (tar|zip) archive"),
                (pack({"x": b"x"}), "has no .* in it; is it the archive of something else"),
                (pack({**made.members[archive], "../evil": b"x"}), r"outside of its folder: \.\./evil"),
            ):
                (raw / archive).write_bytes(content)
                with pytest.raises(PreparationError, match=message) as error:
                    published.prepare(made, raw, dest)
                assert archive in str(error.value) and "\n" not in str(error.value)
                assert not dest.exists() and not (tmp_path / "evil").exists()
            (raw / archive).write_bytes(whole)

    def test_second_call_does_nothing(self, name, tmp_path, dest):
        made = published.corpus(name)
        raw = made.write(tmp_path / "raw")
        published.prepare(made, raw, dest)
        before, lines = state(dest), []
        published.prepare(made, raw, dest, report=lines.append)
        assert lines == [f"nothing to do, already prepared: fairseq-train {dest / 'bin'}"]
        assert state(dest) == before


@pytest.mark.parametrize("name", NAMES)
class TestDownload:
    """From a loopback server and sacreBLEU's cache, with no published sum: the first sums found are kept."""

    @pytest.fixture
    def made(self, name, cache):
        made = published.corpus(name)
        made.write_sacrebleu(cache)
        return made

    def archives(self, made):
        return {name: content for name, content in made.files.items() if not name.startswith("news")}

    def call(self, made, dest, server, report=lambda line: None, **sums):
        dataset = DATASETS[made.name]
        dataset = replace(dataset, sha256={**dataset.sha256, **dict.fromkeys(self.archives(made)), **sums})
        published.prepare(made, dest / "download", dest, base_url=server.url, report=report, dataset=dataset)

    def test_same_result_as_from_a_folder(self, made, tmp_path, dest):
        lines = []
        with serve() as server:
            server.files = self.archives(made)
            self.call(made, dest, server, lines.append)
            assert len(server.requests) == len(server.files)
        assert len([line for line in lines if "no published SHA-256 is known" in line]) == len(self.archives(made))
        assert not [line for line in lines if line.startswith("warning")]
        assert tree(dest / "download") == made.files
        published.prepare(made, made.write(tmp_path / "raw"), tmp_path / "other")
        assert {name: text for name, text in tree(dest).items() if name[:8] != "download"} == tree(tmp_path / "other")
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in made.files.items()}
        assert json.loads((dest / "stamp.json").read_text())["inputs"] == sums

    def test_the_sums_found_first_hold_from_then_on(self, made, dest):
        with serve() as server:
            server.files = self.archives(made)
            self.call(made, dest, server)
            for name in made.files:
                (dest / "stamp.json").unlink(missing_ok=True)
                (dest / "download" / name).write_bytes(b"another")
                with pytest.raises(PreparationError, match=f"{name} is not the published file; remove it"):
                    self.call(made, dest, server)
                (dest / "download" / name).unlink()
                if name in server.files:
                    server.files = {**self.archives(made), name: b"another"}
                    with pytest.raises(PreparationError, match=f"{name} is not the published file: SHA-256"):
                        self.call(made, dest, server)
                server.files = self.archives(made)
                self.call(made, dest, server)
                assert tree(dest / "download") == made.files

    def test_another_sum_than_the_published_one(self, made, dest):
        name = next(iter(self.archives(made)))
        with serve() as server:
            server.files = self.archives(made)
            with pytest.raises(PreparationError, match=f"{name} is not the published file: SHA-256 .* published 0000"):
                self.call(made, dest, server, **{name: "0" * 64})
        assert set(tree(dest)) == {"selfkd-prepare.json", "download", ".unfinished"}
        assert tree(dest / "download") == {}


def test_addresses_of_files_from_elsewhere(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr("selfkd_fairseq.data.kind.download", lambda url, *_: fetched.append(url))
    monkeypatch.setattr("selfkd_fairseq.data.translation.dataset.download", lambda url, *_: fetched.append(url))
    settings = DATASETS["wmt14"].make_settings({"source": "en", "target": "de"})
    for base in (DATASETS["wmt14"].base_url, "http://mirror/x"):
        for name in DATASETS["wmt14"].published_names(settings)[:3]:
            DATASETS["wmt14"].fetch(name, settings, base, tmp_path / name, None, print)
    assert fetched == [
        "https://www.statmt.org/wmt13/training-parallel-europarl-v7.tgz",
        "https://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
        "https://data.statmt.org/wmt17/translation-task/training-parallel-nc-v12.tgz",
        "http://mirror/x/training-parallel-europarl-v7.tgz",
        "http://mirror/x/training-parallel-commoncrawl.tgz",
        "http://mirror/x/training-parallel-nc-v12.tgz",
    ]


def download_fails(*_, **__):
    raise SystemExit(1)  # as sacreBLEU does on a wrong checksum


@pytest.mark.parametrize("failure", [None, download_fails])
def test_sacrebleu_that_cannot_get_a_test_set(tmp_path, cache, monkeypatch, failure):
    if failure:
        monkeypatch.setattr("sacrebleu.dataset.base.download_file", failure)
    settings = DATASETS["wmt14"].make_settings({"source": "en", "target": "de"})
    path = tmp_path / "newstest2014.en-de.de"
    message = r"sacreBLEU cannot get wmt14/full en-de \((no network in tests|1)\)"
    with pytest.raises(PreparationError, match=message):
        DATASETS["wmt14"].fetch(path.name, settings, "http://x", path, None, print)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [("iwslt14", "absent", "absent is not a folder or archive"), ("wmt14", "file", "file is not a folder")],
)
def test_raw_that_is_neither(tmp_path, dest, name, raw, message):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PreparationError, match=message):
        published.prepare(published.corpus(name), tmp_path / raw, dest)


def test_the_archive_itself(tmp_path, dest):
    made = published.corpus("iwslt14")
    raw = made.write(tmp_path / "raw")
    published.prepare(made, raw / "de-en.tgz", dest)
    published.prepare(made, raw, tmp_path / "other")
    assert tree(dest) == tree(tmp_path / "other")


def test_too_few_pairs_for_validation(tmp_path, dest):
    made = published.corpus("wmt14", train=24)
    with pytest.raises(PreparationError, match="42 training pairs are too few: one in 100 is held out for validation"):
        published.prepare(made, made.write(tmp_path / "raw"), dest)
    assert not (dest / "tok").exists()


def test_twenty_pairs_do_where_validation_has_a_text(tmp_path):
    for name in ("iwslt15", "wmt16"):
        made = published.corpus(name, train=20, test=3)
        published.prepare(made, made.write(tmp_path / name), tmp_path / f"{name}.dest")


def test_sides_of_different_length(tmp_path, dest):
    made = published.corpus("wmt16")
    raw = made.write_unpacked(tmp_path / "raw")
    with open(raw / "SETIMES.en-ro.ro", "ab") as file:
        file.write(b"inc\xc4\x83 una\n")
    with pytest.raises(PreparationError, match=r"SETIMES.en-ro.en has 60 lines, .*SETIMES.en-ro.ro has 61 lines"):
        published.prepare(made, raw, dest)


def test_word_counts_in_several_runs_change_nothing(tmp_path, monkeypatch):
    made = published.corpus("iwslt15")
    raw = made.write(tmp_path / "raw")
    published.prepare(made, raw, tmp_path / "a")
    monkeypatch.setattr("selfkd_fairseq.data.translation.word_counts.TYPES_IN_MEMORY", 5)
    published.prepare(made, raw, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
