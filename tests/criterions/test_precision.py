"""--fp16, --bf16, autocast, overflow and NaN through fairseq's trainer: with self_kd as with its own criterion.

fairseq asks for CUDA or a TPU in places where half precision itself needs none; the tests put that aside, so that its
optimizers, its loss scaler and its search for NaN run on the CPU as they are.
"""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from torch import Tensor

from tests.core.forms import FORMS
from tests.core.forms import flags as flags_of
from tests.fairseq_setup import (
    NO_DROPOUT,
    TINY_LSTM,
    TINY_TRANSFORMER,
    Setup,
    batches,
    build,
)
from tests.language_model import TASK, TINY_ZAREMBA

EMBEDDING = ["--skd-teacher", "embedding"]
OURS = ["--criterion", "self_kd", "--label-smoothing", "0.1", "--skd-alpha", "0.5", "--skd-warmup-updates", "0"]
THEIRS = ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"]
TRANSFORMER = [*TINY_TRANSFORMER, *NO_DROPOUT]
LSTM = [*TINY_LSTM, *NO_DROPOUT]
Messages = Callable[[], List[str]]
FP16 = ["--fp16", "--fp16-no-flatten-grads"]  # flat gradients are made on a GPU only


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an overflow fairseq makes a number on the GPU, also with --cpu."""
    monkeypatch.setattr(Tensor, "cuda", lambda tensor, *arguments, **keywords: tensor)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Messages:
    """What fairseq has said since the last call."""
    caplog.set_level(logging.INFO)

    def since_last_call() -> list[str]:
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return said

    return since_last_call


def trainer_of(data: Path, *flags: str, bf16: str = "") -> Trainer:
    """A trainer; ``bf16`` names settings of ``common`` that a command line ties to a TPU, and hydra does not."""
    setup = build(data, *flags)
    for name in bf16.split():
        setattr(setup.cfg.common, name, True)
    trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
    trainer.reset_dummy_batch(samples(trainer)[0])
    trainer.begin_epoch(1)
    return trainer


def samples(trainer: Trainer) -> list[Any]:
    if trainer.cfg.dataset.batch_size:  # streams
        streams = trainer.task.get_batch_iterator(
            trainer.task.dataset("train"), max_sentences=trainer.cfg.dataset.batch_size
        )
        return list(streams.next_epoch_itr(shuffle=False))
    found: list[Any] = batches(Setup(trainer.cfg, trainer.task, trainer.model, trainer.criterion))
    return found


def losses(trainer: Trainer, updates: int) -> list[float]:
    """The loss of each update on one batch, not rounded, in nats per token."""
    found, forward = [], trainer.criterion.forward

    def recording(*arguments: Any, **keywords: Any) -> Any:
        result = forward(*arguments, **keywords)
        found.append(float(result[2]["loss"]) / float(result[1]))
        return result

    trainer.criterion.forward = recording
    sample = samples(trainer)[0]
    for _ in range(updates):
        assert trainer.train_step([sample]) is not None
    return found


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.get_model().named_parameters()}


def all_equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


# ------------------------------------------------------------------------------------------- training in half precision

TIED = [*TRANSFORMER, "--share-all-embeddings"]
PRECISIONS = {
    "fp16": ([*FP16, "--optimizer", "adam"], ""),
    "memory-efficient fp16": (["--memory-efficient-fp16", "--optimizer", "adam"], ""),
    "bf16": (["--optimizer", "adam"], "bf16"),
    "memory-efficient bf16": (["--optimizer", "adam"], "bf16 memory_efficient_bf16"),
}


@pytest.mark.parametrize(
    "precision, model, form",
    [
        ("fp16", TIED, "predicted"),
        ("memory-efficient fp16", LSTM, "nearest"),
        ("bf16", TIED, "full"),
        ("memory-efficient bf16", LSTM, "random"),
        ("fp16", TIED, "full, self, T 2"),
        ("bf16", LSTM, "nearest, cosine, self, within, T 2"),
    ],
)
def test_trains_as_in_float32(precision: str, model: list[str], form: str, tiny_translation: Path) -> None:
    flags, bf16 = PRECISIONS[precision]
    dtype = torch.float16 if "fp16" in precision else torch.bfloat16
    common = [*model, *OURS, *flags_of(FORMS[form]), "--lr", "0.02"]
    exact = losses(trainer_of(tiny_translation, *common, "--optimizer", "adam"), 5)
    low = trainer_of(tiny_translation, *common, *flags, bf16=bf16)
    assert losses(low, 5) == pytest.approx(exact, rel=2e-3 if dtype is torch.float16 else 1e-2)
    assert exact[-1] < 0.97 * exact[0]  # it learns
    assert {p.dtype for p in low.get_model().parameters()} == {dtype}


def test_a_language_model_that_carries_its_state_trains_in_bfloat16(tiny_language_model: Path) -> None:
    flags = [*TASK, *TINY_ZAREMBA, *NO_DROPOUT, *OURS, "--optimizer", "adam", "--lr", "0.01"]
    exact = losses(trainer_of(tiny_language_model, *flags), 4)
    assert losses(trainer_of(tiny_language_model, *flags, bf16="bf16"), 4) == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize("form", ["predicted", "full", "full, self, T 2", "nearest, cosine, self, within, T 2"])
def test_trains_under_bfloat16_autocast(form: str, tiny_translation: Path) -> None:
    """What --amp is on a GPU: float32 weights, matrix products in half precision."""
    flags = [*TRANSFORMER, *OURS, *flags_of(FORMS[form]), "--optimizer", "adam", "--lr", "0.003"]
    exact = losses(trainer_of(tiny_translation, *flags), 5)
    low = trainer_of(tiny_translation, *flags)
    forward = low.criterion.forward

    def autocast(*arguments: Any, **keywords: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return forward(*arguments, **keywords)

    low.criterion.forward = autocast
    found = losses(low, 5)
    assert found == pytest.approx(exact, rel=1e-2) and found != exact
    assert {p.dtype for p in low.get_model().parameters()} == {torch.float32}


@pytest.mark.parametrize("flags", [["--memory-efficient-fp16", "--optimizer", "sgd"], ["--fp16", "--amp"]])
def test_what_fairseq_refuses_is_refused_in_the_same_words(flags: list[str], tiny_translation: Path) -> None:
    said = []
    for criterion in (OURS, THEIRS):
        with pytest.raises((ValueError, AssertionError)) as error:
            losses(trainer_of(tiny_translation, *TRANSFORMER, *criterion, *flags), 1)
        said.append((error.type, str(error.value)))
    assert said[0] == said[1]


# --------------------------------------------------------------------------------------------------------- loss scale


@pytest.mark.parametrize("precision, support", [("fp16", "full"), ("memory-efficient fp16", "predicted")])
def test_an_update_whose_gradients_overflow_is_skipped_and_the_scale_halved(
    precision: str, support: str, tiny_translation: Path, messages: Messages
) -> None:
    """To the same scale as with fairseq's own criterion; weights, number of updates and alpha stay as they were."""
    flags = [*TRANSFORMER, *PRECISIONS[precision][0], "--fp16-init-scale", str(2**14)]
    scales = {}
    for name, criterion in (("theirs", THEIRS), ("ours", [*OURS, *EMBEDDING, "--skd-support", support])):
        trainer = trainer_of(tiny_translation, *flags, *criterion, *(["--skd-warmup-updates", "10"] * (name == "ours")))
        sample, before = samples(trainer)[0], weights(trainer)
        messages()
        while trainer.train_step([sample]) is None:
            assert all_equal(weights(trainer), before)
            assert trainer.get_num_updates() == 0 and getattr(trainer.criterion, "alpha", 0.0) == 0.0
            (said,) = (m for m in messages() if "overflow detected" in m)
            assert said.endswith(f"setting loss scale to: {trainer.optimizer.scaler.loss_scale}")
        scales[name] = trainer.optimizer.scaler.loss_scale
        assert scales[name] < 2**14 and trainer.get_num_updates() == 1
        assert not all_equal(weights(trainer), before)
        if name == "ours":
            assert trainer.train_step([sample])["alpha"] == pytest.approx(0.05)
    assert scales["ours"] == scales["theirs"]


