"""Models of every kind that self_kd takes, and what can be changed between their features and the loss."""

import types

import pytest
import torch
from torch import nn

from tests.criterions.test_self_kd import MODELS as FAIRSEQ_MODELS
from tests.criterions.test_self_kd import assert_close, gradients
from tests.fairseq_setup import NO_DROPOUT, TINY_TRANSFORMER
from tests.models.test_lstm_lm_zaremba import BPTT, TINY

TINY_BART = ["--arch", "bart_base", *TINY_TRANSFORMER[2:], "--no-scale-embedding", *NO_DROPOUT]
TINY_AWD = ["--arch", "awd_lstm_ptb", "--decoder-embed-dim", "8", "--decoder-hidden-size", "12", *NO_DROPOUT]
for probability in ("input", "hidden", "embedding", "weight"):
    TINY_AWD += [f"--{probability}-dropout", "0"]
MODELS = {
    **FAIRSEQ_MODELS,
    "bart": ("translation", TINY_BART),
    "lstm_lm_zaremba": ("lm", [*BPTT, *TINY]),
    "awd_lstm_lm": ("lm", [*BPTT, *TINY_AWD]),
}
OF_MODEL = ("__call__", "forward", "get_normalized_probs", "get_normalized_probs_scriptable", "get_targets")
OF_DECODER = ("__call__", "forward", "output_layer", "get_normalized_probs", "get_normalized_probs_scriptable")
METHODS = [("model", method) for method in OF_MODEL] + [("decoder", method) for method in OF_DECODER]


def assert_fairseqs_numbers(model, ours, theirs, sample):
    loss, _, logged, grads = gradients(model, ours, sample)
    loss_, _, logged_, grads_ = gradients(model, theirs, sample)
    assert loss.item() == pytest.approx(loss_.item(), rel=2e-6)
    assert logged["nll_loss"].item() == pytest.approx(logged_["nll_loss"].item(), rel=2e-6)
    assert_close(grads, grads_, 4e-6)
    return loss.item()


def lines(caplog):
    return [record.getMessage() for record in caplog.records if "self_kd takes the logits" in record.getMessage()]


def squash(scores):
    """Soft-capped, as some models cap their logits, and with a bias of its own for each word."""
    return 3 * torch.tanh(scores / 3) + torch.linspace(0, 2, scores.size(-1), dtype=scores.dtype)


def changed(base, method):
    """``method`` of ``base``, changed in what it makes of the logits."""

    def of_the_wrapped(self, *inputs, **more):
        return getattr(self.module, method)(*inputs, **more)

    original = getattr(base, method, of_the_wrapped)

    def replacement(self, *inputs, **more):
        if method.startswith("get_normalized_probs"):
            net_output, *others = inputs
            return original(self, (squash(net_output[0]), *net_output[1:]), *others, **more)
        result = original(self, *inputs, **more)
        if method == "get_targets":  # the words that the model itself would have said
            return inputs[1][0].argmax(dim=-1).masked_fill(result == 1, 1)
        return squash(result) if method == "output_layer" else (squash(result[0]), *result[1:])

    return replacement


def part_of(model, name):
    return model if name == "model" else model.decoder


def projection_of(decoder):
    return getattr(decoder, "fc_out", getattr(decoder, "output_projection", None))


def subclass(part, method, embedding):
    methods = {method: changed(type(part), method)}
    if method == "output_layer":  # refused otherwise
        methods["output_embedding"] = lambda self: embedding
    part.__class__ = type("Changed", (type(part),), methods)
    return f"Changed.{method} is not fairseq's own"


def replace(part, method, embedding):
    setattr(part, method, types.MethodType(changed(type(part), method), part))
    if method == "output_layer":
        part.output_embedding = lambda: embedding
    return f"{method} of its {type(part).__name__} was replaced on the object"


def squash_output(module, inputs, output):
    return squash(output) if isinstance(output, torch.Tensor) else (squash(output[0]), *output[1:])


HOOKS = {
    "output of the model": lambda model: model.register_forward_hook(squash_output),
    "output of the decoder": lambda model: model.decoder.register_forward_hook(squash_output),
    "output of the projection": lambda model: projection_of(model.decoder).register_forward_hook(squash_output),
    "input of the projection": lambda model: projection_of(model.decoder).register_forward_pre_hook(
        lambda module, inputs: (squash(inputs[0]),)
    ),
    "gradient of the projection": lambda model: projection_of(model.decoder).register_full_backward_hook(
        lambda module, inputs, outputs: tuple(3 * gradient for gradient in inputs)
    ),
    "output of every decoder": lambda model: nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: squash_output(module, inputs, output) if module is model.decoder else output
    ),
}
