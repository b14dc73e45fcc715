"""NT-ASGD against its definition in numpy, and through fairseq-train."""

import copy
import io
import json
import logging
import math
from argparse import Namespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, optim
from fairseq.logging import metrics
from fairseq.optim.sgd import SGD

from selfkd_fairseq.optim.nt_asgd import NTASGD, FairseqNTASGD, NTASGDConfig, averaging_optimizer
from tests.fairseq_setup import ROOT, build, fairseq_settings
from tests.models.test_awd_lstm_lm import forward_by_hand

# -------------------------------------------------------------------------------------------------------------- trigger


def trigger_by_hand(values, n):
    """Index of the validation that starts the average, in the words of the authors' code; None: none does."""
    history = []
    for index, value in enumerate(values):
        if len(history) > n and value > min(history[:-n]):
            return index
        history.append(value)
    return None


def small_optimizer(n=1, **keywords):
    return NTASGD([torch.nn.Parameter(torch.zeros(2))], nonmonotone=n, lr=0.1, **keywords)


def triggered_at(values, n):
    optimizer, found = small_optimizer(n), None
    for index, value in enumerate(values):
        optimizer.record_validation(value)
        if found is None and optimizer.averaged_points > 0:
            found = index
    assert optimizer.validations == list(values)
    assert optimizer.averaged_points == (0 if found is None else 1)
    return found


@pytest.mark.parametrize(
    "values, n, index",
    [
        ([5, 4, 3, 2, 1], 1, None),  # better each time
        ([5, 6], 1, None),  # the only earlier one is among the last n
        ([5, 6, 6], 1, 2),  # worse than 5
        ([5, 6, 5], 1, None),  # as good is not worse
        ([5, 4, 4.5], 1, None),  # worse than the last, better than all before it
        ([5, 4, 4.5, 4.5], 1, 3),
        ([3, 2, 2.5, 2.6, 2.7], 2, 4),
        ([3, 2, 2.5, 2.6, 2.7], 3, None),
        ([1, 2, 2, 2, 2], 5, None),
        ([1, 2, 2, 2, 2, 2], 5, None),  # the sixth sees five before it, which are the last five
        ([1, 2, 2, 2, 2, 2, 2], 5, 6),
        ([3, float("nan"), float("nan"), 4], 1, 3),
        ([], 1, None),
    ],
)
def test_trigger_on_paper(values, n, index):
    assert trigger_by_hand(values, n) == index
    assert triggered_at(values, n) == index


def test_trigger_over_random_histories():
    random = np.random.default_rng(0)
    found = []
    for _ in range(200):
        n = int(random.integers(1, 7))
        values = (10 * 0.8 ** np.arange(15) + random.normal(0, 1, 15)).round(1).tolist()  # with ties
        found.append(triggered_at(values, n))
        assert found[-1] == trigger_by_hand(values, n)
    assert len(set(found)) > 8


# -------------------------------------------------------------------------------------------------------------- average

SHAPES = [(3, 2), (4,)]
SETTINGS = dict(momentum=0.7, weight_decay=0.05)
RATES = [0.3, 0.2]  # of the two parameter groups


def new_run(seed=0, n=1, **settings):
    generator = torch.Generator().manual_seed(seed)
    parameters = [torch.nn.Parameter(torch.randn(s, dtype=torch.float64, generator=generator)) for s in SHAPES]
    groups = [{"params": [parameter], "lr": lr} for parameter, lr in zip(parameters, RATES)]
    return parameters, NTASGD(groups, nonmonotone=n, lr=1.0, **{**SETTINGS, **settings})


def gradients(step):
    random = np.random.default_rng(step)
    return [random.normal(size=shape) for shape in SHAPES]


def one_step(parameters, optimizer, step):
    optimizer.zero_grad()
    for parameter, gradient in zip(parameters, gradients(step)):
        parameter.grad = torch.from_numpy(gradient.copy())
    optimizer.step()


