"""fairseq's own console commands with ``--user-dir selfkd_fairseq``, as a user types them; some of them forked."""

import json
import shutil

import pytest
import torch

from tests import forked
from tests.fairseq_setup import ROOT, TINY_LSTM_LM, TINY_TRANSFORMER, run
from tests.resume.trainings import assert_same_checkpoint

TRAIN = [
    "--user-dir", "selfkd_fairseq", "--criterion", "self_kd", "--cpu", "--seed", "3", "--max-tokens", "150",
    "--optimizer", "adam", "--lr", "0.005", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10",
    "--clip-norm", "1", "--no-progress-bar", "--log-format", "json", "--log-interval", "1",
]  # fmt: skip
SELF_KD = ["--label-smoothing", "0.1", "--skd-alpha", "0.5", "--skd-warmup-updates", "30", "--report-accuracy"]
SELF_KD += ["--skd-min-target-prob", "0.5"]


def train(data, save_dir, *flags, start=run, cwd=ROOT, check=True):
    return start(
        "fairseq-train", data, *TRAIN, "--save-dir", save_dir, "--log-file", f"{save_dir}.json", *flags,
        cwd=cwd, check=check,
    )  # fmt: skip


def train_log(save_dir):
    """The records of the JSON log that carry one update each."""
    with open(f"{save_dir}.json", encoding="utf-8") as file:
        records = [json.loads(line) for line in file if line.startswith('{"epoch"')]
    # fairseq writes a record again when it ends an epoch or validates: keep the first of each update.
    return list({r["num_updates"]: r for r in reversed(records) if "update" in r}.values())[::-1]


@pytest.fixture(scope="module")
def straight(tiny_translation, tmp_path_factory):
    """40 updates in one go, with two batches an update, within the first epoch.

    Within an epoch, because stock fairseq makes its batches anew in each process from the epoch it starts in:
    a run that is resumed in a later epoch sees the same sentences in other batches, whatever the criterion.
    """
    folder = tmp_path_factory.mktemp("straight") / "run"
    flags = [
        *TINY_TRANSFORMER, *SELF_KD, "--share-all-embeddings", "--update-freq", "2", "--no-epoch-checkpoints",
        "--batch-size", "2", "--required-batch-size-multiple", "1",
    ]  # fmt: skip
    train(tiny_translation, folder, *flags, "--max-update", "40", "--tensorboard-logdir", folder / "tensorboard")
    return folder, flags


def test_logged_values(straight):
    folder, _ = straight
    records = train_log(folder)
    assert [int(r["num_updates"]) for r in records] == list(range(1, 41))
    # alpha of an update is that of the number of updates done before it.
    assert [float(r["alpha"]) for r in records] == pytest.approx([0.5 * min(1, u / 30) for u in range(40)], abs=1e-5)
    for key in ("loss", "nll_loss", "ppl", "skd_loss", "skd_target_prob", "skd_cosine", "accuracy"):
        assert all(float(r[key]) == float(r[key]) for r in records), key
    assert all(0.5 <= float(r["skd_target_prob"]) <= 1 for r in records)
    assert float(records[-1]["nll_loss"]) < float(records[0]["nll_loss"])


def test_tensorboard_gets_the_values(straight):
    from tensorboardX.proto import event_pb2

    folder, _ = straight
    tags = set()
    for path in (folder / "tensorboard" / "train_inner").glob("events*"):
        content = path.read_bytes()
        while content:  # a record: length (8 bytes), its checksum (4), the event, its checksum (4)
            length = int.from_bytes(content[:8], "little")
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            tags |= {value.tag for value in event.summary.value}
            content = content[16 + length :]
    assert {"loss", "nll_loss", "skd_loss", "alpha", "skd_target_prob", "skd_cosine", "accuracy"} <= tags


def test_resume_is_exact(straight, tiny_translation, tmp_path):
    """With the true command; tests/resume has every support, the LSTM, further epochs and kills."""
    folder, flags = straight
    split = tmp_path / "run"
    train(tiny_translation, split, *flags, "--max-update", "20")
    train(tiny_translation, split, *flags, "--max-update", "40")
    assert_same_checkpoint(folder, split)
    assert [r["loss"] for r in train_log(folder)] == [r["loss"] for r in train_log(split)]
    assert [r["alpha"] for r in train_log(folder)] == [r["alpha"] for r in train_log(split)]


def test_same_seed_same_losses(straight, tiny_translation, tmp_path):
    folder, flags = straight
    train(tiny_translation, tmp_path / "again", *flags, "--max-update", "12", start=forked.run)
    again = [(r["loss"], r["nll_loss"], r["skd_loss"]) for r in train_log(tmp_path / "again")]
    assert again == [(r["loss"], r["nll_loss"], r["skd_loss"]) for r in train_log(folder)[:12]]


