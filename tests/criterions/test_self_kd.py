"""The criterion on real fairseq models: against fairseq's own criterion, and against the definition."""

import copy
import dataclasses
import math
import re

import pytest
import torch
from fairseq.trainer import Trainer

from selfkd_fairseq.core import CONTROLS, SIMILARITIES, SUPPORTS, SelfKDOptions
from selfkd_fairseq.criterions import self_kd
from selfkd_fairseq.criterions.self_kd import SelfKDCriterionConfig
from tests import definition
from tests.core import chance
from tests.core.forms import BY_DEFAULT, FEW, FORMS, flags, reads_teacher
from tests.criterions.by_definition import update_of
from tests.fairseq_setup import (
    NO_DROPOUT,
    TINY_LSTM,
    TINY_LSTM_LM,
    TINY_TRANSFORMER,
    TINY_TRANSFORMER_LM,
    batches,
    build,
    command_line,
    fairseq_settings,
    settings,
)

MODELS = {
    "transformer untied": ("translation", [*TINY_TRANSFORMER, *NO_DROPOUT]),
    "transformer tied": ("translation", [*TINY_TRANSFORMER, *NO_DROPOUT, "--share-all-embeddings"]),
    "lstm with bias": ("translation", [*TINY_LSTM, *NO_DROPOUT]),
    "lstm tied": ("translation", [*TINY_LSTM, *NO_DROPOUT, "--share-decoder-input-output-embed"]),
    "transformer_lm": ("lm", [*TINY_TRANSFORMER_LM, *NO_DROPOUT]),
    "lstm_lm": ("lm", [*TINY_LSTM_LM, *NO_DROPOUT]),
    "lstm_lm tied": ("lm", [*TINY_LSTM_LM, *NO_DROPOUT, "--share-decoder-input-output-embed"]),
}


@pytest.fixture
def data(request):
    return {
        "translation": lambda: request.getfixturevalue("tiny_translation"),
        "lm": lambda: request.getfixturevalue("tiny_language_model"),
    }


def gradients(model, criterion, sample, **arguments):
    model.zero_grad()
    model.train()
    loss, sample_size, logging_output = criterion(model, sample, **arguments)
    loss.sum().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), sample_size, logging_output, grads


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name in expected:
        # Softmax does not see the bias of a key projection: its gradient is rounding alone, relative to the others.
        scale = largest if name.endswith("k_proj.bias") else max(expected[name].abs().max().item(), 1e-3 * largest)
        assert (found[name] - expected[name]).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "form, extra",
    [
        ("predicted", []),
        ("predicted", ["--label-smoothing", "0.1", "--report-accuracy"]),
        ("full, self, T 2", ["--label-smoothing", "0.1", "--report-accuracy"]),
        ("default", ["--label-smoothing", "0.1"]),
        ("predicted", ["--sentence-avg"]),
    ],
)
def test_alpha_zero_is_fairseqs_own_criterion(form, name, extra, data):
    """With dropout: no second pass moves what is drawn in the first."""
    corpus, of_model = MODELS[name]
    model_flags = [*of_model, "--dropout", "0.2", *extra]
    of_form = [] if form == "default" else flags(FORMS[form])
    ours = build(data[corpus](), *model_flags, "--criterion", "self_kd", "--skd-alpha", "0", *of_form)
    theirs = build(data[corpus](), *model_flags, "--criterion", "label_smoothed_cross_entropy")
    for sample in batches(ours)[:2]:
        torch.manual_seed(2)
        loss, size, logged, grads = gradients(ours.model, ours.criterion, sample)
        # The same model object, so that the two differ in the criterion alone.
        torch.manual_seed(2)
        loss_, size_, logged_, grads_ = gradients(ours.model, theirs.criterion, sample)
        assert loss.item() == pytest.approx(loss_.item(), rel=2e-6)
        assert size == size_
        assert_close(grads, grads_, 2e-6)
        for key in logged_:
            assert float(logged[key]) == pytest.approx(float(logged_[key]), rel=2e-6), key


