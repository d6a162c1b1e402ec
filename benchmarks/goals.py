"""`python -m benchmarks.goals results.json`: what was wanted of the CPU, and what a run shows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import report
from .cases import Case
from .labels import line, rule, threads_label, work_label
from .peers import FORWARD_ALONE, OURS
from .timing import geometric_mean

# The results' cells by (case name, threads): what a measure looks its other side up in.
Cells = dict[tuple[str, int], dict]
# (cell, cells) -> a number, more is better; None: the cell has none
Measure = Callable[[dict, Cells], float | None]


def against_fastest(cell: dict, _: Cells) -> float | None:
    """Time of the fastest headline peer that is right / ours."""
    best = report.headline(cell)
    return best[1]["median"] if best else None


def against(name: str) -> Measure:
    """Time of the peer / ours."""

    def measure(cell: dict, _: Cells) -> float | None:
        return cell["peers"].get(name, {}).get("ratio", {}).get("median")

    return measure


def against_float32(cell: dict, cells: Cells) -> float | None:
    """Our time of the same work in float32 / ours."""
    name = replace(Case.from_json(cell["case"]), dtype="float32").name
    return _ours_of(cells.get((name, cell["threads"])), cell)


def against_one_thread(cell: dict, cells: Cells) -> float | None:
    """Our time on one thread / on the cell's."""
    return _ours_of(cells.get((cell["case"]["name"], 1)), cell)


def _ours_of(other: dict | None, cell: dict) -> float | None:
    return other["peers"][OURS]["median_s"] / cell["peers"][OURS]["median_s"] if other else None


@dataclass(frozen=True)
class Goal:
    """One line of what was wanted: a geometric mean over some cells, and their worst.

    cells    whether a case is one of them
    threads  on how many it is wanted; what one thread's goals are on more is told besides
    forced   whether it is for a run with AVX2 forced, and the others are not
    """

    title: str
    cells: Callable[[Case], bool]
    mean: float
    worst: float | None
    measure: Measure = against_fastest
    threads: int = 1
    forced: bool = False


def _of(group: str, *directions: str, wrt: int | None = None) -> Callable[[Case], bool]:
    """Cases of the groups that begin so, in one of the directions, with so many gradients."""

    def chosen(case: Case) -> bool:
        matches = wrt is None or len(case.wrt) == wrt
        return case.group.startswith(group) and case.direction in directions and matches

    return chosen


def _whole(chosen: Callable[[Case], bool]) -> Callable[[Case], bool]:
    """Of these, those whose elements are no half types and no bytes."""
    return lambda case: chosen(case) and case.dtype in ("float32", "float64")


def _channels_last(case: Case) -> bool:
    plain = case.op == "affine" and case.mode == "bilinear" and case.dtype == "float32"
    return plain and case.padding == "zeros" and case.channels_last and case.shape[1] == 64


def _photographs(case: Case) -> bool:
    plain = case.theta == "noise" and case.size is None and not case.channels_last
    return plain and case.shape in ((1, 3, 512, 512), (8, 3, 512, 512))


def _one_image(chosen: Callable[[Case], bool]) -> Callable[[Case], bool]:
    return _whole(lambda case: case.shape[0] == 1 and chosen(case))


BOTH = ("forward", "backward")
AFFINE = "affine 2-D bilinear"