def values_of(parameters):
    return [parameter.detach().numpy().copy() for parameter in parameters]


def sgd_by_hand(start, steps, momentum, weight_decay):
    """The weights at the start and after each of the steps, in numpy."""
    weights, momenta = [w.copy() for w in start], [None for _ in start]
    points = [[w.copy() for w in weights]]
    for step in range(steps):
        for i, gradient in enumerate(gradients(step)):
            decayed = gradient + weight_decay * weights[i]
            momenta[i] = decayed if momenta[i] is None else momentum * momenta[i] + decayed
            weights[i] = weights[i] - RATES[i] * momenta[i]
        points.append([w.copy() for w in weights])
    return points


def assert_values(parameters, expected):
    for parameter, values in zip(parameters, expected):
        assert np.allclose(parameter.detach().numpy(), values, rtol=0, atol=1e-13)


@pytest.mark.parametrize("settings", [{"momentum": 0.0, "weight_decay": 0.0}, SETTINGS])
def test_average_by_hand(settings):
    parameters, optimizer = new_run(**settings)
    points = sgd_by_hand(values_of(parameters), 10, **settings)
    history = [3.0, 2.0, 2.5, 2.6, 9.0]  # n = 1: the fourth is worse than the second; the fifth changes nothing more
    for step in range(10):
        one_step(parameters, optimizer, step)
        assert_values(parameters, points[step + 1])  # training goes on from the plain weights
        if step % 2 == 0:
            optimizer.use_average()
            optimizer.record_validation(history[step // 2])
        assert optimizer.averaged_points == max(0, step - 5)
        # The trigger came after 7 updates (step 6): the mean of the points 7, 8, ...
        optimizer.use_average()
        mean = points[step + 1] if step < 6 else [np.mean(p, axis=0) for p in zip(*points[7 : step + 2])]
        assert_values(parameters, mean)
    assert not np.allclose(mean[0], points[-1][0])


def triggered(steps_before=3, steps_after=4, **settings):
    parameters, optimizer = new_run(**settings)
    for step in range(steps_before):
        one_step(parameters, optimizer, step)
    for value in (1.0, 2.0, 3.0):
        optimizer.record_validation(value)
    assert optimizer.averaged_points == 1
    for step in range(steps_before, steps_before + steps_after):
        one_step(parameters, optimizer, step)
    return parameters, optimizer


def test_average_in_and_out():
    parameters, optimizer = triggered()
    plain = values_of(parameters)
    optimizer.use_plain()  # nothing to put back
    assert_values(parameters, plain)
    optimizer.use_average()
    average = values_of(parameters)
    assert all(np.abs(a - p).max() > 1e-3 for a, p in zip(average, plain))
    optimizer.use_average()  # once more changes nothing, and forgets nothing
    assert all((p.detach().numpy() == a).all() for p, a in zip(parameters, average))
    optimizer.use_plain()
    assert all((p.detach().numpy() == a).all() for p, a in zip(parameters, plain))
    optimizer.consolidate_state_dict()  # what fairseq calls before a checkpoint
    assert all((p.detach().numpy() == a).all() for p, a in zip(parameters, average))
    optimizer.zero_grad()
    assert all((p.detach().numpy() == a).all() for p, a in zip(parameters, plain))
    assert all(p.grad is None for p in parameters)
    assert optimizer.averaged_points == 5  # none of this is a step


def test_there_is_nothing_to_swap_before_the_trigger():
    parameters, optimizer = new_run()
    one_step(parameters, optimizer, 0)
    before = values_of(parameters)
    for method in (optimizer.use_average, optimizer.use_plain, optimizer.consolidate_state_dict):
        method()
        assert all((p.detach().numpy() == a).all() for p, a in zip(parameters, before))
    assert {key for state in optimizer.state_dict()["state"].values() for key in state} == {"momentum_buffer"}


def test_a_step_without_zero_grad_goes_on_from_the_plain_weights_too():
    parameters, optimizer = triggered()
    twin, twin_optimizer = triggered()
    optimizer.use_average()
    for run, run_optimizer in ((parameters, optimizer), (twin, twin_optimizer)):
        for parameter, gradient in zip(run, gradients(7)):
            parameter.grad = torch.from_numpy(gradient)
        run_optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(parameters, twin))


def test_a_closure_sees_the_plain_weights():
    parameters, optimizer = triggered()
    plain = values_of(parameters)
    optimizer.use_average()
    seen = []

    def closure():
        seen.extend(values_of(parameters))
        loss = sum(parameter.pow(2).sum() for parameter in parameters)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert all((s == p).all() for s, p in zip(seen, plain))
    assert loss.item() == pytest.approx(sum((p**2).sum() for p in plain))


def test_a_parameter_without_gradient_is_averaged_as_it_is():
    parameters, optimizer = triggered(steps_after=0)
    fixed = values_of(parameters)[1]
    for step in range(3):
        optimizer.zero_grad()
        parameters[0].grad = torch.from_numpy(gradients(step)[0])
        optimizer.step()
    optimizer.use_average()
    assert (parameters[1].detach().numpy() == fixed).all()


@pytest.mark.parametrize("settings", [{"momentum": 0.0, "weight_decay": 0.0}, SETTINGS])
def test_without_a_trigger_it_is_torchs_sgd_bit_for_bit(settings):
    parameters, optimizer = new_run(**settings)
    stock = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    sgd = torch.optim.SGD([{"params": [p], "lr": lr} for p, lr in zip(stock, RATES)], lr=1.0, **settings)
    for step in range(5):
        one_step(parameters, optimizer, step)
        one_step(stock, sgd, step)
        optimizer.record_validation(10.0 - step)
    assert all(torch.equal(p, q) for p, q in zip(parameters, stock))


@pytest.mark.parametrize("n", [0, -1])
def test_nonmonotone_below_one_is_refused(n):
    with pytest.raises(ValueError, match=f"^--nonmonotone must be at least 1, not {n}$"):
        small_optimizer(n)
    with pytest.raises(SystemExit) as error:
        FairseqNTASGD(NTASGDConfig(nonmonotone=n, lr=[0.1]), [torch.nn.Parameter(torch.zeros(2))])
    assert str(error.value) == f"nt_asgd: --nonmonotone must be at least 1, not {n}"


# ----------------------------------------------------------------------------------------------------------- state dict

STAGES = ["fresh", "before the trigger", "at the trigger", "after the trigger", "with the average swapped in"]


def run_until(stage):
    if stage == "fresh":
        return new_run()
    if stage == "before the trigger":
        parameters, optimizer = new_run()
        for step in range(3):
            one_step(parameters, optimizer, step)
        for value in (1.0, 2.0):
            optimizer.record_validation(value)
        return parameters, optimizer
    parameters, optimizer = triggered(steps_after=0 if stage == "at the trigger" else 4)
    if stage == "with the average swapped in":
        optimizer.use_average()
    return parameters, optimizer


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_from_a_state_dict_is_the_same_run(stage):
    parameters, optimizer = run_until(stage)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "model": [p.detach() for p in parameters]}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other_parameters, other = new_run(seed=9)
    with torch.no_grad():
        for parameter, value in zip(other_parameters, saved["model"]):
            parameter.copy_(value)
    other.load_state_dict(saved["optimizer"])
    assert other.validations == optimizer.validations
    assert other.averaged_points == optimizer.averaged_points

    values = [3.0, 1.5, 2.5, 0.5, 4.0]
    for step, value in enumerate(values, start=20):
        for run, run_optimizer in ((parameters, optimizer), (other_parameters, other)):
            one_step(run, run_optimizer, step)
            run_optimizer.use_average()
            run_optimizer.record_validation(value)
        assert all(torch.equal(p, q) for p, q in zip(parameters, other_parameters))
        assert other.averaged_points == optimizer.averaged_points
    assert optimizer.averaged_points > 0  # at the latest on the way
    for run_optimizer in (optimizer, other):
        run_optimizer.use_plain()
    assert all(torch.equal(p, q) for p, q in zip(parameters, other_parameters))
    assert other.validations == optimizer.validations
    assert other.validations[-5:] == values


