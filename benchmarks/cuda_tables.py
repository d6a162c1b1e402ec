"""The Markdown tables of a run on CUDA."""

from __future__ import annotations

from dataclasses import replace

from .cases import Case
from .labels import DIRECTIONS, line, rule, times, work_label
from .peers import DETERMINISTIC, OURS, UNFILLED


def cells_table(cells: list[dict]) -> list[str]:
    """A line per cell: ours and its share of the floor's speed, and every rival, warm and cold."""
    rivals: dict[str, None] = {}  # in the order of their first cells
    for cell in cells:
        rivals |= {name: None for name, entry in cell["peers"].items() if _is_rival(name, entry)}
    titles = ["direction", "µs", "of the floor", "cold µs", "of the floor"]
    titles += [f"{name} / ours, warm, cold" for name in rivals]
    lines = [line(["work", *titles]), rule(len(titles))]
    for cell in cells:
        ours, floor = cell["peers"][OURS], cell["floor"]
        lines.append(
            line(
                [
                    *_start(cell),
                    _microseconds(ours),
                    f"{floor['warm']['fraction']:.0%}{_place(floor['warm'])}",
                    _microseconds(ours["cold"]),
                    f"{floor['cold']['fraction']:.0%}",
                    *(_rival(cell["peers"].get(name, {})) for name in rivals),
                ]
            )
        )
    if any(_place(cell["floor"]["warm"]) for cell in cells):
        lines += ["", "‡ The tensors fit into the cache: the floor is that of copies within it."]
    return lines


def deterministic_table(cells: list[dict]) -> list[str]:
    """Ours under torch.use_deterministic_algorithms(True) against our default, and torch there."""
    titles = ["direction", "default µs", "deterministic / default, warm, cold"]
    titles += ["the same, new memory not filled", "torch, deterministic / our default"]
    rows = []
    for cell in cells:
        peers = cell["peers"]
        if DETERMINISTIC in peers:
            columns = (DETERMINISTIC, UNFILLED, "torch, deterministic")
            ratios = [_rival(peers.get(name, {}), "raises") for name in columns]
            rows.append(line([*_start(cell), _microseconds(peers[OURS]), *ratios]))
    return [line(["deterministic mode", *titles]), rule(len(titles)), *rows] if rows else []


def half_table(cells: list[dict]) -> list[str]:
    """Cells with 16-bit images beside the same work of ours in float32, where that was timed."""
    timed = {(cell["case"]["name"], cell["threads"]): cell["peers"][OURS] for cell in cells}
    titles = ["direction", "µs", "our float32 / ours, warm, cold"]
    rows = []
    for cell in cells:
        case, ours = Case.from_json(cell["case"]), cell["peers"][OURS]
        wide = replace(case, dtype="float32", warp_dtype="float32").name
        full = timed.get((wide, cell["threads"]))
        if full and case.dtype in ("float16", "bfloat16"):
            pairs = ((full, ours), (full["cold"], ours["cold"]))
            ratios = ", ".join(times(a["median_s"] / b["median_s"]) for a, b in pairs)
            rows.append(line([*_start(cell), _microseconds(ours), ratios]))
    return [line(["half types", *titles]), rule(len(titles)), *rows] if rows else []


TABLES = (cells_table, deterministic_table, half_table)


def _is_rival(name: str, entry: dict) -> bool:
    # One that raised says no more than its error; ours in other forms are not rivals.
    return entry.get("headline", "error" in entry and not name.endswith("deterministic"))


def _start(cell: dict) -> list[str]:
    return [work_label(cell["case"]), DIRECTIONS[cell["case"]["direction"]]]


def _microseconds(entry: dict) -> str:
    return f"{entry['median_s'] * 1e6:.1f}"


def _place(floor: dict) -> str:
    return "‡" if floor["place"] == "cache" else ""


def _rival(entry: dict, failed: str = "failed") -> str:
    if "error" in entry:
        return failed
    if "ratio" not in entry:
        return ""
    mark = "†" if entry["wrong"] else ""
    return ", ".join(times(e["ratio"]["median"]) + mark for e in (entry, entry["cold"]))
