"""The list of datasets."""

import gzip
import hashlib

import pytest

from selfkd_fairseq.data import preparation
from selfkd_fairseq.data.binarisation import SPECIAL_WORDS, read_binary
from selfkd_fairseq.data.datasets import DATASETS, MULTI30K, PTB, WIKITEXT_2, WIKITEXT_103, find_dataset
from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.inputs import Origin
from tests.data.corpus import read

LANGUAGE_MODELLING = [PTB, WIKITEXT_2, WIKITEXT_103]


def test_file_names_are_those_of_the_repository():
    settings = MULTI30K.make_settings({"source": "en", "target": "cs"})
    stems = ("train", "val", "test_2016_flickr")
    assert MULTI30K.published_names(settings) == [f"{stem}.{lang}.gz" for stem in stems for lang in ("en", "cs")]


def test_unknown_dataset_names_the_known_ones():
    assert find_dataset("multi30k") is MULTI30K
    with pytest.raises(PreparationError) as error:
        find_dataset("multi31k")
    assert str(error.value) == (
        "unknown dataset 'multi31k'; known: iwslt14, iwslt15, multi30k, ptb, wikitext-103, wikitext-2, wmt14, wmt16"
    )


def test_each_name_is_the_key():
    assert len(DATASETS) == 8
    assert all(dataset.name == name for name, dataset in DATASETS.items())


def test_a_file_for_each_split():
    for dataset in LANGUAGE_MODELLING:
        assert set(dataset.files) == {"train", "valid", "test"}
        assert len(set(dataset.files.values())) == 3


@pytest.mark.parametrize("dataset", LANGUAGE_MODELLING, ids=lambda dataset: dataset.name)
def test_each_published_file_can_be_checked(dataset):
    settings = dataset.make_settings({})
    assert set(dataset.published_names(settings)) == set(dataset.sha256)
    assert dataset.base_url.startswith("https://")


def test_checksums_are_those_of_the_real_files(shared_data):
    files = [shared_data / "multi30k" / name for name in MULTI30K.sha256]
    assert len(files) == 6
    assert {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files} == dict(MULTI30K.sha256)


def test_checksums_of_the_penn_treebank_are_those_of_the_real_files_unzipped(shared_data):
    files = list((shared_data / "ptb").glob("*.gz"))
    assert len(files) == 3
    texts = {path.name[: -len(".gz")]: gzip.decompress(path.read_bytes()) for path in files}
    assert {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()} == dict(PTB.sha256)
    assert {split: texts[name].count(b"\n") for split, name in PTB.files.items()} == dict(PTB.lines)


