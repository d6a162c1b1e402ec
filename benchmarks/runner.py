"""Cells: build the work, check it, time it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from . import check, floor, timing
from .cases import Case
from .peers import OURS, Peer
from .problem import Problem, build, work


class WrongResult(Exception):
    """Our result is not what torch computes in float64, or there is none: not worth timing."""


def run(
    cases: Sequence[Case],
    peers: Sequence[Peer],
    threads: Sequence[int],
    device: str,
    effort: timing.Effort,
) -> Iterator[tuple[Case, int, dict | WrongResult]]:
    """Yield (case, threads, cell) as they come; a WrongResult in the place of a refused cell."""
    usual = torch.get_num_threads()
    try:
        for case in cases:
            problem = build(case, device)
            torch.set_num_threads(max(threads))
            expected = check.reference(problem)
            for count in threads:
                torch.set_num_threads(count)
                try:
                    outcome = _cell(problem, expected, peers, count, device, effort)
                except WrongResult as refusal:
                    outcome = refusal
                yield case, count, outcome
    finally:
        torch.set_num_threads(usual)


def _cell(
    problem: Problem,
    expected: check.Reference,
    peers: Sequence[Peer],
    threads: int,
    device: str,
    effort: timing.Effort,
) -> dict:
    case = problem.case
    works, remarks = {}, {}
    for peer in peers:
        if not peer.can(problem):
            continue
        # Whatever a peer may raise concerns this cell alone: the others are still worth their time.
        try:
            with peer.context():
                candidate = work(problem, peer.build(problem))
                wrong = check.disagreement(candidate(), expected)
        except Exception as error:
            wrong = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            if peer.name != OURS:
                remarks[peer.name] = {"error": wrong}
                continue
        if wrong and peer.name == OURS:
            raise WrongResult(wrong)
        works[peer.name] = candidate
        remarks[peer.name] = {"wrong": wrong, "headline": peer.headline}

    contexts = {peer.name: peer.context for peer in peers if peer.name in works}
    if device != "cuda":
        timed = timing.interleave(works, timing.cpu_block(threads), effort, contexts)
        return cell(case, threads, timed, remarks)
    timed = timing.interleave(works, timing.cuda_block, effort, contexts)
    flush_bytes = timing.FLUSHES * torch.cuda.get_device_properties().L2_cache_size
    other = torch.ones(flush_bytes // 4, device=problem.input.device)
    # To flush takes longer than many a call; and calls that are timed one by one need not be many.
    fewer = replace(effort, block_time=effort.block_time / 10)
    cold = timing.interleave(works, timing.cold_block(other), fewer, contexts)
    return cell(case, threads, timed, remarks, cold) | {"traffic": floor.traffic(problem)}


def cell(
    case: Case,
    threads: int,
    timed: dict[str, dict],
    remarks: dict[str, dict],
    cold: dict[str, dict] | None = None,
) -> dict:
    """One entry of the JSON file, from the blocks of every peer and what is to be said of it.

    `cold` are the blocks that found the cache empty, where there are such.
    """
    entries = {}
    for name, remark in remarks.items():
        entries[name] = entry = dict(remark)
        if name in timed:
            entry |= _times(name, timed)
        if cold and name in cold:
            entry["cold"] = _times(name, cold)
    return {"case": case.to_json(), "threads": threads, "peers": entries}


def _times(name: str, timed: dict[str, dict]) -> dict:
    blocks = timed[name]["blocks_s"]
    entry = {"median_s": _round(statistics.median(blocks))}
    if name != OURS:
        entry["ratio"] = {
            key: _round(value)
            for key, value in timing.ratio(blocks, timed[OURS]["blocks_s"]).items()
        }
    entry["runs_per_block"] = timed[name]["runs_per_block"]
    entry["blocks_s"] = [_round(seconds) for seconds in blocks]
    return entry


def _round(value: float) -> float:
    """Five digits: more would only make the file larger."""
    return float(f"{value:.5g}")
