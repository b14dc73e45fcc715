"""The task through fairseq's own commands: perplexity, resume, parallel workers, bad input."""

import json
import math
import multiprocessing
import random
import threading

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import eval_lm

from tests.fairseq_setup import ROOT, SPLITS, build, two_workers
from tests.forked import finish, run, start
from tests.language_model import TASK, TINY_AWD, TINY_ZAREMBA, perplexity, read_words

TRAIN = [
    "--user-dir", "selfkd_fairseq", *TASK, "--cpu", "--seed", "3", "--optimizer", "sgd", "--lr", "2",
    "--lr-scheduler", "fixed", "--clip-norm", "0.25", "--no-epoch-checkpoints", "--log-format", "json",
    "--log-interval", "1",
]  # fmt: skip
SYSTEMS = {
    "zaremba": [
        *TINY_ZAREMBA, "--dropout", "0.2", "--criterion", "self_kd", "--skd-alpha", "0.3", "--skd-warmup-updates",
        "10", "--update-freq", "2", "--validate-interval-updates", "5",
    ],
    # with a second validation subset, the training text itself, in other streams
    "awd": [
        *TINY_AWD, "--variable-bptt", "--criterion", "cross_entropy", "--valid-subset", "valid,train",
        "--batch-size-valid", "2",
    ],
}  # fmt: skip


def train(data, save_dir, *flags):
    return run("fairseq-train", data, *TRAIN, "--save-dir", save_dir, "--log-file", f"{save_dir}.json", *flags)


def checkpoint(folder, name="checkpoint_last.pt"):
    return torch.load(folder / name, weights_only=True)