def test_a_saved_state_dict_knows_the_plain_weights_and_the_average():
    parameters, optimizer = triggered()
    plain = values_of(parameters)
    optimizer.consolidate_state_dict()
    saved = optimizer.state_dict()
    for i, parameter in enumerate(parameters):
        assert (saved["state"][i]["plain"].numpy() == plain[i]).all()
        assert torch.equal(saved["state"][i]["average"], parameter)
    assert saved["param_groups"][0]["validations"] == [1.0, 2.0, 3.0]
    assert saved["param_groups"][0]["averaged_points"] == 5


# ------------------------------------------------------------------------------------------------------ half precision


def fairseq_optimizer(dtype=torch.float32, value=0.0):
    return FairseqNTASGD(NTASGDConfig(lr=[0.1]), [torch.nn.Parameter(torch.full((2,), value, dtype=dtype))])


class FP16Stub(optim.FP16Optimizer):
    """What --fp16 and --bf16 wrap an optimizer in, without what needs a GPU."""

    def __init__(self, inner):
        self.fp32_optimizer = inner


class AMPStub(optim.AMPOptimizer):
    """What --amp wraps an optimizer in, with the gradient scaler of the CPU."""

    def __init__(self, inner):
        self.fp32_optimizer = inner
        self._grad_scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
        self.min_loss_scale = 1e-4


