"""``selfkd-evaluate`` against fairseq's own commands and against a loop over sentences by hand."""

import fractions
import json
import math
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from selfkd_fairseq.cli import evaluate as command
from selfkd_fairseq.evaluation.runs import read_evaluation
from selfkd_fairseq.runs.provenance import data_checksums
from tests import fairseq_setup
from tests.language_model import TASK, TINY_ZAREMBA, perplexity, read_words, word_numbers

CRITERION = [
    "--criterion", "self_kd", "--label-smoothing", "0.1", "--skd-warmup-updates", "0", "--report-accuracy",
    "--optimizer", "adam", "--lr", "0.02", "--dropout", "0.1",
]  # fmt: skip
TRANSLATION, LANGUAGE_MODEL, STREAM = "translation", "language_modeling", "bptt_language_modeling"
FLAGS = {
    TRANSLATION: [*fairseq_setup.TINY_TRANSFORMER, "--share-all-embeddings"],
    LANGUAGE_MODEL: fairseq_setup.TINY_TRANSFORMER_LM,
    STREAM: [*TASK, *TINY_ZAREMBA],
}
BLOCK = 12  # --tokens-per-sample of both language models


def make_checkpoint(data, folder, task):
    """Train three epochs as fairseq-train does, the last one of a translation in part; the setup too is returned."""
    from fairseq import checkpoint_utils
    from fairseq.trainer import Trainer

    setup = fairseq_setup.build(data, *FLAGS[task], *CRITERION, "--save-dir", str(folder))
    trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
    _, epochs = checkpoint_utils.load_checkpoint(setup.cfg.checkpoint, trainer)
    for epoch in (1, 2, 3):
        trainer.begin_epoch(epoch)
        batches = epochs.next_epoch_itr(shuffle=False)
        for batch in batches:
            trainer.train_step([batch])
            if task == TRANSLATION and epoch == 3 and batches.n == 2:
                break
    trainer.consolidate_optimizer()
    path = folder / "checkpoint.pt"
    trainer.save_checkpoint(str(path), {"train_iterator": epochs.state_dict(), "val_loss": 1.0})
    setup.model.eval()
    return setup, trainer, path


def evaluate(capsys, data, path, results, *options):
    """Run the command in this process: status, stdout, stderr, and what it wrote."""
    arguments = [data, "--path", path, "--results-path", results, "--cpu", *options]
    status = command.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    file = results / "evaluate-test.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    return SimpleNamespace(status=status, out=captured.out, err=captured.err, record=record)


@pytest.fixture(scope="module", params=list(FLAGS))
def trained(request, tiny_translation, tiny_language_model, tmp_path_factory):
    """A checkpoint of each task, the model that it holds, and what the command makes of it."""
    data = tiny_translation if request.param == TRANSLATION else tiny_language_model
    folder = tmp_path_factory.mktemp(request.param)
    setup, trainer, path = make_checkpoint(data, folder, request.param)
    results = folder / "run" / "results"
    assert command.main([str(data), "--path", str(path), "--results-path", str(results), "--cpu"]) == 0
    record = json.loads((results / "evaluate-test.json").read_text(encoding="utf-8"))
    return SimpleNamespace(
        task=request.param, data=data, path=path, results=results, record=record, setup=setup,
        updates=trainer.get_num_updates(),
    )  # fmt: skip


def of_task(task):
    """For a test of one task alone."""
    return pytest.mark.parametrize("trained", [task], indirect=True)


def translation_by_hand(model, data):
    """For each sentence the log-probabilities of every word, (L, V), and its words: one sentence at a time."""
    source_words, target_words = (word_numbers(data / f"dict.{side}.txt") for side in ("src", "tgt"))
    for sides in zip(*((data.parent / f"test.{side}").read_text().splitlines() for side in ("src", "tgt"))):
        source = [*(source_words[word] for word in sides[0].split()), source_words["</s>"]]
        target = [*(target_words[word] for word in sides[1].split()), target_words["</s>"]]
        output = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[target[-1], *target[:-1]]]))
        yield output[0][0].double().log_softmax(-1), target


def words_of(data):
    numbers = word_numbers(data / "dict.txt")
    return [numbers[word] for word in read_words(data.parent / "test.src")], numbers["</s>"]


def by_sentence(rows, words, end):
    """Cut a text, given as its words' log-probabilities and its words, after each </s>."""
    start = 0
    for position, word in enumerate(words, 1):
        if word == end:
            yield torch.stack(rows[start:position]), words[start:position]
            start = position


