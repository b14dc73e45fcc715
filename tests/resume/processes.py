"""fairseq-train in processes as those of tests/forked.py, which can be killed at a chosen moment.

tests/smoke resumes with the true command line.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Callable, NamedTuple, Tuple

import torch
from fairseq_cli import train

from selfkd_fairseq import hardening
from tests.forked import CONTEXT

Hook = Callable[[str, Tuple[Any, ...]], None]  # of sys.addaudithook


class KillAtFileEvent:
    """Audit hook: the process kills itself just before its n-th opening, renaming or removing of a file in a folder."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.left = f"{folder}{os.sep}", number

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(self.folder):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class KillInCopy:
    """Audit hook: the system kills the process in the middle of the n-th writing of ``checkpoint_last.pt``."""

    def __init__(self, folder: Path, number: int) -> None:
        self.path, self.left = str(folder / "checkpoint_last.pt"), number

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not str(arguments[0]).startswith(self.path):
            return
        path, mode, flags = arguments
        if "w" in (mode or "") or flags & os.O_WRONLY:
            self.left -= 1
            if self.left == 0:
                newest = max(Path(self.path).parent.glob("*.pt"), key=os.path.getmtime)
                kill_at_file_size(newest.stat().st_size // 2)


def kill_at_file_size(size: int) -> None:
    """From now on the system kills this process when it has written so many bytes of a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _train(arguments: list[str], output: Path, hook: Hook | None, hardened: bool) -> None:
    hardening.install() if hardened else hardening.remove()
    torch.set_num_threads(1)
    descriptor = os.open(str(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if hook is not None:
        sys.addaudithook(hook)
    sys.argv = ["fairseq-train", *arguments]
    train.cli_main()


class Run(NamedTuple):
    """A training: its data and flags, the folder that it writes to, and whether fairseq is hardened."""

    data: Path
    folder: Path
    flags: tuple[Any, ...]
    hardened: bool = False

    @property
    def log(self) -> Path:
        """The JSON log of all its processes."""
        return Path(f"{self.folder}.json")

    def start(self, *more: Any, hook: Hook | None = None) -> BaseProcess:
        """Start or resume it in a process."""
        arguments = [
            self.data, "--user-dir", "selfkd_fairseq", "--save-dir", self.folder, "--log-file", self.log, *self.flags,
            *more,
        ]  # fmt: skip
        output = Path(f"{self.folder}.out")
        process = CONTEXT.Process(target=_train, args=([str(a) for a in arguments], output, hook, self.hardened))
        process.start()
        return process

    def printed(self) -> str:
        """The end of what its processes printed."""
        return Path(f"{self.folder}.out").read_text(encoding="utf-8")[-3000:]

    def finish(self, process: BaseProcess) -> None:
        """Wait until a process of it has ended well."""
        process.join(240)
        if process.exitcode != 0:
            process.kill()
            raise AssertionError(f"ended with {process.exitcode}:\n{self.printed()}")