@pytest.mark.parametrize("form", ["default", "full, self, T 2", "predicted", "nearest"])
def test_before_its_start_it_is_fairseqs_own_criterion(form, tiny_translation):
    """With dropout, in one pass; and from that update on it is what it would have been without a start."""
    of_form = [] if form == "default" else flags(FORMS[form])
    of_model = [*TINY_TRANSFORMER, "--dropout", "0.2", "--label-smoothing", "0.1"]
    at_once = ["--criterion", "self_kd", "--skd-alpha", "0.4", "--skd-warmup-updates", "0", *of_form]
    waiting = build(tiny_translation, *of_model, *at_once, "--skd-start-update", "3")
    plain = build(tiny_translation, *of_model, *at_once)
    stock = build(tiny_translation, *of_model, "--criterion", "label_smoothed_cross_entropy")
    sample, passes = batches(waiting)[0], []
    waiting.model.encoder.register_forward_hook(lambda *_: passes.append(True))
    for num_updates, alpha, of_one in [(0, 0, stock), (2, 0, stock), (3, 0.4, plain), (4, 0.4, plain)]:
        waiting.criterion.set_num_updates(num_updates)
        plain.criterion.set_num_updates(num_updates)
        found = []
        for criterion in (waiting.criterion, of_one.criterion):
            passes.clear()
            torch.manual_seed(2)
            found.append(gradients(waiting.model, criterion, sample))
            two = form in ("default", "full, self, T 2") and of_one is plain
            assert len(passes) == (2 if two else 1)
        (loss, _, logged, grads), (loss_, _, _, grads_) = found
        assert ("skd_loss" in logged) == (of_one is plain)
        assert loss.item() == pytest.approx(loss_.item(), rel=2e-6)
        assert_close(grads, grads_, 2e-6)
        assert logged["alpha"] == alpha


@pytest.mark.parametrize(
    "implementation, of_loss", [("fused", "self_kd_loss"), ("reference", "self_kd_loss_from_logits")]
)
def test_before_its_start_no_soft_targets_are_made_but_in_validation(
    implementation, of_loss, tiny_translation, monkeypatch
):
    setup = build(
        tiny_translation, *TINY_TRANSFORMER, "--criterion", "self_kd", "--skd-start-update", "3",
        "--skd-implementation", implementation,
    )  # fmt: skip
    made, loss = [], getattr(self_kd, of_loss)

    def recording(*arguments, **keywords):
        options = keywords.get("options") or SelfKDOptions(**{k: keywords[k] for k in SelfKDOptions._fields})
        made.append(options.reads_embedding or options.needs_teacher_pass)
        return loss(*arguments, **keywords)

    monkeypatch.setattr(self_kd, of_loss, recording)
    sample = batches(setup)[0]
    for num_updates, training in [(2, True), (2, False), (3, True), (3, False)]:
        setup.criterion.set_num_updates(num_updates)
        logged = setup.criterion(setup.model.train(training), sample)[2]
        assert ("skd_loss" in logged) == made[-1]
    assert made == [False, True, True, True]


def test_a_validation_before_its_start_does_not_decide_which_neighbours_training_reads(tiny_translation):
    losses = []
    for validated in (False, True):
        torch.manual_seed(1)
        setup = build(
            tiny_translation, *TINY_TRANSFORMER, *NO_DROPOUT, "--criterion", "self_kd", "--skd-start-update", "4",
            "--skd-warmup-updates", "0", *flags(FORMS["nearest"]),
        )  # fmt: skip
        sample, generator = batches(setup)[0], torch.Generator().manual_seed(1)
        for num_updates in range(6):
            setup.criterion.set_num_updates(num_updates)
            loss = setup.criterion(setup.model.train(), sample)[0]
            if validated and num_updates == 1:
                setup.criterion(setup.model.eval(), sample)
            with torch.no_grad():
                weight = setup.model.decoder.output_projection.weight
                weight.add_(torch.randn(weight.shape, generator=generator))
        losses.append(loss.item())
    assert losses[0] == losses[1]