@pytest.mark.parametrize("wrapper", ["FP16Stub", "AMPStub"])
def test_half_precision_is_refused_with_one_line(wrapper):
    """Also --amp: fairseq's AMPOptimizer divides the gradient of a step by the loss scale twice."""
    wrapped = globals()[wrapper](fairseq_optimizer())
    assert isinstance(wrapped.optimizer, NTASGD)
    with pytest.raises(SystemExit) as error:
        averaging_optimizer(wrapped)
    assert str(error.value) == "nt_asgd trains and averages float32 weights: leave out --fp16, --bf16 and --amp"


def test_memory_efficient_half_precision_is_refused_by_fairseq():
    cfg = Namespace(optimizer=NTASGDConfig(lr=[0.1]))
    with pytest.raises(ValueError, match="Unsupported optimizer: FairseqNTASGD"):
        optim.MemoryEfficientFP16Optimizer(cfg, [], fairseq_optimizer(torch.float16))


def test_averaging_optimizer_finds_it_where_it_is():
    ours, parameters = fairseq_optimizer(), [torch.nn.Parameter(torch.zeros(2))]
    assert averaging_optimizer(ours) is ours.optimizer
    sgd = SGD(Namespace(lr=[0.1], momentum=0.0, weight_decay=0.0), parameters)
    assert averaging_optimizer(sgd) is None
    assert averaging_optimizer(FP16Stub(sgd)) is None


# ------------------------------------------------------------------------------------------------------ through fairseq

MODEL = (
    "--task bptt_language_modeling --arch awd_lstm_ptb --decoder-embed-dim 8 --decoder-hidden-size 10 "
    "--decoder-layers 2 --tokens-per-sample 35"
).split()
TRAIN = (
    "--batch-size 4 --batch-size-valid 1 --clip-norm 0.25 --lr 20 --weight-decay 1e-4 --momentum 0.5 --seed 3 --cpu "
    "--distributed-world-size 1 --no-epoch-checkpoints --no-progress-bar --log-format json "
    "--validate-interval-updates 3 --num-workers 0"
).split()
NTASGD_FLAGS = ["--optimizer", "nt_asgd", "--nonmonotone", "1"]
EPOCH, END = 10, 23  # updates
VALIDATED = [3, 6, 9, 10, 12, 15, 18, 20, 21, 23]  # every third update, the end of an epoch, the end


