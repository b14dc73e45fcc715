"""docs/deployment.md on a model that is trained here with self_kd: its commands and code as they stand.

All that changes is the path of the plugin: the test does not work in the checkout.
"""

import contextlib
import logging
import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import sacrebleu
import torch
from fairseq import options
from fairseq_cli import generate as fairseq_generate
from fairseq_cli import train as fairseq_train

from examples.synonyms.corpus import draw_corpus
from selfkd_fairseq.cli import prepare
from selfkd_fairseq.data import binarisation
from tests.data.quick_preprocess import quick_preprocess
from tests.fairseq_setup import ROOT, fairseq_settings

SIZES = {"train": 2000, "val": 40, "test_2016_flickr": 200}
# What the preparation does to these is what the tokenisation of raw text has to do.
AWKWARD = [
    "A well-known father-figure isn't here - he's away...",
    "“Tug-of-war”, she said, ‘is fun’!",
    'Signs & "slogans" <b>|[x]</b> at 50% (100,000.50 EUR).',
    "ÉCOLE ſtraße İstanbul — naïve café…",
    "Three\u00a0men ; two   women :  no-one ?",
]
PLUGIN = str(ROOT / "selfkd_fairseq")
# In the paths of the document.
PREPARED, CHECKPOINTS = "data-bin/multi30k.en-de", "checkpoints/self_kd"
MODEL = (
    "--arch transformer_multi30k --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 64 --decoder-embed-dim 64 "
    "--encoder-ffn-embed-dim 128 --decoder-ffn-embed-dim 128 --share-all-embeddings --dropout 0"
).split()
TRAINING = (
    "--criterion self_kd --label-smoothing 0.1 --skd-alpha 0.5 --skd-warmup-updates 100 --optimizer adam "
    "--lr 0.007 --lr-scheduler inverse_sqrt --warmup-updates 60 --clip-norm 1 --max-tokens 1000 --max-epoch 6 "
    "--required-batch-size-multiple 1 --num-workers 0 --no-epoch-checkpoints --no-last-checkpoints --no-progress-bar"
).split()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8"), re.DOTALL)


def block(language, word):
    """The one piece of the document in a language that holds a word."""
    (code,) = [code for each, code in BLOCKS if each == language and word in code]
    plugin = shlex.quote(PLUGIN) if language == "bash" else PLUGIN
    return re.sub(r'(--user.dir |user_dir=")selfkd_fairseq', lambda match: match[1] + plugin, code)


def write_raw(folder):
    """The corpus of synonyms as text that people type, under Multi30k's names."""
    folder.mkdir()
    for split, pairs in draw_corpus(SIZES, seed=1).items():
        for side, language in ((1, "en"), (2, "de")):
            sentences = [" ".join(pair[side][:-1]).capitalize() + pair[side][-1] for pair in pairs]
            sentences = [f"“{s}”" if i % 3 == 0 else s for i, s in enumerate(sentences)]
            sentences += AWKWARD if split == "val" else []
            (folder / f"{split}.{language}").write_text("".join(f"{s}\n" for s in sentences), encoding="utf-8")


@contextlib.contextmanager
def working_in(folder):
    """For code that takes relative paths; the level of the root logger, which fairseq changes, is put back."""
    before, level = os.getcwd(), logging.getLogger().level
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        logging.getLogger().setLevel(level)


