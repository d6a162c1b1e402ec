"""Is the new build slower? `python -m benchmarks.compare old.json new.json`, exit status 1 if so.

The files come from different moments of a machine, maybe from different machines, so that times
say nothing. What is compared is the ratio rival / ours of every cell: the rival, torch, is the
clock, and both sides of a ratio were measured in turns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import environment, report, runner
from .cases import Case
from .peers import OURS, PEERS
from .timing import Effort, geometric_mean

TOLERANCE = 0.10
RERUNS = 2

Key = tuple[str, int]  # a case's full name, threads
Measure = Callable[[dict, str], dict | runner.WrongResult]


@dataclass(frozen=True)
class Change:
    """One cell of both files: the ratios clock / ours, each with "median", "q1" and "q3"."""

    key: Key
    cell: dict
    clock: str
    old: dict
    new: dict

    @property
    def factor(self) -> float:
        """How many times as fast ours is, by the clock; below 1 it is slower."""
        return self.new["median"] / self.old["median"]

    def regressed(self, tolerance: float) -> bool:
        """Slower by more than the tolerance, and by more than the noise: quartiles apart."""
        return self.new["q3"] < self.old["q1"] and self.factor < 1 / (1 + tolerance)

    def improved(self, tolerance: float) -> bool:
        """The same the other way round."""
        return self.new["q1"] > self.old["q3"] and self.factor > 1 + tolerance

    def __str__(self) -> str:
        name, threads = self.key
        old, new = (
            f"{r['median']:.2f} ({r['q1']:.2f}-{r['q3']:.2f})" for r in (self.old, self.new)
        )
        return f"{name}, {threads} thr: {self.clock} / ours {old} -> {new}, {self.factor:.2f}x"


@dataclass(frozen=True)
class Comparison:
    """The cells of two files, matched."""

    changes: list[Change]
    only_old: list[Key]
    only_new: list[Key]
    refused: dict[Key, str]  # timed in the old run, wrong in the new one


def cells_of(results: dict, path: Path) -> dict[Key, dict]:
    """The cells by name and threads; ValueError if they are not what the benchmark writes."""
    try:
        cells = {(cell["case"]["name"], cell["threads"]): cell for cell in results["cells"]}
        for cell in cells.values():
            for entry in cell["peers"].values():
                if "ratio" in entry and min(entry["ratio"][q] for q in ("median", "q1", "q3")) <= 0:
                    raise TypeError("a ratio must be positive")
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: cells must be as the benchmark writes them ({error!r})"
        ) from None
    return cells


def clock_of(old: dict, new: dict) -> str | None:
    """The peer by which two cells are compared: torch, or the next that was timed in both."""
    for name, entry in old["peers"].items():
        if entry.get("headline") and "ratio" in entry and "ratio" in new["peers"].get(name, {}):
            return name
    return None


def change(key: Key, old: dict, new: dict) -> Change | None:
    """What became of a cell; None if no peer was timed in both runs."""
    clock = clock_of(old, new)
    if clock is None:
        return None
    return Change(key, new, clock, old["peers"][clock]["ratio"], new["peers"][clock]["ratio"])


def compare(old: dict[Key, dict], new: dict[Key, dict], refused: Iterable[dict]) -> Comparison:
    """Match the cells of two files; `refused` is the new file's list of that name."""
    both = [change(key, old[key], new[key]) for key in old if key in new]
    reasons = {(entry["name"], entry["threads"]): entry["reason"] for entry in refused}
    reasons = {key: reason for key, reason in reasons.items() if key in old}
    return Comparison(
        changes=[one for one in both if one],
        only_old=[key for key in old if key not in new and key not in reasons],
        only_new=[key for key in new if key not in old],
        refused=reasons,
    )


def measure_again(effort: Effort, device: str) -> Measure:
    """A function that times a cell's case with the build at hand, ours and the clock in turns."""

    def measure(cell: dict, clock: str) -> dict | runner.WrongResult:
        pair = [peer for peer in PEERS if peer.name in (OURS, clock)]
        case = Case.from_json(cell["case"])
        [(_, _, outcome)] = runner.run([case], pair, [cell["threads"]], device, effort)
        return outcome

    return measure


