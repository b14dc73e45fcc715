"""What a whole preparation makes."""

import hashlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from importlib import metadata

import pytest
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from selfkd_fairseq.data.datasets import MULTI30K
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.translation import steps
from tests.data.corpus import COUNTS, STEMS, prepare, read, tree, write_corpus, write_side

pytestmark = pytest.mark.usefixtures("quick_steps")


def _small_batches(items):
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, 7)), [])


class TestResult:
    def test_destination_layout(self, raw, dest):
        assert prepare(raw, dest) == dest / "bin"
        both = {"raw": ("valid", "test"), "tok": STEMS, "bpe": STEMS}
        texts = {f"{folder}/{split}.{lang}" for folder in both for split in both[folder] for lang in ("en", "de")}
        others = {"bpe/codes", "bpe/vocab.en", "bpe/vocab.de", "stamp.json", "selfkd-prepare.json"}
        found = {name for name, content in tree(dest).items() if content is not None}
        assert {name for name in found if not name.startswith("bin/")} == texts | others
        assert {"bin/dict.en.txt", "bin/bpe.codes", "bin/train.en-de.en.bin", "bin/test.en-de.de.idx"} <= found
        assert "bin/preprocess.log" not in found
        assert {name for name, content in tree(dest).items() if content is None} == {"raw", "tok", "bpe", "bin"}

    def test_references_are_the_raw_text(self, tmp_path, dest):
        text = write_corpus(tmp_path / "raw")
        prepare(tmp_path / "raw", dest)
        for split in ("valid", "test"):
            for language in ("en", "de"):
                assert read(dest / "raw" / f"{split}.{language}") == text[split][language]

    @pytest.mark.parametrize("lowercase", [True, False])
    def test_tokens_are_those_of_moses(self, tmp_path, dest, lowercase):
        text = write_corpus(tmp_path / "raw")
        prepare(tmp_path / "raw", dest, lowercase=lowercase)
        for language in ("en", "de"):
            normalizer, tokenizer = MosesPunctNormalizer(language, perl_parity=True), MosesTokenizer(language)
            for split in STEMS:
                lines = [line.lower() if lowercase else line for line in text[split][language]]
                expected = [tokenizer.tokenize(normalizer.normalize(line + "\n"), return_str=True) for line in lines]
                assert read(dest / "tok" / f"{split}.{language}") == expected

    @pytest.mark.parametrize("threshold", [0, 25])
    def test_bpe_is_what_subword_nmt_makes(self, raw, dest, tmp_path, threshold):
        prepare(raw, dest, workers=2, bpe_vocabulary_threshold=threshold)
        tool = [sys.executable, "-c", "from subword_nmt.subword_nmt import main; main()"]
        inputs = [str(dest / "tok" / f"train.{language}") for language in ("en", "de")]
        vocabularies = [str(tmp_path / f"vocab.{language}") for language in ("en", "de")]
        learn = ["learn-joint-bpe-and-vocab", "-s", "60", "-o", str(tmp_path / "codes")]
        learn += ["--input", *inputs, "--write-vocabulary", *vocabularies]
        subprocess.run(tool + learn, check=True, capture_output=True)
        assert (dest / "bpe" / "codes").read_bytes() == (tmp_path / "codes").read_bytes()
        for language, vocabulary in zip(("en", "de"), vocabularies):
            with open(vocabulary, encoding="utf-8") as file:
                assert sorted(read(dest / "bpe" / f"vocab.{language}")) == sorted(file.read().splitlines())
            filtered = ["--vocabulary", vocabulary, "--vocabulary-threshold", str(threshold)] if threshold else []
            for split in STEMS:
                command = [*tool, "apply-bpe", "-c", str(tmp_path / "codes"), *filtered]
                with open(dest / "tok" / f"{split}.{language}", "rb") as file:
                    done = subprocess.run(command, stdin=file, check=True, capture_output=True)
                assert (dest / "bpe" / f"{split}.{language}").read_bytes() == done.stdout

    def test_the_threshold_does_something(self, raw, tmp_path):
        prepare(raw, tmp_path / "off")
        prepare(raw, tmp_path / "on", bpe_vocabulary_threshold=25)
        assert read(tmp_path / "on" / "bpe" / "train.en") != read(tmp_path / "off" / "bpe" / "train.en")
        assert read(tmp_path / "on" / "bpe" / "codes") == read(tmp_path / "off" / "bpe" / "codes")

    def test_stamp(self, raw, dest):
        lines = []
        prepare(raw, dest, report=lines.append)
        stamp = json.loads((dest / "stamp.json").read_text())
        assert stamp["settings"] == {
            "dataset": "multi30k", "source": "en", "target": "de", "lowercase": True, "bpe_merges": 60,
            "bpe_vocabulary_threshold": 0,
        }  # fmt: skip
        assert stamp["inputs"] == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in raw.iterdir()}
        assert stamp["versions"]["sacremoses"] == metadata.version("sacremoses")
        assert stamp["versions"]["subword-nmt"] == metadata.version("subword-nmt")
        (fairseq,) = set(stamp["versions"]) - {"sacremoses", "subword-nmt"}
        assert stamp["versions"][fairseq] == metadata.version(fairseq)
        assert stamp["pairs"] == COUNTS
        assert stamp["dropped_train_pairs"] == 0
        subwords = Counter(
            word for lang in ("en", "de") for word in (dest / "bpe" / f"train.{lang}").read_text().split()
        )
        assert stamp["dictionary_types"] == len(subwords) + 4
        assert f"train 50, valid 7, test 6; joined dictionary: {len(subwords) + 4} types" in lines[-1]
        assert lines[-1].endswith(f"ready: fairseq-train {dest / 'bin'}")

    def test_same_bytes_again_and_with_any_number_of_workers(self, tmp_path, monkeypatch):
        write_corpus(tmp_path / "raw", counts={"train": 230, "valid": 9, "test": 8})
        monkeypatch.setattr(steps, "batches", _small_batches)  # several for each worker
        for workers in (1, 1, 2, 3):
            prepare(tmp_path / "raw", tmp_path / "dest", workers=workers)
            (tmp_path / "dest").rename(tmp_path / f"dest{len(list(tmp_path.glob('dest*')))}")
        trees = [tree(tmp_path / f"dest{i}") for i in (1, 2, 3, 4)]
        assert len(read(tmp_path / "dest1" / "tok" / "train.en")) == 230
        assert trees[0] == trees[1] == trees[2] == trees[3]

    @pytest.mark.parametrize(("source", "target"), [("en", "fr"), ("en", "cs"), ("de", "en"), ("cs", "fr")])
    def test_other_pairs_need_only_their_raw_files(self, tmp_path, dest, source, target):
        write_corpus(tmp_path / "raw", languages=(source, target))
        prepare(tmp_path / "raw", dest, source=source, target=target)
        assert len(read(dest / "bpe" / f"train.{source}")) == len(read(dest / "bpe" / f"train.{target}")) == 50
        assert (dest / "bin" / f"valid.{source}-{target}.{target}.bin").is_file()

    def test_plain_raw_files_give_the_same_text(self, raw, tmp_path):
        write_corpus(tmp_path / "plain", compress=False)
        prepare(raw, tmp_path / "a")
        prepare(tmp_path / "plain", tmp_path / "b")
        for name in ("raw", "tok", "bpe", "bin"):
            assert tree(tmp_path / "a" / name) == tree(tmp_path / "b" / name)


