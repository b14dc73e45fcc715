"""Run command lines side by side, with a progress line every few seconds and one clear line when one fails."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple

__all__ = ["CommandFailed", "Job", "run_jobs"]

ROOT = Path(__file__).resolve().parents[2]


class CommandFailed(RuntimeError):
    """A command ended with an error; the message names it and its log, and shows the log's end."""


class Job(NamedTuple):
    """A command of this Python environment (its name, then its arguments) and the file for all that it prints."""

    command: List[str]
    output: Path


def _start(job: Job) -> subprocess.Popen:
    executable = Path(sys.executable).parent / job.command[0]
    # One thread each: side by side that is the fastest, and the sums do not depend on the number of cores.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with open(job.output, "w", encoding="utf-8") as output:
        return subprocess.Popen(
            [str(executable), *job.command[1:]],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip


def _stop(processes: Dict[str, subprocess.Popen]) -> None:
    running = [process for process in processes.values() if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(name: str, job: Job, code: int) -> CommandFailed:
    tail = job.output.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    return CommandFailed(
        f"{job.command[0]} ({name}) ended with code {code}; its output is in {job.output}. The last lines:\n"
        + "\n".join(f"    {line[:300]}" for line in tail)
    )


def run_jobs(jobs: Dict[str, Job], report: Callable[[], None], every: float = 10.0) -> None:
    """Run all jobs at the same time and wait for them. None of them outlives this call, whatever ends it.

    Args:
        jobs: name -> job.
        report: called every few seconds and once at the end, to print progress.
        every: seconds between two reports.

    Raises:
        CommandFailed: a job ended with an error (the others are stopped).
    """
    processes: Dict[str, subprocess.Popen] = {}
    try:
        for name, job in jobs.items():
            processes[name] = _start(job)
        next_report = time.monotonic() + every
        while any(process.poll() is None for process in processes.values()):
            time.sleep(0.2)
            for name, process in processes.items():
                if process.poll():
                    raise _failure(name, jobs[name], process.returncode)
            if time.monotonic() >= next_report:
                report()
                next_report += every
        for name, process in processes.items():
            if process.returncode:
                raise _failure(name, jobs[name], process.returncode)
    finally:
        _stop(processes)
    report()
