"""The comparison is fair: fairseq's training loop and the bare loop compute the same numbers."""

import math

import pytest
import torch
from fairseq import utils

from selfkd_fairseq.benchmark import language_model
from selfkd_fairseq.benchmark.bare_lstm import BareAWDLSTM, BareZaremba

CPU = torch.device("cpu")
SMALL = {"batch": 3, "window": 4, "windows": 5, "vocabulary": 24}


def tiny(name, clip_norm):
    """A recipe of the benchmark with a tiny model, its dropouts included."""
    recipe = language_model.RECIPES[name]
    widths = ["--decoder-embed-dim", "6", "--decoder-hidden-size"]
    if name == "awd_lstm_ptb":
        bare, flags = lambda vocabulary: BareAWDLSTM(vocabulary, 6, 10, 3), [*recipe.flags, *widths, "10"]
    else:
        bare = lambda vocabulary: BareZaremba(vocabulary, 6, 2, 0.3, name == "tied_small")  # noqa: E731
        flags = [*recipe.flags, *widths, "6", "--dropout", "0.3"]
    return recipe._replace(bare=bare, flags=flags, clip_norm=clip_norm, lr=0.7, **SMALL)


def trained_by_fairseq(trainer, epochs):
    """The loss of each window, a sum in nats, as the criterion gives it to the Trainer."""
    losses, forward = [], trainer.criterion.forward

    def recorded(model, sample, reduce=True):
        result = forward(model, sample, reduce)
        losses.append(float(result[0].detach()))
        return result

    trainer.criterion.forward = recorded
    for _ in range(epochs):
        language_model.train_epoch(trainer)
    return losses


def trained_by_the_bare_loop(loop, epochs):
    """The same; the seed of each update is the Trainer's, so that the dropout masks are the same."""
    losses, windows = [], range(0, len(loop.tokens) - 1, loop.window)
    for update in range(epochs * len(windows)):
        torch.manual_seed(1 + update)
        losses.append(float(loop.step(windows[update % len(windows)])))
    return losses


@pytest.fixture
def float64(monkeypatch):
    """fairseq takes the log-softmax, and the norm of the gradient, in float32 whatever the model's dtype: not here."""
    norm = torch.norm
    monkeypatch.setattr(utils, "log_softmax", lambda x, dim, onnx_trace=False: torch.log_softmax(x, dim))
    monkeypatch.setattr(torch, "norm", lambda x, p=2, dtype=None: norm(x, p))


@pytest.mark.parametrize("clip_norm", [1e3, 0.2], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("name", language_model.RECIPES)
def test_both_loops_compute_the_same(name, clip_norm, float64):
    recipe = tiny(name, clip_norm)
    text = language_model.zipf_text(recipe)
    trainer = language_model.language_model_trainer(recipe, ["--criterion", "cross_entropy"], text, CPU)
    trainer.model.double()
    loop = language_model.bare_loop(recipe, trainer.model, text, CPU)
    expected = trained_by_the_bare_loop(loop, epochs=2)
    found = trained_by_fairseq(trainer, epochs=2)
    assert len(found) == 2 * recipe.windows and trainer.get_num_updates() == len(found)
    assert found == pytest.approx(expected, rel=1e-11)
    assert 0.8 * math.log(24) < expected[0] / 12 < 1.2 * math.log(24)  # a sum of nats over 3 x 4 tokens
    parameters = list(zip(trainer.model.parameters(), loop.model.parameters()))
    assert len(parameters) == len(list(loop.model.parameters())) == len(list(trainer.model.parameters()))
    for own, bare in parameters:
        assert own.dtype == torch.float64
        torch.testing.assert_close(own, bare, rtol=1e-10, atol=1e-11)


def test_the_comparison_would_notice_a_lost_state():
    recipe = tiny("zaremba_small", 1e3)
    text = language_model.zipf_text(recipe)
    trainer = language_model.language_model_trainer(recipe, ["--criterion", "cross_entropy"], text, CPU)
    losses = []
    for forget in (False, True):
        loop = language_model.bare_loop(recipe, trainer.model.double(), text, CPU)
        torch.manual_seed(1)
        loop.step(0)
        if forget:
            loop.state = None
        losses.append(float(loop.step(recipe.window)))
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)


def test_work_of_the_benchmark():
    recipe = tiny("zaremba_medium", 5.0)
    work, tokens = language_model.epochs(recipe, CPU)
    criterions = ["cross_entropy", "self_kd predicted", "self_kd full", "self_kd both passes"]
    assert list(work) == [language_model.BARE, *criterions]
    assert tokens == 3 * 4 * 5
    for epoch in work.values():
        epoch()


@pytest.mark.parametrize("name", language_model.RECIPES)
def test_bare_models_have_the_sizes_of_the_architectures(name):
    recipe = language_model.RECIPES[name]._replace(windows=1)
    text = language_model.zipf_text(recipe)
    trainer = language_model.language_model_trainer(recipe, ["--criterion", "cross_entropy"], text, CPU)
    bare = recipe.bare(recipe.vocabulary)
    assert [p.shape for p in bare.parameters()] == [p.shape for p in trainer.model.parameters()]
    if name != "awd_lstm_ptb":
        assert bare.dropout == bare.lstm.dropout == trainer.model.decoder.dropout == trainer.model.decoder.lstm.dropout
