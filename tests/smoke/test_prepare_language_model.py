"""``selfkd-prepare`` for language models, as a user types it, with the real fairseq-preprocess."""

import gzip
import json
from collections import Counter

import pytest
import torch

from selfkd_fairseq.cli.prepare import main
from tests.data import wiki
from tests.smoke.test_prepare_command import ROOT, finish, start

# Enough text for two processes of fairseq-preprocess, which then cut it between two lines.
LINES = {"train": 40_000, "valid": 300, "test": 200}


def load(folder, split):
    """A split as fairseq's own reader gives it: a list of lists of ids."""
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    return [sentence.tolist() for sentence in MMapIndexedDataset(str(folder / split))]


def load_dictionary(folder):
    from fairseq.data import Dictionary

    return Dictionary.load(str(folder / "dict.txt"))


PTB = ROOT.parent / "shared" / "data" / "ptb"


@pytest.fixture(scope="module")
def ptb_at_work(tmp_path_factory):
    """The script at work on the real corpus, beside the other tests: (destination, process); None without it."""
    if not PTB.is_dir():
        yield None
        return
    dest = tmp_path_factory.mktemp("ptb") / "dest"
    script = ROOT / "scripts" / "prepare_ptb.sh"
    process = start(script, "--raw", PTB, "--dest", dest.name, "--workers", "2", cwd=dest.parent)
    yield dest, process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def wikitext(ptb_at_work, tmp_path_factory):
    """A destination that was prepared from a zip archive."""
    folder = tmp_path_factory.mktemp("wikitext")
    archive = wiki.write_archive(folder / "mine.zip", counts=LINES)
    assert main(["wikitext-2", "--raw", str(archive), "--dest", str(folder / "dest"), "--workers", "2"]) == 0
    return folder / "dest"


def test_every_word_and_every_blank_line_is_there(wikitext):
    dictionary = load_dictionary(wikitext / "bin")
    assert len(wiki.content("train", LINES["train"])) > 1 << 20
    for split, count in LINES.items():
        text = [line.split() for line in wiki.lines(split, count)]
        sentences = load(wikitext / "bin", split)
        assert len(sentences) == count
        assert sentences[0] == [dictionary.eos()]  # a blank line
        known = {word for line in wiki.lines("train", LINES["train"]) for word in line.split()}
        for ids, words in zip(sentences, text):
            assert ids[-1] == dictionary.eos()
            assert [dictionary[i] for i in ids[:-1]] == [word if word in known else "<unk>" for word in words]
    stamp = json.loads((wikitext / "stamp.json").read_text())
    assert stamp["unknown_words"] == {"valid": 3, "test": 3}
    assert set(dictionary.symbols[4:]) == known - {"<unk>"}


@pytest.fixture(scope="module")
def ptb(ptb_at_work):
    """A destination that the script prepared from the real corpus, and the texts (split -> lines of words)."""
    if ptb_at_work is None:
        pytest.skip("needs ../shared/data/ptb, which is absent")
    dest, process = ptb_at_work
    status, out, last = finish(process)
    assert (status, out) == (0, f"{dest / 'bin'}\n"), last
    assert last == (
        "selfkd-prepare: lines: train 42,068, valid 3,370, test 3,761; tokens with one </s> a line: train 929,589, "
        "valid 73,760, test 82,430; words not in train: valid 0, test 0; dictionary: 10,002 types; "
        f"ready: fairseq-train {dest / 'bin'}"
    )
    texts = {}
    for split in ("train", "valid", "test"):
        content = gzip.decompress((PTB / f"ptb.{split}.txt.gz").read_bytes()).decode()
        texts[split] = [line.split() for line in content.split("\n")[:-1]]
    return dest, texts


def test_penn_treebank_has_its_published_counts(ptb):
    dest, texts = ptb
    # 929,589, 73,760 and 82,430 words with one <eos> a line, 10,000 types: the counts of Mikolov's PTB in the
    # literature (Zaremba et al. 2014 say 929k, 73k, 82k and 10k).
    dictionary = load_dictionary(dest / "bin")
    # The 10,000 types are 9,998 words (which dict.txt lists), <unk> and <eos>; fairseq adds <s> and <pad> to these.
    assert len(dictionary) == 9_998 + 2 + 2
    assert not [symbol for symbol in dictionary.symbols if symbol.startswith("madeupword")]
    counts = Counter(word for sentence in texts["train"] for word in sentence)
    assert len(counts) == 9_999
    for split, tokens in {"train": 929_589, "valid": 73_760, "test": 82_430}.items():
        sentences = load(dest / "bin", split)
        assert sum(map(len, sentences)) == tokens
        assert [[dictionary[i] for i in ids] for ids in sentences] == [[*words, "</s>"] for words in texts[split]]
    assert dict(zip(dictionary.symbols[4:], dictionary.count[4:])) == {w: n for w, n in counts.items() if w != "<unk>"}
    assert counts["<unk>"] == 45_020


def test_fairseqs_own_task_reads_the_text_as_one_stream(ptb):
    from fairseq.tasks.language_modeling import LanguageModelingConfig, LanguageModelingTask

    dest, texts = ptb
    config = LanguageModelingConfig(data=str(dest / "bin"), tokens_per_sample=35, sample_break_mode="none")
    config.dataset_impl, config.use_plasma_view = "mmap", False  # as fairseq-train fills them in
    task = LanguageModelingTask.setup_task(config)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    stream = torch.cat([dataset[i]["target"] for i in range(len(dataset))])
    words = [word for sentence in texts["valid"] for word in [*sentence, "</s>"]]
    assert [task.dictionary[i] for i in stream] == words