def test_the_loss_scale_does_not_change_the_update(tiny_translation: Path) -> None:
    """The gradients were taken before the scale was known: an update with a scale is the one without, but rounded."""
    results = []
    for scale in ("1", "512"):
        flags = [*TRANSFORMER, *OURS, *FP16, "--optimizer", "sgd", "--lr", "1", "--fp16-init-scale", scale]
        trainer = trainer_of(tiny_translation, *flags)
        before = torch.cat([p.detach().flatten() for p in trainer.optimizer.fp32_params])
        assert trainer.train_step([samples(trainer)[0]]) is not None
        results.append(torch.cat([p.detach().flatten() for p in trainer.optimizer.fp32_params]) - before)
    assert results[0].norm() > 0.1
    assert (results[0] - results[1]).norm() < 1e-2 * results[0].norm()


@pytest.mark.usefixtures("hardened")
@pytest.mark.parametrize("model", ["lstm", "transformer"])
def test_nan_under_fp16_ends_at_the_smallest_scale(
    model: str, tiny_translation: Path, tmp_path: Path, messages: Messages
) -> None:
    """As with fairseq's own criterion: so many skipped updates, and then its own error."""
    ends = []
    for criterion in (OURS, THEIRS):
        flags = [*NAN_MODELS[model], *criterion, *FP16, "--fp16-init-scale", "8", "--min-loss-scale", "1"]
        trainer = trainer_of(tiny_translation, *flags, "--save-dir", str(tmp_path))
        spoil_output(trainer.get_model(), math.nan)
        before, sample, skipped = weights(trainer), samples(trainer)[0], 0
        with pytest.raises(FloatingPointError, match=r"Minimum loss scale reached \(1.0\)") as error:
            while trainer.train_step([sample]) is None:
                skipped += 1
        named = [m for m in messages() if f"detected in output of {PROJECTION[model]}," in m]
        assert named and all(torch.equal(before[n], p) for n, p in weights(trainer).items() if not p.isnan().any())
        ends.append((skipped, str(error.value), [without_inputs(m) for m in named]))
    assert ends[0] == ends[1] and ends[0][0] == 2


