"""Results as JSON, as a table in the terminal, and as Markdown."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from . import cuda_tables, derivative_table, scaling_table
from .cases import FIRST
from .labels import DIRECTIONS, line, rule, threads_label, times, work_label
from .peers import OURS
from .timing import geometric_mean

SCHEMA = 1


def headline(cell: dict) -> tuple[str, dict] | None:
    """(name, ratio) of the fastest headline peer of a cell; None if none could be timed.

    A peer with a wrong result counts only where no other's is right.
    """
    rivals = {
        name: entry
        for name, entry in cell["peers"].items()
        if entry.get("headline") and "ratio" in entry
    }
    if not rivals:
        return None
    name = min(rivals, key=lambda peer: (bool(rivals[peer]["wrong"]), rivals[peer]["median_s"]))
    return name, rivals[name]["ratio"]


def summarise(cells: Iterable[dict]) -> list[dict]:
    """Geometric mean and worst cell of each (group, direction, threads), then over all groups.

    "all" leaves out cells where the rival's result is wrong: its speed is worth nothing there.
    """
    buckets: dict[tuple, list[tuple[float, str]]] = {}
    for cell in cells:
        best = headline(cell)
        if best is None:
            continue
        case = cell["case"]
        entry = (best[1]["median"], work_label(case))
        wrong = cell["peers"][best[0]]["wrong"]
        for group in [case["group"]] if wrong else [case["group"], "all"]:
            key = (group, case["direction"], cell["threads"])
            buckets.setdefault(key, []).append(entry)
    rows = []
    for (group, direction, threads), entries in buckets.items():
        worst, work = min(entries)
        rows.append(
            {
                "group": group,
                "direction": direction,
                "threads": threads,
                "cells": len(entries),
                "geometric_mean": geometric_mean([value for value, _ in entries]),
                "worst": worst,
                "worst_work": work,
            }
        )
    return sorted(rows, key=lambda row: (row["group"] == "all", row["group"]))


# --- terminal ---------------------------------------------------------------------------------


class Table:
    """The table of cells, printed row by row as they are measured.

    floors: with what share of the floor's speed ours has, warm and cold
    """

    def __init__(self, cases: Iterable[dict], rivals: list[str], floors: bool = False):
        self.rivals = rivals
        self.floors = floors
        self.width = max([len(work_label(case)) for case in cases] + [len("work")])

    def head(self) -> str:
        """Two lines: the column's titles and a rule."""
        text = f"{'work':{self.width}}  {'direction':16} thr  ns/elem    ours µs"
        text += "  of floor (cold)" if self.floors else ""
        for name in self.rivals:
            time, ratio = _widths(name)
            text += f"  {name + ' µs':>{time}} {name + '/ours':>{ratio}}  {'quartiles':13}"
        return text + "\n" + "-" * len(text)

    def row(self, cell: dict) -> str:
        """One cell. A rival's wrong result is marked with †, a failed rival has no time."""
        case = cell["case"]
        ours = cell["peers"][OURS]["median_s"]
        text = f"{self._start(case, cell['threads'])} {ours / case['elements'] * 1e9:8.2f} "
        text += f"{ours * 1e6:10.1f}"
        if self.floors:
            warm, cold = (cell["floor"][kind]["fraction"] for kind in ("warm", "cold"))
            text += f"  {f'{warm:.0%} ({cold:.0%})':>15}"
        for name in self.rivals:
            time, ratio = _widths(name)
            entry = cell["peers"].get(name, {})
            if "ratio" not in entry:
                text += f"  {'failed' if 'error' in entry else '-':>{time}} {'':{ratio}}  {'':13}"
                continue
            found = entry["ratio"]
            mark = "†" if entry["wrong"] else " "
            spread = f"{found['q1']:.2f}-{found['q3']:.2f}"
            text += f"  {entry['median_s'] * 1e6:{time}.1f} {found['median']:{ratio - 2}.2f}x{mark}"
            text += f"  {spread:13}"
        return text.rstrip()

    def refusal(self, case: dict, threads: int, reason: str) -> str:
        """A cell that was not timed."""
        return f"{self._start(case, threads)}  WRONG, not timed: {reason}"

    def _start(self, case: dict, threads: int) -> str:
        direction = DIRECTIONS[case["direction"]]
        return f"{work_label(case):{self.width}}  {direction:16} {threads:3d}"


def _widths(name: str) -> tuple[int, int]:
    """Of a rival's column of times, and of that of its ratios."""
    return max(14, len(name) + 3), max(15, len(name) + 5)


def summary_text(cells: list[dict]) -> str:
    """The geometric means and worst cells, aligned."""
    rows = summarise(cells)
    width = max([len(row["group"]) for row in rows] + [5])
    lines = [f"{'group':{width}}  {'direction':16}  thr  cells  geo. mean   worst"]
    for row in rows:
        lines.append(
            f"{row['group']:{width}}  {DIRECTIONS[row['direction']]:16}  {row['threads']:3d}"
            f"  {row['cells']:5d}  {row['geometric_mean']:8.2f}x  {row['worst']:5.2f}x"
            f"  {row['worst_work']}"
        )
    return "\n".join(lines)


# --- Markdown ---------------------------------------------------------------------------------