GOALS = [
    Goal("affine 2-D, forward", _whole(_of(AFFINE, "forward")), 6, 3),
    Goal("affine 2-D, forward + backward", _whole(_of(AFFINE, "backward")), 6, 3),
    Goal("given grid, forward", _of("grid", "forward"), 2.5, 1.2),
    Goal("given grid, forward + backward", _of("grid", "backward"), 3, 1.2),
    Goal("affine 3-D, forward + backward", _of("affine 3-D", "backward"), 6, 3),
    Goal("bicubic, forward", _of("affine 2-D bicubic", "forward"), 3, 1.5),
    Goal("nearest, forward", _of("affine 2-D nearest", "forward"), 3, 1.5),
    Goal(
        "channels_last, C = 64",
        lambda case: _channels_last(case) and case.direction in BOTH,
        8,
        6,
    ),
    Goal("half types, speed / float32's", _of(f"{AFFINE}, half", *BOTH), 1, None, against_float32),
    Goal(
        "OpenCV warpAffine, 1x3x512x512, 8x3x512x512",
        lambda case: _whole(_of(AFFINE, "forward"))(case) and _photographs(case),
        1.2,
        1,
        against("opencv"),
    ),
    *(
        Goal(
            f"one image, {title}, {way}: speed / one thread's",
            _one_image(_of(group, direction)),
            1.7,
            None,
            against_one_thread,
            2,
        )
        for title, group in (
            ("affine 2-D", AFFINE),
            ("affine 3-D", "affine 3-D"),
            ("grid 2-D", "grid 2-D"),
            ("grid 3-D", "grid 3-D"),
        )
        for direction, way in zip(BOTH, ("forward", "forward + backward"), strict=True)
    ),
    Goal("affine 2-D, forward + backward", _whole(_of(AFFINE, "backward")), 4, 2, forced=True),
    Goal("double backward", _of("", "double"), 5, 5),
    Goal(
        "forward alone / jvp along the warp", _of("", "jvp", wrt=1), 1 / 1.5, None,
        against(FORWARD_ALONE),
    ),
    Goal(
        "forward alone / value with gradient", _of("", "gradient"), 1 / 1.6, None,
        against(FORWARD_ALONE),
    ),
    Goal("projective, forward + backward", _of("projective", "backward"), 6, None),
    Goal(
        "thin-plate spline, 8x3x256x256, forward + backward",
        lambda case: _of("tps", "backward")(case) and case.shape == (8, 3, 256, 256),
        6,
        None,
    ),
    Goal("flow, forward + backward", _of("flow", "backward"), 4, 4),
    Goal("compose, forward + backward", _of("compose", "backward"), 5, 5),
]  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """What a run has of a goal on a number of threads; `wanted`: whether it is wanted there."""

    goal: Goal
    threads: int
    values: list[tuple[float, str]]
    wanted: bool

    @property
    def mean(self) -> float:
        """The geometric mean over the cells."""
        return geometric_mean([value for value, _ in self.values])

    @property
    def reached(self) -> bool:
        """Whether both the mean and the worst cell are what was wanted."""
        return self.mean >= self.goal.mean and min(self.values)[0] >= (self.goal.worst or 0)


def standings(results: dict, every: bool = False) -> list[Standing]:
    """What the run has of each goal, number of threads by number.

    every    also of those that are not wanted of its instruction set
    """
    forced = results["environment"]["stn_cuda"]["cpu_isa"] == "avx2"
    cells = {(cell["case"]["name"], cell["threads"]): cell for cell in results["cells"]}
    counts = sorted({threads for _, threads in cells})
    found = []
    for goal in GOALS:
        if forced != goal.forced and not (every and forced):
            continue
        for threads in counts:
            values = []
            for cell in cells.values():
                if cell["threads"] == threads and goal.cells(Case.from_json(cell["case"])):
                    value = goal.measure(cell, cells)
                    values += [(value, work_label(cell["case"]))] if value else []
            wanted = threads == goal.threads and forced == goal.forced
            if values and goal.threads in (1, threads):
                found.append(Standing(goal, threads, values, wanted))
    return found


def markdown(results: dict, every: bool = False) -> str:
    """The standings as a table: a line per goal."""
    rows: dict[Goal, dict[int, Standing]] = {}
    for one in standings(results, every):
        rows.setdefault(one.goal, {})[one.threads] = one
    counts = sorted({threads for row in rows.values() for threads in row})
    lines = [line(["torch / ours", *map(threads_label, counts), "wanted", "held"])]
    lines.append(rule(len(counts) + 2))
    for goal, row in rows.items():
        held = [one.reached for one in row.values() if one.wanted]
        seen = [_seen(row[count]) if count in row else "" for count in counts]
        # A run on other numbers of threads than it is wanted on says nothing of it.
        answer = ("yes" if all(held) else "no") if held else ""
        lines.append(line([goal.title, *seen, _wanted(goal), answer]))
    return "\n".join(lines) + "\n"


def _seen(one: Standing) -> str:
    worst, work = min(one.values)
    return f"{one.mean:.2f} ({worst:.2f}, {work})" if len(one.values) > 1 else f"{one.mean:.2f}"


def _wanted(goal: Goal) -> str:
    worst = "" if goal.worst is None else f" ({goal.worst:g})"
    threads = "" if goal.threads == 1 else f", {threads_label(goal.threads)}"
    return f"{goal.mean:.3g}{worst}{threads}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a results.json's table. Exit status: 1 if a goal is not held, 2 for a wrong call."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.goals",
        description="What was wanted of the CPU, and what a run of the benchmark has of it: "
        "geometric mean (worst cell). Exit status 1 if a goal is not held.",
    )
    parser.add_argument("results", type=Path, help="a results.json of a run on the CPU")
    parser.add_argument(
        "--all",
        action="store_true",
        help="of a run with AVX2 also the goals that are wanted with AVX-512 alone",
    )
    options = parser.parse_args(arguments)
    try:
        results = report.load(options.results)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    found = standings(results)
    if not found:
        parser.error(f"{options.results}: must hold a cell that a goal is for, got none")
    print(markdown(results, options.all), end="")
    return 0 if all(one.reached for one in found if one.wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
