"""The launches on two machines that docs/experiments.md shows, as the shell, torchrun and fairseq read them."""

import copy
import os
import re
import subprocess
import sys

import pytest
import torch
from fairseq.distributed.utils import infer_init_method
from torch.distributed.run import get_args_parser

from tests.fairseq_setup import fairseq_settings

REST = ["--arch", "transformer_multi30k", "--max-tokens", "100"]  # in place of the document's "..."
A_GPU_WORKER = """
import sys, torch
torch.cuda.device_count, torch.cuda.set_device = lambda: 4, lambda device: None
from tests.test_launches import infer_init_method, parsed
worker = parsed(sys.argv[1:]).distributed_training
infer_init_method(worker)
print(worker.device_id, end="\\0")
"""


@pytest.fixture(autouse=True)
def programs(root, tmp_path, monkeypatch):
    """In the checkout, with programs on the PATH that only print their words, and a SLURM of two nodes."""
    monkeypatch.chdir(root)
    scripts = dict.fromkeys(["torchrun", "srun", "fairseq-train"], """printf '%s\\0' "$@" """)
    scripts["scontrol"] = r"printf 'node1\nnode2\n'"
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


def parsed(flags):
    """fairseq-train's reading of its flags, with what every launch has to say."""
    place = flags.index("...")
    arguments = [*flags[:place], *REST, *flags[place + 1 :]]
    cfg = fairseq_settings(*arguments)
    assert (cfg.task.data, cfg.criterion._name) == ("DATA", "self_kd")
    assert cfg.checkpoint.load_checkpoint_on_all_dp_ranks
    return cfg


def worker_of(cfg, environment, monkeypatch):
    """What fairseq then makes of the variables of one process."""
    worker = copy.deepcopy(cfg.distributed_training)
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        infer_init_method(worker)
    return worker


def printed_words(*command, **environment):
    """The words with which a command ends up calling a program that prints them."""
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def documented(root, launcher):
    """The words that the shell gives to the launcher, for each of its launches in the document."""
    text = (root / "docs" / "experiments.md").read_text(encoding="utf-8")
    commands = re.findall(rf"^ +{launcher} (?:.*\\\n)+.*", text, re.MULTILINE)
    return [printed_words("bash", "-c", command) for command in commands]


def torchrun_workers(words, processes):
    """torchrun's reading of its words, with what they have to be, and the variables that it sets for each worker."""
    launch = get_args_parser().parse_args(words)
    assert (launch.nnodes, launch.nproc_per_node) == ("2", str(processes))
    assert (launch.rdzv_backend, launch.rdzv_endpoint) == ("c10d", "HOST:29500")
    shared = {"MASTER_ADDR": "node1", "MASTER_PORT": "1", "WORLD_SIZE": str(2 * processes)}
    ranks = range(2 * processes)
    return launch, [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank % processes)} for rank in ranks]


def test_torchrun_on_gpus(root, programs, four_gpus, monkeypatch):
    words, _ = documented(root, "torchrun")
    launch, environments = torchrun_workers(words, processes=4)
    assert launch.training_script == str(programs / "fairseq-train") and not launch.no_python
    cfg = parsed(launch.training_script_args)
    for rank, environment in enumerate(environments):
        worker = worker_of(cfg, environment, monkeypatch)
        assert worker.distributed_init_method == "env://" and worker.distributed_no_spawn
        assert (worker.distributed_world_size, worker.distributed_rank) == (8, rank)

    # In a process of its own, as fairseq 0.12.2 takes the device from LOCAL_RANK when it is imported.
    devices = printed_words(sys.executable, "-c", A_GPU_WORKER, *launch.training_script_args, **environments[6])
    assert devices == [str(6 % 4)]


def test_torchrun_on_cpus(root, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    _, words = documented(root, "torchrun")
    launch, environments = torchrun_workers(words, processes=2)
    assert launch.training_script == "bash" and launch.no_python
    for rank, environment in enumerate(environments):
        cfg = parsed(printed_words(launch.training_script, *launch.training_script_args, **environment))
        worker = worker_of(cfg, environment, monkeypatch)
        assert worker.distributed_init_method == "env://" and worker.distributed_no_spawn
        assert (worker.distributed_world_size, worker.distributed_rank, worker.device_id) == (4, rank, rank % 2)
        assert cfg.common.cpu and (worker.distributed_backend, worker.ddp_backend) == ("gloo", "legacy_ddp")


def test_slurm(root, four_gpus, monkeypatch):
    (words,) = documented(root, "srun")
    place = words.index("fairseq-train")
    assert words[:place] == [
        "--nodes", "2", "--ntasks-per-node", "1", "--gpus-per-node", "4", "--cpus-per-task", "16",
    ]  # fmt: skip
    cfg = parsed(words[place + 1 :])
    for node in (0, 1):
        environment = {
            "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1",
            "SLURM_NODEID": str(node),
        }  # fmt: skip
        first = worker_of(cfg, environment, monkeypatch)
        assert first.distributed_init_method == "tcp://node1:29500" and not first.distributed_no_spawn
        assert (first.distributed_world_size, first.distributed_rank) == (8, 4 * node)
        assert first.distributed_num_procs == 4  # which it starts by itself
