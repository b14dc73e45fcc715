"""Jobs side by side: they end together, and a failure is one clear message."""

import os
import time

import pytest

from examples.synonyms.processes import CommandFailed, Job, run_jobs


def python(code):
    return ["python", "-c", code]


def wait_for(path):
    for _ in range(200):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")


def test_output_goes_to_the_file_and_progress_is_reported(tmp_path):
    reports = []
    jobs = {
        "one": Job(python("import time; print('first'); time.sleep(0.7)"), tmp_path / "one"),
        "two": Job(python("import sys; print('second', file=sys.stderr)"), tmp_path / "two"),
    }
    run_jobs(jobs, lambda: reports.append(time.monotonic()), every=0.3)
    assert (tmp_path / "one").read_text() == "first\n"
    assert (tmp_path / "two").read_text() == "second\n"
    assert len(reports) >= 2


def test_a_failure_names_command_and_log_and_stops_the_others(tmp_path):
    pid = tmp_path / "pid"
    sleeper = python(
        f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    failing = python(
        f"import pathlib, time\nwhile not pathlib.Path({str(pid)!r}).exists(): time.sleep(0.05)\nexit('sad')"
    )
    started = time.monotonic()
    with pytest.raises(CommandFailed, match=r"python \(bad\) ended with code 1.*bad.out.*\n    sad"):
        run_jobs({"bad": Job(failing, tmp_path / "bad.out"), "good": Job(sleeper, tmp_path / "good.out")}, lambda: None)
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(wait_for(pid)), 0)


def test_an_interruption_stops_the_jobs(tmp_path):
    pid = tmp_path / "pid"
    sleeper = python(
        f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )

    def interrupt():
        wait_for(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs({"job": Job(sleeper, tmp_path / "out")}, interrupt, every=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(wait_for(pid)), 0)