def test_generate_interactive_and_validate_load_the_checkpoint_safely(straight, tiny_translation):
    checkpoint = straight[0] / "checkpoint_best.pt"
    common = ["--user-dir", "selfkd_fairseq", "--path", checkpoint, "--cpu"]
    # With the default multiple of 8, fairseq 0.12.3 leaves out the sentences of a last batch that is no multiple.
    generated = run(
        "fairseq-generate", tiny_translation, *common, "--beam", "2", "--max-len-b", "10",
        "--required-batch-size-multiple", "1",
    )  # fmt: skip
    assert sum(line.startswith("H-") for line in generated.stdout.splitlines()) == 12
    typed = run("fairseq-interactive", tiny_translation, *common, "--max-len-b", "10", stdin="s1 s2 s3\n")
    assert any(line.startswith("D-0") for line in typed.stdout.splitlines())
    validated = run("fairseq-validate", tiny_translation, *common, "--task", "translation", "--max-tokens", "400")
    assert "nll_loss" in validated.stderr + validated.stdout


def test_user_dir_from_another_folder_after_a_plain_copy(tiny_translation, tmp_path):
    # What `pip install .` does: the package lies in a folder on sys.path, and no checkout is near.
    (tmp_path / "site").mkdir()
    shutil.copytree(ROOT / "selfkd_fairseq", tmp_path / "site" / "selfkd_fairseq")
    train(
        tiny_translation, tmp_path / "run", *TINY_TRANSFORMER, "--max-update", "2", "--user-dir",
        tmp_path / "site" / "selfkd_fairseq", cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "run" / "checkpoint_last.pt").is_file()


def test_language_model_trains_and_evaluates(tiny_language_model, tmp_path):
    train(tiny_language_model, tmp_path / "run", *TINY_LSTM_LM, *SELF_KD, "--max-update", "5", start=forked.run)
    evaluated = run(
        "fairseq-eval-lm", tiny_language_model, "--user-dir", "selfkd_fairseq", "--path",
        tmp_path / "run" / "checkpoint_last.pt", "--tokens-per-sample", "12", "--cpu", "--gen-subset", "valid",
    )  # fmt: skip
    assert "Perplexity" in evaluated.stderr + evaluated.stdout


def test_hydra_trains_from_the_example_config(tiny_translation, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # hydra imports the callback before fairseq reads the user dir
    config = ["--config-dir", "examples/translation/multi30k/config", "--config-name", "multi30k"]
    overrides = [
        f"task.data={tiny_translation}", "common.cpu=true",
        "optimization.max_epoch=1", f"hydra.run.dir={tmp_path}/run", "common.log_interval=1",
    ]  # fmt: skip
    run("fairseq-hydra-train", *config, *overrides)
    state = torch.load(tmp_path / "run" / "checkpoints" / "checkpoint_best.pt", weights_only=True)
    assert state["cfg"]["criterion"]["_name"] == "self_kd"
    assert state["model"]["decoder.output_projection.weight"].shape == (64, 128)
    bad = forked.run("fairseq-hydra-train", *config, *overrides, "criterion.skd_alpha=7", check=False)
    assert bad.returncode != 0
    assert bad.stderr.strip().splitlines()[-1] == "self_kd: alpha must be in [0, 1], got 7.0"
    assert "Traceback" not in bad.stderr


@pytest.mark.parametrize("start", [run, forked.run], ids=["started", "forked"])
def test_bad_option_is_one_line_and_touches_no_checkpoint(straight, tiny_translation, tmp_path, start):
    """Also with a fork in place of the true command, on which other tests rely."""
    folder, flags = straight
    shutil.copytree(folder, tmp_path / "run")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*.pt")}
    done = train(
        tiny_translation, tmp_path / "run", *flags, "--skd-temperature", "0", "--max-update", "50", check=False,
        start=start,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1] == "self_kd: temperature must be above 0 and finite, got 0.0"
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*.pt")} == before


def test_unsupported_model_is_one_line_and_writes_no_checkpoint(tiny_language_model, tmp_path):
    done = train(
        tiny_language_model, tmp_path / "run", "--task", "language_modeling", "--arch", "transformer_lm",
        "--decoder-layers", "1", "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16",
        "--decoder-attention-heads", "2", "--adaptive-softmax-cutoff", "10,20", "--tokens-per-sample", "12",
        "--max-update", "2", check=False, start=forked.run,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "TransformerLanguageModel: its adaptive softmax" in done.stderr.strip().splitlines()[-1]
    assert not list((tmp_path / "run").glob("*.pt"))
