"""``selfkd-average-checkpoints`` as a command, and its result in fairseq."""

import inspect
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from selfkd_fairseq.cli import average_checkpoints as command
from selfkd_fairseq.evaluation.generate_output import read_generate_output
from tests import fairseq_setup

FLAGS = [
    *fairseq_setup.TINY_TRANSFORMER, "--share-all-embeddings", "--criterion", "self_kd", "--skd-warmup-updates", "0",
    "--optimizer", "adam",
]  # fmt: skip


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def write(path, value, updates=1):
    model = {"w": torch.full((3,), float(value))}
    torch.save({"cfg": {}, "model": model, "optimizer_history": [{"num_updates": updates}]}, path)
    return path


def mean_of(path):
    (value,) = set(torch.load(path, weights_only=True)["model"]["w"].tolist())
    return value


@pytest.fixture
def folder(tmp_path):
    """Four epochs and three updates with the values 1, 2, 4, 8 and 10, 20, 60."""
    folder = tmp_path / "run"
    folder.mkdir()
    for epoch in range(1, 5):
        write(folder / f"checkpoint{epoch}.pt", 2 ** (epoch - 1), 100 * epoch)
    for updates, value in ((50, 10), (150, 20), (250, 60)):
        write(folder / f"checkpoint_{1 + updates // 100}_{updates}.pt", value, updates)
    write(folder / "checkpoint_best.pt", 1000)
    return folder


@pytest.mark.parametrize(
    ("options", "mean"),
    [
        ("--last-epochs 2", 6),
        ("--last-epochs 4", 3.75),
        ("--last-epochs 2 --upper-bound 3", 3),
        ("--last-updates 2", 40),
        ("--last-updates 1 --upper-bound 249", 20),
    ],
)
def test_last_checkpoints_of_a_folder(folder, tmp_path, capsys, options, mean):
    output = tmp_path / "deeper" / "average.pt"
    status, out, err = run(capsys, *options.split(), folder, "--output", output)
    assert (status, out) == (0, f"{output}\n")
    assert err.startswith("selfkd-average-checkpoints: averaging ") and err.count("\n") == 1
    assert mean_of(output) == mean


def test_named_files_and_a_result_that_is_replaced(folder, tmp_path, capsys):
    output = tmp_path / "average.pt"
    output.write_text("an older one")
    assert run(capsys, folder / "checkpoint4.pt", folder / "checkpoint_best.pt", "--output", output)[0] == 0
    assert mean_of(output) == 504
    assert sorted(os.listdir(tmp_path)) == ["average.pt", "run"]


