"""The benchmark's harness: its matrix, statistics and files. Nothing here asserts a time."""

import builtins
import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
import torch

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import chart, cli, peers, report, runner, timing
from benchmarks.cases import CASES, SUITES, Case, select
from benchmarks.cli import main
from benchmarks.problem import build, work

pytestmark = pytest.mark.quick

TINY = Case("affine", (2, 3, 9, 7), direction="backward")
# One small case in both directions, as short as can be.
SMOKE = ["--quick", "--filter=64x1x60x60", "--threads=1", "--repeats=1", "--min-time=0.001"]


def results_of(*cells, **changes):
    """A results file's content, with facts that no machine has."""
    facts = {
        "date": "2001-02-03T04:05:06+00:00",
        "stn_cuda": {"version": "1.2.3", "cpu_isa": "abacus"},
        "torch": "9.9",
        "device_name": "Slide Rule",
        "cores": 2,
        "commit": "0123456789abcdef",
        "dirty": False,
    }
    return {"schema": report.SCHEMA, "environment": facts, "cells": list(cells), **changes}


def synthetic_cell(case=TINY, threads=1, theirs=4.0, **remarks):
    """A cell in which ours takes 1 s and torch takes `theirs` in every block."""
    timed = {
        name: {"blocks_s": [seconds] * 3, "runs_per_block": 1}
        for name, seconds in ((peers.OURS, 1.0), ("torch", theirs))
    }
    about = {
        peers.OURS: {"wrong": None, "headline": False},
        "torch": {"wrong": None, "headline": True} | remarks,
    }
    return runner.cell(case, threads, timed, about)


# --- cases ------------------------------------------------------------------------------------


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_each_suite_holds_the_smaller_one():
    sizes = [len(select(suite)) for suite in SUITES]
    assert 0 < sizes[0] < sizes[1] < sizes[2] == len(CASES)
    assert set(select("quick")) < set(select("default")) < set(select("full"))


def test_quick_is_representative():
    quick = select("quick")
    assert {case.op for case in quick} == {"affine", "smooth", "random"}
    first, derived = {"forward", "backward"}, {"double", "jvp", "gradient"}
    assert {case.direction for case in quick} == first | derived
    assert {case.mode for case in quick} == {"bilinear", "bicubic", "nearest"}
    assert {case.channels_last for case in quick} == {False, True}
    assert {len(case.shape) for case in quick} == {4, 5}
    assert "bfloat16" in {case.dtype for case in quick}


def test_filter(capsys):
    assert main(["--list", "--quick"]) == 0
    assert capsys.readouterr().out.splitlines() == [case.name for case in select("quick")]
    assert all("channels_last" in case.name for case in select("full", "channels_last"))
    assert select("full", "channels_last")
    assert select("full", "no such case") == []


@pytest.mark.parametrize("kind", sorted({case.theta for case in CASES}))
def test_every_theta_can_be_built(kind):
    problem = build(Case("affine", (1, 1, 6, 8), theta=kind))
    assert problem.warp.shape == (1, 2, 3)


def test_rotation_is_one_of_pixels():
    case = Case("affine", (1, 1, 5, 9), theta="rotate90")
    problem = build(case)
    rotated = peers.torch_eager(problem)(problem.input, problem.warp)
    # The middle column of the output is the middle row of the input, out to the output's height.
    torch.testing.assert_close(
        rotated[0, 0, :, 4].flip(0), problem.input[0, 0, 2, 2:7], check_stride=False
    )


