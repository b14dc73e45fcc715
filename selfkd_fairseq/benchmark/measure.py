"""Time and peak memory of a piece of work."""

import statistics
import time
from typing import Callable, Dict, List, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["gpu_seconds", "median_seconds", "peak_extra_bytes"]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    progress: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Dict[str, float]:
    """Median time of each piece of work, in seconds.

    Every round runs each piece once, so that a slow moment of the machine falls on all of them; one round before
    the count warms up.

    Args:
        work: name -> function to time.
        rounds: counted rounds, at least 1.
        device: waited for before each reading of the clock.
        progress: called after each round.
        clock: wall time by default; ``time.process_time`` counts the CPU time of all threads of this process instead.

    Returns:
        Name -> median over the counted rounds.
    """
    seconds: Dict[str, List[float]] = {name: [] for name in work}
    for counted in range(-1, rounds):
        for name, function in work.items():
            _synchronize(device)
            start = clock()
            function()
            _synchronize(device)
            if counted >= 0:
                seconds[name].append(clock() - start)
        progress()
    return {name: statistics.median(values) for name, values in seconds.items()}


def gpu_seconds(function: Callable[[], object], rounds: int = 3) -> float:
    """How long a GPU works on a piece of work, in seconds: its kernels and copies, without what it waits for the CPU.

    Args:
        function: the piece of work, of one stream; run once more to warm up.
        rounds: of which the mean is taken, at least 1.

    Returns:
        The mean, in seconds.
    """
    function()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(rounds):
            function()
        torch.cuda.synchronize()
    microseconds: float = sum(event.self_device_time_total for event in profiler.key_averages())
    return microseconds / rounds / 1e6


def peak_extra_bytes(function: Callable[[], None], device: torch.device) -> int:
    """Most memory that a piece of work holds at any time above what is held when it starts.

    On the CPU the allocations that torch's profiler records are added up; on a GPU the allocator counts itself.

    Args:
        function: the piece of work, run once.
        device: where it works.

    Returns:
        The peak, in bytes.
    """
    if device.type == "cuda":
        _synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        _synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    held = highest = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest
