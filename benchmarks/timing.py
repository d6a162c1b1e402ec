"""Interleaved timing and the statistics made of it."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils.benchmark import Timer

Work = Callable[[], object]
# (work, runs) -> seconds per run
Block = Callable[[Work, int], float]
Context = Callable[[], contextlib.AbstractContextManager]

# A GPU's L2 cache does not drop the oldest line first: reading its size once would leave a part.
FLUSHES = 4


@dataclass(frozen=True)
class Effort:
    """How long a cell is measured: `repeats` rounds at least, and until `min_time` seconds.

    A round is one block of every peer; a block is as many runs as fill `block_time` seconds.
    """

    repeats: int
    min_time: float
    block_time: float = 0.005
    most_rounds: int = 200


def cpu_block(threads: int) -> Block:
    """Blocks by torch.utils.benchmark: warm-up runs, garbage collection off, `threads` threads."""

    def block(work: Work, runs: int) -> float:
        # The clock is named because on a CUDA build the default one synchronises the device.
        timer = Timer(
            "work()", globals={"work": work}, num_threads=threads, timer=time.perf_counter
        )
        return timer.timeit(runs).median

    return block


def cuda_block(work: Work, runs: int) -> float:
    """Device time between two CUDA events around the runs, after two warm-up runs."""
    start = torch.cuda.Event(enable_timing=True)
    stop = torch.cuda.Event(enable_timing=True)
    for _ in range(2):
        work()
    torch.cuda.synchronize()
    start.record()
    for _ in range(runs):
        work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3 / runs


def cold_block(other: torch.Tensor) -> Block:
    """Blocks of calls on CUDA that find the L2 cache full of `other`, FLUSHES times as large.

    It is read before every call, outside of the time: each call stands between two events of its
    own. Read and not written, since lines that were written would go back to memory in the call's
    time.
    """

    def block(work: Work, runs: int) -> float:
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
        for _ in range(2):
            work()
        torch.cuda.synchronize()
        for start, stop in pairs:
            other.sum()
            start.record()
            work()
            stop.record()
        torch.cuda.synchronize()
        return statistics.median(start.elapsed_time(stop) for start, stop in pairs) / 1e3

    return block


def calibrate(work: Work, block: Block, block_time: float) -> int:
    """The number of runs that fills a block."""
    runs = 1
    while True:
        seconds = max(block(work, runs), 1e-9)
        if seconds * runs >= block_time:
            return max(1, math.ceil(block_time / seconds))
        # Grow at most tenfold, since a short block's estimate is a poor one.
        runs = min(10 * runs, math.ceil(1.2 * block_time / seconds))


def interleave(
    works: Mapping[str, Work],
    block: Block,
    effort: Effort,
    contexts: Mapping[str, Context] | None = None,
) -> dict[str, dict]:
    """Time the works in turns, so that a slow spell of the machine meets all of them.

    `contexts`, by name, are entered around a work's blocks. Returns, by name, the seconds per run
    of every block and the number of runs in a block.
    """
    contexts = dict.fromkeys(works, contextlib.nullcontext) | dict(contexts or {})
    runs = {}
    for name, work in works.items():
        with contexts[name]():
            runs[name] = calibrate(work, block, effort.block_time)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    begin = time.perf_counter()
    for done in range(effort.most_rounds):
        if done >= effort.repeats and time.perf_counter() - begin >= effort.min_time:
            break
        for name in order:
            with contexts[name]():
                seconds[name].append(block(works[name], runs[name]))
        order.reverse()  # nobody always runs in the wake of the same other
    return {name: {"blocks_s": seconds[name], "runs_per_block": runs[name]} for name in works}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    if not values:
        raise ValueError("quartiles: values must hold at least one number, got none")
    if len(values) == 1:
        return (values[0],) * 3
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """theirs / ours of each round: its median and quartiles. Above 1, ours is the faster."""
    first, median, third = quartiles([a / b for a, b in zip(theirs, ours, strict=True)])
    return {"median": median, "q1": first, "q3": third}


def geometric_mean(values: Sequence[float]) -> float:
    """The mean that suits ratios: that of 2 and 1/2 is 1."""
    return statistics.geometric_mean(values)
