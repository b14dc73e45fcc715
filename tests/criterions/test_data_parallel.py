"""Two CPU processes (gloo) with half the sentences each against one process with all of them, in float64.

Through fairseq's Trainer. All trainings of a worker run in one process; each is a test of its own.
"""

from __future__ import annotations

import functools

import pytest
import torch

from selfkd_fairseq.core import supports
from tests import definition
from tests.core.forms import FORMS, flags
from tests.criterions.two_trainers import Training, in_two_processes
from tests.fairseq_setup import NO_DROPOUT, TINY_LSTM, TINY_TRANSFORMER

SELF_KD = [
    *NO_DROPOUT, "--criterion", "self_kd", "--label-smoothing", "0.1", "--report-accuracy", "--skd-alpha", "0.4",
    "--skd-warmup-updates", "3", "--skd-teacher", "embedding", "--skd-support-size", "2",
    "--skd-refresh-updates", "2", "--lr", "2",
]  # fmt: skip
# Five batches: 40, 8, 64, 48 and 40 sentences. The last update of an epoch has nothing for the second worker.
BATCHES = ["--max-tokens", "400"]
MODELS = {
    "untied": TINY_TRANSFORMER,
    "tied": [*TINY_TRANSFORMER, "--share-all-embeddings"],
    "lstm": TINY_LSTM,
}
STARTS = {"self both, later": 2}  # setting -> --skd-start-update, where it is not 0
SETTINGS = {
    **{
        f"{model}, {support}": [*MODELS[model], *BATCHES, *SELF_KD, "--skd-support", support]
        for model in ("untied", "tied")
        for support in ("predicted", "nearest", "full")  # random words differ between workers by design
    },
    "lstm": [*MODELS["lstm"], *BATCHES, *SELF_KD],
    # Whose second pass is of the model itself, not of what wraps it; with dropout workers would differ.
    "self": [*MODELS["tied"], *BATCHES, *SELF_KD, *flags(FORMS["full, self, T 2"])],
    "self both": [
        *MODELS["tied"],
        *BATCHES,
        *SELF_KD,
        *flags({**FORMS["full, cosine, self"], "teacher_mode": "both"}),
    ],
    "self both, later": [
        *MODELS["tied"],
        *BATCHES,
        *SELF_KD,
        *flags({**FORMS["full, cosine, self"], "teacher_mode": "both", "start_update": STARTS["self both, later"]}),
    ],
    "self within": [*MODELS["untied"], *BATCHES, *SELF_KD, *flags(FORMS["nearest, cosine, self, within, T 2"])],
    "sentence_avg": [*MODELS["tied"], *BATCHES, *SELF_KD, "--sentence-avg", "--lr", "0.2"],
    "find_unused": [*MODELS["untied"], *BATCHES, *SELF_KD, "--find-unused-parameters"],
}
TRAININGS = [
    *[(setting, "legacy_ddp") for setting in SETTINGS if setting != "find_unused"],
    *[(setting, "pytorch_ddp") for setting in SETTINGS],
]
# Seven batches, so that with --update-freq 2 the second worker's last update is a batch and an empty one.
STOCK = [*MODELS["tied"], *NO_DROPOUT, "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"]
HALF_EMPTY = {
    "self_kd": [*MODELS["tied"], *SELF_KD, "--max-tokens", "240"],
    "label_smoothed_cross_entropy": [*STOCK, "--max-tokens", "240"],
}
RANDOM = [*MODELS["tied"], *SELF_KD, "--skd-support", "random", "--skd-support-size", "4"]
NEAREST = SETTINGS["tied, nearest"]


def updates_of(training):
    """An epoch, and a second one with --update-freq 2; with the neighbours, where the support has some."""
    nearest = training.setup.criterion.options.support == "nearest"
    for update_freq in (1, 2):
        for samples in training.groups(update_freq):
            before = training.output_embedding()
            update = training.update(samples)
            yield {**update, "neighbours": training.neighbours(), "before": before} if nearest else update


def random_updates(training, numbers):
    """Updates whose batches, two for each worker, are all of the same sentences; the words that were drawn for each."""
    draw, drawn = supports.random_words, []

    def drawing(*arguments, **keywords):
        drawn.append(draw(*arguments, **keywords))
        return drawn[-1]

    supports.random_words = drawing
    sample = training.batch_of(list(range(60)))
    for _ in numbers:
        training.update([sample, sample])
    supports.random_words = draw
    return drawn


