"""Work in several processes: order, bounds, and what becomes of workers."""

import functools
import multiprocessing
import os
import signal
import time

import pytest

from selfkd_fairseq.data.errors import PreparationError
from selfkd_fairseq.data.parallel import batches, ordered_map


def slow_at_first(batch):
    time.sleep(0.02 if batch[0] < 10 else 0)
    return [(item, item * item) for item in batch]


def die(batch):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(batch):
    raise ValueError(f"batch {batch}")


def note_and_wait(folder, batch):
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def test_batches():
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches(iter([]), 2)) == []
    assert [len(batch) for batch in batches(range(2500))] == [1000, 1000, 500]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order_whatever_the_number_of_workers(workers):
    results = ordered_map(slow_at_first, batches(range(100), 5), workers)
    assert [pair for batch in results for pair in batch] == [(i, i * i) for i in range(100)]


@pytest.mark.parametrize("workers", [1, 2])
def test_input_is_read_only_a_little_ahead(workers):
    taken = 0

    def count(items):
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    for done, _ in enumerate(ordered_map(slow_at_first, count([i] for i in range(40)), workers)):
        assert taken <= done + 2 * workers
    assert taken == 40


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_reaches_the_caller(workers):
    with pytest.raises(ValueError, match=r"batch \[0\]"):
        list(ordered_map(fail, [[0], [1]], workers))


def test_a_worker_that_dies_is_an_error_and_no_hang():
    with pytest.raises(PreparationError, match="a worker process died"):
        list(ordered_map(die, [[i] for i in range(20)], 2))


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    function = functools.partial(note_and_wait, tmp_path)
    parent = multiprocessing.get_context("fork").Process(
        target=lambda: list(ordered_map(function, [[i] for i in range(9)], 2))
    )
    parent.start()
    try:
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 10)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        assert all(map(alive, workers))
    finally:
        parent.kill()
        parent.join()
    assert wait_until(lambda: not any(map(alive, workers)), 10)