# --------------------------------------------------------------------------------------------------- NaN and infinity


def output_matrix(model: Any) -> Tensor:
    decoder = model.decoder
    if getattr(decoder, "share_input_output_embed", False):
        projection = decoder.embed_tokens
    else:
        projection = decoder.output_projection if hasattr(decoder, "output_projection") else decoder.fc_out
    weight: Tensor = projection.weight
    return weight


@torch.no_grad()
def spoil_output(model: Any, value: float) -> None:
    output_matrix(model)[10, 3] = value


@torch.no_grad()
def overflow_output(model: Any, value: float = 3e38) -> None:
    """Finite weights whose logits are not: what comes before the update that would write NaN."""
    output_matrix(model).copy_(output_matrix(model).sign() * value)


@torch.no_grad()
def spoil_encoder(model: Any) -> None:
    model.encoder.embed_tokens.weight[:, 1] = math.nan


@torch.no_grad()
def spoil_padding(model: Any) -> None:
    """Only what is computed at padded positions is NaN."""
    model.decoder.embed_tokens.weight[1] = math.nan


SPOILT = {
    "NaN in the output matrix": lambda model: spoil_output(model, math.nan),
    "infinity in the output matrix": lambda model: spoil_output(model, math.inf),
    "logits that overflow": overflow_output,
    "NaN in the encoder": spoil_encoder,
    "NaN at padded positions": spoil_padding,
}
PROJECTION = {"lstm": "decoder.fc_out", "transformer": "decoder.output_projection"}
NAN_MODELS = {
    "transformer": TRANSFORMER,
    "transformer tied": TIED,
    "lstm": LSTM,
    "lstm tied": [*LSTM, "--share-decoder-input-output-embed"],
}


def without_inputs(message: str) -> str:
    """The two criteria have made different updates before."""
    return re.sub(r" input max: .*", "", message)


BAD = ["NaN", "infinity"]


@pytest.mark.usefixtures("hardened")
@pytest.mark.parametrize(
    "model, spoil, named",
    [
        *((model, f"{value} in the output matrix", PROJECTION[model]) for model in PROJECTION for value in BAD),
        ("transformer", "logits that overflow", "decoder.output_projection"),
        # Its logits are large but finite: ours finds the distances of the rows infinite, theirs what is before it.
        ("lstm", "logits that overflow", "decoder.fc_out|decoder.attention"),
        *((model, "NaN in the encoder", "encoder.embed_tokens") for model in PROJECTION),
        *((model, "NaN at padded positions", "decoder.embed_tokens") for model in PROJECTION),
        ("lstm tied", "NaN in the output matrix", "decoder"),  # a product of the decoder's own, without a module
        ("lstm tied", "infinity in the output matrix", "decoder"),
        ("transformer tied", "NaN in the output matrix", "encoder.embed_tokens"),  # the same matrix
        ("transformer tied", "logits that overflow", "encoder.dropout_module"),  # embedding plus position
    ],
)
def test_nan_and_infinity_end_as_with_fairseqs_own_criterion(
    model: str, spoil: str, named: str, tiny_translation: Path, tmp_path: Path, messages: Messages
) -> None:
    """The same error and the same modules and gradients by name, before any weight has changed."""
    ends = []
    for criterion in (OURS, THEIRS):
        trainer = trainer_of(tiny_translation, *NAN_MODELS[model], *criterion, "--save-dir", str(tmp_path))
        assert trainer.train_step([samples(trainer)[0]]) is not None
        SPOILT[spoil](trainer.get_model())
        before = weights(trainer)
        messages()
        with pytest.raises(FloatingPointError) as error:
            trainer.train_step([samples(trainer)[1]])
        said = messages()
        found = [without_inputs(m) for m in said if "detected in output of" in m]
        assert re.search(f" of ({named}), ", found[0])
        # Backwards the two differ where only the naive criterion multiplies NaN by 0: at padded positions.
        forward = [m for m in found if m.endswith("forward")]
        ends.append((str(error.value), forward, any(m.startswith("gradients: {") for m in said)))
        assert all(torch.equal(p, before[name]) or p.isnan().any() for name, p in weights(trainer).items())
        assert trainer.get_num_updates() == 1
    assert ends[0] == ends[1] == ("gradients are Nan/Inf", ends[1][1], True)


