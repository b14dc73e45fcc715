"""Work on batches of lines with several processes, in order and within bounded memory."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Generator, Iterable, Iterator

from .errors import PreparationError

BATCH_LINES = 1000


def batches(items: Iterable[Any], size: int = BATCH_LINES) -> Iterator[list[Any]]:
    """Put items together.

    Args:
        items: read as the lists are taken.
        size: items of a list, at least 1.

    Returns:
        Consecutive lists; the last may be shorter, and none is empty.
    """
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, size)), [])


def _follow_parent() -> None:
    """End this process as soon as its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start_worker() -> None:
    # The parent alone answers Ctrl-C. A parent killed outright cannot stop its workers, so they watch it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _context() -> Any:
    # A forked worker has everything imported already; elsewhere fork is absent or unsafe.
    return multiprocessing.get_context("fork" if sys.platform.startswith("linux") else None)


def ordered_map(
    function: Callable[[list[Any]], Any], items: Iterable[list[Any]], workers: int
) -> Generator[Any, None, None]:
    """Do the work of many items in several processes.

    Args:
        function: can be pickled (a function of a module, or a ``functools.partial`` of one).
        items: read only a little ahead of the results that are taken.
        workers: number of processes; with 1 the work is done in this one.

    Yields:
        ``function`` of each item, in the order of the items, so the result does not depend on ``workers``.

    Raises:
        PreparationError: a worker process died (killed, or out of memory).
    """
    if workers == 1:
        yield from map(function, items)
        return
    pending: deque[Any] = deque()
    try:
        with ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start_worker) as pool:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    except BrokenProcessPool:
        raise PreparationError("a worker process died (out of memory?); try fewer --workers") from None