def test_ignore_prefix_size_and_unreduced_loss(tiny_translation):
    flags = [*TINY_TRANSFORMER, *NO_DROPOUT, "--label-smoothing", "0.1", "--ignore-prefix-size", "2"]
    ours = build(tiny_translation, *flags, "--criterion", "self_kd", "--skd-alpha", "0")
    theirs = build(tiny_translation, *flags, "--criterion", "label_smoothed_cross_entropy")
    sample = batches(ours)[0]
    loss, *_ = gradients(ours.model, ours.criterion, sample)
    loss_, *_ = gradients(ours.model, theirs.criterion, sample)
    assert loss.item() == pytest.approx(loss_.item(), rel=2e-6)
    unreduced, *_ = gradients(ours.model, ours.criterion, sample, reduce=False)
    unreduced_, *_ = gradients(ours.model, theirs.criterion, sample, reduce=False)
    assert torch.allclose(unreduced.view(-1), unreduced_.view(-1), rtol=2e-6, atol=1e-6)


def record_losses(criterion):
    """Keep what every call of the criterion returns: fairseq's meters round."""
    recorded, forward = [], criterion.forward

    def forward_and_record(*args, **kwargs):
        result = forward(*args, **kwargs)
        recorded.append(result[2])
        return result

    criterion.forward = forward_and_record
    return recorded


def trainer_in_float64(setup, samples):
    setup.model.double()
    trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
    trainer.reset_dummy_batch(samples[0])
    # fairseq takes the norm of gradients in float32, which recent torch refuses for a float64 model.
    trainer.clip_grad_norm = lambda clip_norm: torch.tensor(1.0)
    return trainer


def check_update_against_the_definition(setup, trainer, samples, options, alpha, num_updates=0, prefix=0):
    """One update: what each batch logs, and the gradients that the optimizer is given."""
    expected = update_of(setup, samples, options, alpha=alpha, num_updates=num_updates, prefix=prefix)
    recorded = record_losses(setup.criterion)
    trainer.train_step(samples)
    del setup.criterion.forward
    measure = "skd_cosine" if options.get("similarity") == "cosine" else "skd_distance"
    for log, sums, statistics in zip(recorded, expected.sums, expected.statistics):
        found = [float(log[key]) for key in ("loss", "nll_loss", "skd_loss")]
        assert found == pytest.approx([sums[0], sums[2], sums[3]], rel=1e-12, abs=1e-12)
        names = ("skd_ntokens", "skd_target_prob", "skd_entropy", measure, "skd_num_pairs")
        of_definition = [statistics[key] for key in ("ntokens", "target_prob", "entropy", "measure", "num_pairs")]
        assert [float(log[key]) for key in names] == pytest.approx(of_definition, rel=1e-12, abs=1e-12)
    size = sum(sample["ntokens"] for sample in samples)
    grads = {n: p.grad for n, p in setup.model.named_parameters() if p.grad is not None}
    assert_close(grads, {name: gradient / size for name, gradient in expected.gradients.items()}, 1e-12)
    return recorded


TRAINED = ["--criterion", "self_kd", "--label-smoothing", "0.1", "--clip-norm", "0", "--skd-warmup-updates", "0"]
SIZES = {"support_size": 3, "temperature": 0.6}