def by_number(lines, kind):
    """The sentences of an output of fairseq, in the order of their numbers."""
    rows = [line.rstrip("\n").split("\t") for line in lines if line.startswith(kind)]
    return [row[-1] for row in sorted(rows, key=lambda row: int(row[0][len(kind) :]))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder that looks like the document's, and what fairseq-generate makes of its test set."""
    folder = tmp_path_factory.mktemp("deployment")
    write_raw(folder / "text")
    languages = ["--source-lang", "en", "--target-lang", "de"]
    with working_in(folder):
        flags = ["--source", "en", "--target", "de", "--bpe-merges", "500", "--raw", "text", "--dest", PREPARED]
        with mock.patch.object(binarisation, "run_preprocess", quick_preprocess):  # saves an import of fairseq
            assert prepare.main(["multi30k", *flags]) == 0
        common = [f"{PREPARED}/bin", "--user-dir", PLUGIN, "--cpu"]
        arguments = [*common, *MODEL, *TRAINING, "--save-dir", CHECKPOINTS]
        fairseq_train.main(fairseq_settings(*arguments))
        arguments = [
            *common, *languages, "--path", f"{CHECKPOINTS}/checkpoint_best.pt", "--gen-subset", "test", "--beam", "5",
            "--required-batch-size-multiple", "1", "--results-path", "generated", "--tokenizer", "moses",
            "--moses-no-dash-splits", "--bpe", "subword_nmt", "--bpe-codes", f"{PREPARED}/bin/bpe.codes",
        ]  # fmt: skip
        fairseq_generate.main(options.parse_args_and_arch(options.get_generation_parser(), arguments))
    lines = (folder / "generated" / "generate-test.txt").read_text(encoding="utf-8").splitlines()
    return SimpleNamespace(folder=folder, translations=by_number(lines, "D-"))


def agreement(trained, translations):
    """Share of the sentences that are, letter for letter, those of fairseq-generate."""
    assert len(translations) == len(trained.translations) == SIZES["test_2016_flickr"]
    return sum(a == b for a, b in zip(translations, trained.translations)) / len(translations)


def test_the_model_has_learnt_to_translate(trained):
    references = (trained.folder / PREPARED / "raw" / "test.de").read_text(encoding="utf-8").splitlines()
    score = sacrebleu.corpus_bleu(trained.translations, [references], lowercase=True).score
    assert score > 15 and len(set(trained.translations)) > 190, score


def test_fairseq_interactive_on_raw_text(trained):
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block("bash", "fairseq-interactive")], cwd=trained.folder,
        env={**os.environ, "PATH": path}, text=True, encoding="utf-8", capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert agreement(trained, done.stdout.splitlines()) >= 0.99


def test_from_pretrained(trained):
    names = {}
    with working_in(trained.folder):
        exec(compile(block("python", "from_pretrained"), "docs/deployment.md", "exec"), names)
    assert agreement(trained, names["translations"]) >= 0.99
    # Raw text becomes the tokens that the model was trained on.
    model, normalizer = names["model"], names["normalizer"]
    for split in ("valid", "test"):
        if split == "valid":
            raw = (trained.folder / "text" / "val.en").read_text(encoding="utf-8").splitlines()
        else:
            raw = (trained.folder / PREPARED / "raw" / "test.en").read_text(encoding="utf-8").splitlines()
        tokens = (trained.folder / PREPARED / "bpe" / f"{split}.en").read_text(encoding="utf-8").splitlines()
        assert [model.apply_bpe(model.tokenize(normalizer.normalize(line.lower()))) for line in raw] == tokens


def with_ctranslate2(trained, checkpoint, folder):
    """The document's conversion of a checkpoint, and its translations."""
    pytest.importorskip("ctranslate2", reason="needs ctranslate2 (pip install ctranslate2)")
    from ctranslate2.converters import fairseq as converter

    command = block("bash", "ct2-fairseq-converter").replace("\\\n", " ")
    code = block("python", "import ctranslate2").replace("ctranslate2-model", folder)
    command = command.replace("ctranslate2-model", folder).replace("checkpoint_best.pt", checkpoint)
    names = {}
    with working_in(trained.folder):
        with mock.patch.object(sys, "argv", shlex.split(command)):
            converter.main()
        exec(compile(code, "docs/deployment.md", "exec"), names)
    return names["translations"]


def test_ctranslate2(trained):
    translations = with_ctranslate2(trained, "checkpoint_best.pt", "ctranslate2-model")
    assert agreement(trained, translations) >= 0.99


def test_ctranslate2_with_a_model_of_hydra(trained):
    folder = trained.folder / "checkpoints" / "hydra"
    folder.mkdir()
    state = torch.load(trained.folder / CHECKPOINTS / "checkpoint_best.pt", weights_only=True)
    # What fairseq-hydra-train stores: plain dictionaries, with the settings of the task in that of the task alone.
    task, model = state["cfg"]["task"], vars(state["cfg"]["model"])
    own = model.keys() - task.keys() - {"arch"}
    state["cfg"]["model"] = {"_name": "transformer_multi30k", **{key: model[key] for key in own}}
    torch.save(state, folder / "checkpoint_best.pt")
    code = block("python", "argparse.Namespace").replace(CHECKPOINTS, "checkpoints/hydra")
    with working_in(trained.folder):
        exec(compile(code, "docs/deployment.md", "exec"), {})
    translations = with_ctranslate2(trained, "../hydra/to_convert.pt", "of-hydra")
    assert agreement(trained, translations) >= 0.99