def blocks_by_hand(model, data):
    """The text in blocks of BLOCK words, each read from zero, after the last word of the block before."""
    words, end = words_of(data)
    rows = []
    for start in range(0, len(words), BLOCK):
        block = words[start : start + BLOCK]
        before = words[start - 1] if start else end
        rows += model(torch.tensor([[before, *block[:-1]]]))[0][0].double().log_softmax(-1)
    return by_sentence(rows, words, end)


def stream_by_hand(model, data):
    """The text as one stream, read in windows that are its sentences."""
    words, end = words_of(data)
    rows, start = [], 0
    while start < len(words) - 1:
        stop = words.index(end, start) + 1  # the last </s> is predicted, and nothing after it
        window = torch.tensor([words[start : min(stop, len(words) - 1)]])
        rows += model(window, starts_stream=start == 0)[0][0].double().log_softmax(-1)
        start = stop
    return by_sentence(rows, words[1:], end)


BY_HAND = {TRANSLATION: translation_by_hand, LANGUAGE_MODEL: blocks_by_hand, STREAM: stream_by_hand}


@pytest.fixture
def by_hand(trained):
    """(log-probabilities, words) of each sentence."""
    with torch.no_grad():
        return list(BY_HAND[trained.task](trained.setup.model, trained.data))


def test_nll_of_each_sentence(trained, by_hand):
    expected = [-sum(float(row[word]) for row, word in zip(rows, words)) for rows, words in by_hand]
    per_sentence = trained.record["per_sentence"]
    assert per_sentence["id"] == list(range(fairseq_setup.SPLITS["test"]))
    assert per_sentence["tokens"] == [len(words) for _, words in by_hand]
    assert per_sentence["nll"] == pytest.approx(expected, rel=1e-5)
    tokens = sum(per_sentence["tokens"])
    raw = (trained.data.parent / "test.tgt").read_text().split()
    # one </s> for each sentence; the first word of a stream is not predicted
    assert tokens == trained.record["tokens"] == len(raw) + 12 - (trained.task == STREAM)
    assert trained.record["nll"]["nats_per_token"] == pytest.approx(sum(expected) / tokens, rel=1e-5)
    assert trained.record["nll"]["ppl"] == pytest.approx(math.exp(sum(expected) / tokens), rel=1e-5)


def test_accuracy_and_calibration(trained, by_hand):
    inside = [[] for _ in range(15)]
    for rows, words in by_hand:
        for row, word in zip(rows, words):
            best = max(range(len(row)), key=lambda index: float(row[index]))
            confidence = math.exp(float(row[best]))
            inside[math.ceil(15 * confidence) - 1].append((confidence, best == word))
    everything = [token for tokens in inside for token in tokens]
    error = 0.0
    for tokens, found in zip(inside, trained.record["calibration"]["bins"]):
        assert found["tokens"] == len(tokens)
        if tokens:
            confidence, accuracy = (sum(column) / len(tokens) for column in zip(*tokens))
            assert found["confidence"] == pytest.approx(confidence, rel=1e-5)
            assert found["accuracy"] == pytest.approx(accuracy)
            error += len(tokens) / len(everything) * abs(confidence - accuracy)
    assert sum(bool(tokens) for tokens in inside) > 1  # else the test would say little
    assert trained.record["calibration"]["expected_calibration_error"] == pytest.approx(error, rel=1e-4)
    hits = sum(correct for _, correct in everything)
    assert trained.record["accuracy"] == pytest.approx(100 * hits / len(everything))


def test_word_shares(trained, by_hand):
    """On the target lies what lies on it by hand; soft targets and groups: tests/evaluation/test_word_shares.py."""
    shares = trained.record["word_shares"]
    probs = [math.exp(float(row[word])) for rows, words in by_hand for row, word in zip(rows, words)]
    assert shares["model"]["target"] == pytest.approx(sum(probs) / len(probs), rel=1e-5)
    assert 0 < shares["soft_targets"]["target"] < 1
    for groups in shares.values():
        assert len(groups) == 5 and sum(groups.values()) == pytest.approx(1, abs=1e-5)


def fairseq_config(parser, trained, *flags):
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    arguments = [
        str(trained.data), "--user-dir", str(fairseq_setup.ROOT / "selfkd_fairseq"), "--cpu", "--task", trained.task,
        "--path", str(trained.path), "--num-workers", "0", *flags,
    ]  # fmt: skip
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, arguments))


