"""A preparation that ends at any moment: nothing half-written is taken as whole, and the next call completes it."""

import functools
import multiprocessing
import os
import random
import resource
import signal
import time

import pytest

from selfkd_fairseq.data import binarisation, files
from selfkd_fairseq.data.files import UNFINISHED
from selfkd_fairseq.data.translation.dataset import TranslationDataset
from tests.data import published, wiki
from tests.data.corpus import prepare, tree, write_corpus
from tests.data.quick_preprocess import quick_preprocess

pytestmark = pytest.mark.usefixtures("quick_steps")


@pytest.fixture
def clean(raw, tmp_path):
    """What an uninterrupted call makes of ``raw``."""
    prepare(raw, tmp_path / "clean")
    return tree(tmp_path / "clean")


def in_a_child(function, *arguments):
    """Start ``function`` in a forked process."""
    child = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    child.start()
    return child


def check_what_is_left(dest, clean):
    """Every file under a final name is whole."""
    left = {name: content for name, content in tree(dest).items() if not name.startswith(UNFINISHED)}
    assert left.items() <= clean.items()
    return left


def die_at(number, after, prepare, raw, dest):
    """Prepare, and be killed right before or after the file or folder number ``number`` gets its final name."""
    rename = os.replace
    count = 0

    def deadly(*arguments):
        nonlocal count
        count += 1
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*arguments)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    files.os.replace = deadly  # in this child alone
    prepare(raw, dest)


def kill_at_each_final_name(prepare, raw, folder, after):
    """Call after call, killed at one more final name each time and then completed; the number of final names."""
    prepare(raw, folder / "clean")
    clean = tree(folder / "clean")
    for number in range(1, 100):
        dest = folder / f"dest{number}"
        child = in_a_child(die_at, number, after, prepare, raw, dest)
        child.join()
        if child.exitcode == 0:
            return number - 1
        assert child.exitcode == -signal.SIGKILL
        check_what_is_left(dest, clean)
        prepare(raw, dest)
        assert tree(dest) == clean
    raise AssertionError("no end")


@pytest.mark.parametrize("after", [False, True])
class TestKilledAtEachFinalName:
    def test_translation(self, raw, tmp_path, after):
        # The first record, 4 raw texts, 6 tokenised, the merges, 2 vocabularies, 6 in subwords, bin, the stamp.
        assert kill_at_each_final_name(prepare, raw, tmp_path, after) == 22

    def test_language_model(self, wikitext, tmp_path, after):
        # The first record, 3 texts, their counts, bin, the stamp.
        assert kill_at_each_final_name(wiki.prepare, wikitext, tmp_path, after) == 7


def test_killed_at_each_final_name_where_validation_is_held_out(tmp_path):
    made = published.corpus("iwslt14", train=40, test=2)
    prepare_it = functools.partial(published.prepare, made)
    # The first record, 2 raw texts, 6 tokenised (4 in one go), merges, 2 vocabularies, 6 in subwords, bin, stamp.
    assert kill_at_each_final_name(prepare_it, made.write(tmp_path / "raw"), tmp_path, False) == 20


def test_killed_again_and_again_at_random_moments(tmp_path):
    raw, dest = tmp_path / "raw", tmp_path / "dest"
    write_corpus(raw, counts={"train": 1500, "valid": 40, "test": 40})
    start = time.monotonic()
    prepare(raw, tmp_path / "clean", workers=2)
    duration = time.monotonic() - start
    clean = tree(tmp_path / "clean")
    rng = random.Random(1)
    killed = 0
    for _ in range(6):
        child = in_a_child(prepare, raw, dest, 2)
        child.join(rng.uniform(0, 0.6 * duration))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        if dest.exists():
            check_what_is_left(dest, clean)
    prepare(raw, dest, workers=2)
    assert tree(dest) == clean
    assert killed >= 1


def test_killed_while_fairseq_preprocess_is_at_work_leaves_no_bin(raw, tmp_path, clean, monkeypatch):
    def half(folder, options, workers):
        quick_preprocess(folder, options, workers)
        (folder / "train.en-de.en.bin").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(binarisation, "run_preprocess", half)
        child = in_a_child(prepare, raw, tmp_path / "dest")
        child.join()
    assert child.exitcode == -signal.SIGKILL
    left = check_what_is_left(tmp_path / "dest", clean)
    assert "bin" not in left
    assert "bpe/test.de" in left
    prepare(raw, tmp_path / "dest")
    assert tree(tmp_path / "dest") == clean


def prepare_with_little_space(limit, raw, dest, workers):
    """Prepare while no file may grow beyond ``limit`` bytes; exit status 7 tells of the error that comes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        prepare(raw, dest, workers)
    except OSError:
        os._exit(7)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("limit", [0, 100, 400, 1000, 2500])
def test_no_space_left(raw, tmp_path, clean, limit, workers):
    dest = tmp_path / "dest"
    child = in_a_child(prepare_with_little_space, limit, raw, dest, workers)
    child.join()
    assert child.exitcode == 7
    left = check_what_is_left(dest, clean)
    assert "bin" not in left
    assert "stamp.json" not in left
    prepare(raw, dest)
    assert tree(dest) == clean


def test_an_error_between_two_steps(raw, tmp_path, clean, monkeypatch):
    for number in range(len(TranslationDataset.steps)):
        dest = tmp_path / f"dest{number}"

        def interrupt(work):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(TranslationDataset, "steps", (*TranslationDataset.steps[:number], interrupt))
            with pytest.raises(KeyboardInterrupt):
                prepare(raw, dest)
        assert "stamp.json" not in check_what_is_left(dest, clean)
        prepare(raw, dest)
        assert tree(dest) == clean
