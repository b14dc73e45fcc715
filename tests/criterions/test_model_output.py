"""Models that change something between features and loss, against fairseq's own criterion on the same model."""

import copy
import sys

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.distributed import DistributedTimeoutWrapper
from torch import nn

from selfkd_fairseq.criterions import self_kd
from selfkd_fairseq.criterions.model_output import can_give_features, features_instead_of_logits
from selfkd_fairseq.criterions.output_embedding import UnsupportedModelError, find_output_embedding
from tests import definition
from tests.criterions.changed_models import (
    HOOKS,
    METHODS,
    MODELS,
    assert_fairseqs_numbers,
    lines,
    part_of,
    projection_of,
    replace,
    subclass,
)
from tests.criterions.test_self_kd import assert_close, gradients
from tests.fairseq_setup import NO_DROPOUT, TINY_TRANSFORMER, batches, build
from tests.models.test_lstm_lm_zaremba import first_window

FLAGS = ["--criterion", "self_kd", "--label-smoothing", "0.1", "--skd-warmup-updates", "0"]


@pytest.fixture(scope="module")
def prepared(tiny_translation, tiny_language_model):
    """A function: name of a model -> a copy of it, self_kd with alpha 0, fairseq's criterion, and a batch."""
    made = {}

    def prepare(name):
        if name not in made:
            corpus, flags = MODELS[name]
            data = tiny_translation if corpus == "translation" else tiny_language_model
            setup = build(data, *flags, *FLAGS, "--skd-alpha", "0")
            theirs = LabelSmoothedCrossEntropyCriterion(setup.task, sentence_avg=False, label_smoothing=0.1)
            sample = first_window(setup) if "bptt_language_modeling" in flags else batches(setup)[0]
            with torch.no_grad():  # large logits, so that a change of them is no small one
                find_output_embedding(setup.model).weight.normal_()
            made[name] = setup.model, setup.criterion, theirs, sample
        model, *others = made[name]
        return (copy.deepcopy(model), *others)

    return prepare


# ----------------------------------------------------------------------------------------------------- every such model