def test_fairseq_validate_gives_the_same(trained, monkeypatch):
    """What fairseq-validate adds up, before it rounds; sentences of two batches."""
    from fairseq import options
    from fairseq.tasks import FairseqTask
    from fairseq_cli import validate

    sums = {}

    def add_up(self, logging_outputs, criterion):
        for key in ("nll_loss", "ntokens", "n_correct", "total", "skd_target_prob", "skd_ntokens"):
            sums[key] = float(sum(output[key] for output in logging_outputs))

    monkeypatch.setattr(FairseqTask, "reduce_metrics", add_up)
    monkeypatch.setattr(type(trained.setup.task), "reduce_metrics", add_up)
    monkeypatch.setattr(validate, "reset_logging", lambda: None)
    size = ["--batch-size", "1"] if trained.task == STREAM else ["--max-tokens", "60"]
    flags = ["--valid-subset", "test", "--required-batch-size-multiple", "1", *size]
    validate.main(fairseq_config(options.get_validation_parser(), trained, *flags))
    nll = trained.record["nll"]
    assert sums["ntokens"] == sums["total"] == trained.record["tokens"]
    bits = sums["nll_loss"] / sums["ntokens"] / math.log(2)
    assert nll["bits_per_token"] == pytest.approx(bits, rel=1e-6)
    assert nll["ppl"] == pytest.approx(2**bits, rel=1e-5)
    assert trained.record["accuracy"] == pytest.approx(100 * sums["n_correct"] / sums["total"], rel=1e-9)
    target_prob = sums["skd_target_prob"] / sums["skd_ntokens"]
    assert trained.record["word_shares"]["soft_targets"]["target"] == pytest.approx(target_prob, rel=1e-5)


@of_task(STREAM)
def test_perplexity_of_a_stream(trained):
    """fairseq-eval-lm, and a computation in numpy that shares no code with it."""
    from fairseq import options
    from fairseq_cli import eval_lm

    flags = ["--gen-subset", "test", "--batch-size", "1", "--tokens-per-sample", "35"]
    result = eval_lm.main(fairseq_config(options.get_eval_lm_parser(), trained, *flags))
    assert trained.record["nll"]["ppl"] == pytest.approx(float(result["perplexity"]), rel=1e-5)
    expected = perplexity(trained.path, trained.data / "dict.txt", trained.data.parent / "test.src")
    assert trained.record["nll"]["ppl"] == pytest.approx(expected, rel=1e-5)


def test_batches_do_not_matter(trained, capsys, tmp_path):
    options = ["--max-tokens", "7"] if trained.task == STREAM else ["--batch-size", "5"]
    again = evaluate(capsys, trained.data, trained.path, tmp_path, *options).record
    assert again["per_sentence"]["nll"] == pytest.approx(trained.record["per_sentence"]["nll"], rel=1e-5)
    for key in ("sentences", "tokens", "accuracy"):
        assert again[key] == trained.record[key]


