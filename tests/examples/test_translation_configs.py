"""The YAML files and scripts of the translation recipes on IWSLT and WMT."""

import subprocess

import pytest
import torch
from omegaconf import OmegaConf

from tests.fairseq_setup import ROOT, TINY_TRANSFORMER, command, fairseq_settings
from tests.forked import finish, start

EXAMPLES = ROOT / "examples" / "translation"
NAMES = ("iwslt14", "iwslt15", "wmt14", "wmt16")
TRAINED = ("iwslt14", "wmt16")
# Architecture, peak learning rate, updates accumulated, decay of the weights, dropout, dropout of attention and ReLU.
RECIPES = {
    "iwslt14": ("transformer_selfkd_iwslt", 5e-4, 1, 1e-4, 0.3, 0.1, 0.1),
    "wmt16": ("transformer_selfkd_wmt_base", 5e-4, 8, 0.0, 0.3, 0.0, 0.0),
}


@pytest.fixture(scope="module")
def trained(tiny_translation, tmp_path_factory):
    """One configuration of either kind, trained by hydra for an epoch on a toy corpus: its checkpoint."""
    folder = tmp_path_factory.mktemp("hydra")
    small = "dataset.max_tokens=400 common.cpu=true optimization.max_epoch=1 +model.encoder_layers=1".split()
    small += ["+model.decoder_layers=1", "task.source_lang=src", "task.target_lang=tgt"]
    finish(
        *(
            start(
                "fairseq-hydra-train", "--config-dir", str(EXAMPLES / name / "config"), "--config-name", "self_kd",
                f"task.data={tiny_translation}", f"hydra.run.dir={folder}/{name}", *small,
            )
            for name in TRAINED
        )
    )  # fmt: skip
    paths = {name: folder / name / "checkpoints" / "checkpoint_best.pt" for name in TRAINED}
    return {name: torch.load(path, weights_only=True) for name, path in paths.items()}


@pytest.mark.parametrize("name", TRAINED)
def test_hydra_trains_the_recipe(name, trained):
    config, weights = trained[name]["cfg"], trained[name]["model"]
    assert config["criterion"]["_name"] == "self_kd"
    model, optimization = config["model"], config["optimization"]
    found = (
        config["model"]["_name"], optimization["lr"][0], optimization["update_freq"][0],
        config["optimizer"]["weight_decay"], model["dropout"], model["attention_dropout"], model["activation_dropout"],
    )  # fmt: skip
    assert found == RECIPES[name]
    source, target = (weights[f"{side}.embed_tokens.weight"] for side in ("encoder", "decoder"))
    assert source.size(1) == 512
    assert torch.equal(source, target) == name.startswith("wmt")
    assert torch.equal(weights["decoder.output_projection.weight"], target)


def keys(config, above=""):
    """The names of all values of a configuration."""
    found = set()
    for key, value in config.items():
        found |= keys(value, f"{above}{key}.") if hasattr(value, "items") else {above + key}
    return found


@pytest.mark.parametrize(("name", "trained_one"), [("iwslt15", "iwslt14"), ("wmt14", "wmt16")])
def test_the_other_configs_differ_from_a_trained_one_in_values_alone(name, trained_one):
    mine, theirs = (
        keys(OmegaConf.to_container(OmegaConf.load(EXAMPLES / each / "config" / "self_kd.yaml"), resolve=False))
        for each in (name, trained_one)
    )
    may_differ = {"model.dropout", "optimization.max_epoch", "optimization.max_update"}
    assert mine - may_differ == theirs - may_differ
    assert len(mine) > 25


@pytest.mark.parametrize("name", NAMES)
def test_config_and_script_are_one_recipe(name, tmp_path):
    config = OmegaConf.load(EXAMPLES / name / "config" / "self_kd.yaml")
    value, words = shown(name, "self_kd", tmp_path)
    assert value["--arch"] == config.model._name
    expected = {
        "--lr": config.optimization.lr[0], "--warmup-updates": config.lr_scheduler.warmup_updates,
        "--warmup-init-lr": config.lr_scheduler.warmup_init_lr, "--clip-norm": config.optimization.clip_norm,
        "--max-tokens": config.dataset.max_tokens, "--label-smoothing": config.criterion.label_smoothing,
        "--skd-alpha": config.criterion.skd_alpha, "--skd-warmup-updates": config.criterion.skd_warmup_updates,
        "--seed": config.common.seed, "--keep-last-epochs": config.checkpoint.keep_last_epochs,
    }  # fmt: skip
    assert {flag: float(value[flag]) for flag in expected} == {flag: float(n) for flag, n in expected.items()}
    assert float(value.get("--weight-decay", 0)) == config.optimizer.weight_decay
    assert int(value.get("--update-freq", 1)) == config.optimization.update_freq[0]
    assert int(value.get("--max-epoch", 0)) == config.optimization.get("max_epoch", 0)
    assert int(value.get("--max-update", 0)) == config.optimization.get("max_update", 0)
    for flag in ("share_all_embeddings", "share_decoder_input_output_embed"):
        assert ("--" + flag.replace("_", "-") in words) == config.model.get(flag, False)