@pytest.mark.parametrize(
    "name, form, alpha",
    [
        *(("transformer tied", form, 0.4) for form in FORMS),
        *(("lstm with bias", form, 0.4) for form in FEW),
        *(("transformer untied", form, 1.0) for form in ("predicted", "full, self, T 2")),
        *(("lstm_lm tied", form, 0.0) for form in ("predicted", "nearest, cosine, self, within, T 2")),
        *((name, "predicted, self", 0.7) for name in MODELS),
    ],
)
def test_trainer_equals_the_definition_in_float64(name, form, alpha, data):
    """With dropout: the student is the pass with it, the teacher self the one without. And with --update-freq 2."""
    corpus, of_model = MODELS[name]
    options = {**FORMS[form], **SIZES}
    setup = build(
        data[corpus](), *of_model, "--dropout", "0.2", *TRAINED, "--skd-alpha", str(alpha), *flags(options),
        "--update-freq", "2", "--skd-refresh-updates", "1", "--lr", "1",
    )  # fmt: skip
    samples = batches(setup)[:2]
    trainer = trainer_in_float64(setup, samples)
    for num_updates in range(2):
        check_update_against_the_definition(setup, trainer, samples, options, alpha, num_updates)


@pytest.mark.parametrize("name", ["transformer tied", "lstm with bias"])
def test_trainer_with_the_defaults_equals_the_definition_in_float64(name, data):
    """Both passes have dropout, and the teacher's comes first."""
    corpus, of_model = MODELS[name]
    setup = build(data[corpus](), *of_model, "--dropout", "0.2", *TRAINED, "--update-freq", "2", "--lr", "1")
    samples = batches(setup)[:2]
    trainer = trainer_in_float64(setup, samples)
    for num_updates in range(2):
        check_update_against_the_definition(setup, trainer, samples, BY_DEFAULT, 0.5, num_updates)


def test_defaults_follow_from_the_teacher(tiny_translation):
    def built(*flags):
        return build(tiny_translation, *TINY_TRANSFORMER, "--criterion", "self_kd", *flags).criterion

    assert built().options == SelfKDOptions(**BY_DEFAULT) and built().teacher_mode == "both"
    assert built("--skd-teacher", "embedding").options == SelfKDOptions()
    given = ["--skd-support", "predicted", "--skd-similarity", "distance", "--skd-min-target-prob", "0.5"]
    assert built(*given).options == SelfKDOptions(teacher="self")
    given = ["--skd-teacher", "embedding", "--skd-min-target-prob", "0", "--skd-support", "full"]
    assert built(*given).options == SelfKDOptions(support="full", min_target_prob=0.0)


@pytest.mark.parametrize("of_criterion", [["--report-accuracy"], flags(FORMS["nearest, cosine, self, within, T 2"])])
def test_settings_of_these_tests_are_those_that_fairseq_makes(of_criterion):
    line = command_line("data", *TINY_TRANSFORMER, "--criterion", "self_kd", "--skd-alpha", "0.3", *of_criterion)
    assert settings(*line) == fairseq_settings(*line)


@pytest.mark.parametrize("form", ["predicted", "full, cosine", "predicted, self"])
@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_means_are_over_the_tokens_that_ignore_prefix_size_leaves(form, implementation, tiny_translation):
    from fairseq.logging import metrics

    options = {**FORMS[form], **SIZES}
    setup = build(
        tiny_translation, *TINY_TRANSFORMER, *TRAINED, "--skd-alpha", "0.4", *flags(options), "--ignore-prefix-size",
        "2", "--skd-implementation", implementation, "--report-accuracy",
    )  # fmt: skip
    samples = batches(setup)[:1]
    trainer = trainer_in_float64(setup, samples)
    statistics = update_of(setup, samples, options, alpha=0.4, prefix=2).statistics[0]
    sums = update_of(setup, samples, options, alpha=0.4, prefix=2).sums[0]
    assert 0 < statistics["ntokens"] < samples[0]["ntokens"]
    (logged,) = check_update_against_the_definition(setup, trainer, samples, options, 0.4, prefix=2)
    with metrics.aggregate() as aggregated:
        setup.criterion.reduce_metrics([logged, logged])
    shown = aggregated.get_smoothed_values()
    bits = statistics["ntokens"] * math.log(2)
    assert shown["skd_loss"] == pytest.approx(sums[3] / bits, abs=6e-4)
    assert shown["skd_entropy"] == pytest.approx(statistics["entropy"] / bits, abs=6e-4)
    assert shown["skd_target_prob"] == pytest.approx(statistics["target_prob"] / statistics["ntokens"], abs=6e-5)
    measure, other = ("skd_cosine", "skd_distance") if "cosine" in form else ("skd_distance", "skd_cosine")
    assert shown[measure] == pytest.approx(statistics["measure"] / statistics["num_pairs"], abs=6e-5)
    assert other not in shown and other not in logged