def test_bad_input_is_one_line_and_status_1(folder, tmp_path, capsys):
    best = folder / "checkpoint_best.pt"
    (tmp_path / "link.pt").symlink_to(best)
    (tmp_path / "text.pt").write_text("text")
    before = best.read_bytes()
    cases = {
        "holds 4 epoch checkpoints, 5 are wanted": ["--last-epochs", 5, folder],
        f"No such file or directory ({folder / 'absent.pt'})": [best, folder / "absent.pt"],
        "No such file or directory (": ["--last-epochs", 1, folder / "absent"],
        "Not a directory": ["--last-epochs", 1, best],
        "text.pt is damaged, or not a checkpoint": [best, tmp_path / "text.pt"],
        "checkpoint_best.pt is given twice": [best, best],
    }
    output = tmp_path / "average.pt"
    for message, arguments in cases.items():
        status, out, err = run(capsys, *arguments, "--output", output)
        errors = [line for line in err.splitlines() if "error: " in line]
        assert (status, out, len(errors)) == (1, "", 1) and message in errors[0], err
        assert not output.exists()
    os.mkfifo(folder / "pipe")  # as /dev/stdout or /dev/null would be
    cases = {best: "is one of the inputs", tmp_path / "link.pt": "is one of", folder: "a folder or a device"}
    for output, message in {**cases, folder / "pipe": "a folder or a device"}.items():
        status, out, err = run(capsys, best, folder / "checkpoint1.pt", "--output", output)
        assert (status, out) == (1, "") and message in err and err.count("\n") == 1
    assert best.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["link.pt", "run", "text.pt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--last-epochs 0 x", "a whole number of at least 1 is needed, got '0'"),
        ("--last-epochs 2 --last-updates 2 x", "not allowed with"),
        ("--last-epochs 2 x y", "--last-epochs takes one folder, got 2"),
        ("--upper-bound 2 x", "--upper-bound goes with"),
        (".", ". is a folder: it goes with --last-epochs or --last-updates"),
        ("", "required: INPUT"),
    ],
)
def test_bad_options_are_one_line_and_status_2(capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        command.main([*options.split(), "--output", "average.pt"])
    captured = capsys.readouterr()
    assert (caught.value.code, captured.out) == (2, "")
    assert captured.err.startswith("selfkd-average-checkpoints: error: ") and captured.err.count("\n") == 1
    assert message in captured.err


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0 and "--last-epochs 10 checkpoints/self_kd" in capsys.readouterr().out


PEAK = """
import importlib.util, resource, sys
from pathlib import Path
importlib.util.find_spec = lambda *_: None  # no fairseq: it takes seconds to import and is not needed
from selfkd_fairseq.checkpoints.average import average_checkpoints, save_checkpoint
paths = [Path(path) for path in sys.argv[2:]]
save_checkpoint(average_checkpoints(paths[:1]), Path(sys.argv[1]))  # warm: what torch takes once
save_checkpoint(average_checkpoints(paths[1:]), Path(sys.argv[1]))
def kib(field):
    line = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field)][0]
    return int(line.split()[1])
print(kib("VmHWM"))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak memory from Linux")
def test_memory_does_not_grow_with_the_number_of_files(tmp_path, root):
    size = 1 << 22  # elements: 16 MiB in float32, and no optimizer's state, which is the hardest case
    values = torch.arange(size, dtype=torch.float32)
    paths = [write(tmp_path / "small.pt", 1), *(tmp_path / f"{index}.pt" for index in range(8))]
    for path in paths[1:]:
        model = {"embed": values[: size // 2].clone(), "rest": values[size // 2 :].clone()}
        torch.save({"cfg": {}, "model": model}, path)

    def peak(*inputs):
        command = [sys.executable, "-c", PEAK, str(tmp_path / "average.pt"), *map(str, inputs)]
        # Memory that is freed goes back to the system at once: what is measured is what is held.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, check=True)
        return int(done.stdout) / 1024

    idle, busy = peak(paths[0], paths[0]), peak(*paths)
    # Besides the result less than half a model; without mapping (torch before 2.1), one file is in memory too.
    assert busy - idle < (1.5 if "mmap" in inspect.signature(torch.load).parameters else 2.5) * 16, (idle, busy)


def trainer_of(data, *flags):
    """A trainer as fairseq-train makes it, and fairseq's own loading of what the flags name."""
    from fairseq import checkpoint_utils
    from fairseq.trainer import Trainer

    cfg, task, model, criterion = fairseq_setup.build(data, *FLAGS, *map(str, flags))
    trainer = Trainer(cfg, task, model, criterion)
    _, epochs = checkpoint_utils.load_checkpoint(cfg.checkpoint, trainer)
    return trainer, epochs


@pytest.fixture(scope="module")
def trained(tiny_translation, tmp_path_factory):
    """A folder with three epochs of a training, and the mean of the last two."""
    folder = tmp_path_factory.mktemp("trained")
    trainer, epochs = trainer_of(tiny_translation, "--save-dir", folder)
    for epoch in (1, 2, 3):
        trainer.begin_epoch(epoch)
        for batch in epochs.next_epoch_itr(shuffle=False):
            trainer.train_step([batch])
        trainer.consolidate_optimizer()
        trainer.save_checkpoint(
            str(folder / f"checkpoint{epoch}.pt"), {"train_iterator": epochs.state_dict(), "val_loss": 1.0}
        )
    average = folder / "average.pt"
    assert command.main(["--last-epochs", "2", str(folder), "--output", str(average)]) == 0
    models = [torch.load(folder / f"checkpoint{epoch}.pt", weights_only=True)["model"] for epoch in (2, 3)]
    mean = {key: ((a.double() + models[1][key].double()) / 2).float().numpy() for key, a in models[0].items()}
    updates = trainer.get_num_updates()
    return SimpleNamespace(data=tiny_translation, folder=folder, average=average, mean=mean, updates=updates)


def assert_is_the_mean(model, trained):
    state = model.state_dict()
    assert state.keys() == trained.mean.keys()
    for key, value in fairseq_setup.own_tensors(state).items():
        np.testing.assert_array_equal(value.numpy(), trained.mean[key], err_msg=key)


def test_in_fairseq_generate(trained, tmp_path):
    from fairseq import options
    from fairseq_cli import generate

    arguments = [
        str(trained.data), "--user-dir", str(fairseq_setup.ROOT / "selfkd_fairseq"), "--cpu", "--gen-subset", "test",
        "--path", str(trained.average), "--beam", "2", "--nbest", "2", "--required-batch-size-multiple", "1",
        "--results-path", str(tmp_path), "--no-progress-bar", "--max-len-b", "10",
    ]  # fmt: skip
    level = logging.getLogger().level
    generate.main(options.parse_args_and_arch(options.get_generation_parser(), arguments))
    logging.getLogger().setLevel(level)
    # What fairseq writes is what the reader of selfkd-score reads.
    output = read_generate_output((tmp_path / "generate-test.txt").read_text(encoding="utf-8"), "test", nbest=True)
    references = (trained.data.parent / "test.tgt").read_text(encoding="utf-8").splitlines()
    assert output.references == references and len(output.hypotheses) == len(references) and not output.decoded


def test_in_fairseqs_loading_of_models(trained):
    from fairseq.checkpoint_utils import load_model_ensemble_and_task

    (model,), _, _ = load_model_ensemble_and_task([str(trained.average)])
    assert_is_the_mean(model, trained)
    assert model.encoder.embed_tokens.weight is model.decoder.output_projection.weight
    saved = torch.load(trained.average, weights_only=True)
    tied = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
    assert len({saved["model"][key].data_ptr() for key in tied}) == 1
    names = [(os.path.basename(entry["file"]), entry["num_updates"]) for entry in saved["averaged_checkpoints"]]
    assert names == [("checkpoint2.pt", 2 * trained.updates / 3), ("checkpoint3.pt", trained.updates)]


@pytest.mark.parametrize(("option", "epoch"), [("--finetune-from-model", 1), ("--restore-file", 4)])
def test_in_fairseq_train(trained, tmp_path, option, epoch):
    trainer, epochs = trainer_of(trained.data, "--save-dir", tmp_path, option, trained.average)
    assert_is_the_mean(trainer.get_model(), trained)
    assert (trainer.get_num_updates(), epochs.epoch) == (0, epoch)
    trainer.begin_epoch(epochs.epoch)
    trainer.train_step([next(epochs.next_epoch_itr(shuffle=False))])
    assert trainer.get_num_updates() == 1