def worker(flags, data, folder):
    """All that one of the two workers does."""
    results = {"trainings": {}, "half_empty": {}}
    for setting, ddp in TRAININGS:
        training = Training(data, [*flags, *SETTINGS[setting]], pytorch_ddp=ddp == "pytorch_ddp")
        results["trainings"][f"{setting}, {ddp}"] = list(updates_of(training))
    for criterion, setting in HALF_EMPTY.items():
        training = Training(data, [*flags, *setting])
        results["half_empty"][criterion] = [training.update(samples) for samples in training.groups(2)]

    resumable = [*flags, "--load-checkpoint-on-all-dp-ranks"]
    training = Training(data, [*resumable, *RANDOM])
    straight = random_updates(training, range(2))
    training.save(folder / "random.pt")
    results["drawn"] = [*straight, *random_updates(training, range(2, 4))]
    results["drawn again"] = random_updates(Training(data, [*resumable, *RANDOM]), range(4))
    resumed = Training(data, [*resumable, *RANDOM]).load(folder / "random.pt")
    results["drawn after a resume"] = random_updates(resumed, range(2, 4))

    training = Training(data, [*resumable, *NEAREST])
    list(updates_of(training))
    training.save(folder / "nearest.pt")
    resumed = Training(data, [*resumable, *NEAREST]).load(folder / "nearest.pt")
    results["nearest after a resume"] = next(updates_of(resumed))
    return results


@pytest.fixture(scope="module")
def workers(tiny_translation, tmp_path_factory):
    """What each of the two workers saw."""
    folder = tmp_path_factory.mktemp("two_processes")
    return in_two_processes(worker, folder, tiny_translation, folder)


@pytest.fixture(scope="module")
def one_process(tiny_translation):
    """Setting and sentences of each update -> the updates of one process that gets them all, in one batch."""

    @functools.lru_cache(maxsize=None)
    def updates(flags, sentences):
        training = Training(tiny_translation, [*flags, "--distributed-world-size", "1"])
        return [training.update([training.batch_of(list(group))]) for group in sentences]

    return lambda flags, sentences: updates(tuple(flags), tuple(map(tuple, sentences)))


def sentences_of(*updates):
    """The sentences of an update, those of all batches of all workers."""
    return sorted(i for update in updates for batch in update["sentences"] for i in batch)


def assert_same_gradients(parallel, alone, scale=1.0):
    """Equal to 1e-9 of the largest entry of each parameter's gradient."""
    largest = max(float(gradient.abs().max()) for gradient in alone.values())
    for name, gradient in alone.items():
        # Softmax does not see the bias of a key projection: its gradient is rounding alone.
        size = largest if name.endswith("k_proj.bias") else float(gradient.abs().max())
        assert float((scale * parallel[name] - gradient).abs().max()) <= 1e-9 * size, name


@pytest.mark.parametrize("setting, ddp", TRAININGS)
def test_gradients_and_logged_sums_are_those_of_one_process(setting, ddp, workers, one_process):
    both = list(zip(*(results["trainings"][f"{setting}, {ddp}"] for results in workers)))
    sizes = [[[len(batch) for batch in update["sentences"]] for update in updates] for updates in both]
    # An epoch: uneven, uneven, the second worker's empty. With --update-freq 2: uneven, the second worker's empty.
    assert sizes == [[[40], [8]], [[64], [48]], [[40], [0]], [[64, 40], [40, 48]], [[8], [0]]]
    reference = one_process(SETTINGS[setting], [sentences_of(*updates) for updates in both])
    for (first, second), alone in zip(both, reference):
        for name, gradient in first["gradients"].items():
            assert torch.equal(gradient, second["gradients"][name]), name
        assert_same_gradients(first["gradients"], alone["gradients"])
        for name, parameter in alone["parameters"].items():
            assert torch.allclose(first["parameters"][name], parameter, rtol=1e-9, atol=1e-9), name
        number_of_batches = sum(1 for update in (first, second) for batch in update["sentences"] if batch)
        per_batch = {"alpha", "skd_num_batches"}  # logged once for each batch, and shown as their quotient
        expected = {k: v * number_of_batches if k in per_batch else v for k, v in alone["logged"].items()}
        assert first["logged"] == second["logged"] == pytest.approx(expected, rel=1e-9)
        assert first["shown"] == second["shown"] == pytest.approx(alone["shown"], rel=1e-9)
    start = STARTS.get(setting, 0)
    assert [updates[0]["shown"]["alpha"] for updates in both] == pytest.approx(
        [0.4 * min(1, max(0, done - start) / 3) for done in range(5)], abs=1e-5
    )


