"""The second pass of the model, in every mode: what it sees, what it leaves behind, and how both are trained."""

import copy

import pytest
import torch
from fairseq.distributed import ModuleProxyWrapper
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from selfkd_fairseq.criterions import self_kd
from selfkd_fairseq.criterions.output_embedding import UnsupportedModelError
from selfkd_fairseq.criterions.teacher_pass import TEACHER_MODES, teacher_pass
from tests.core.forms import FORMS, flags
from tests.criterions.by_definition import logits_without_dropout
from tests.criterions.test_self_kd import (
    MODELS,
    SIZES,
    TRAINED,
    check_update_against_the_definition,
    gradients,
    trainer_in_float64,
)
from tests.fairseq_setup import TINY_TRANSFORMER, batches, build
from tests.language_model import TASK, TINY_AWD, TINY_ZAREMBA

SELF = [*TRAINED, "--skd-teacher", "self", "--skd-teacher-mode", "eval", "--skd-alpha", "0.4"]
WITHOUT_REGULARISATION = ["--activation-regularization", "0", "--temporal-activation-regularization", "0"]
STREAMS = {
    "zaremba": [*TINY_ZAREMBA, "--dropout", "0.3"],
    "awd tied": [*TINY_AWD, *WITHOUT_REGULARISATION],
    "awd untied": [*TINY_AWD, *WITHOUT_REGULARISATION, "--no-share-decoder-input-output-embed"],
}
CPU = torch.device("cpu")
OF_COSINE = FORMS["full, cosine, self"]
CONTROLS = {f"full, cosine, self, {name}": {**OF_COSINE, "control": name} for name in ("shuffled_rows", "uniform")}


def windows(setup):
    """The windows of an epoch, in order."""
    iterator = setup.task.get_batch_iterator(
        setup.task.dataset("train"), max_sentences=setup.cfg.dataset.batch_size
    ).next_epoch_itr(shuffle=False)
    return list(iterator)


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


def states(decoder):
    """Copies of the states of the training and of the evaluation, None where there is none."""
    carried = {training: decoder._carried.get(training) for training in (True, False)}
    return {key: None if state is None else [part.clone() for part in state] for key, state in carried.items()}


def same_states(one, two):
    return all(
        (one[key] is None and two[key] is None) or all(map(torch.equal, one[key], two[key])) for key in (True, False)
    )


# --------------------------------------------------------------------------------------------- nothing is left behind


def test_every_module_is_in_its_own_mode_again(tiny_translation):
    """One that is frozen in evaluation mode, too; and within the pass all are in evaluation mode."""
    model = build(tiny_translation, *TINY_TRANSFORMER, *SELF).model.train()
    sample = batches(build(tiny_translation, *TINY_TRANSFORMER, *SELF))[0]
    model.encoder.layers[0].eval()
    before, within = modes(model), []
    assert len(set(before.values())) == 2
    model.decoder.layers[0].register_forward_hook(lambda *_: within.append((modes(model), torch.is_grad_enabled())))
    output = teacher_pass(model, sample["net_input"], CPU, "eval")
    assert modes(model) == before
    assert within == [(dict.fromkeys(before, False), False)] and not output[0].requires_grad


def test_a_pass_that_fails_leaves_the_modes_and_the_carried_state_as_they_were(tiny_language_model):
    setup = build(tiny_language_model, *TASK, *TINY_ZAREMBA, *SELF)
    model, (first, second, *_) = setup.model.train(), windows(setup)
    model(**first["net_input"])
    before, carried = modes(model), states(model.decoder)

    def fail(*_):
        raise RuntimeError("no memory")

    handle = model.decoder.output_projection.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no memory"):
        teacher_pass(model, second["net_input"], CPU, "eval")
    handle.remove()
    assert modes(model) == before and same_states(states(model.decoder), carried)


@pytest.mark.parametrize("extra", [[], ["--encoder-layerdrop", "0.5", "--decoder-layerdrop", "0.5"]])
def test_it_draws_nothing_and_depends_on_no_draw(extra, tiny_translation):
    """fairseq draws which layers to drop in evaluation, too, and then drops none."""
    setup = build(tiny_translation, *TINY_TRANSFORMER, "--dropout", "0.3", *SELF, *extra)
    model, sample = setup.model.train(), batches(setup)[0]
    outputs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        outputs.append(teacher_pass(model, sample["net_input"], CPU, "eval")[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], copy.deepcopy(model).eval()(**sample["net_input"])[0])