def test_what_else_is_recorded(trained):
    record = trained.record
    assert (record["format"], record["split"], record["sentences"]) == (1, "test", 12)
    checkpoint = record["checkpoint"]
    assert checkpoint["path"] == str(trained.path) and len(checkpoint["sha256"]) == 64
    assert (checkpoint["epoch"], checkpoint["num_updates"]) == (3, trained.updates)
    training = record["training"]
    assert (training["seed"], training["task"]) == (5, trained.task)
    languages = ("src", "tgt") if trained.task == TRANSLATION else (None, None)
    assert (training["source_lang"], training["target_lang"]) == languages
    assert training["model"] == FLAGS[trained.task][FLAGS[trained.task].index("--arch") + 1]
    criterion = training["criterion"]
    assert (criterion["_name"], criterion["label_smoothing"], criterion["skd_alpha"]) == ("self_kd", 0.1, 0.5)
    assert record["provenance"]["data"]["sha256"] == data_checksums(trained.data, ["test"])
    assert (trained.results / "evaluate-test.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in trained.results.iterdir()) == ["evaluate-test.json", "evaluate-test.png"]
    # and selfkd-compare takes it
    read = read_evaluation(trained.results / "evaluate-test.json", "test")
    assert read.tokens.sum() == record["tokens"] and read.word_shares == record["word_shares"]


@of_task(TRANSLATION)
def test_as_a_command(trained, tmp_path):
    """stdout holds the summary, stderr nothing; the results replace older ones."""
    (tmp_path / "evaluate-test.json").write_text("an older one")
    arguments = [str(trained.data), "--path", str(trained.path), "--results-path", str(tmp_path), "--cpu"]
    line = [sys.executable, "-m", "selfkd_fairseq.cli.evaluate", *arguments]
    done = subprocess.run(line, cwd=fairseq_setup.ROOT, text=True, capture_output=True, check=True)
    assert done.stderr == ""
    record = json.loads((tmp_path / "evaluate-test.json").read_text(encoding="utf-8"))
    assert record["per_sentence"] == trained.record["per_sentence"]
    lines = done.stdout.splitlines()
    assert lines[0] == f"test: 12 sentences, {record['tokens']} tokens"
    assert f"perplexity         {record['nll']['ppl']:.3f}" in lines
    assert f"accuracy           {record['accuracy']:.2f} %" in lines
    error = record["calibration"]["expected_calibration_error"]
    assert f"calibration error  {error:.4f}" in lines
    shares = record["word_shares"]["soft_targets"]
    assert (
        f"soft targets       target {100 * shares['target']:.2f} %, nearest {100 * shares['nearest']:.2f} %"
        in done.stdout
    )
    assert lines[-2:] == [f"written: {tmp_path}/evaluate-test.png", f"written: {tmp_path}/evaluate-test.json"]


def changed(trained, path, change):
    """A copy of the checkpoint, changed."""
    state = torch.load(trained.path, weights_only=True)
    change(state)
    torch.save(state, path)
    return path


@of_task(TRANSLATION)
def test_checkpoint_with_args_instead_of_cfg(trained, capsys, tmp_path):
    """As fairseq wrote them before it knew omegaconf: one Namespace of all settings."""
    arguments = [
        str(trained.data), "--user-dir", str(fairseq_setup.ROOT / "selfkd_fairseq"), "--seed", "5",
        *FLAGS[TRANSLATION], *CRITERION,
    ]  # fmt: skip
    settings = fairseq_setup.parse(*arguments)

    path = changed(trained, tmp_path / "args.pt", lambda state: state.update(cfg=None, args=settings))
    record = evaluate(capsys, trained.data, path, tmp_path).record
    assert record["training"] == trained.record["training"]
    assert record["per_sentence"] == trained.record["per_sentence"]


WITHOUT_SOFT_TARGETS = {
    "cross_entropy": {"_name": "cross_entropy", "sentence_avg": False},
    "alpha 0": {"skd_alpha": 0.0},
    "of another version": {"skd_embedding_weight": 5000.0},
}


@of_task(TRANSLATION)
@pytest.mark.parametrize("name", WITHOUT_SOFT_TARGETS)
def test_training_without_soft_targets(trained, capsys, tmp_path, name):
    def change(state):
        state["cfg"]["criterion"] = {**state["cfg"]["criterion"], **WITHOUT_SOFT_TARGETS[name]}

    done = evaluate(capsys, trained.data, changed(trained, tmp_path / "changed.pt", change), tmp_path)
    assert (done.status, done.err, done.record["word_shares"]) == (0, "", None)
    assert done.record["per_sentence"] == trained.record["per_sentence"] and "soft targets" not in done.out


def fill_with_nan(state):
    next(value for key, value in state["model"].items() if key.endswith("weight")).fill_(float("nan"))


def set_task(**settings):
    return lambda state: state["cfg"]["task"].update(settings)


CHANGES = {
    "holds fractions.Fraction, which safe loading refuses": lambda state: state.update(x=fractions.Fraction(1, 2)),
    "the NLL is nan nats per token: did the training diverge?": fill_with_nan,
    "is of another architecture: it has no decoder.embed_tokens.weight": (
        lambda state: state["model"].pop("decoder.embed_tokens.weight")
    ),
    "is not a checkpoint of fairseq-train": lambda state: state.update(model={}),
    "is not a checkpoint of fairseq-train: it holds no model": lambda state: state.pop("model"),
    "is of the task denoising; what can be evaluated": set_task(_name="denoising"),
    "item 0 of test is longer than the model's (1, 1024) positions": set_task(max_source_positions=1),
}


def assert_one_line(done, message, results):
    assert (done.status, done.out, done.record) == (1, "", None), done
    assert done.err.startswith("selfkd-evaluate: error: ") and done.err.count("\n") == 1, done.err
    assert message in done.err
    assert not results.exists()


@of_task(TRANSLATION)
@pytest.mark.parametrize("message", CHANGES)
def test_bad_checkpoint_is_one_line(trained, capsys, tmp_path, message):
    path = changed(trained, tmp_path / "changed.pt", CHANGES[message])
    assert_one_line(evaluate(capsys, trained.data, path, tmp_path / "results"), message, tmp_path / "results")


@of_task(LANGUAGE_MODEL)
def test_a_target_that_the_text_has_not_is_one_line(trained, capsys, tmp_path):
    path = changed(trained, tmp_path / "changed.pt", set_task(add_bos_token=True))
    message = "tokens were scored, but the split has 91"
    assert_one_line(evaluate(capsys, trained.data, path, tmp_path / "results"), message, tmp_path / "results")


@of_task(TRANSLATION)
def test_bad_input_is_one_line(trained, capsys, tmp_path):
    (tmp_path / "cut.pt").write_bytes(trained.path.read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("text")
    (tmp_path / "empty").mkdir()
    shorter, nothing = (shutil.copytree(trained.data, tmp_path / name) for name in ("shorter", "nothing"))
    for dictionary in shorter.glob("dict.*.txt"):
        dictionary.write_text("".join(dictionary.read_text().splitlines(keepends=True)[:-9]))
    (nothing / "test.src-tgt.tgt.bin").write_bytes(b"")
    data, path = trained.data, trained.path
    cases = {
        f"No such file or directory ({tmp_path / 'absent.pt'})": [data, tmp_path / "absent.pt"],
        "Is a directory": [data, tmp_path],
        "cut.pt is damaged, or not a checkpoint": [data, tmp_path / "cut.pt"],
        "text.pt is damaged, or not a checkpoint": [data, tmp_path / "text.pt"],
        f"Dataset not found: test2 ({data})": [data, path, "--gen-subset", "test2"],
        "absent is not a folder of binarised data": [tmp_path / "absent", path],
        "empty holds no binarised pair of languages": [tmp_path / "empty", path],
        f"was trained with a dictionary of 64 words and {shorter} has one of 55": [shorter, path],
        "nothing is empty: there is nothing to evaluate": [nothing, path],
        "test has a sentence of 10 tokens: give --max-tokens 10": [data, path, "--max-tokens", "9"],
    }
    for message, (folder, checkpoint, *options) in cases.items():
        results = tmp_path / "results"
        assert_one_line(evaluate(capsys, folder, checkpoint, results, *options), message, results)


@of_task(STREAM)
def test_bad_input_of_a_stream_is_one_line(trained, capsys, tmp_path):
    from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

    other, one = (shutil.copytree(trained.data, tmp_path / name) for name in ("other", "one"))
    (other / "dict.txt").write_text("\n".join(reversed((other / "dict.txt").read_text().splitlines())) + "\n")
    builder = MMapIndexedDatasetBuilder(str(one / "test.bin"), np.uint16)
    builder.add_item(torch.tensor([trained.setup.task.dictionary.eos()]))
    builder.finalize(str(one / "test.idx"))
    cases = {
        "trained with another dictionary": [other],
        f"test of {one} is a single token": [one],
        "reads the text as one stream: leave out --batch-size": [trained.data, "--batch-size", "2"],
    }
    for message, (folder, *options) in cases.items():
        results = tmp_path / "results"
        assert_one_line(evaluate(capsys, folder, trained.path, results, *options), message, results)


@of_task(TRANSLATION)
def test_results_that_cannot_be_written(trained, capsys, tmp_path):
    """Nothing unfinished stays behind, and no JSON without its picture."""
    file = tmp_path / "file"
    file.write_text("a file")
    assert command.main([str(trained.data), "--path", str(trained.path), "--results-path", str(file), "--cpu"]) == 1
    assert f"error: --results-path {file} is not a folder\n" in capsys.readouterr().err
    results = tmp_path / "results"
    (results / "evaluate-test.png" / "occupied").mkdir(parents=True)
    done = evaluate(capsys, trained.data, trained.path, results)
    assert (done.status, done.out) == (1, "") and done.err.count("\n") == 1
    assert [path.name for path in results.iterdir()] == ["evaluate-test.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("DATA --path x", "required: --results-path"),
        ("DATA --results-path x", "required: --path"),
        ("DATA --path x --results-path x --max-tokens 0", "a whole number of at least 1 is needed, got '0'"),
        ("DATA --path x --results-path x --max-tokens 9 --batch-size 9", "not allowed with"),
    ],
)
def test_bad_options_are_one_line_and_status_2(capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        command.main(options.split())
    captured = capsys.readouterr()
    assert (caught.value.code, captured.out) == (2, "")
    assert captured.err.count("\n") == 1 and message in captured.err


def test_out_of_memory_is_one_line(monkeypatch, capsys, tmp_path):
    def load(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. And much more")

    monkeypatch.setattr(command, "load_trained_model", load)
    done = evaluate(capsys, tmp_path, "x.pt", tmp_path / "results")
    message = "selfkd-evaluate: error: out of memory; try a smaller --max-tokens or --batch-size\n"
    assert (done.status, done.err) == (1, message)


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0 and "--path RUN/checkpoints/checkpoint_best.pt" in capsys.readouterr().out