class TestWordsOfFairseq:
    """Words of fairseq's own in a corpus, in every dataset: escaped by the tokeniser, or refused with file and line."""

    ESCAPED = ("multi30k", "iwslt14", "wmt14", "wmt16")
    REFUSED = {"iwslt15": "train.en", "ptb": "ptb.train.txt", "wikitext-2": "wiki.train.tokens"}
    REFUSED["wikitext-103"] = REFUSED["wikitext-2"]
    pytestmark = pytest.mark.usefixtures("quick_steps")

    def prepare(self, folder, name, word, only="", **given):
        """Prepare texts of 120 lines that have a word from the second on, all or those whose file is called so."""
        dataset, raw = DATASETS[name], folder / "raw"
        raw.mkdir()
        if dataset in LANGUAGE_MODELLING:
            settings, files = dataset.make_settings({}), list(dataset.files.values())
        else:
            source, target = dataset.languages[:2]
            settings = dataset.make_settings({"source": source, "target": target, "bpe_merges": 60, **given})
            files = [part.name(settings, language) for _, part, language in dataset._sides(settings)]
        for file in files:
            lines = ["one two three"] + [f"a {word if file.startswith(only) else 'b'} c"] * 119
            if file.endswith(".xml"):
                lines = [f'<seg id="{number}"> {line} </seg>' for number, line in enumerate(lines, 1)]
            path = raw / file.rsplit("/", 1)[-1].replace(".gz", "")
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        preparation.prepare(dataset, settings, Origin(raw), folder / "dest", 1, lambda line: None)
        return folder / "dest"

    def test_every_dataset_is_here(self):
        assert {*self.ESCAPED, *self.REFUSED} == set(DATASETS)

    def test_they_are_those_of_fairseq(self):
        from fairseq.data import Dictionary

        dictionary = Dictionary()
        assert tuple(dictionary.symbols) == SPECIAL_WORDS
        # What it fills its table with are ordinary words, where the text has them.
        assert dictionary.add_symbol("madeupword0000") == 4
        dictionary.finalize(padding_factor=8)
        assert dictionary.index("madeupword0000") == 4 and len(dictionary) == 8

    @pytest.mark.parametrize("name", ESCAPED)
    def test_escaped(self, tmp_path, name):
        dest = self.prepare(tmp_path, name, " ".join(SPECIAL_WORDS))
        source, target = DATASETS[name].languages[:2]
        escaped = "a &lt; s &gt; &lt; pad &gt; &lt; / s &gt; &lt; unk &gt; c"
        for split in ("train", "valid", "test"):
            for language in (source, target):
                lines = read(dest / "tok" / f"{split}.{language}")
                assert set(lines) <= {"one two three", escaped} and escaped in lines
                special = read_binary(dest / "bin" / f"{split}.{source}-{target}.{language}").special
                assert special == (0, 0, len(lines), 0)

    @pytest.mark.parametrize("word", SPECIAL_WORDS)
    @pytest.mark.parametrize("name", REFUSED)
    def test_refused(self, tmp_path, name, word):
        if word == "<unk>" and DATASETS[name] in LANGUAGE_MODELLING:  # the published texts have it, meant as such
            assert (self.prepare(tmp_path, name, word) / "bin").is_dir()
            return
        with pytest.raises(PreparationError) as error:
            self.prepare(tmp_path, name, word)
        file = tmp_path / "raw" / self.REFUSED[name]
        assert str(error.value) == f"{file}: line 2 has the word {word}, which fairseq keeps for itself"
        assert not (tmp_path / "dest").exists()

    @pytest.mark.parametrize(
        "file", [f"{stem}.{lang}" for stem in ("train", "tst2012", "tst2013") for lang in ("en", "vi")]
    )
    def test_refused_in_each_file(self, tmp_path, file):
        with pytest.raises(PreparationError, match=f"/{file}: line 2 has the word </s>, "):
            self.prepare(tmp_path, "iwslt15", "</s>", only=file)

    @pytest.mark.parametrize("file", [*PTB.files.values()])
    def test_refused_in_each_file_of_a_language_model(self, tmp_path, file):
        with pytest.raises(PreparationError, match=f"/{file}: line 2 has the word </s>, "):
            self.prepare(tmp_path, "ptb", "</s>", only=file)

    def test_refused_where_bpe_may_cut_it_off(self, tmp_path):
        with pytest.raises(
            PreparationError, match="line 2 has a word that ends in <pad>, which fairseq keeps for itself"
        ):
            self.prepare(tmp_path, "iwslt15", "word<pad>")

    def test_refused_where_it_is_made_lower_case(self, tmp_path):
        with pytest.raises(PreparationError, match="line 2 has the word <unk>, which fairseq keeps for itself"):
            self.prepare(tmp_path, "iwslt15", "<UNK>", lowercase=True)

    @pytest.mark.parametrize(("name", "word"), [("iwslt15", "<UNK>"), ("iwslt15", "<s>word"), ("ptb", "word</s>")])
    def test_other_words_are_words(self, tmp_path, name, word):
        dest = self.prepare(tmp_path, name, word)
        stems = ["train"] if name == "ptb" else ["train.en-vi.en", "train.en-vi.vi"]
        assert [read_binary(dest / "bin" / stem).special for stem in stems] == [(0, 0, 120, 0)] * len(stems)
