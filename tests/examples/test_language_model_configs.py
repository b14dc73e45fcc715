"""The YAML files and scripts of the language-model recipes, each on a toy corpus."""

import subprocess

import pytest
import torch

from tests.fairseq_setup import ROOT, command
from tests.forked import run

EXAMPLES = ROOT / "examples" / "language_model"
SMALL = "task.tokens_per_sample=12 dataset.batch_size=4 common.cpu=true optimization.max_epoch=1".split()


@pytest.mark.parametrize(
    "config, widths, optimizer",
    [
        ("ptb/zaremba_small", [], "SGD"),
        ("ptb/awd_lstm", ["+model.decoder_embed_dim=8", "+model.decoder_hidden_size=9"], "FairseqNTASGD"),
        ("wikitext-2/awd_lstm", ["+model.decoder_embed_dim=8", "+model.decoder_hidden_size=9"], "FairseqNTASGD"),
        ("wikitext-103/awd_lstm", ["+model.decoder_embed_dim=8", "+model.decoder_hidden_size=9"], "FairseqAdam"),
    ],
)
def test_hydra_trains_from_the_config(config, widths, optimizer, tiny_language_model, tmp_path):
    folder, name = config.split("/")
    arguments = ["--config-dir", EXAMPLES / folder / "config", "--config-name", name]
    overrides = [f"task.data={tiny_language_model}", f"hydra.run.dir={tmp_path}/run", *SMALL, *widths]
    if "ptb/zaremba" not in config:
        overrides.append("dataset.batch_size_valid=1")
    run("fairseq-hydra-train", *arguments, *overrides)
    state = torch.load(tmp_path / "run" / "checkpoints" / "checkpoint_best.pt", weights_only=False)
    assert state["cfg"]["criterion"]["_name"] == "self_kd"
    assert state["optimizer_history"][-1]["optimizer_name"] == optimizer
    if folder == "wikitext-2":  # the values of the architecture that the file names
        assert (state["cfg"]["model"]["input_dropout"], state["cfg"]["model"]["hidden_dropout"]) == (0.65, 0.2)
    weight = state["model"]["decoder.embed_tokens.weight"]
    assert weight.size(1) == (8 if widths else 200)
    layers = {"ptb/zaremba_small": "decoder.lstm.weight_hh_l1"}.get(config, "decoder.layers.2.weight_hh_l0")
    assert state["model"][layers].size(1) == (8 if widths else 200)


@pytest.mark.parametrize(
    "model", ["zaremba_small", "zaremba_medium", "zaremba_large", "variational_small", "tied_small", "awd_lstm"]
)
@pytest.mark.parametrize("system", ["cross_entropy", "self_kd", "self_kd_full", "self_kd_predicted"])
def test_train_script_gives_the_published_recipe(model, system, tmp_path):
    """The command line that the script builds, shown by a fairseq-train that only prints it."""
    (tmp_path / "fairseq-train").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "fairseq-train").chmod(0o755)
    script = EXAMPLES / "ptb" / "train.sh"
    done = subprocess.run(
        ["bash", script, model, system, "DATA", tmp_path / "out", "--cpu"], text=True, capture_output=True, check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    words = done.stdout.splitlines()
    value = dict(zip(words, words[1:]))
    published = {
        # streams, window, clip, learning rate, epochs
        "zaremba_small": ("20", "20", "5", "1.0", "13"),
        "zaremba_medium": ("20", "35", "5", "1.0", "39"),
        "zaremba_large": ("20", "35", "10", "1.0", "55"),
        "variational_small": ("20", "35", "5", "1.0", "25"),  # ours, as the next
        "tied_small": ("20", "35", "5", "1.0", "20"),
        "awd_lstm": ("20", "70", "0.25", "30", "500"),
    }[model]
    names = ("--batch-size", "--tokens-per-sample", "--clip-norm", "--lr", "--max-epoch")
    assert tuple(value[name] for name in names) == published
    assert value["--criterion"] == ("cross_entropy" if system == "cross_entropy" else "self_kd")
    assert ("--sentence-avg" in words) == (model != "awd_lstm")
    assert words[0] == "DATA" and words[-1] == "--cpu"


def test_scripts_name_what_is_wrong(tmp_path):
    for arguments in (["train.sh"], ["evaluate.sh"], ["train.sh", "big", "self_kd", "DATA", tmp_path / "out"]):
        done = subprocess.run(
            ["bash", EXAMPLES / "ptb" / arguments[0], *arguments[1:]], text=True, capture_output=True, check=False
        )
        assert done.returncode == 2
        assert "train.sh" in done.stderr or "evaluate.sh" in done.stderr


def test_train_and_evaluate_scripts(tiny_language_model, tmp_path):
    """What the README says to type, on a toy corpus."""
    environment = {"PATH": f"{command('fairseq-train').rsplit('/', 1)[0]}:/usr/bin:/bin"}

    def bash(script, *arguments):
        return subprocess.run(
            ["bash", EXAMPLES / "ptb" / script, *map(str, arguments)], text=True, capture_output=True, check=True,
            env=environment,
        )  # fmt: skip

    small = ["--cpu", "--max-epoch", "1", "--decoder-embed-dim", "8", "--decoder-hidden-size", "8"]
    bash("train.sh", "variational_small", "self_kd", tiny_language_model, tmp_path / "run", *small, "--batch-size", "4")
    assert (tmp_path / "run" / "log.json").exists()
    done = bash(
        "evaluate.sh", tiny_language_model, tmp_path / "run" / "checkpoint_best.pt", "--cpu", "--tokens-per-sample",
        "35",
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["valid", "test"]
    assert all(1 < float(line.split("Perplexity: ")[1]) < 100 for line in lines)
    with pytest.raises(subprocess.CalledProcessError) as error:
        bash("evaluate.sh", tiny_language_model, tmp_path / "missing.pt", "--cpu")
    assert error.value.stdout == "" and "missing.pt" in error.value.stderr
