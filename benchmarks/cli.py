"""The command line of `python -m benchmarks`."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from . import chart, environment, floor, libraries, peers, report, runner
from .cases import SUITES, select
from .timing import Effort

# Rounds at least, and seconds at least, of a cell.
EFFORTS = {"quick": Effort(5, 0.2, 0.003), "default": Effort(7, 0.5), "full": Effort(9, 0.8)}

# Seconds after which results.json is written while the run goes on: a run may be killed.
SAVE_EVERY = 30.0

# Load average per core, above which others than this run are at work.
BUSY = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns the exit status: 0; 1 for a wrong result; 2 for a wrong call."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.render:
            results = report.load(options.render)
            results["cells"] = _chosen(results["cells"], options)
            print(report.markdown(results), end="")
            return 0
        options.suite = options.suite or "default"
        cases = select(options.suite, options.filter, options.device)
    except (OSError, ValueError, re.error) as error:
        parser.error(str(error))
    if not cases:
        parser.error(f"--filter must match a case of the {options.suite} suite (see --list)")
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU: torch.cuda.is_available() is False")
    try:
        import stn_cuda  # noqa: F401
    except ImportError as error:
        parser.error(f"stn_cuda must be built first (pip install --no-build-isolation .): {error}")
    return _run(options, cases)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="stn_cuda against torch in the same run. See benchmarks/README.md.",
    )
    suite = parser.add_mutually_exclusive_group()
    for name in SUITES:
        text = {
            "quick": "a representative few, under a minute on two cores",
            "default": "several minutes (what runs without --quick or --full)",
            "full": "the whole matrix",
        }[name]
        suite.add_argument(
            f"--{name}",
            dest="suite",
            action="store_const",
            const=name,
            help=text,
        )
    parser.add_argument(
        "--filter", default="", metavar="REGEX", help="only cases whose name matches"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument(
        "--threads", type=_positive(int), nargs="+", metavar="N", help="default: 1 and all"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile as one more peer")
    parser.add_argument(
        "--libraries", action="store_true", help="time OpenCV, scipy and torch-interpol, too"
    )
    parser.add_argument("--repeats", type=_positive(int), metavar="N", help="rounds at least")
    parser.add_argument("--min-time", type=_positive(float), metavar="S", help="seconds per cell")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "results" / "local",
        metavar="DIR",
        help="where results.json, .md and .png go (default: benchmarks/results/local)",
    )
    parser.add_argument(
        "--render",
        type=Path,
        metavar="JSON",
        help="print a results.json, or its rows of a suite, as Markdown; runs nothing",
    )
    return parser


def _chosen(cells: list, options: argparse.Namespace) -> list:
    """The cells of an earlier run that the suite, if one is named, and the filter leave."""
    suites = SUITES[: SUITES.index(options.suite) + 1] if options.suite else SUITES
    wanted = re.compile(options.filter)
    return [
        cell
        for cell in cells
        if cell["case"]["suite"] in suites and wanted.search(cell["case"]["name"])
    ]


def _positive(number: type):
    def parse(text: str):
        value = number(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"must be positive, got {text}")
        return value

    return parse


def _run(options: argparse.Namespace, cases: list) -> int:
    effort = EFFORTS[options.suite]
    if options.repeats:
        effort = dataclasses.replace(effort, repeats=options.repeats)
    if options.min_time:
        effort = dataclasses.replace(effort, min_time=options.min_time)
    # On a GPU the number of CPU threads plays no part.
    usual = [torch.get_num_threads()] if options.device == "cuda" else [1, environment.cores()]
    threads = sorted(set(options.threads or usual))
    chosen = peers.chosen(options.compile, options.device)
    if options.libraries:
        others, missing = libraries.installed()
        chosen += others
        print(*missing, sep="\n", end="\n" if missing else "")

    results = {
        "schema": report.SCHEMA,
        "suite": options.suite,
        "filter": options.filter,
        "environment": environment.describe(options.device),
        "effort": dataclasses.asdict(effort),
        "cells": [],
        "refused": [],
    }
    # The CPU's large copy would take a good part of what a quick run may.
    few = options.suite == "quick" and options.device == "cpu"
    kinds = ["cache"] if few else ["cache", "memory"]
    speeds = environment.copy_speeds(options.device, threads, kinds)
    results["environment"]["copy_gb_per_s"] = speeds
    load = results["environment"]["load"]
    if load is not None and load > BUSY * environment.cores():
        print(f"the machine is busy (load average {load}): expect noise, most of all on all cores")
    directions = {case.direction for case in cases}
    present = [peer for peer in chosen if directions & set(peer.directions)]
    rivals = [peer.name for peer in present if peer.headline or options.device == "cpu"]
    rivals = [name for name in rivals if name != peers.OURS]
    floors = options.device == "cuda"
    table = report.Table([case.to_json() for case in cases], rivals, floors)
    print(table.head(), flush=True)
    saved = time.monotonic()
    try:
        for case, count, outcome in runner.run(cases, chosen, threads, options.device, effort):
            if isinstance(outcome, runner.WrongResult):
                refusal = {"name": case.name, "threads": count, "reason": str(outcome)}
                results["refused"].append(refusal)
                print(table.refusal(case.to_json(), count, str(outcome)), flush=True)
            else:
                if floors:
                    l2_bytes = results["environment"]["gpu"]["l2_bytes"]
                    outcome["floor"] = floor.of(outcome, speeds[0], l2_bytes)
                results["cells"].append(outcome)
                print(table.row(outcome), flush=True)
            if time.monotonic() - saved >= SAVE_EVERY:
                _save(results | {"interrupted": True}, options.out)
                saved = time.monotonic()
    except KeyboardInterrupt:
        print("\ninterrupted: what was measured so far is kept", file=sys.stderr)
        results["interrupted"] = True
    except Exception:
        # A fault of a GPU's kernel is the end of all that follows it, not of what was before.
        results["interrupted"] = True
        _finish(results, options.out)
        raise
    return _finish(results, options.out)


def _save(results: dict, out: Path) -> None:
    report.write_atomically(out / "results.json", report.to_json(results))


def _finish(results: dict, out: Path) -> int:
    cells = results["cells"]
    if cells:
        print("\n" + report.summary_text(cells))
    for kind, text in (("wrong", "† {}'s result is wrong there"), ("error", "{} failed")):
        found = {n: e[kind] for c in cells for n, e in c["peers"].items() if e.get(kind)}
        for name, reason in found.items():
            print(f"{text.format(name)}, for one: {reason}")
    _save(results, out)
    files = {"results.md": report.markdown(results)}
    picture = chart.draw(results)
    if picture is not None:
        files["results.png"] = picture
    elif cells:
        print("no chart: matplotlib is not installed (pip install matplotlib)")
    for name, content in files.items():
        report.write_atomically(out / name, content)
    print(f"\nwritten to {out}: results.json, {', '.join(files)}")
    if results["refused"]:
        print(f"{len(results['refused'])} cells have a wrong result and were not timed")
        return 1
    return 130 if results.get("interrupted") else 0