def test_without_hardening_fairseq_finds_no_name_in_a_transformer(tiny_translation: Path, tmp_path: Path) -> None:
    """If this fails, fairseq has been mended, and hardening.nan_search can go."""
    trainer = trainer_of(tiny_translation, *TRANSFORMER, *THEIRS, "--save-dir", str(tmp_path))
    assert trainer.train_step([samples(trainer)[0]]) is not None
    spoil_output(trainer.get_model(), math.nan)
    with pytest.raises(StopIteration):
        trainer.train_step([samples(trainer)[1]])


# --------------------------------------------------------------------------------------------------------- checkpoints


def tensors_of(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, (dict, list, tuple)):
        for part in state.values() if isinstance(state, dict) else state:
            yield from tensors_of(part)


def is_finite(path: Path) -> bool:
    found = list(tensors_of(torch.load(path, weights_only=True)))
    assert len(found) > 10
    return all(bool(torch.isfinite(tensor).all()) for tensor in found)


class End(NamedTuple):
    """How a training ended: the error, the names of its checkpoints, and those of them with NaN or infinity."""

    error: str
    checkpoints: list[str]
    spoilt: list[str]


def train(data: Path, folder: Path, spoil: Callable[[Any], None], *flags: str) -> End:
    """``fairseq-train`` in this process, with ``spoil`` applied to the model before its eighth update."""
    from fairseq_cli.train import main

    cfg = build(data, *flags, "--save-dir", str(folder), "--no-progress-bar", "--log-format", "none").cfg
    cfg.checkpoint.save_interval_updates = cfg.dataset.validate_interval_updates = 3
    step, kept_by_fairseq = Trainer.train_step, vars(checkpoint_utils.save_checkpoint)

    def spoilt_step(trainer: Trainer, *arguments: Any, **keywords: Any) -> Any:
        if trainer.get_num_updates() == 7:
            spoil(trainer.get_model())
        return step(trainer, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", spoilt_step)
        try:
            main(cfg)
            error = "none"
        except FloatingPointError as found:
            error = f"{type(found).__name__}: {found}"
        finally:
            kept_by_fairseq.pop("best", None)
            metrics.reset()
    checkpoints = sorted(path.name for path in folder.iterdir())
    return End(error, checkpoints, [name for name in checkpoints if not is_finite(folder / name)])


TRAININGS = {
    "transformer, nearest": ("tiny_translation", TIED, [*EMBEDDING, "--skd-support", "nearest"]),
    "streams with nt_asgd": (
        "tiny_language_model",
        [*TASK, *TINY_ZAREMBA, "--optimizer", "nt_asgd", "--nonmonotone", "1", "--lr", "60", "--clip-norm", "1"],
        [],
    ),
}


@pytest.mark.usefixtures("hardened")
@pytest.mark.parametrize("training", TRAININGS)
def test_no_checkpoint_holds_nan_after_a_loss_that_is_not_finite(
    training: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Weights that are finite until the update that would spoil them: fairseq's copy of the crash holds them too."""
    corpus, model, options = TRAININGS[training]
    data = request.getfixturevalue(corpus)
    ours = train(data, tmp_path / "ours", overflow_output, *model, *OURS, *options)
    theirs = train(data, tmp_path / "theirs", overflow_output, *model, *THEIRS)
    assert ours.error == theirs.error != "none"
    assert ours.spoilt == []
    assert {"checkpoint_1_3.pt", "checkpoint_1_6.pt", "checkpoint_last.pt", "crash.pt"} <= set(ours.checkpoints)
    assert set(ours.checkpoints) - {"checkpoint_best.pt"} == set(theirs.checkpoints) - {"checkpoint_best.pt"}
    if "nt_asgd" in training:
        state = torch.load(tmp_path / "ours" / "checkpoint_last.pt", weights_only=True)["last_optimizer_state"]
        assert all("average" in state["state"][i] for i in range(len(state["state"])))


def test_only_the_copy_of_the_crash_holds_nan_that_a_weight_held(tiny_translation: Path, tmp_path: Path) -> None:
    """It is fairseq's picture of what went wrong, and no start of fairseq-train reads it."""
    ends = [
        train(tiny_translation, tmp_path / criterion[1], SPOILT["NaN in the output matrix"], *LSTM, *criterion)
        for criterion in (OURS, THEIRS)
    ]
    assert ends[0].error == ends[1].error == "FloatingPointError: gradients are Nan/Inf"
    assert ends[0].spoilt == ends[1].spoilt == ["crash.pt"]