@pytest.fixture(scope="module", params=list(SYSTEMS))
def trained(request, tiny_language_model, tmp_path_factory):
    """40 updates in one go: one epoch and a part of the next."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    train(tiny_language_model, folder, *SYSTEMS[request.param], "--max-update", "40")
    return SYSTEMS[request.param], folder


def score(data, path, split="test", batch_size=1, tokens_per_sample=35):
    """What fairseq-eval-lm computes, unrounded."""
    arguments = [
        data, "--user-dir", ROOT / "selfkd_fairseq", *TASK, "--cpu", "--path", path, "--gen-subset", split,
        "--batch-size", batch_size, "--tokens-per-sample", tokens_per_sample,
    ]  # fmt: skip
    parsed = options.parse_args_and_arch(options.get_eval_lm_parser(), [str(a) for a in arguments])
    return float(eval_lm.main(convert_namespace_to_omegaconf(parsed))["perplexity"])


def by_hand(data, path, split="test", streams=1):
    return perplexity(path, data / "dict.txt", data.parent / f"{split}.src", streams)


def test_perplexity_is_that_of_the_whole_stream(trained, tiny_language_model):
    """fairseq-validate and fairseq-eval-lm against a computation token by token that shares no code with them."""
    _, folder = trained
    path = folder / "checkpoint_last.pt"
    expected = by_hand(tiny_language_model, path)
    common = ["--user-dir", "selfkd_fairseq", *TASK, "--cpu", "--path", path, "--batch-size", "1"]
    evaluated = run("fairseq-eval-lm", tiny_language_model, *common, "--gen-subset", "test").stderr
    assert float(evaluated.split("Perplexity: ")[1].split()[0]) == pytest.approx(expected, abs=0.006)
    done = run("fairseq-validate", tiny_language_model, *common, "--valid-subset", "test", "--log-format", "json")
    printed = (done.stdout + done.stderr).splitlines()
    record = json.loads(next(line for line in printed if '"test_ppl"' in line).split("| ")[-1])
    assert float(record["test_ppl"]) == pytest.approx(expected, abs=0.006)
    assert score(tiny_language_model, path) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_window_length_does_not_matter(trained, tiny_language_model, batch_size):
    path = trained[1] / "checkpoint_last.pt"
    expected = by_hand(tiny_language_model, path, streams=batch_size)
    for length in (1, 7, 35):
        found = score(tiny_language_model, path, batch_size=batch_size, tokens_per_sample=length)
        assert found == pytest.approx(expected, rel=1e-5)


def test_order_of_the_lines_matters(trained, tiny_language_model, tmp_path):
    """The state is really carried: shuffled lines are another stream, and are scored as that."""
    path = trained[1] / "checkpoint_last.pt"
    lines = (tiny_language_model.parent / "test.src").read_text().splitlines()
    random.Random(1).shuffle(lines)
    (tmp_path / "test.src").write_text("\n".join(lines) + "\n")
    run(
        "fairseq-preprocess", "--only-source", "--srcdict", tiny_language_model / "dict.txt",
        "--testpref", tmp_path / "test.src", "--destdir", tmp_path / "bin",
    )  # fmt: skip
    shuffled, plain = score(tmp_path / "bin", path), score(tiny_language_model, path)
    assert shuffled == pytest.approx(by_hand(tmp_path / "bin", path), rel=1e-5)
    assert abs(shuffled - plain) > 1e-4 * plain


def test_resume_in_mid_epoch_is_bit_equal(trained, tiny_language_model, tmp_path):
    """Stopped within the first epoch (validations in between), then started again: the same parameters and losses."""
    flags, folder = trained
    half = tmp_path / "half"
    train(tiny_language_model, half, *flags, "--max-update", "13")
    iterator = checkpoint(half)["extra_state"]["train_iterator"]
    assert iterator["epoch"] == 1 and iterator["iterations_in_epoch"] > 0
    train(tiny_language_model, half, *flags, "--max-update", "40")
    one, two = checkpoint(folder), checkpoint(half)
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, two["model"][name]), name
    states = [c["extra_state"]["BPTTLanguageModelingTask"]["carried_state"] for c in (one, two)]
    assert all(torch.equal(a, b) for a, b in zip(*states))
    assert losses(folder) == losses(half)


def losses(folder):
    with open(f"{folder}.json", encoding="utf-8") as file:
        records = [json.loads(line) for line in file if line.startswith('{"epoch"')]
    return {r["num_updates"]: (r["loss"], r["ppl"]) for r in records if "update" in r}


def test_a_lost_state_would_be_seen(trained, tiny_language_model, tmp_path):
    """The test above fails without the carried state: from the same checkpoint without it, other parameters come."""
    flags, folder = trained
    half = tmp_path / "half"
    train(tiny_language_model, half, *flags, "--max-update", "13")
    saved = checkpoint(half)
    del saved["extra_state"]["BPTTLanguageModelingTask"]["carried_state"]
    torch.save(saved, half / "checkpoint_last.pt")
    done = train(tiny_language_model, half, *flags, "--max-update", "40")
    assert "starts from a zero state" in done.stdout + done.stderr
    one, two = checkpoint(folder)["model"], checkpoint(half)["model"]
    assert any(not torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_two_workers_are_one_with_all_streams(tiny_language_model, tmp_path):
    """2 workers with 2 streams each against 1 with 4, an uneven end included; and they resume in mid-epoch too."""
    flags = [*TRAIN, *TINY_ZAREMBA, "--criterion", "self_kd", "--skd-alpha", "0.3", "--skd-warmup-updates", "0"]

    def begin(folder, updates, *more):
        return start(
            "fairseq-train", tiny_language_model, *flags, "--max-update", updates, "--save-dir", tmp_path / folder,
            "--load-checkpoint-on-all-dp-ranks", *more,
        )  # fmt: skip

    one = [begin("one", 35, "--batch-size", "4")]
    two = [begin("two", 35, "--batch-size", "2", *worker) for worker in two_workers()]
    finish(*one, *two)
    for updates in (13, 35):
        finish(*[begin("resumed", updates, "--batch-size", "2", *worker) for worker in two_workers()])
    one, two, resumed = (checkpoint(tmp_path / name) for name in ("one", "two", "resumed"))
    for name, tensor in one["model"].items():
        assert torch.allclose(tensor, two["model"][name], rtol=1e-4, atol=1e-5), name
        assert torch.equal(two["model"][name], resumed["model"][name]), name
    states = [c["extra_state"]["BPTTLanguageModelingTask"]["carried_state"] for c in (one, two)]
    assert all(a.shape[1] == 4 and torch.allclose(a, b, atol=1e-4) for a, b in zip(*states))


def trainer_of(data, *flags):
    from fairseq.trainer import Trainer

    setup = build(data, *TASK, *flags)
    setup.task.load_dataset("valid")
    trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
    return trainer, trainer.get_train_iterator(1, load_dataset=False)


def test_nothing_reads_ahead(tiny_language_model):
    """A thread or process that still reads when the program ends can turn its exit status into that of an abort."""
    trainer, iterator = trainer_of(tiny_language_model, *TINY_ZAREMBA, "--criterion", "cross_entropy")
    before = threading.active_count(), multiprocessing.active_children()
    epoch = iterator.next_epoch_itr()
    next(epoch)
    assert epoch.has_next()
    assert (threading.active_count(), multiprocessing.active_children()) == before


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.get_model().named_parameters()}


def validate(trainer):
    trainer.begin_valid_epoch(1)
    for sample in trainer.get_valid_iterator("valid").next_epoch_itr(shuffle=False):
        trainer.valid_step(sample)


def test_validation_leaves_the_training_state_alone(tiny_language_model):
    runs = []
    for validated in (False, True):
        trainer, iterator = trainer_of(tiny_language_model, *TINY_ZAREMBA, "--criterion", "cross_entropy")
        trainer.begin_epoch(1)
        for number, sample in enumerate(iterator.next_epoch_itr()):
            trainer.train_step([sample])
            if validated and number % 3 == 0:
                validate(trainer)
        runs.append(parameters(trainer))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_state_is_reset_at_the_start_of_an_epoch_and_of_a_validation(tiny_language_model):
    """The first loss of a second epoch is that of a model that has seen nothing before; so is a second validation."""
    trainer, _ = trainer_of(tiny_language_model, *TINY_ZAREMBA, "--criterion", "cross_entropy", "--lr", "1e-20")
    model, losses = trainer.get_model(), []
    for epoch in (1, 2):
        trainer.begin_epoch(epoch)
        for sample in trainer.get_train_iterator(epoch, load_dataset=False).next_epoch_itr():
            losses.append((int(sample["window"]), float(trainer.train_step([sample])["loss"])))
    windows = max(number for number, _ in losses) + 1
    assert losses[:windows] == losses[windows:]
    samples = list(trainer.get_valid_iterator("valid").next_epoch_itr(shuffle=False))
    validations = [[float(trainer.valid_step(sample)["loss"]) for sample in samples] for _ in range(2)]
    assert validations[0] == validations[1]
    model.decoder.set_carried_state(None)
    without = dict(samples[1], net_input=dict(samples[1]["net_input"], starts_stream=True))
    assert float(trainer.valid_step(without)["loss"]) != validations[0][1]  # the state matters


def test_activation_regularisation_is_in_the_loss_and_not_in_nll_loss(tiny_language_model):
    """The gradient of a step with AR and TAR is that of the criterion plus that of the terms, by hand."""
    flags = [
        *TINY_AWD, "--dropout", "0", "--input-dropout", "0", "--hidden-dropout", "0", "--embedding-dropout", "0",
        "--weight-dropout", "0", "--activation-regularization", "3", "--temporal-activation-regularization", "5",
    ]  # fmt: skip
    for criterion in ("cross_entropy", "self_kd"):
        trainer, iterator = trainer_of(
            tiny_language_model, *flags, "--criterion", criterion, *(["--skd-alpha", "0"] * (criterion == "self_kd"))
        )
        sample = next(iter(iterator.next_epoch_itr()))
        model, task = trainer.get_model().train(), trainer.task
        loss, sample_size, logged = task.train_step(sample, model, trainer.criterion, trainer.optimizer, 0)
        found = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()

        tokens = sample["net_input"]["src_tokens"]
        features = model.decoder.extract_features(tokens)[0]
        logits = model.decoder.output_projection(features)
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), sample["target"].flatten(), reduction="sum")
        terms = 3 * features.pow(2).mean() + 5 * (features[:, 1:] - features[:, :-1]).pow(2).mean()
        (nll + sample["ntokens"] * terms).backward()
        expected = sample["ntokens"] * terms.item()
        assert loss.item() == pytest.approx(nll.item() + expected, rel=1e-5)
        assert float(logged["activation_loss"]) == pytest.approx(expected, rel=1e-5)
        if criterion == "self_kd":
            assert float(logged["nll_loss"]) == pytest.approx(nll.item(), rel=1e-6)
            assert float(logged["loss"]) == pytest.approx(nll.item() + expected, rel=1e-6)
        else:  # fairseq's cross_entropy has no nll_loss: its loss is what it logs as perplexity
            assert float(logged["loss"]) == pytest.approx(nll.item(), rel=1e-6)
        for name, parameter in model.named_parameters():
            assert torch.allclose(found[name], parameter.grad, rtol=1e-3, atol=1e-4), name
        valid = task.valid_step(sample, model, trainer.criterion)[2]
        assert "activation_loss" not in valid
        assert float(valid["loss"]) == pytest.approx(nll.item(), rel=1e-6)


def test_variable_windows_scale_the_learning_rate(tiny_language_model):
    trainer, iterator = trainer_of(
        tiny_language_model, *TINY_AWD, "--criterion", "cross_entropy", "--variable-bptt", "--weight-dropout", "0",
        "--update-freq", "2",
    )  # fmt: skip
    trainer.begin_epoch(1)
    samples = list(iterator.next_epoch_itr())
    lengths = [s["target"].size(1) for s in samples]
    assert len(set(lengths)) > 2
    for group, expected in (([0], lengths[0]), ([1, 2], (lengths[1] + lengths[2]) / 2)):
        before = parameters(trainer)
        trainer.train_step([samples[i] for i in group])
        for name, parameter in trainer.get_model().named_parameters():
            step = 0.1 * expected / 12 * parameter.grad
            assert torch.allclose(before[name] - step, parameter, atol=1e-7), name
        assert trainer.get_lr() == 0.1


@pytest.mark.parametrize(
    "change, message",
    [
        (["--batch-size", "0"], "needs --batch-size"),
        (["--batch-size", "200"], "less than one window of --tokens-per-sample 12 for each of 200 streams"),
        (["--tokens-per-sample", "5000"], "lower --batch-size or --tokens-per-sample"),
        (["--tokens-per-sample", "0"], "--tokens-per-sample must be at least 1, not 0"),
        (["--arch", "lstm_lm"], "needs a model that carries its state"),
    ],
)
def test_bad_input_is_one_line(change, message, tiny_language_model):
    with pytest.raises(SystemExit) as error:
        trainer_of(tiny_language_model, *TINY_ZAREMBA, "--criterion", "cross_entropy", *change)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_unset_batch_size_is_one_line(trained, tiny_language_model, tmp_path):
    without = [flag for flag in TINY_ZAREMBA if flag not in ("--batch-size", "4")]
    command = ["fairseq-train", tiny_language_model, *TRAIN, *without, "--save-dir", tmp_path / "run"]
    path = ["--path", trained[1] / "checkpoint_last.pt"]
    for name, *arguments in (
        command,
        ["fairseq-eval-lm", tiny_language_model, "--user-dir", "selfkd_fairseq", *TASK, "--cpu", *path],
    ):
        done = run(name, *arguments, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "needs --batch-size" in done.stderr.splitlines()[-1]


def test_another_vocabulary_is_one_line(trained, tiny_language_model, tmp_path):
    """A dictionary of another size, and one of the same size with other words."""
    flags, folder = trained
    lines = (tiny_language_model.parent / "test.src").read_text()
    words = (tiny_language_model / "dict.txt").read_text().splitlines()
    for name, dictionary in {"shorter": words[:-3], "reordered": words[::-1]}.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(dictionary) + "\n")
        (tmp_path / f"{name}.src").write_text(lines)
        prefix = tmp_path / f"{name}.src"
        run(
            "fairseq-preprocess", "--only-source", "--srcdict", tmp_path / f"{name}.txt", "--trainpref", prefix,
            "--validpref", prefix, "--testpref", prefix, "--destdir", tmp_path / name, "--padding-factor", "1",
        )  # fmt: skip
        with pytest.raises(SystemExit, match="trained with another dictionary") as error:
            score(tmp_path / name, folder / "checkpoint_last.pt")
        assert "\n" not in str(error.value)
    done = run(
        "fairseq-train", tmp_path / "shorter", *TRAIN, *flags, "--batch-size", "1", "--max-update", "50",
        "--restore-file", folder / "checkpoint_last.pt", "--save-dir", tmp_path / "run", check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "use the dict.txt that it was trained with" in done.stderr.splitlines()[-1]


def test_resume_with_other_streams(trained, tiny_language_model, tmp_path):
    """In mid-epoch it is refused in one line; from the end of an epoch it is another run like any other."""
    flags, folder = trained
    other = ["--batch-size", "2", "--save-dir", tmp_path / "run", "--restore-file"]
    done = run(
        "fairseq-train", tiny_language_model, *TRAIN, *flags, *other, folder / "checkpoint_last.pt", check=False
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "of 4 streams and this run has 2" in done.stderr.splitlines()[-1]
    train(tiny_language_model, tmp_path / "epoch", *flags, "--max-epoch", "1")
    last = tmp_path / "epoch" / "checkpoint_last.pt"
    assert "carried_state" not in checkpoint(tmp_path / "epoch")["extra_state"]["BPTTLanguageModelingTask"]
    run("fairseq-train", tiny_language_model, *TRAIN, *flags, *other, last, "--max-update", "35", "--max-epoch", "2")


def test_a_batch_given_again_starts_from_the_same_state(tiny_language_model):
    """fairseq's --amp does that after an overflow, with the same update number."""
    setup = build(tiny_language_model, *TASK, *TINY_ZAREMBA, "--criterion", "cross_entropy")
    from fairseq.trainer import Trainer

    trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
    samples = list(trainer.get_train_iterator(1, load_dataset=False).next_epoch_itr())

    def loss(number, update):
        return float(setup.task.train_step(samples[number], setup.model, setup.criterion, trainer.optimizer, update)[0])

    loss(0, 0)
    first = [loss(1, 1), loss(2, 1)]
    assert [loss(1, 1), loss(2, 1)] == first
    assert loss(1, 2) != first[0]


