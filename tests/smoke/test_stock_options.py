"""Whatever option fairseq-train is given: each command that reads checkpoints reads what it wrote, in the safe mode."""

import json

import numpy as np
import pytest
import torch

from selfkd_fairseq.cli import average_checkpoints, evaluate, neighbours
from tests.fairseq_setup import TINY_TRANSFORMER
from tests.in_process import PLUGIN, as_a_new_process, fairseq
from tests.resume.trainings import checkpoint, updates_done

TRAIN = [
    *TINY_TRANSFORMER, "--share-all-embeddings", "--criterion", "self_kd", "--max-tokens", "400", "--num-workers", "0",
    "--optimizer", "adam", "--lr", "0.005", "--required-batch-size-multiple", "1", "--seed", "3",
]  # fmt: skip
BLEU = [
    "--eval-bleu", "--eval-bleu-args", json.dumps({"beam": 2, "max_len_b": 10}), "--eval-bleu-detok", "space",
    "--eval-bleu-remove-bpe",
]  # fmt: skip
OPTIONS = {
    "--eval-bleu": BLEU,
    "--eval-tokenized-bleu": [*BLEU, "--eval-tokenized-bleu"],
    "--best-checkpoint-metric bleu": [
        *BLEU, "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric", "--keep-best-checkpoints", "1",
    ],
    "--report-accuracy": ["--report-accuracy"],
    "--store-ema": ["--store-ema", "--ema-fp32"],
}  # fmt: skip

SHORT = ["--max-len-b", "10", "--num-workers", "0"]


def train(data, folder, updates, option):
    flags = [*TRAIN, *OPTIONS[option], "--max-update", updates, "--save-dir", folder]
    fairseq("train", data, *flags)
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module", params=list(OPTIONS))
def trained(request, tiny_translation, tmp_path_factory):
    """The option, the data, and a checkpoint of two updates."""
    folder = tmp_path_factory.mktemp("stock") / "run"
    return request.param, tiny_translation, train(tiny_translation, folder, 2, request.param)


def arrays(value):
    """The arrays of numpy in nested containers."""
    if isinstance(value, (list, tuple, dict)):
        return [found for inner in (value.values() if isinstance(value, dict) else value) for found in arrays(inner)]
    return [value] if isinstance(value, np.ndarray) else []


def test_the_safe_mode_reads_what_the_other_reads(trained):
    option, _, path = trained
    safe, other = (torch.load(path, weights_only=mode)["extra_state"] for mode in (True, False))
    assert str(safe["metrics"]).replace("ndarray(", "array(") == str(other["metrics"])
    found, expected = arrays(safe["metrics"]), arrays(other["metrics"])
    assert bool(found) == ("bleu" in option)
    assert all(np.array_equal(*pair) and pair[0].dtype == pair[1].dtype for pair in zip(found, expected))
    assert ("ema" in safe) == (option == "--store-ema")


def test_resume(trained, tmp_path):
    option, data, path = trained
    (tmp_path / path.name).write_bytes(path.read_bytes())
    train(data, tmp_path, 4, option)
    assert updates_done(checkpoint(tmp_path)) == 4


def test_generate(trained, capsys):
    _, data, path = trained
    fairseq("generate", data, "--path", path, *SHORT, "--required-batch-size-multiple", "1")
    assert sum(line.startswith("H-") for line in capsys.readouterr().out.splitlines()) == 12


def test_interactive(trained, capsys, tmp_path):
    _, data, path = trained
    (tmp_path / "typed").write_text("s1 s2 s3\n")
    fairseq("interactive", data, "--path", path, *SHORT, "--input", tmp_path / "typed")
    assert any(line.startswith("D-0\t") for line in capsys.readouterr().out.splitlines())


def test_validate(trained, capsys):
    _, data, path = trained
    fairseq("validate", data, "--path", path, "--task", "translation", "--max-tokens", "400", "--num-workers", "0")
    assert "| nll_loss " in capsys.readouterr().out.splitlines()[-1]


def test_selfkd_evaluate(trained, tmp_path):
    _, data, path = trained
    assert evaluate.main([str(data), "--path", str(path), "--results-path", str(tmp_path), "--cpu"]) == 0


def test_selfkd_neighbours(trained, tmp_path):
    _, data, path = trained
    assert neighbours.main([str(path), "--data", str(data), "--output", str(tmp_path / "neighbours")]) == 0


def test_selfkd_average_checkpoints(trained, capsys, tmp_path):
    """What it writes holds no name of this package, and is read as well."""
    _, data, path = trained
    average = tmp_path / "average.pt"
    assert (
        average_checkpoints.main([str(path), str(path.with_name("checkpoint_best.pt")), "--output", str(average)]) == 0
    )
    assert b"cselfkd_fairseq" not in average.read_bytes()  # as the module of a pickled global; nothing is compressed
    assert str(checkpoint(tmp_path, "average.pt")["extra_state"]) == str(checkpoint(path.parent)["extra_state"])
    fairseq("generate", data, "--path", average, *SHORT)
    assert "Generate test with beam=5" in capsys.readouterr().out


def test_ct2_fairseq_converter(trained, tmp_path):
    pytest.importorskip("ctranslate2", reason="needs ctranslate2 (pip install ctranslate2)")
    from ctranslate2.converters import fairseq as converter

    _, data, path = trained
    with as_a_new_process(
        "ct2-fairseq-converter", "--model_path", path, "--data_dir", data, "--user_dir", PLUGIN[1],
        "--source_lang", "src", "--target_lang", "tgt", "--output_dir", tmp_path / "converted",
    ):  # fmt: skip
        converter.main()
    assert (tmp_path / "converted" / "model.bin").is_file()