def shown(name, system, folder):
    """(flag -> value, all words) of the command line that a script builds, by a fairseq-train that only prints it."""
    (folder / "fairseq-train").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (folder / "fairseq-train").chmod(0o755)
    done = subprocess.run(
        ["bash", EXAMPLES / name / "train.sh", system, "DATA", folder / "out", "--cpu"], text=True, check=True,
        capture_output=True, env={"PATH": f"{folder}:/usr/bin:/bin"},
    )  # fmt: skip
    words = done.stdout.splitlines()
    return dict(zip(words, words[1:])), words


@pytest.mark.parametrize("name", NAMES)
def test_systems_differ_in_the_criterion_alone(name, tmp_path):
    plain, self_kd = (shown(name, system, tmp_path)[1] for system in ("label_smoothing", "self_kd"))
    assert plain[0] == "DATA" and plain[-1] == "--cpu"
    criterion = ["--skd-alpha", "0.5", "--skd-warmup-updates", "4000"]
    start = self_kd.index("--skd-alpha")
    assert self_kd[start : start + 4] == criterion
    assert [word.replace("label_smoothed_cross_entropy", "self_kd") for word in plain] == [
        *self_kd[:start], *self_kd[start + 4 :]
    ]  # fmt: skip


@pytest.mark.parametrize("system", ["label_smoothing", "self_kd"])
@pytest.mark.parametrize("name", ["multi30k", *NAMES])
def test_fairseq_takes_the_command_line(name, system, tmp_path):
    words = shown(name, system, tmp_path)[1]
    config = fairseq_settings(*words)
    assert config.dataset.update_epoch_batch_itr is True and config.criterion.label_smoothing == 0.1


@pytest.mark.parametrize("name", NAMES)
def test_scripts_name_what_is_wrong(name, tmp_path):
    for arguments in (["train.sh"], ["evaluate.sh"], ["train.sh", "big", "DATA", tmp_path / "out"]):
        done = subprocess.run(
            ["bash", EXAMPLES / name / arguments[0], *arguments[1:]], text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert arguments[0] in done.stderr
        assert "set -" not in done.stderr


def test_train_and_evaluate_scripts(tiny_translation, tmp_path):
    """What the READMEs say to type, on a toy corpus."""
    environment = {"PATH": f"{command('fairseq-train').rsplit('/', 1)[0]}:/usr/bin:/bin"}

    def bash(name, script, *arguments):
        return subprocess.run(
            ["bash", EXAMPLES / name / script, *map(str, arguments)], text=True, capture_output=True, check=True,
            env=environment,
        )  # fmt: skip

    tiny = [*TINY_TRANSFORMER, "--cpu", "--max-epoch", "1", "--max-tokens", "200", "--update-freq", "1"]
    bash("wmt14", "train.sh", "self_kd", tiny_translation, tmp_path / "run", *tiny)
    for folder in ("raw", "tok"):
        (tmp_path / "prepared" / folder).mkdir(parents=True)
        text = (tiny_translation.parent / "test.tgt").read_text()
        (tmp_path / "prepared" / folder / "test.tgt").write_text(text)
    (tmp_path / "prepared" / "bin").symlink_to(tiny_translation)
    results = tmp_path / "the results"
    bash("wmt14", "evaluate.sh", tmp_path / "prepared", tmp_path / "run" / "checkpoint_best.pt", results, "--cpu")
    assert (results / "generate-test.txt").is_file() and (results / "evaluate-test.json").is_file()
    scores = (results / "scores.txt").read_text()
    assert "tok:none" in scores and "tok:13a" in scores