def test_sgd_under_amp_is_refused(tiny_language_model):
    from fairseq.optim import AMPOptimizer

    setup = build(tiny_language_model, *TASK, *TINY_ZAREMBA, "--criterion", "cross_entropy")

    class Wrapped(AMPOptimizer):
        def __init__(self):
            self.fp32_optimizer = type("Inner", (), {"optimizer": torch.optim.SGD(setup.model.parameters(), lr=1)})

    with pytest.raises(SystemExit, match="scales the gradient of SGD down twice"):
        setup.task.optimizer_step(Wrapped(), setup.model, 0)


def test_generation_is_refused(trained, tiny_language_model):
    done = run(
        "fairseq-interactive", tiny_language_model, "--user-dir", "selfkd_fairseq", *TASK, "--cpu", "--beam", "2",
        "--path", trained[1] / "checkpoint_last.pt", stdin="s1 s2 s3\n", check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "does not generate text" in done.stderr.splitlines()[-1]


def test_tokens_of_the_corpus_are_all_there(tiny_language_model):
    setup = build(tiny_language_model, *TASK, *TINY_ZAREMBA, "--criterion", "cross_entropy")
    for split in SPLITS:
        setup.task.load_dataset(split)
        words = read_words(tiny_language_model.parent / f"{split}.src")
        found = [setup.task.dictionary[int(token)] for token in setup.task.dataset(split).tokens]
        assert found == words
        batches = setup.task.get_batch_iterator(setup.task.dataset(split), max_sentences=2).next_epoch_itr()
        assert sum(batch["ntokens"] for batch in batches) == len(words) - 1


def test_context_window_is_refused(tiny_language_model):
    setup = build(tiny_language_model, *TASK, *TINY_ZAREMBA, "--criterion", "cross_entropy")
    with pytest.raises(SystemExit, match="takes no --context-window"):
        setup.task.eval_lm_dataloader(setup.task.dataset("train"), batch_size=1, context_window=3)


def test_published_learning_rates_of_zaremba(tiny_language_model):
    """fairseq's own `fixed` schedule gives the halving from the fifth epoch on."""
    trainer, _ = trainer_of(
        tiny_language_model, *TINY_ZAREMBA, "--criterion", "cross_entropy", "--lr", "1", "--lr-scheduler", "fixed",
        "--force-anneal", "6", "--lr-shrink", "0.5",
    )  # fmt: skip
    rates = [trainer.lr_step_begin_epoch(epoch) for epoch in range(1, 14)]
    assert rates == [1.0] * 5 + [0.5**n for n in range(1, 9)]
    assert math.isclose(rates[-1], 1 / 256)
