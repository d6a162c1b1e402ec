"""The Markdown table of what more threads are good for where there is one image."""

from __future__ import annotations

from .cases import FIRST
from .labels import DIRECTIONS, line, rule, times, work_label
from .peers import OURS
from .timing import geometric_mean


def table(cells: list[dict]) -> list[str]:
    """A line per group, direction and number of threads: time on one thread / time on so many."""
    single = {cell["case"]["name"]: cell["peers"] for cell in cells if cell["threads"] == 1}
    buckets: dict[tuple, list[tuple[float, float | None, str]]] = {}
    for cell in cells:
        case, alone = cell["case"], single.get(cell["case"]["name"])
        if cell["threads"] == 1 or case["shape"][0] != 1 or case["direction"] not in FIRST:
            continue
        if alone is None:
            continue
        ours, torch = (_speedup(alone, cell["peers"], name) for name in (OURS, "torch"))
        key = (case["group"], case["direction"], cell["threads"])
        buckets.setdefault(key, []).append((ours, torch, work_label(case)))
    if not buckets:
        return []
    titles = ["direction", "threads", "cells", "ours, geometric mean", "worst", "torch"]
    lines = [line(["one image: speed on so many threads / on one", *titles]), rule(len(titles))]
    for (group, direction, threads), entries in sorted(buckets.items()):
        theirs = [torch for _, torch, _ in entries if torch]
        worst, _, work = min(entries)
        columns = [
            group,
            DIRECTIONS[direction],
            str(threads),
            str(len(entries)),
            times(geometric_mean([ours for ours, _, _ in entries])),
            f"{times(worst)} ({work})",
            times(geometric_mean(theirs)) if theirs else "",
        ]
        lines.append(line(columns))
    return lines


def _speedup(alone: dict, together: dict, name: str) -> float | None:
    both = [peers.get(name, {}).get("median_s") for peers in (alone, together)]
    return both[0] / both[1] if all(both) else None