@pytest.mark.parametrize("form", [*FEW, "full, self, uniform, T 2"])
def test_number_of_forward_passes(form, tiny_translation):
    """Two in training where the model is its own teacher; one in validation, where it has no dropout anyway."""
    setup = build(tiny_translation, *TINY_TRANSFORMER, *TRAINED, *flags(FORMS[form]))
    passes = []
    setup.model.encoder.register_forward_hook(lambda module, *_: passes.append(module.training))
    sample = batches(setup)[0]
    for implementation in ("fused", "reference"):
        setup.criterion.implementation = implementation
        for reduce in (True, False):
            passes.clear()
            gradients(setup.model, setup.criterion, sample, reduce=reduce)
            assert sorted(passes) == ([False, True] if reads_teacher(FORMS[form]) else [True])
        passes.clear()
        setup.task.valid_step(sample, setup.model, setup.criterion)
        assert passes == [False]


@pytest.mark.parametrize("form", FEW)
def test_validation_logs_what_the_model_without_dropout_says(form, tiny_translation):
    """There the model is its own teacher and its student: z0 is z."""
    options = {**FORMS[form], **SIZES}
    setup = build(tiny_translation, *TINY_TRANSFORMER, *TRAINED, *flags(options))
    setup.model.double().eval()
    sample = batches(setup)[0]
    for implementation in ("fused", "reference"):
        setup.criterion.implementation = implementation
        setup.criterion.set_num_updates(0)
        generator = copy.deepcopy(setup.criterion.support_state).generator(False)
        logged = setup.task.valid_step(sample, setup.model, setup.criterion)[2]
        with torch.no_grad():
            logits = setup.model(**sample["net_input"])[0].view(-1, 64).numpy()
        weight, target = setup.model.decoder.output_projection.weight.detach(), sample["target"].view(-1)
        expected = definition.losses(
            logits, weight.numpy(), target, alpha=0.5, label_smoothing=0.1, pad=1, excluded=(0,),
            teacher_logits=logits, **options, **chance.of_form(options, weight, target, 3, (0, 1), generator, 1),
        )  # fmt: skip
        found = [logged[key].item() for key in ("loss", "nll_loss", "skd_loss", "skd_entropy")]
        of_definition = [*expected.sums[1:], expected.statistics["entropy"]]
        assert found == pytest.approx(of_definition, rel=1e-12, abs=1e-12)


def test_validation_loss_is_cross_entropy_whatever_alpha_is(tiny_translation):
    flags = [*TINY_TRANSFORMER, "--label-smoothing", "0.1", "--skd-warmup-updates", "0"]
    setups = [build(tiny_translation, *flags, "--criterion", "self_kd", "--skd-alpha", a) for a in ("0", "0.5", "1")]
    stock = build(tiny_translation, *flags[:-2], "--criterion", "label_smoothed_cross_entropy")
    sample = batches(setups[0])[0]
    model = setups[0].model
    logged = [setup.task.valid_step(sample, model, setup.criterion)[2] for setup in setups]
    expected = stock.task.valid_step(sample, model, stock.criterion)[2]
    assert len({log["loss"].item() for log in logged}) == 1
    assert logged[0]["loss"].item() == pytest.approx(expected["loss"].item(), rel=2e-6)
    assert logged[0]["nll_loss"].item() == pytest.approx(expected["nll_loss"].item(), rel=2e-6)
    assert "alpha" not in logged[0]