@pytest.mark.parametrize("name", MODELS)
def test_stock_models_take_the_fused_path(name, prepared, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(self_kd, "checked_logits", None)  # not to be called
    assert_fairseqs_numbers(*prepared(name))
    assert lines(caplog) == []


CHANGES = [(name, subclass, *method) for name in MODELS for method in METHODS]
CHANGES += [  # Python looks for __call__ in the class alone
    (name, replace, *method)
    for name in ("lstm tied", "transformer_lm")
    for method in METHODS
    if "__call__" not in method
]


@pytest.mark.parametrize("name, change, part, method", CHANGES)
def test_a_changed_method_between_features_and_loss(name, change, part, method, prepared, caplog):
    caplog.set_level("INFO")
    model, ours, theirs, sample = prepared(name)
    unchanged = ours(model.train(), sample)[0].item()
    reason = change(part_of(model, part), method, find_output_embedding(model))
    loss = assert_fairseqs_numbers(model, ours, theirs, sample)
    assert abs(loss / unchanged - 1) > 1e-2
    ours(model, sample)
    assert len(lines(caplog)) == 1 and reason in lines(caplog)[0]


@pytest.mark.parametrize("name", MODELS)
def test_these_are_all_the_methods_between_features_and_loss(name, prepared):
    """What Python runs on model, decoder and projection from the end of the features to fairseq's loss."""
    model, _, theirs, sample = prepared(name)
    parts = {id(model): "model", id(model.decoder): "decoder", id(projection_of(model.decoder)): "projection"}
    seen, features = set(), []

    def watch(frame, event, _):
        method = frame.f_code.co_name
        part = parts.get(id(frame.f_locals.get("self")))
        if event == "return" and part is not None:
            if (part, method) == ("decoder", "extract_features"):
                features.append(1)
            elif features and method != "__getattr__":  # torch's, to find a parameter or module
                # torch gives its __call__ other names
                seen.add((part, "__call__" if method in ("_call_impl", "_wrapped_call_impl") else method))

    sys.setprofile(watch)
    try:
        theirs(model, sample)
    finally:
        sys.setprofile(None)
    assert features and {pair for pair in seen if pair[0] != "projection"} == set(METHODS)


BEFORE = [(name, "extract_features") for name in MODELS]
BEFORE += [("lstm_lm_zaremba", "recurrence"), ("awd_lstm_lm", "recurrence")]


@pytest.mark.parametrize("name, method", BEFORE)
def test_what_lies_before_the_features_may_differ(name, method, prepared, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(self_kd, "checked_logits", None)
    model, *others = prepared(name)
    subclass(model.decoder, method, None)
    assert_fairseqs_numbers(model, *others)
    assert lines(caplog) == []


# --------------------------------------------------------------------------------------------------- hooks and wrappers


HOOKED = [  # no module makes the logits of a tied LSTM
    (name, hook)
    for name in MODELS
    for hook in HOOKS
    if not ("projection" in hook and name in ("lstm tied", "lstm_lm tied"))
]


@pytest.mark.parametrize("name, hook", HOOKED)
def test_a_hook_between_features_and_loss(name, hook, prepared, caplog):
    caplog.set_level("INFO")
    model, *others = prepared(name)
    assert can_give_features(model)
    handle = HOOKS[hook](model)
    try:
        assert_fairseqs_numbers(model, *others)
        assert not can_give_features(model)
    finally:
        handle.remove()
    assert can_give_features(model)  # as after fairseq's search for NaN
    assert len(lines(caplog)) == 1 and "hooks on" in lines(caplog)[0]


@pytest.mark.parametrize("method", [None, "__call__", "forward", "get_normalized_probs", "get_targets"])
def test_a_wrapper_that_changes_something(method, prepared, caplog):
    caplog.set_level("INFO")
    model, *others = prepared("transformer untied")
    model = DistributedTimeoutWrapper(model, timeout=0)
    if method is not None:
        subclass(model, method, None)
    assert_fairseqs_numbers(model, *others)
    assert can_give_features(model) == (method is None)
    assert [f"Changed.{method} is not" in line for line in lines(caplog)] == ([] if method is None else [True])


def test_a_new_view_of_one_model_for_each_batch_is_told_once(prepared, caplog):
    """As fairseq's composite_loss makes them: a model that has run already."""
    caplog.set_level("INFO")
    model, ours, theirs, sample = prepared("transformer untied")

    class View(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.decoder = model, model.decoder
            self.get_normalized_probs, self.get_targets = model.get_normalized_probs, model.get_targets

        def forward(self, **net_input):
            return self.model(**net_input)

    for _ in range(3):
        assert_fairseqs_numbers(View(), ours, theirs, sample)
    assert len(lines(caplog)) == 1 and "View.forward" in lines(caplog)[0]


# ----------------------------------------------------------------------------------------------- losses of such a model


@pytest.mark.parametrize("part, method", METHODS)
def test_losses_by_token_and_by_parts(part, method, prepared):
    model, ours, theirs, sample = prepared("transformer tied")
    subclass(part_of(model, part), method, find_output_embedding(model))
    found = gradients(model, ours, sample, reduce=False)[0].view(-1)
    expected = gradients(model, theirs, sample, reduce=False)[0].view(-1)
    assert torch.allclose(found, expected, rtol=2e-6, atol=1e-5)
    net_output = model(**sample["net_input"])
    found, expected = (criterion.compute_loss(model, net_output, sample) for criterion in (ours, theirs))
    assert [loss.item() for loss in found] == pytest.approx([loss.item() for loss in expected], rel=2e-6)


def test_soft_targets_of_capped_logits_are_those_of_the_matrix(tiny_translation):
    model_flags = [*TINY_TRANSFORMER, *NO_DROPOUT]
    setup = build(
        tiny_translation, *model_flags, *FLAGS, "--skd-alpha", "0.5", "--skd-teacher", "embedding",
        "--skd-support-size", "3", "--skd-temperature", "0.6",
    )  # fmt: skip
    model, sample = setup.model.double().train(), batches(setup)[0]
    setup.criterion.set_num_updates(1)
    subclass(model.decoder, "forward", None)
    logits = model(**sample["net_input"])[0].view(-1, 64)
    weight = model.decoder.output_projection.weight
    dictionary = setup.task.target_dictionary
    (loss, *_), gradient, *_ = definition.losses(
        logits.detach().numpy(), weight.detach().numpy(), sample["target"].view(-1), alpha=0.5, label_smoothing=0.1,
        pad=dictionary.pad(), excluded=(dictionary.bos(),), support_size=3, temperature=0.6,
    )  # fmt: skip
    logits.backward(torch.from_numpy(gradient))
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    found, *_, grads = gradients(model, setup.criterion, sample)
    assert found.item() == pytest.approx(loss, rel=1e-12)
    assert_close(grads, expected, 1e-12)


def test_a_matrix_that_the_decoder_offers_makes_no_logits(prepared, caplog):
    """Everything else is fairseq's own, but the matrix need not be the one of the projection."""
    caplog.set_level("INFO")
    model, *others = prepared("transformer untied")
    other = nn.Parameter(torch.randn(64, 5))
    model.decoder.output_embedding = lambda: (other, None)
    for _ in range(2):
        assert_fairseqs_numbers(model, *others)
    assert len(lines(caplog)) == 1 and "TransformerDecoderBase.output_embedding" in lines(caplog)[0]


def test_the_reference_needs_no_line(prepared, caplog, monkeypatch):
    caplog.set_level("INFO")
    model, ours, theirs, sample = prepared("transformer untied")
    subclass(model, "forward", None)
    monkeypatch.setattr(ours, "implementation", "reference")
    assert_fairseqs_numbers(model, ours, theirs, sample)
    assert lines(caplog) == []


# -------------------------------------------------------------------------------------------------------------- refused


def without_one_word(lprobs, sample):
    return lprobs.masked_fill(torch.arange(64) == 9, -100.0)


def probabilities(lprobs, sample):
    return lprobs.exp()


def zero_at_padding(lprobs, sample):
    return lprobs.masked_fill(sample["target"].eq(1).unsqueeze(-1), 0.0)


@pytest.mark.parametrize("change, fits", [(without_one_word, False), (probabilities, False), (zero_at_padding, True)])
def test_probabilities_that_do_not_add_up_are_refused(change, fits, prepared):
    model, ours, theirs, sample = prepared("transformer untied")
    assert sample["target"].eq(1).any()
    original = model.get_normalized_probs
    model.get_normalized_probs = lambda *inputs, **more: change(original(*inputs, **more), sample)
    if fits:
        assert_fairseqs_numbers(model, ours, theirs, sample)
    else:
        with pytest.raises(
            UnsupportedModelError, match="TransformerModel: its get_normalized_probs gives probab.* not"
        ):
            ours(model, sample)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda logits: [logits, logits], "TransformerModel: its forward gives a list and its output matrix needs "),
        (lambda logits: logits[..., :60], r"gives \(\d+, \d+, 60\) and its output matrix needs \(batch, length, 64\)"),
        (lambda logits: torch.stack([logits, logits]), r"gives \(2, \d+, \d+, 64\) and its output matrix needs"),
    ],
)
def test_outputs_that_do_not_fit_the_matrix_are_refused(change, message, prepared):
    model, ours, _, sample = prepared("transformer untied")
    model.register_forward_hook(lambda module, inputs, output: (change(output[0]), *output[1:]))
    with pytest.raises(UnsupportedModelError, match=message) as error:
        ours(model, sample)
    assert "\n" not in str(error.value)


# -------------------------------------------------------------------------------------------------- features and logits


def test_features_and_then_logits_again_also_after_an_error(prepared):
    model, *_, sample = prepared("transformer untied")
    with features_instead_of_logits(model):
        assert model(**sample["net_input"])[0].size(-1) == 16
    assert model(**sample["net_input"])[0].size(-1) == 64
    with pytest.raises(KeyError), features_instead_of_logits(model):
        raise KeyError("from the model")
    assert "output_layer" not in vars(model.decoder)
    with pytest.raises(RuntimeError, match="called its output layer 0 times"), features_instead_of_logits(model):
        pass