class TestBlankAndOddLines:
    def test_blank_training_pairs_go_and_others_stay_in_place(self, tmp_path, dest):
        raw = tmp_path / "raw"
        text = write_corpus(raw)
        en, de = text["train"]["en"], text["train"]["de"]
        write_side(raw, "train.en", ["", *en[1:9], " \t", *en[10:]])
        write_side(raw, "train.de", [*de[:20], "\x00\u2028", *de[21:49], ""])
        write_side(raw, "val.en", ["", *text["valid"]["en"][1:]])
        write_side(raw, "test_2016_flickr.de", [*text["test"]["de"][:-1], "\xa0"])
        lines = []
        prepare(raw, dest, report=lines.append)
        assert "(4 training pairs with a blank side dropped)" in lines[-1]
        assert json.loads((dest / "stamp.json").read_text())["dropped_train_pairs"] == 4
        write_corpus(tmp_path / "clean")
        prepare(tmp_path / "clean", tmp_path / "other")
        for language in ("en", "de"):
            whole = read(tmp_path / "other" / "tok" / f"train.{language}")
            kept = [line for number, line in enumerate(whole) if number not in (0, 9, 20, 49)]
            assert read(dest / "tok" / f"train.{language}") == kept
            for split, blank in (("valid", ("en", 0)), ("test", ("de", 5))):
                expected = read(tmp_path / "other" / "tok" / f"{split}.{language}")
                if blank[0] == language:
                    expected[blank[1]] = ""
                assert read(dest / "tok" / f"{split}.{language}") == expected
                assert len(read(dest / "bpe" / f"{split}.{language}")) == COUNTS[split]
        assert read(dest / "raw" / "valid.en") == ["", *text["valid"]["en"][1:]]

    def test_odd_characters_split_no_line_for_any_reader(self, tmp_path, dest):
        raw = tmp_path / "raw"
        text = write_corpus(raw)
        for stem, split in (("train", "train"), ("val", "valid"), ("test_2016_flickr", "test")):
            for mark, language in (("\u2028", "en"), ("\r", "de")):
                lines = [line.replace(" ", mark, 1) for line in text[split][language]]
                lines[1] = lines[1].replace(" ", "\x0c", 1).replace(" ", "\x85", 1)
                write_side(raw, f"{stem}.{language}", lines)
        prepare(raw, dest)
        write_corpus(tmp_path / "clean")
        prepare(tmp_path / "clean", tmp_path / "other")
        for name in ("raw", "tok", "bpe"):
            assert tree(dest / name) == tree(tmp_path / "other" / name)
        for split in STEMS:
            with open(dest / "bpe" / f"{split}.de", encoding="utf-8") as file:  # universal line ends, as in fairseq
                assert len(file.read().splitlines()) == COUNTS[split]

    def test_no_training_pair_left(self, tmp_path, dest):
        raw = tmp_path / "raw"
        write_corpus(raw)
        write_side(raw, "train.en", ["one", ""] * 25)
        write_side(raw, "train.de", ["", "eins"] * 25)
        with pytest.raises(PreparationError, match="no train pair is left"):
            prepare(raw, dest)
        assert not (dest / "tok").exists()


def test_real_corpus_gives_the_published_dictionary(shared_data, dest):
    raw = shared_data / "multi30k"
    if not raw.is_dir():
        pytest.skip("needs ../shared/data/multi30k, which is absent")
    lines = []
    prepare(raw, dest, workers=2, report=lines.append, bpe_merges=MULTI30K.bpe_merges, lowercase=MULTI30K.lowercase)
    assert not [line for line in lines if "warning" in line]
    # 9,712 types: Wu et al. (2021), joint BPE with 10,000 merges on the 29,000 lower-cased pairs. It is a multiple
    # of 8, so fairseq adds none of its padding types to what the stand-in counts.
    assert "pairs: train 29,000, valid 1,014, test 1,000; joined dictionary: 9,712 types; ready" in lines[-1]
