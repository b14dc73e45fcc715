"""fairseq's own tests with ``self_kd`` in the place of the criterion that they name.

Run by ``scripts/test_fairseq.sh`` beside fairseq's tests: ``tests`` is there fairseq's package, not this project's.
"""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.models import FairseqDecoder
from fairseq.models.transformer import TransformerDecoderBase

from selfkd_fairseq.criterions.self_kd import SelfKDCriterion, SelfKDCriterionConfig
from tests import test_binaries, test_label_smoothing
from tests import utils as test_utils

# About criterions in general, whatever the loss is. The fourth, test_zero_eps, says that the loss without smoothing is
# the cross-entropy, which of self_kd is true at alpha 0 only.
GENERAL = ["test_nll_loss", "test_padding", "test_reduction"]
SETTINGS = [
    {"skd_teacher": "embedding", "skd_support": support, "skd_implementation": implementation}
    # not `random`: it draws for a whole batch, so test_padding, where the batch is cut in two, cannot hold
    for support in ("predicted", "nearest", "full")
    for implementation in ("fused", "reference")
]


class DecoderWithOutputMatrix(test_utils.Decoder):
    """The probabilities that the test dictates, as the softmax of features times an output embedding matrix.

    The matrix is diagonal, of powers of two, so that the logits are the logarithms of the probabilities without a
    rounding error, and no two pairs of words are equally far apart.
    """

    adaptive_softmax = None
    output_layer = TransformerDecoderBase.output_layer  # what self_kd knows; so its fused path is taken
    get_normalized_probs = FairseqDecoder.get_normalized_probs

    def __init__(self, args, dictionary):
        super().__init__(args, dictionary)
        size = len(dictionary)
        self.scale = torch.pow(2.0, torch.arange(size) - size // 2)
        self.output_projection = torch.nn.Linear(size, size, bias=False)
        with torch.no_grad():
            self.output_projection.weight.copy_(torch.diag(self.scale))

    def forward(self, prev_output_tokens, encoder_out, incremental_state=None, **kwargs):
        probabilities, extra = super().forward(prev_output_tokens, encoder_out, incremental_state)
        return self.output_layer(probabilities.log() / self.scale), extra


def in_place_of_label_smoothing(**settings):
    """What ``test_label_smoothing`` needs of a criterion class: a ``build_criterion`` that takes its arguments."""

    def build_criterion(args: Namespace, task):
        same = {name: getattr(args, name) for name in ("sentence_avg", "report_accuracy", "label_smoothing")}
        cfg = SelfKDCriterionConfig(ignore_prefix_size=0, skd_warmup_updates=0, seed=1, **same, **settings)
        return SelfKDCriterion.build_criterion(cfg, task)

    return SimpleNamespace(build_criterion=build_criterion)


@pytest.fixture
def output_matrix(monkeypatch):
    """Give the model of fairseq's tests an output embedding matrix."""
    monkeypatch.setattr(test_utils, "Decoder", DecoderWithOutputMatrix)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings.values()))
@pytest.mark.parametrize(
    ("name", "alpha"), [(name, alpha) for alpha in (0.0, 0.5, 1.0) for name in GENERAL] + [("test_zero_eps", 0.0)]
)
def test_criterion(name, alpha, settings, output_matrix, monkeypatch):
    criterion = in_place_of_label_smoothing(skd_alpha=alpha, **settings)
    monkeypatch.setattr(test_label_smoothing, "LabelSmoothedCrossEntropyCriterion", criterion)
    test_label_smoothing.TestLabelSmoothing(name).debug()


def test_the_loss_is_self_kd_s(output_matrix):
    """The tests above would also pass if alpha never reached the criterion."""
    case = test_label_smoothing.TestLabelSmoothing("test_padding")
    case.setUp()
    case.args.label_smoothing = 0.1
    losses = [
        in_place_of_label_smoothing(skd_alpha=alpha).build_criterion(case.args, case.task)(case.model, case.sample)[0]
        for alpha in (0.0, 0.5, 1.0)
    ]
    assert losses[0] != losses[1]
    torch.testing.assert_close(losses[1], (losses[0] + losses[2]) / 2)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("TestTranslation", "test_lstm"),
        ("TestTranslation", "test_lstm_bidirectional"),
        ("TestTranslation", "test_transformer"),
        ("TestTranslation", "test_transformer_cross_self_attention"),
        ("TestTranslation", "test_transformer_layerdrop"),
        ("TestLanguageModeling", "test_lstm_lm"),
        ("TestLanguageModeling", "test_lstm_lm_residuals"),
        ("TestLanguageModeling", "test_normformer_lm"),
        ("TestLanguageModeling", "test_transformer_lm"),
    ],
)
def test_training(case, name, monkeypatch):
    """fairseq's tests that train, validate and generate, of the models that self_kd takes."""
    flags = ["--criterion", "self_kd", "--label-smoothing", "0.1", "--skd-warmup-updates", "0"]
    flags += ["--skd-teacher", "embedding"]
    monkeypatch.setattr(test_utils, "TRAINING_FLAGS", flags)
    getattr(test_binaries, case)(name).debug()
