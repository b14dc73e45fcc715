"""The launches on two machines with four GPUs each that docs/experiments.md shows, as fairseq reads them."""

import re
import shlex

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed.utils import infer_init_method


@pytest.fixture
def launch(root, tmp_path, monkeypatch):
    """(name of the launcher) -> its own words, and a call that gives what fairseq makes of a process's environment."""
    monkeypatch.chdir(root)
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'node1\\nnode2\\n'\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    text = (root / "docs" / "experiments.md").read_text(encoding="utf-8")

    def documented(launcher):
        (command,) = re.findall(rf"^    {launcher} (?:.*\\\n)+.*", text, re.MULTILINE)
        words = shlex.split(command.replace("$(which fairseq-train)", "fairseq-train"))
        place = words.index("fairseq-train")
        flags = [word for word in words[place + 1 :] if word != "..."]

        def settings(environment):
            with monkeypatch.context() as patch:
                for name, value in environment.items():
                    patch.setenv(name, str(value))
                parser = options.get_training_parser()
                arguments = [*flags, "--arch", "transformer_multi30k", "--max-tokens", "100"]
                cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, arguments))
                infer_init_method(cfg.distributed_training)
                return cfg

        return words[1:place], settings

    return documented


def test_torchrun(launch):
    words, settings = launch("torchrun")
    assert words[:4] == ["--nnodes", "2", "--nproc_per_node", "4"]
    for rank in (0, 3, 4, 7):
        environment = {"MASTER_ADDR": "node1", "MASTER_PORT": 1, "WORLD_SIZE": 8, "RANK": rank, "LOCAL_RANK": rank % 4}
        cfg = settings(environment)
        worker = cfg.distributed_training
        assert worker.distributed_init_method == "env://" and worker.distributed_no_spawn
        assert (worker.distributed_world_size, worker.distributed_rank) == (8, rank)
        assert cfg.checkpoint.load_checkpoint_on_all_dp_ranks


def test_slurm(launch):
    words, settings = launch("srun")
    assert words[:6] == ["--nodes", "2", "--ntasks-per-node", "1", "--gpus-per-node", "4"]
    for node in (0, 1):
        environment = {
            "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NNODES": 2, "SLURM_NTASKS_PER_NODE": 1, "SLURM_NODEID": node,
        }  # fmt: skip
        cfg = settings(environment)
        first = cfg.distributed_training
        assert first.distributed_init_method == "tcp://node1:29500" and not first.distributed_no_spawn
        assert (first.distributed_world_size, first.distributed_rank) == (8, 4 * node)
        assert first.distributed_num_procs == 4  # which it starts by itself
        assert cfg.checkpoint.load_checkpoint_on_all_dp_ranks