def test_in_training_mode_it_has_dropout_of_its_own(tiny_translation):
    """Modes stay as they are, no gradient flows, and each pass draws anew; without dropout it is the other mode."""
    setup = build(tiny_translation, *TINY_TRANSFORMER, "--dropout", "0.3", *SELF)
    model, sample = setup.model.train(), batches(setup)[0]
    before, within = modes(model), []
    model.decoder.layers[0].register_forward_hook(lambda *_: within.append(modes(model)))
    one, two = (teacher_pass(model, sample["net_input"], CPU, "train")[0] for _ in "12")
    assert within == [before, before] and modes(model) == before
    assert not one.requires_grad and not torch.allclose(one, two)
    plain = build(tiny_translation, *TINY_TRANSFORMER, "--dropout", "0", *SELF).model.train()
    passes = [teacher_pass(plain, sample["net_input"], CPU, mode)[0] for mode in ("train", "eval")]
    assert torch.allclose(*passes, atol=1e-6)


@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_the_mode_reaches_the_pass(implementation, tiny_translation, monkeypatch):
    seen = []

    def recording(model, net_input, device, mode):
        seen.append((model.training, mode))
        return teacher_pass(model, net_input, device, mode)

    monkeypatch.setattr(self_kd, "teacher_pass", recording)
    for mode in TEACHER_MODES:
        setup = build(tiny_translation, *TINY_TRANSFORMER, *SELF, "--skd-teacher-mode", mode, "--skd-implementation",
                      implementation)  # fmt: skip
        setup.criterion(setup.model.train(), batches(setup)[0])
        setup.criterion(setup.model.eval(), batches(setup)[0])  # has no dropout: no second pass
    assert seen == [(True, mode) for mode in TEACHER_MODES]


def test_an_unknown_mode_is_refused(tiny_translation):
    with pytest.raises(SystemExit, match="^self_kd: teacher_mode must be one of eval, train, both, got 'asleep'$"):
        build(tiny_translation, *TINY_TRANSFORMER, *SELF, "--skd-teacher-mode", "asleep")


@pytest.mark.parametrize(
    "flags_of_model, mode",
    [
        (STREAMS["zaremba"], "eval"),
        (STREAMS["awd tied"], "eval"),
        ([*TINY_ZAREMBA, "--dropout", "0"], "train"),
        ([*TINY_ZAREMBA, "--dropout", "0"], "both"),
    ],
)
def test_the_states_of_training_and_validation_are_those_of_a_run_without_it(flags_of_model, mode, tiny_language_model):
    """After each window of the training, and after a validation in its midst."""
    seen = []
    for teacher in ("embedding", "self"):
        flags_of_teacher = ["--skd-teacher", teacher, "--skd-teacher-mode", mode]
        setup = build(tiny_language_model, *TASK, *flags_of_model, *TRAINED, *flags_of_teacher)
        model, criterion, found = setup.model.train(), setup.criterion, []
        for number, sample in enumerate(windows(setup)[:6]):
            torch.manual_seed(number)
            gradients(model, criterion, sample)  # no step is made, so both trainings are the same
            found.append(states(model.decoder))
            if number in (2, 3):
                model.eval()
                criterion(model, windows(setup)[number - 2])
                model.train()
                found.append(states(model.decoder))
        seen.append(found)
    assert all(map(same_states, *seen)) and len(seen[0]) == 8
    assert not same_states(seen[0][0], seen[0][1]) and seen[0][-1][False] is not None


class Optimizer:
    """As much of one as a task needs."""

    def backward(self, loss):
        loss.backward()


@pytest.mark.parametrize("form", ["predicted", "predicted, self", "full, self, T 2"])
def test_the_regularisation_of_activations_is_counted_once(form, tiny_language_model):
    """AR and TAR are of the pass with dropout: the same numbers whoever the teacher is."""
    setup = build(tiny_language_model, *TASK, *TINY_AWD, *TRAINED, *flags(FORMS[form]))
    plain = build(tiny_language_model, *TASK, *TINY_AWD, "--criterion", "label_smoothed_cross_entropy")
    logged = []
    for one in (setup, plain):
        one.task.begin_epoch(1, setup.model)
        recorded = []
        for sample in windows(setup)[:3]:
            torch.manual_seed(3)
            setup.model.zero_grad()
            recorded.append(one.task.train_step(sample, setup.model, one.criterion, Optimizer(), 0)[2])
        logged.append([float(log["activation_loss"]) for log in recorded])
    assert logged[0] == pytest.approx(logged[1], rel=1e-6) and min(logged[0]) > 0