def confirmed(suspect: Change, old: dict, tolerance: float, measure: Measure) -> bool:
    """Measure a cell that looks slower again: it is, if it looks so every time."""
    for _ in range(RERUNS):
        outcome = measure(suspect.cell, suspect.clock)
        if isinstance(outcome, runner.WrongResult):
            print(f"  again: WRONG, not timed: {outcome}", flush=True)
            return True
        again = change(suspect.key, old, outcome)
        if again is None:
            print(f"  again: {suspect.clock} could not be timed", flush=True)
            return True
        print(f"  again: {again}", flush=True)
        if not again.regressed(tolerance):
            return False
    return True


def mismatches(old: dict, new: dict) -> list[str]:
    """What differs between two environments, and makes torch a poorer clock."""
    facts = {key: (old[key], new[key]) for key in ("device_name", "torch")}
    facts["keeps_memory"] = old.get("keeps_memory", False), new.get("keeps_memory", False)
    return [f"{key}: {one} / {other}" for key, (one, other) in facts.items() if one != other]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two files. Returns the exit status: 0; 1 for a regression; 2 for a wrong call."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        files = [report.load(path) for path in (options.old, options.new)]
        old, new = map(cells_of, files, (options.old, options.new))
        facts = [file["environment"] for file in files]
        differences = mismatches(*facts)
        effort, refused = Effort(**files[1]["effort"]), files[1]["refused"]
        result = compare(old, new, refused)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except (KeyError, TypeError) as error:
        parser.error(f"{options.old}, {options.new}: must be as the benchmark writes them: {error}")
    if not result.changes and not result.refused:
        parser.error(f"{options.old} and {options.new} must have a timed cell in common")
    for difference in differences:
        print(f"warning: the files differ in {difference}")

    suspects = [one for one in result.changes if one.regressed(options.tolerance)]
    if options.rerun and suspects:
        try:
            here = environment.describe(facts[1]["device"])
        except (ImportError, RuntimeError) as error:  # no stn_cuda; no GPU
            parser.error(f"--rerun: cells must be measurable here: {error}")
        for difference in mismatches(facts[1], here):
            print(f"warning: {options.new} and this machine differ in {difference}")
        measure = measure_again(effort, facts[1]["device"])
        print(f"{len(suspects)} cells look slower and are measured again:")
        kept = []
        for one in suspects:
            print(one, flush=True)
            if confirmed(one, old[one.key], options.tolerance, measure):
                kept.append(one)
        suspects = kept
    _print(result, suspects, options.tolerance)
    return 1 if suspects or result.refused else 0


def _print(result: Comparison, regressions: list[Change], tolerance: float) -> None:
    improvements = [one for one in result.changes if one.improved(tolerance)]
    for title, lines in (
        ("slower", sorted(regressions, key=lambda one: one.factor)),
        ("faster", sorted(improvements, key=lambda one: -one.factor)),
        ("wrong in the new run", [f"{_label(k)}: {why}" for k, why in result.refused.items()]),
        ("in the old file only", map(_label, result.only_old)),
        ("in the new file only", map(_label, result.only_new)),
    ):
        lines = list(lines)
        if lines:
            print(f"\n{title}: {len(lines)}", *lines, sep="\n  ")
    if result.changes:
        mean = geometric_mean([one.factor for one in result.changes])
        print(f"\n{len(result.changes)} cells in both; new / old, geometric mean: {mean:.3f}x")


def _label(key: Key) -> str:
    return f"{key[0]}, {key[1]} thr"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Compare two results.json, cell by cell, by the ratio torch / stn_cuda.",
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="T",
        help="slower is more than 1 + T times the time (default: %(default)s)",
    )
    parser.add_argument(
        "--rerun",
        action="store_true",
        help=f"measure what looks slower up to {RERUNS} times more, with the build at hand",
    )
    return parser


if __name__ == "__main__":
    environment.prefer_installed()
    environment.keep_memory()
    sys.exit(main())