class Run(NamedTuple):
    """What a run leaves behind."""

    checkpoint: dict
    ppl: list  # as logged after each validation
    points: list  # weights after each update

    @property
    def optimizer_group(self):
        return self.checkpoint["last_optimizer_state"]["param_groups"][0]


class Records(logging.Handler):
    def __init__(self):
        super().__init__(logging.INFO)
        self.records = []

    def emit(self, record):
        self.records.append(record)


def train(data, save_dir, *flags, max_update=END):
    """``fairseq-train`` in this process, from its parser to its last checkpoint."""
    from fairseq_cli.train import main

    arguments = [
        str(data), "--user-dir", str(ROOT / "selfkd_fairseq"), "--save-dir", str(save_dir), *MODEL, *TRAIN, *flags,
        "--max-update", str(max_update),
    ]  # fmt: skip
    cfg = fairseq_settings(*arguments)
    points, step = [], torch.optim.SGD.step

    def recorded_step(self, *arguments, **keywords):
        result = step(self, *arguments, **keywords)
        points.append([p.detach().clone() for group in self.param_groups for p in group["params"]])
        return result

    handler, root = Records(), logging.getLogger()
    level, kept_by_fairseq = root.level, vars(checkpoint_utils.save_checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", recorded_step)
        kept_by_fairseq.pop("best", None)
        root.setLevel(logging.INFO)
        root.addHandler(handler)
        try:
            main(cfg)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            kept_by_fairseq.pop("best", None)
            metrics.reset()
    ppl = [float(json.loads(r.getMessage())["valid_ppl"]) for r in handler.records if r.name == "valid"]
    return Run(torch.load(save_dir / "checkpoint_last.pt", weights_only=False), ppl, points)


@pytest.fixture(scope="module")
def straight(tiny_language_model, tmp_path_factory):
    return train(tiny_language_model, tmp_path_factory.mktemp("straight"), *NTASGD_FLAGS)


@pytest.fixture(scope="module")
def stock_sgd(tiny_language_model, tmp_path_factory):
    return train(tiny_language_model, tmp_path_factory.mktemp("sgd"), "--optimizer", "sgd")


def names_of(checkpoint):
    """Names of the parameters in the order of the optimizer; the tied output matrix is the embedding."""
    assert torch.equal(*(checkpoint["model"][f"decoder.{m}.weight"] for m in ("embed_tokens", "output_projection")))
    return [name for name in checkpoint["model"] if name != "decoder.output_projection.weight"]


def triggering_update(run):
    return VALIDATED[trigger_by_hand(run.ppl, 1)]


def test_the_trigger_fires_as_the_logged_perplexities_say(straight):
    assert len(straight.points) == END and len(straight.ppl) == len(VALIDATED)
    assert straight.optimizer_group["validations"] == straight.ppl
    update = triggering_update(straight)
    assert 6 < update < 15  # so that there is something before and after
    assert straight.optimizer_group["averaged_points"] == END - update + 1


def test_the_model_in_the_checkpoint_is_the_average(straight):
    names, state = names_of(straight.checkpoint), straight.checkpoint["last_optimizer_state"]["state"]
    assert len(names) == len(state) == len(straight.points[0]) == 2 + 2 * 4
    update = triggering_update(straight)
    for i, name in enumerate(names):
        model = straight.checkpoint["model"][name]
        assert torch.equal(model, state[i]["average"])
        assert torch.equal(state[i]["plain"], straight.points[-1][i])
        # points[k] are the weights after update k + 1.
        mean = torch.stack([point[i].double() for point in straight.points[update - 1 :]]).mean(dim=0)
        assert torch.allclose(model.double(), mean, rtol=1e-5, atol=1e-6), name
        assert not torch.allclose(model, straight.points[-1][i], atol=1e-4), name


def test_training_goes_on_from_the_plain_weights_as_if_nothing_was_averaged(straight, stock_sgd):
    assert len(stock_sgd.points) == END
    for point, expected in zip(straight.points, stock_sgd.points):
        assert all(torch.equal(found, plain) for found, plain in zip(point, expected))
    before = VALIDATED.index(triggering_update(straight)) + 1
    assert straight.ppl[:before] == stock_sgd.ppl[:before]
    # From then on it is the average that is validated.
    assert all(a != b for a, b in zip(straight.ppl[before:], stock_sgd.ppl[before:]))


def perplexity_by_hand(setup, weights):
    """Of the validation stream, token by token; weights are those of the decoder, by name."""
    decoder = copy.deepcopy(setup.model.decoder).double()
    decoder.load_state_dict({name.partition(".")[2]: value.double() for name, value in weights.items()})
    lines = setup.task.dataset("valid").tokens.astype(np.int64)
    stream = torch.from_numpy(lines)
    with torch.no_grad():
        logits = forward_by_hand(decoder, stream[None, :-1])["logits"][0]
    lprobs = torch.log_softmax(logits, dim=-1)
    nll = [-lprobs[t, word].item() for t, word in enumerate(stream[1:].tolist())]
    return math.exp(sum(nll) / len(nll))


def test_the_logged_perplexity_is_that_of_the_average(straight, stock_sgd, tiny_language_model):
    setup = build(tiny_language_model, *MODEL, split="valid")
    average, plain = (perplexity_by_hand(setup, run.checkpoint["model"]) for run in (straight, stock_sgd))
    assert straight.ppl[-1] == pytest.approx(average, abs=0.006)
    assert stock_sgd.ppl[-1] == pytest.approx(plain, abs=0.006)
    assert abs(average - plain) > 0.1


@pytest.mark.parametrize("cut", [6, EPOCH, 15, 2 * EPOCH])
def test_a_run_that_was_cut_and_resumed_is_the_same_run(cut, straight, tiny_language_model, tmp_path):
    """Cut where the uninterrupted run validates, too: before it ends, fairseq validates."""
    assert 6 < triggering_update(straight) < 15 and cut in VALIDATED  # cut before the averaging began, and after
    first = train(tiny_language_model, tmp_path, *NTASGD_FLAGS, max_update=cut)
    second = train(tiny_language_model, tmp_path, *NTASGD_FLAGS)
    assert (len(first.points), len(second.points)) == (cut, END - cut)
    assert first.ppl + second.ppl == straight.ppl
    assert second.optimizer_group == straight.optimizer_group
    for point, expected in zip(first.points + second.points, straight.points):
        assert all(torch.equal(found, plain) for found, plain in zip(point, expected))
    model, expected = second.checkpoint["model"], straight.checkpoint["model"]
    assert model.keys() == expected.keys() and all(torch.equal(model[name], expected[name]) for name in expected)
    states = (run.checkpoint["last_optimizer_state"]["state"] for run in (second, straight))
    for found, state in zip(*(list(s.values()) for s in states)):
        assert found.keys() == state.keys() == {"momentum_buffer", "average", "plain"}
        assert all(torch.equal(found[key], state[key]) for key in state)


def test_without_a_trigger_it_is_fairseqs_sgd_bit_for_bit(stock_sgd, tiny_language_model, tmp_path):
    run = train(tiny_language_model, tmp_path, "--optimizer", "nt_asgd", "--nonmonotone", str(len(VALIDATED)))
    assert run.optimizer_group["averaged_points"] == 0
    assert run.ppl == stock_sgd.ppl == run.optimizer_group["validations"]
    model, expected = run.checkpoint["model"], stock_sgd.checkpoint["model"]
    assert model.keys() == expected.keys() and all(torch.equal(model[name], expected[name]) for name in expected)