def test_alpha_counts_updates_not_batches_and_is_logged(tiny_translation):
    setup = build(
        tiny_translation, *TINY_TRANSFORMER, "--criterion", "self_kd", "--skd-alpha", "0.8",
        "--skd-warmup-updates", "4", "--update-freq", "3",
    )  # fmt: skip
    recorded = record_losses(setup.criterion)
    trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
    sample = batches(setup)[0]
    trainer.reset_dummy_batch(sample)
    printed = [trainer.train_step([sample] * 3)["alpha"] for _ in range(6)]
    assert [log["alpha"] for log in recorded] == [
        a for a in (0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 0.8) for _ in "123"
    ]
    assert printed == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 0.8])


def test_update_number_reaches_the_criterion_after_a_resume(tiny_translation, tmp_path):
    flags = [*TINY_TRANSFORMER, "--criterion", "self_kd", "--skd-alpha", "1", "--skd-warmup-updates", "10"]

    def trainer_and_sample():
        setup = build(tiny_translation, *flags)
        trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
        sample = batches(setup)[0]
        trainer.reset_dummy_batch(sample)
        return trainer, sample

    first, sample = trainer_and_sample()
    for _ in range(7):
        first.train_step([sample])
    first.consolidate_optimizer()
    first.save_checkpoint(str(tmp_path / "checkpoint.pt"), {"train_iterator": {"epoch": 1, "iterations_in_epoch": 7}})
    second, sample = trainer_and_sample()
    second.load_checkpoint(str(tmp_path / "checkpoint.pt"))
    assert second.train_step([sample])["alpha"] == pytest.approx(0.7)


IMPLEMENTATION_FLAGS = [
    "--criterion",
    "self_kd",
    "--label-smoothing",
    "0.1",
    "--skd-alpha",
    "0.5",
    "--skd-warmup-updates",
    "0",
]


@pytest.mark.parametrize(
    "name, form",
    [
        *((name, form) for name in MODELS for form in (*SUPPORTS, "full, self, T 2")),
        *(("transformer tied", form) for form in FEW if form not in (*SUPPORTS, "full, self, T 2")),
    ],
)
def test_both_implementations_give_the_same_numbers(name, form, data):
    corpus, of_model = MODELS[name]
    results = []
    for implementation in ("fused", "reference"):
        setup = build(
            data[corpus](), *of_model, "--dropout", "0.2", *IMPLEMENTATION_FLAGS, *flags(FORMS[form]),
            "--skd-implementation", implementation, "--report-accuracy",
        )  # fmt: skip
        setup.model.double()
        setup.criterion.set_num_updates(7)
        torch.manual_seed(2)
        results.append(gradients(setup.model, setup.criterion, batches(setup)[0]))
    (loss, size, logged, grads), (loss_, size_, logged_, grads_) = results
    assert loss.item() == pytest.approx(loss_.item(), rel=1e-10)
    assert size == size_ and logged.keys() == logged_.keys()
    assert {k: float(v) for k, v in logged.items()} == pytest.approx(
        {k: float(v) for k, v in logged_.items()}, rel=1e-9
    )
    assert_close(grads, grads_, 1e-9)