@pytest.mark.parametrize(
    "case",
    [
        Case("affine", (2, 3, 4, 5), (6, 7), channels_last=True, dtype="bfloat16"),
        Case("smooth", (1, 2, 4, 5), (3, 3), warps=4),
        Case("projective", (2, 3, 14, 15), (6, 7), direction="backward"),
        Case("projective", (1, 2, 4, 5, 6), warps=3, direction="backward"),
        Case("tps", (2, 3, 14, 15), (6, 7), direction="backward"),
        Case("flow", (2, 3, 14, 15), (6, 7), direction="backward"),
        Case("flow", (1, 2, 4, 5, 6), warps=3, direction="backward", align_corners=True),
        Case("compose", (2, 3, 14, 15), (6, 7), direction="backward"),
        Case("compose", (1, 2, 4, 5, 6), warps=3, direction="backward", align_corners=True),
        Case("random", (1, 2, 4, 5, 6), direction="backward"),
    ],
    ids=lambda case: case.name,
)
def test_problem_has_what_the_case_says(case):
    problem = build(case)
    assert problem.input.shape == case.shape
    assert problem.input.dtype == getattr(torch, case.dtype)
    assert problem.warp.dtype == torch.float32
    results = work(problem, peers.torch_eager(problem))()
    assert results[0].shape == case.output_shape
    assert results[0].numel() == case.elements
    assert len(results) == (3 if case.direction == "backward" else 1)
    if case.channels_last:
        assert problem.input.is_contiguous(memory_format=torch.channels_last)


# --- statistics -------------------------------------------------------------------------------


def test_quartiles():
    assert timing.quartiles([5.0]) == (5.0, 5.0, 5.0)
    assert timing.quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)
    with pytest.raises(ValueError, match="at least one"):
        timing.quartiles([])


def test_ratio_is_taken_round_by_round():
    # A slow spell in the second round hits both and leaves the ratio alone.
    assert timing.ratio([4.0, 40.0, 4.0], [2.0, 20.0, 2.0]) == {"median": 2, "q1": 2, "q3": 2}
    with pytest.raises(ValueError, match="zip"):
        timing.ratio([1.0], [1.0, 2.0])


def test_calibration_fills_a_block():
    runs = timing.calibrate(lambda: None, lambda work, runs: 0.001, block_time=0.0105)
    assert runs == 11
    assert timing.calibrate(lambda: None, lambda work, runs: 1.0, block_time=0.01) == 1


def test_interleaving_takes_turns():
    order = []

    def block(work, runs):
        order.append(work())
        return 1.0

    works = {"ours": lambda: "ours", "torch": lambda: "torch"}
    timed = timing.interleave(works, block, timing.Effort(repeats=3, min_time=0.0))
    assert order == [
        *("ours", "torch"),  # calibration
        *("ours", "torch", "torch", "ours", "ours", "torch"),
    ]
    assert [len(entry["blocks_s"]) for entry in timed.values()] == [3, 3]


# --- files ------------------------------------------------------------------------------------


def test_json_round_trip(tmp_path):
    results = results_of(synthetic_cell())
    path = tmp_path / "deep" / "results.json"
    report.write_atomically(path, report.to_json(results))
    assert report.load(path) == json.loads(json.dumps(results))
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]
    assert report.markdown(report.load(path)) == report.markdown(results)


@pytest.mark.parametrize(("text", "message"), [("{", "JSON"), ("[]", "schema"), ("{}", "schema")])
def test_load_refuses_other_files(tmp_path, text, message):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        report.load(path)


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    report.write_atomically(path, "old")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_summary():
    slow = dataclasses.replace(TINY, shape=(1, 1, 5, 5))
    cells = [synthetic_cell(theirs=8.0), synthetic_cell(slow, theirs=0.5)]
    rows = report.summarise(cells)
    assert [row["group"] for row in rows] == ["affine 2-D bilinear", "all"]
    for row in rows:
        assert row["cells"] == 2
        assert row["geometric_mean"] == pytest.approx(2)
        assert (row["worst"], row["worst_work"]) == (0.5, slow.work)


def test_a_wrong_peer_is_marked_and_left_out_of_all():
    cell = synthetic_cell(wrong="output is off")
    assert [row["group"] for row in report.summarise([cell])] == ["affine 2-D bilinear"]
    cell["peers"]["other"] = {"error": "RuntimeError: no"}
    row = report.Table([cell["case"]], ["torch", "other"]).row(cell)
    assert "†" in row
    assert "failed" in row
    text = report.markdown(results_of(cell))
    assert "**4.0x**†" in text
    assert "† what it is compared with gives a wrong result" in text