# ------------------------------------------------------------------------------------------------------- what it sees


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_it_goes_on_from_the_state_of_the_training(name, implementation, tiny_language_model, monkeypatch):
    """z0 of every window is that of an evaluation pass by hand from the state that the window's own pass has."""
    setup = build(
        tiny_language_model, *TASK, *STREAMS[name], *SELF, "--skd-implementation", implementation
    )  # fmt: skip
    model, outputs = setup.model.double().train(), []

    def recording(*arguments):
        outputs.append(teacher_pass(*arguments)[0])
        return outputs[-1:]

    monkeypatch.setattr(self_kd, "teacher_pass", recording)
    found = []
    for number, sample in enumerate(windows(setup)[:4]):
        with torch.no_grad():
            found.append(logits_without_dropout(model, sample["net_input"]))
        assert sample["net_input"]["starts_stream"] == (number == 0)
        gradients(model, setup.criterion, sample)
        output = outputs[number]
        if implementation == "fused":  # features
            output = model.decoder.output_projection(output)
        assert torch.allclose(output, found[number], rtol=0, atol=1e-14), number
    # The state matters: a window from zeros would have said another thing.
    model.decoder.set_carried_state(None)
    assert not torch.allclose(logits_without_dropout(model, sample["net_input"]), found[-1], atol=1e-6)


@pytest.mark.parametrize("name", ["transformer tied", "transformer untied", "lstm with bias", "lstm_lm tied"])
@pytest.mark.parametrize("form", ["predicted, self", "full, cosine, self", *CONTROLS, "full, self, T 2"])
@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_each_of_two_passes_is_trained_with_the_other_as_its_teacher(name, form, implementation, request):
    """By the definition, in float64, with dropout and --update-freq 2: half the loss and the gradients of both."""
    corpus, of_model = MODELS[name]
    data = request.getfixturevalue("tiny_translation" if corpus == "translation" else "tiny_language_model")
    options = {**{**FORMS, **CONTROLS}[form], **SIZES}
    setup = build(
        data, *of_model, "--dropout", "0.2", *TRAINED, "--skd-alpha", "0.4", *flags(options), "--skd-teacher-mode",
        "both", "--update-freq", "2", "--lr", "1", "--skd-implementation", implementation,
    )  # fmt: skip
    samples = batches(setup)[:2]
    trainer = trainer_in_float64(setup, samples)
    for num_updates in range(2):
        check_update_against_the_definition(setup, trainer, samples, options, 0.4, num_updates)


def test_both_passes_give_losses_token_by_token(tiny_translation):
    """As fairseq's validation asks for them with reduce=False: (B * T,), whose sum is the loss."""
    setup = build(tiny_translation, *TINY_TRANSFORMER, "--dropout", "0.3", *SELF, "--skd-teacher-mode", "both")
    setup.criterion.set_num_updates(0)
    model, sample = setup.model.train(), batches(setup)[0]
    losses = []
    for reduce in (True, False):
        torch.manual_seed(1)
        losses.append(setup.criterion(model, sample, reduce=reduce)[0])
    assert losses[1].shape == (sample["target"].numel(),)
    assert losses[1].sum().item() == pytest.approx(losses[0].item(), rel=1e-5)


@pytest.fixture
def one_worker():
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "of_model, find_unused, refused",
    [
        ([], False, None),
        ([], True, None),
        (["--checkpoint-activations"], False, "with --checkpoint-activations under"),
        (["--decoder-layerdrop", "0.5"], True, "with LayerDrop and --find-unused-parameters under"),
    ],
)
@pytest.mark.usefixtures("one_worker")
def test_what_pytorch_ddp_cannot_train_twice_is_refused(of_model, find_unused, refused, tiny_translation, monkeypatch):
    """In one line, and only that, and for a reason: without the check it fails in torch."""
    flags_of_both = [*SELF, "--skd-teacher-mode", "both", "--skd-warmup-updates", "0", "--skd-start-update", "10"]
    setup = build(tiny_translation, *TINY_TRANSFORMER, "--dropout", "0.3", *flags_of_both, *of_model)
    sample, model = batches(setup)[0], setup.model.train()
    # The encoder layers of fairseq 0.12.2 hold second copies of their weights, which training does not use.
    find_unused = find_unused or any(name.endswith("in_proj_weight") for name, _ in model.named_parameters())

    def train(parallel):
        wrapped = ModuleProxyWrapper(DistributedDataParallel(model, find_unused_parameters=find_unused))
        for seed in range(4):  # LayerDrop drops other layers each time
            torch.manual_seed(seed)
            setup.criterion(wrapped if parallel else model, sample)[0].backward()

    if refused is not None:
        with pytest.raises(UnsupportedModelError, match=f"^self_kd cannot train both passes .* {refused} .*legacy_ddp"):
            train(parallel=True)  # before the update at which the second pass begins
        setup.criterion.set_num_updates(10)
        train(parallel=False)
        monkeypatch.setattr(self_kd, "check_can_train_passes", lambda *_: None)
        with pytest.raises(RuntimeError, match="ready only once"):
            train(parallel=True)
        setup.criterion.teacher_mode = "train"
    for num_updates in (0, 10):
        setup.criterion.set_num_updates(num_updates)
        train(parallel=True)