@pytest.mark.parametrize("form", [*SUPPORTS, "full, self, T 2", "nearest, cosine, self, within, T 2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models(dtype, form, tiny_translation):
    """What --fp16 and --bf16 do to model and criterion; the loss is no farther from float32 than fairseq's way."""
    of_form = [*TINY_TRANSFORMER, *NO_DROPOUT, *IMPLEMENTATION_FLAGS, *flags(FORMS[form])]
    losses = {}
    for implementation, used in (("float32", None), ("fused", dtype), ("reference", dtype)):
        name = "fused" if used is None else implementation
        setup = build(tiny_translation, *of_form, "--skd-implementation", name)
        setup.model.to(used or torch.float32)
        setup.criterion.to(used or torch.float32)
        setup.criterion.set_num_updates(3)
        loss, *_, grads = gradients(setup.model, setup.criterion, batches(setup)[0])
        assert loss.dtype == torch.float32
        assert all(torch.isfinite(g).all() and g.dtype == (used or torch.float32) for g in grads.values())
        losses[implementation] = loss.item()
    errors = {name: abs(losses[name] / losses["float32"] - 1) for name in ("fused", "reference")}
    # The model's own rounding is in both; a last-bit difference in it is what the margin is for.
    assert errors["fused"] <= errors["reference"] + (2e-4 if dtype is torch.float16 else 2e-3)


@pytest.mark.parametrize("form", ["predicted", "full"])
def test_compute_loss_is_that_of_forward(form, tiny_translation):
    setup = build(tiny_translation, *TINY_TRANSFORMER, *NO_DROPOUT, *IMPLEMENTATION_FLAGS, *flags(FORMS[form]))
    sample = batches(setup)[0]
    setup.model.train()
    loss, nll_loss = setup.criterion.compute_loss(setup.model, setup.model(**sample["net_input"]), sample)
    forward_loss, _, logged = setup.criterion(setup.model, sample)
    assert loss.item() == pytest.approx(forward_loss.item(), rel=1e-6)
    assert nll_loss.item() == pytest.approx(logged["nll_loss"].item(), rel=1e-6)


def test_one_criterion_for_two_models_keeps_their_neighbours_apart(tiny_translation):
    of_model = [*TINY_TRANSFORMER, *NO_DROPOUT, *IMPLEMENTATION_FLAGS, *flags(FORMS["nearest"])]
    one, two = build(tiny_translation, *of_model), build(tiny_translation, *of_model)
    with torch.no_grad():
        two.model.decoder.output_projection.weight.normal_()
    sample = batches(one)[0]
    alone = [gradients(s.model, s.criterion, sample)[2]["skd_distance"].item() for s in (one, two)]
    shared = [gradients(s.model, one.criterion, sample)[2]["skd_distance"].item() for s in (one, two)]
    assert alone == shared


@pytest.mark.parametrize("waiting", [["--skd-warmup-updates", "10"], ["--skd-start-update", "10"]])
def test_a_loop_without_update_numbers_is_warned_once(waiting, tiny_translation, caplog):
    of_criterion = ["--criterion", "self_kd", "--skd-warmup-updates", "0", *waiting]
    setup = build(tiny_translation, *TINY_TRANSFORMER, *of_criterion)
    for _ in range(2):
        gradients(setup.model, setup.criterion, batches(setup)[0])
    assert sum("was not told the update number" in record.message for record in caplog.records) == 1


def test_wrapping_a_task_twice_changes_nothing(tiny_translation):
    setup = build(tiny_translation, *TINY_TRANSFORMER, "--criterion", "self_kd")
    wrapped = setup.task.train_step
    setup.task.build_criterion(setup.cfg.criterion)
    assert setup.task.train_step is wrapped


def test_logged_means(tiny_translation):
    from fairseq.logging import metrics

    setup = build(tiny_translation, *TINY_TRANSFORMER, "--criterion", "self_kd", "--report-accuracy")
    one = dict(ntokens=4, nsentences=1, sample_size=4, skd_ntokens=4, alpha=0.25, skd_num_batches=1, total=4)
    logs = [
        dict(one, loss=2.0, nll_loss=2.0, skd_loss=1.0, skd_target_prob=3.0, skd_distance=6.0, skd_num_pairs=3),
        dict(one, loss=4.0, nll_loss=4.0, skd_loss=2.0, skd_target_prob=3.0, skd_distance=2.0, skd_num_pairs=1),
    ]
    logs[0]["n_correct"], logs[1]["n_correct"] = 1, 2
    with metrics.aggregate() as aggregated:
        setup.criterion.reduce_metrics(logs)
    values = aggregated.get_smoothed_values()
    assert values["skd_loss"] == 0.541  # 3 / 8 nats in bits
    assert values["nll_loss"] == 1.082
    assert (values["skd_target_prob"], values["skd_distance"]) == (0.75, 2.0)
    assert (values["alpha"], values["accuracy"]) == (0.25, 37.5)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--skd-alpha", "1.5"], "self_kd: alpha must be in [0, 1], got 1.5"),
        (["--skd-alpha=-0.1"], "self_kd: alpha must be in [0, 1], got -0.1"),
        (["--skd-alpha", "nan"], "self_kd: alpha must be in [0, 1], got nan"),
        (["--skd-warmup-updates=-1"], "self_kd: warmup_updates must be at least 0, got -1"),
        (["--skd-start-update=-1"], "self_kd: start_update must be at least 0, got -1"),
        (["--skd-temperature", "0"], "self_kd: temperature must be above 0 and finite, got 0.0"),
        (["--skd-min-target-prob", "1.01"], "self_kd: min_target_prob must be in [0, 1], got 1.01"),
        (["--skd-support-size", "0"], "self_kd: support_size must be at least 1, got 0"),
        (["--skd-support-size", "9999"], "self_kd: support_size must be less than the vocabulary size 64, got 9999"),
        (["--skd-support", "nope"], f"self_kd: support must be one of {', '.join(SUPPORTS)}, got 'nope'"),
        (["--skd-similarity", "dot"], f"self_kd: similarity must be one of {', '.join(SIMILARITIES)}, got 'dot'"),
        (["--skd-teacher", "x"], "self_kd: teacher must be one of embedding, self, got 'x'"),
        (["--skd-normalise", "x"], "self_kd: normalise must be one of vocabulary, support, got 'x'"),
        (["--skd-control", "x"], f"self_kd: control must be one of {', '.join(CONTROLS)}, got 'x'"),
        (["--skd-gate", "x"], "self_kd: gate must be one of all, others, got 'x'"),
        (
            ["--skd-teacher", "embedding", "--skd-gate", "others"],
            "self_kd: gate others needs the teacher self, got teacher embedding",
        ),
        (["--skd-embedding-weight=-1"], "self_kd: embedding_weight must be in [0, 1000], got -1.0"),
        (
            ["--skd-student-temperature", "0", "--skd-support", "full"],
            "self_kd: student_temperature must be in [0.001, 1000], got 0.0",
        ),
        (
            ["--skd-teacher", "embedding", "--skd-student-temperature", "2"],
            "self_kd: a student_temperature other than 1 needs support full or normalise support, got 2.0 with "
            "support predicted and normalise vocabulary",
        ),
        (
            ["--skd-support", "full", "--skd-normalise", "support"],
            "self_kd: normalise support needs a support of some words, got support full, which is all of them",
        ),
        (["--skd-temperature-scale", "x"], "self_kd: temperature_scale must be one of relative, absolute, got 'x'"),
        (["--label-smoothing", "1"], "self_kd: label_smoothing must be in [0, 1), got 1.0"),
    ],
)
def test_bad_options_end_with_one_line(flags, message, tiny_translation):
    with pytest.raises(SystemExit) as error:
        build(tiny_translation, *TINY_TRANSFORMER, "--criterion", "self_kd", *flags)
    assert str(error.value) == message


def test_constructor_raises_value_error(tiny_translation):
    setup = build(tiny_translation, *TINY_TRANSFORMER, "--criterion", "self_kd")
    setup.cfg.criterion.skd_alpha = 2.0
    with pytest.raises(ValueError, match="alpha must be in"):
        type(setup.criterion)(setup.cfg.criterion, setup.task)


def test_every_option_is_in_the_documentation_with_its_default(root):
    """Those of the soft targets, whose default follows from the teacher, are in ``tests/core/test_forms.py``, too."""
    documented = (root / "docs" / "options.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `--(skd-[a-z-]+)` \| `?([\w.]+)`? \|", documented, re.MULTILINE))
    fields = {field.name.replace("_", "-"): field for field in dataclasses.fields(SelfKDCriterionConfig)}
    assert set(rows) == {name for name in fields if name.startswith("skd-")}
    for name, default in rows.items():
        assert fields[name].default is None or default == str(fields[name].default), name