def test_the_headline_is_the_fastest_peer_that_is_right():
    cell = synthetic_cell(theirs=4.0)
    fast = {"wrong": None, "headline": True, "median_s": 2.0, "ratio": {"median": 2.0}}
    cell["peers"]["fast"] = fast
    assert report.headline(cell)[0] == "fast"
    fast["wrong"] = "output is off"
    assert report.headline(cell)[0] == "torch"
    del cell["peers"]["torch"]
    assert report.headline(cell)[0] == "fast"
    fast["headline"] = False
    assert report.headline(cell) is None


def test_markdown():
    forward = dataclasses.replace(TINY, direction="forward")
    text = report.markdown(
        results_of(
            synthetic_cell(forward, threads=1, theirs=4.0),
            synthetic_cell(forward, threads=2, theirs=1.5),
            synthetic_cell(TINY, threads=1, theirs=20.0),
        )
    )
    for fact in ("Slide Rule", "abacus", "torch 9.9", "1.2.3", "0123456789ab", "2001-02-03"):
        assert fact in text
    lines = text.splitlines()
    assert "| work | forward, 1 thread | forward, 2 threads | forward+backward, 1 thread |" in lines
    [row] = [line for line in lines if line.startswith(f"| {TINY.work} |")]
    assert [column.partition(", ")[2] for column in row.split(" | ")[1:]] == [
        "**4.0x**",
        "**1.50x**",
        "**20.0x** |",
    ]


def test_scaling_of_one_image():
    one = dataclasses.replace(TINY, shape=(1, 1, 5, 5))
    cells = []
    for case, times in ((one, (4.0, 2.0)), (TINY, (3.0, 1.0))):
        for threads, ours in enumerate(times, 1):
            cell = synthetic_cell(case, threads=threads)
            cell["peers"]["stn_cuda"]["median_s"] = ours
            cells.append(cell)
    text = report.markdown(results_of(*cells))
    start = "| one image: speed on so many threads / on one |"
    [head] = [row for row in text.splitlines() if row.startswith(start)]
    assert head.endswith("| ours, geometric mean | worst | torch |")
    worst = f"2.0x ({one.work}) | 1.00x |"
    row = f"| affine 2-D bilinear | forward+backward | 2 | 1 | 2.0x | {worst}"
    assert (row in text) == (TINY.shape[0] != 1), text
    assert start not in report.markdown(results_of(cells[0]))


def test_markdown_tells_the_speed_of_a_copy():
    results = results_of(synthetic_cell())
    assert "copy" not in report.markdown(results)
    speeds = [{"threads": count, "cache": 70.0 * count, "memory": 14.0} for count in (1, 2)]
    results["environment"]["copy_gb_per_s"] = speeds
    assert (
        "A copy reads and writes 70.0 GB/s within the cache (1 thread), 140.0 GB/s within the cache"
        " (2 threads), 14.0 GB/s in memory (1 thread), 14.0 GB/s in memory (2 threads)."
    ) in report.markdown(results)


def test_other_libraries_have_their_own_table():
    cell = synthetic_cell()
    other = {"wrong": "output is off", "headline": False, "ratio": {"median": 0.5}}
    cell["peers"]["other"] = other | {"median_s": 0.5}
    text = report.markdown(results_of(cell))
    assert "fastest of torch takes" in text
    assert "**4.0x** |" in text
    assert "| other libraries, forward | threads | other |" in text
    assert f"| {TINY.work} | 1 thread | 0.50x† |" in text


def test_chart():
    pytest.importorskip("matplotlib")
    cells = [
        synthetic_cell(threads=threads, theirs=theirs) for threads, theirs in ((1, 6), (2, 0.7))
    ]
    assert chart.draw(results_of(*cells)).startswith(b"\x89PNG")
    assert chart.draw(results_of()) is None


