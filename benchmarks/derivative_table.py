"""The Markdown table of the derivatives beyond a gradient."""

from __future__ import annotations

from .cases import FIRST
from .labels import DIRECTIONS, line, rule, threads_label, times, work_label
from .peers import OURS


def table(cells: list[dict]) -> list[str]:
    """A line per cell: our time, and that of every peer as a multiple of it."""
    cells = [cell for cell in cells if cell["case"]["direction"] not in FIRST]
    names: dict[str, None] = {}  # in the order of their first cells
    for cell in cells:
        names |= dict.fromkeys(name for name in cell["peers"] if name != OURS)
    if not cells:
        return []
    titles = ["direction", "threads", "µs", *(f"{name} / ours" for name in names)]
    lines = [line(["derivatives", *titles]), rule(len(titles))]
    for cell in cells:
        case, peers = cell["case"], cell["peers"]
        columns = [
            work_label(case),
            DIRECTIONS[case["direction"]],
            threads_label(cell["threads"]),
            f"{peers[OURS]['median_s'] * 1e6:.1f}",
            *(_ratio(peers.get(name, {})) for name in names),
        ]
        lines.append(line(columns))
    return lines


def _ratio(entry: dict) -> str:
    if "ratio" not in entry:
        return "failed" if "error" in entry else ""
    return times(entry["ratio"]["median"]) + ("†" if entry["wrong"] else "")