@pytest.mark.parametrize("start", ["0", "10"])
@pytest.mark.parametrize("mode", TEACHER_MODES)
def test_a_second_pass_of_another_input_than_the_first_is_refused(mode, start, tiny_translation):
    """compute_loss is called with the output of a pass whose input may be another: translation_moe replaces a token."""
    setup = build(tiny_translation, *TINY_TRANSFORMER, *SELF, "--skd-teacher-mode", mode, "--skd-start-update", start)
    model, sample = setup.model.train(), batches(setup)[0]
    output = model(**sample["net_input"])
    with pytest.raises(
        UnsupportedModelError, match="^self_kd: compute_loss .* call the criterion itself, or give --skd"
    ):
        setup.criterion.compute_loss(model, output, sample)
    setup.criterion.compute_loss(model.eval(), output, sample)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("form", ["predicted, self", "full, self, T 2", "nearest, cosine, self, within, T 2"])
def test_language_models_that_carry_their_state_equal_the_definition(name, form, tiny_language_model):
    """Three updates of two windows each, in float64: losses, statistics and gradients."""
    options = {**FORMS[form], **SIZES}
    setup = build(
        tiny_language_model, *TASK, *STREAMS[name], *TRAINED, "--skd-alpha", "0.4", *flags(options), "--update-freq",
        "2", "--skd-refresh-updates", "1", "--lr", "1",
    )  # fmt: skip
    samples = windows(setup)
    trainer = trainer_in_float64(setup, samples)
    trainer.begin_epoch(1)
    for number in range(3):
        check_update_against_the_definition(
            setup, trainer, samples[2 * number : 2 * number + 2], options, 0.4, num_updates=number
        )


# ----------------------------------------------------------------------------------------------------------- autocast


@pytest.mark.parametrize("name", [*MODELS, *STREAMS])
@pytest.mark.parametrize(
    "form, mode", [("predicted, self", "eval"), ("full, self, T 2", "eval"), ("full, cosine, self", "both")]
)
def test_no_gradient_is_lost_under_autocast(name, form, mode, request):
    """autocast remembers what it has cast: casts made without a gradient must not serve the pass with gradients.

    In older versions of torch they would, and the model would train its biases and norms alone.
    """
    corpus, of_model = MODELS.get(name, ("lm", [*TASK, *STREAMS.get(name, [])]))
    data = request.getfixturevalue("tiny_translation" if corpus == "translation" else "tiny_language_model")
    setup = build(data, *of_model, *TRAINED, "--skd-alpha", "0.5", *flags(FORMS[form]), "--skd-teacher-mode", mode)
    sample = windows(setup)[0] if name in STREAMS else batches(setup)[0]
    setup.criterion.set_num_updates(0)
    results = []
    for enabled in (False, True):
        torch.manual_seed(4)
        setup.model.zero_grad()
        setup.model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss, *_ = setup.criterion(setup.model, sample)
        loss.backward()
        results.append({name: p.grad.clone() for name, p in setup.model.named_parameters() if p.grad is not None})
    exact, low = results
    assert exact.keys() == low.keys()
    largest = max(float(gradient.norm()) for gradient in exact.values())
    for parameter, gradient in exact.items():
        if float(gradient.norm()) > 1e-3 * largest:
            difference = float((low[parameter] - gradient).norm() / gradient.norm())
            assert difference < 0.3, (parameter, difference)


def test_autocast_of_the_training_is_that_of_the_teacher(tiny_translation):
    setup = build(tiny_translation, *TINY_TRANSFORMER, *SELF)
    model, sample = setup.model.train(), batches(setup)[0]
    exact = teacher_pass(model, sample["net_input"], CPU, "eval")[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = teacher_pass(model, sample["net_input"], CPU, "eval")[0]
        assert torch.is_autocast_cpu_enabled() and torch.is_autocast_cache_enabled()
    assert low.dtype == torch.bfloat16 and exact.dtype == torch.float32
    assert torch.allclose(low.float(), exact, atol=0.1)


def test_the_model_itself_is_called_and_not_what_wraps_it(tiny_translation):
    """Nothing is sent between the workers of a data-parallel training for it."""
    setup = build(tiny_translation, *TINY_TRANSFORMER, *SELF)
    sample = batches(setup)[0]

    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *arguments, **more):
            raise AssertionError("the wrapper was called")

    output = teacher_pass(Wrapper(setup.model), sample["net_input"], CPU, "eval")[0]
    assert torch.equal(output, copy.deepcopy(setup.model).eval()(**sample["net_input"])[0])
