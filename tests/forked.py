"""fairseq's console commands in processes of their own that start fast.

Each is a fork of a server that has imported fairseq and has done nothing else, so it holds nothing of another command
or of a test: as fresh as a new interpreter, without its 4 seconds of imports. The plugin is imported by ``--user-dir``
in each. tests/smoke has each command once as a user starts it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = multiprocessing.get_context("forkserver")
# All that the commands import but for themselves: each, when it is imported, says where fairseq logs to.
CONTEXT.set_forkserver_preload(["fairseq.trainer", "fairseq.sequence_generator"])
STREAMS = ("stdin", "stdout", "stderr")


class Command(NamedTuple):
    """A command that has been started."""

    line: list[str]
    process: BaseProcess
    streams: Path

    def finish(self, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Wait for its end; on an unexpected failure show the end of what it printed."""
        self.process.join(240)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"{self.line} does not end")
        out, err = ((self.streams / name).read_text(encoding="utf-8") for name in STREAMS[1:])
        shutil.rmtree(self.streams)
        if check and self.process.exitcode != 0:
            raise AssertionError(f"{self.line} failed with {self.process.exitcode}:\n{out[-2000:]}\n{err[-4000:]}")
        return subprocess.CompletedProcess(self.line, self.process.exitcode, out, err)


def _main(line: list[str], cwd: str, environment: dict[str, str], streams: Path) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in enumerate(STREAMS):
        file = os.open(streams / name, os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
    sys.stdin = os.fdopen(0, encoding="utf-8")  # multiprocessing has closed it
    sys.argv = line
    torch.set_num_threads(1)
    name = Path(line[0]).name[len("fairseq-") :].replace("-", "_")
    try:
        importlib.import_module(f"fairseq_cli.{name}").cli_main()
    except Exception:
        sys.excepthook(*sys.exc_info())  # as at the end of an interpreter; multiprocessing has its own way
        sys.exit(1)


def start(name: str, *arguments: Any, cwd: Any = ROOT, stdin: str = "") -> Command:
    """Start a command of fairseq, in the environment as it is now."""
    streams = Path(tempfile.mkdtemp(prefix="forked-"))
    (streams / "stdin").write_text(stdin, encoding="utf-8")
    line = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    process = CONTEXT.Process(target=_main, args=(line, str(cwd), dict(os.environ), streams))
    process.start()
    return Command(line, process, streams)


def run(name: str, *arguments: Any, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of fairseq to its end."""
    return start(name, *arguments, **options).finish(check)


def finish(*commands: Command) -> None:
    """Wait until each of the commands has ended well."""
    for command in commands:
        command.finish()