# --- the command ------------------------------------------------------------------------------


def test_smoke(tmp_path, capsys):
    threads = torch.get_num_threads()
    assert main([*SMOKE, "--out", str(tmp_path)]) == 0
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr().out
    assert "geo. mean" in printed

    results = report.load(tmp_path / "results.json")
    facts = {"date", "stn_cuda", "torch", "python", "system", "device", "device_name", "cores"}
    facts |= {"commit", "dirty", "load", "keeps_memory", "copy_gb_per_s"}
    assert facts == set(results["environment"])
    [copied] = results["environment"]["copy_gb_per_s"]
    assert copied["threads"] == 1 and copied["cache"] > 0
    assert "A copy reads and writes" in (tmp_path / "results.md").read_text()
    assert results["environment"]["stn_cuda"]["cpu_isa"]
    assert [cell["case"]["direction"] for cell in results["cells"]] == ["forward", "backward"]
    for cell in results["cells"]:
        assert set(cell["peers"]) == {"stn_cuda", "torch"}
        for entry in cell["peers"].values():
            assert entry["wrong"] is None
            assert entry["median_s"] > 0
            assert entry["blocks_s"]
        ratio = cell["peers"]["torch"]["ratio"]
        assert ratio["q1"] <= ratio["median"] <= ratio["q3"]

    assert main(["--render", str(tmp_path / "results.json")]) == 0
    assert capsys.readouterr().out == (tmp_path / "results.md").read_text()


def test_render_prints_a_suite_and_what_matches(tmp_path, capsys):
    quick = dataclasses.replace(TINY, suite="quick")
    full = dataclasses.replace(TINY, mode="nearest")
    results = results_of(synthetic_cell(quick), synthetic_cell(full))
    (tmp_path / "results.json").write_text(report.to_json(results))
    for options, has_quick, has_full in (
        (["--quick"], 1, 0),
        (["--filter=nearest"], 0, 1),
        ([], 1, 1),
    ):
        assert main(["--render", str(tmp_path / "results.json"), *options]) == 0
        printed = capsys.readouterr().out
        assert ("| affine 2x3x9x7 |" in printed) == has_quick
        assert ("| affine 2x3x9x7 nearest |" in printed) == has_full


def test_without_matplotlib_the_chart_is_left_out(monkeypatch, tmp_path, capsys):
    real_import = builtins.__import__

    def no_matplotlib(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    assert main([*SMOKE, "--out", str(tmp_path)]) == 0
    assert "no chart: matplotlib is not installed" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {"results.json", "results.md"}


def test_interruption_keeps_what_was_measured(monkeypatch, tmp_path):
    def interrupted(cases, *arguments):
        yield cases[0], 1, synthetic_cell(cases[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    assert main([*SMOKE, "--out", str(tmp_path)]) == 130
    results = report.load(tmp_path / "results.json")
    assert results["interrupted"]
    assert len(results["cells"]) == 1


def test_what_was_measured_is_on_disk_while_the_run_goes_on(monkeypatch, tmp_path):
    """A run that is killed leaves it."""

    def watched(cases, *arguments):
        for count in (1, 2):
            yield cases[0], 1, synthetic_cell(cases[0])
            results = report.load(tmp_path / "results.json")
            assert results["interrupted"]
            assert len(results["cells"]) == count

    monkeypatch.setattr(cli, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(runner, "run", watched)
    assert main([*SMOKE, "--out", str(tmp_path)]) == 0
    assert "interrupted" not in report.load(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--filter", "no such case"], "--filter must match a case"),
        (["--filter", "("], "parenthesis|subpattern"),
        (["--threads", "0"], "must be positive, got 0"),
        (["--render", "missing.json"], "missing.json"),
        (["--quick", "--full"], "not allowed with"),
    ],
)
def test_calls_that_make_no_sense(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)