def markdown(results: dict) -> str:
    """The tables for a README: of the cells, of what is special to the device, the summary."""
    cells = results["cells"]
    on_cuda = results["environment"].get("device") == "cuda"
    tables = cuda_tables.TABLES if on_cuda else (_cells_table, _others)
    lines = [_provenance(results)]
    for table in (*tables, scaling_table.table, derivative_table.table):
        rows = table(cells)
        lines += ["", *rows] if rows else []
    if any(entry.get("wrong") for cell in cells for entry in cell["peers"].values()):
        lines += ["", "† what it is compared with gives a wrong result there."]
    lines += ["", line(["group", "direction", "threads", "cells", "geometric mean", "worst cell"])]
    lines.append(rule(5))
    for row in summarise(cells):
        direction = DIRECTIONS[row["direction"]]
        worst = f"{row['worst']:.2f}x ({row['worst_work']})"
        mean = f"{row['geometric_mean']:.2f}x"
        lines.append(
            line([row["group"], direction, str(row["threads"]), str(row["cells"]), mean, worst])
        )
    return "\n".join(lines) + "\n"


def _cells_table(cells: list[dict]) -> list[str]:
    """One line per piece of work, a column per direction and number of threads."""
    cells = [cell for cell in cells if cell["case"]["direction"] in FIRST]
    if not cells:
        return []
    columns = sorted(
        {(cell["case"]["direction"], cell["threads"]) for cell in cells},
        key=lambda column: (column[0] != "forward", column[1]),
    )
    titles = [f"{DIRECTIONS[direction]}, {threads_label(count)}" for direction, count in columns]
    rows: dict[str, dict[tuple, str]] = {}
    for cell in cells:
        case = cell["case"]
        row = rows.setdefault(work_label(case), {})
        row[case["direction"], cell["threads"]] = _markdown_cell(cell)
    return [line(["work", *titles]), rule(len(columns))] + [
        line([work, *(row.get(column, "") for column in columns)]) for work, row in rows.items()
    ]


def _provenance(results: dict) -> str:
    facts = results["environment"]
    peers = [item for cell in results["cells"] for item in cell["peers"].items()]
    rivals = {name for name, entry in peers if entry.get("headline")}
    against = " or ".join(sorted(rivals)) or "nothing"
    commit = (facts["commit"] or "no commit")[:12] + (" + changes" if facts["dirty"] else "")
    if facts.get("device") == "cuda":
        what = (
            "Time of stn_cuda, how much of the floor's speed that is, and how many times as long "
            "others take, with warm and with cold caches"
        )
        gpu = facts["gpu"]
        versions = [f"driver {gpu['driver']}", f"CUDA {gpu['cuda']}", f"cuDNN {gpu['cudnn']}"]
    else:
        what = (
            f"Time of stn_cuda per output element, and how many times as long the fastest of "
            f"{against} takes"
        )
        versions = [f"{facts['cores']} cores", facts["stn_cuda"]["cpu_isa"]]
    return (
        f"{what} (medians of interleaved blocks, same run). "
        f"{', '.join([facts['device_name'], *versions])}, torch {facts['torch']}, "
        f"stn_cuda {facts['stn_cuda']['version']} ({commit}), {facts['date'][:10]}."
        f"{_copies(facts)}"
    )


def _copies(facts: dict) -> str:
    """The speed of a copy in a sentence; nothing for files that do not know it."""
    names = {"cache": "within the cache", "memory": "in memory"}
    on_cpu = facts.get("device") != "cuda"  # on a GPU the number of threads plays no part
    speeds = [
        f"{entry[kind]:.1f} GB/s {names[kind]}"
        + (f" ({threads_label(entry['threads'])})" if on_cpu else "")
        for kind in names
        for entry in facts.get("copy_gb_per_s", [])
        if kind in entry
    ]
    return f" A copy reads and writes {', '.join(speeds)}." if speeds else ""


def _markdown_cell(cell: dict) -> str:
    nanoseconds = cell["peers"][OURS]["median_s"] / cell["case"]["elements"] * 1e9
    best = headline(cell)
    if best is None:
        return f"{nanoseconds:.2f} ns"
    name, ratio = best
    mark = "†" if cell["peers"][name]["wrong"] else ""
    return f"{nanoseconds:.2f} ns, **{times(ratio['median'])}**{mark}"


def _others(cells: list[dict]) -> list[str]:
    """A table of the peers that do not count for the headline, ratio by ratio."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        if cell["case"]["direction"] not in FIRST:
            continue
        for name, entry in cell["peers"].items():
            if "ratio" in entry and not entry["headline"]:
                mark = "†" if entry["wrong"] else ""
                row = rows.setdefault(
                    (work_label(cell["case"]), threads_label(cell["threads"])), {}
                )
                row[name] = f"{times(entry['ratio']['median'])}{mark}"
    if not rows:
        return []
    names = sorted({name for row in rows.values() for name in row})
    lines = [line(["other libraries, forward", "threads", *names]), rule(len(names) + 1)]
    return lines + [
        line([*key, *(row.get(name, "") for name in names)]) for key, row in rows.items()
    ]


# --- files ------------------------------------------------------------------------------------


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or an interruption, never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def to_json(results: dict) -> str:
    """The file's text; NaN and Inf, which JSON does not know, are refused."""
    return json.dumps(results, indent=1, allow_nan=False) + "\n"


def load(path: Path) -> dict:
    """Read results.json; ValueError if it is not one of ours."""
    try:
        results = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: must be a JSON file, got {error}") from error
    schema = results.get("schema") if isinstance(results, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path}: schema must be {SCHEMA}, got {schema}")
    return results