@pytest.mark.parametrize("criterion", HALF_EMPTY)
def test_fairseq_leaves_out_a_worker_whose_last_batch_of_an_update_is_empty(criterion, workers, one_process):
    """With any criterion: its gradients count, its tokens do not. If this fails, fairseq has been mended."""
    both = list(zip(*(results["half_empty"][criterion] for results in workers)))
    sizes = [[[len(batch) for batch in update["sentences"]] for update in updates] for updates in both]
    assert sizes == [[[24, 16], [24, 48]], [[24, 24], [40, 0]]]
    whole, half_empty = one_process(HALF_EMPTY[criterion], [sentences_of(*updates) for updates in both])
    (first, _), (last, _) = both
    assert_same_gradients(first["gradients"], whole["gradients"])
    assert first["logged"]["ntokens"] == whole["logged"]["ntokens"]
    counted = last["logged"]["sample_size"] / half_empty["logged"]["sample_size"]
    assert 0.4 < counted < 0.7
    assert_same_gradients(last["gradients"], half_empty["gradients"], scale=counted)


def nearest_of_all(weight):
    """(V, 2) neighbours by brute force; padding (1) and bos (0) are nobody's."""
    rows = weight.numpy()
    return torch.tensor([definition.nearest(rows, word, 2, (0, 1)) for word in range(len(rows))])


@pytest.mark.parametrize("setting, ddp", [training for training in TRAININGS if "nearest" in training[0]])
def test_neighbours_of_both_workers_are_equal_and_those_of_the_last_refresh(setting, ddp, workers):
    one, two = (results["trainings"][f"{setting}, {ddp}"] for results in workers)
    refreshed = {number: nearest_of_all(one[number]["before"]) for number in (0, 2, 4)}
    assert not torch.equal(refreshed[0], refreshed[2]) and not torch.equal(refreshed[2], refreshed[4])
    for number, (first, second) in enumerate(zip(one, two)):
        assert torch.equal(first["neighbours"], second["neighbours"])
        assert torch.equal(first["neighbours"], refreshed[number - number % 2])


def test_neighbours_of_both_workers_are_equal_after_a_resume_between_two_refreshes(workers):
    last = workers[0]["trainings"]["tied, nearest, legacy_ddp"][-1]
    for results in workers:
        resumed = results["nearest after a resume"]
        assert torch.equal(resumed["before"], last["parameters"]["encoder.embed_tokens.weight"])
        assert torch.equal(resumed["neighbours"], nearest_of_all(resumed["before"]))
        assert not torch.equal(resumed["neighbours"], last["neighbours"])


def overlap(one, two):
    """Mean number of words that are in the same row of both."""
    return float((one.unsqueeze(2) == two.unsqueeze(1)).sum() / len(one))


def test_random_draws_are_independent(workers, tiny_translation):
    """Of workers, updates and batches, whose sentences are the same here."""
    draws = [drawn for results in workers for drawn in results["drawn"]]
    assert len(draws) == 2 * 4 * 2 and draws[0].shape[1] == 4
    vocabulary_size = 4 + len((tiny_translation / "dict.tgt.txt").read_text(encoding="utf-8").splitlines())
    expected = 4 * 4 / (vocabulary_size - 3)  # of two draws of 4 from the words but padding, bos and the target
    overlaps = [overlap(one, two) for number, one in enumerate(draws) for two in draws[:number]]
    assert overlap(draws[0], draws[0]) == 4
    assert max(abs(found - expected) for found in overlaps) < 0.12  # 5 standard deviations
    assert sum(overlaps) / len(overlaps) == pytest.approx(expected, abs=0.02)


def test_random_draws_are_repeated_by_another_run_and_after_a_resume(workers):
    for results in workers:
        drawn = results["drawn"]
        assert all(map(torch.equal, drawn, results["drawn again"])) and len(results["drawn again"]) == len(drawn)
        assert all(map(torch.equal, drawn[4:], results["drawn after a resume"]))
        assert len(results["drawn after a resume"]) == len(drawn[4:])
