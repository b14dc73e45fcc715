"""Fixtures that several test folders share."""

import gc
import os
from pathlib import Path

# torch.compile gives functions back as they are, but for the few tests that compile.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import pytest
import torch

import selfkd_fairseq
from selfkd_fairseq import hardening
from selfkd_fairseq.core.compiled_rows import compiled
from tests import fairseq_setup

selfkd_fairseq.register()

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish(session):
    """What was imported stays: the collector need not look at it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def fairseq_as_it_was():
    """What a test hardens by itself, or by calling one of the commands, the next one finds as fairseq has it."""
    yield
    hardening.remove()


@pytest.fixture(autouse=True)
def the_smallest_numbers():
    """What torch 2.4 compiles for a CPU sets the process to take them for 0 (-ffast-math); the next test has them."""
    torch.set_flush_denormal(False)


@pytest.fixture
def hardened(fairseq_as_it_was):
    """fairseq as with SELFKD_HARDENED=1 from the start, in this process."""
    hardening.install()


@pytest.fixture
def really_compiled(monkeypatch):
    """torch.compile compiles, from the start."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "0")
    torch._dynamo.reset()
    compiled.cache_clear()
    yield
    compiled.cache_clear()


@pytest.fixture(scope="session")
def root():
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data():
    """The folder with the real corpora, which lies beside the checkout; without it the test is skipped."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real corpora in ../shared/data, which is absent")
    return folder


@pytest.fixture(scope="session")
def tiny_translation(tmp_path_factory):
    """A binarised toy translation corpus (source `src`, target `tgt`, joined dictionary)."""
    return fairseq_setup.binarise_translation(tmp_path_factory.mktemp("tiny_translation"))


@pytest.fixture(scope="session")
def tiny_language_model(tmp_path_factory):
    """A binarised toy monolingual corpus."""
    return fairseq_setup.binarise_language_model(tmp_path_factory.mktemp("tiny_language_model"))
