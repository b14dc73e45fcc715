"""fairseq is hardened here, in this process and in those that it starts; and whole checkpoints to damage copies of."""

import pytest

from tests import fairseq_setup
from tests.hostile.commands import write_checkpoint
from tests.language_model import TASK, TINY_ZAREMBA

SELF_KD = ["--criterion", "self_kd"]


@pytest.fixture(autouse=True)
def hardened_here(hardened, monkeypatch):
    monkeypatch.setenv("SELFKD_HARDENED", "1")


@pytest.fixture(scope="session")
def transformer(tiny_translation, tmp_path_factory):
    """A checkpoint of a Transformer, of ``tiny_translation``."""
    path = tmp_path_factory.mktemp("hostile") / "transformer.pt"
    return write_checkpoint(tiny_translation, path, *fairseq_setup.TINY_TRANSFORMER, *SELF_KD)


@pytest.fixture(scope="session")
def lstm(tiny_translation, tmp_path_factory):
    """A checkpoint of fairseq's LSTM, of the same data."""
    path = tmp_path_factory.mktemp("hostile") / "lstm.pt"
    return write_checkpoint(tiny_translation, path, *fairseq_setup.TINY_LSTM, *SELF_KD)


@pytest.fixture(scope="session")
def stream_model(tiny_language_model, tmp_path_factory):
    """A checkpoint of an LSTM language model that reads a stream, of ``tiny_language_model``."""
    path = tmp_path_factory.mktemp("hostile") / "stream.pt"
    return write_checkpoint(tiny_language_model, path, *TASK, *TINY_ZAREMBA, *SELF_KD)
