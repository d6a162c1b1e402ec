"""`python -m benchmarks.goals`: what a run is measured against."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import goals, peers, report
from benchmarks.cases import CASES, Case

pytestmark = pytest.mark.quick

WORK = Case("affine", (1, 3, 512, 512))
BACKWARD = replace(WORK, direction="backward")


def cell(case=WORK, ours=1.0, threads=1, **theirs):
    """A cell of ours, and of peers that take so many times as long."""
    entries = {peers.OURS: {"wrong": None, "headline": False, "median_s": ours}}
    for name, ratio in theirs.items():
        found = {"median": ratio, "q1": ratio, "q3": ratio}
        headline = name == "torch"
        entries[name] = {
            "wrong": None,
            "headline": headline,
            "median_s": ours * ratio,
            "ratio": found,
        }
    return {"case": case.to_json(), "threads": threads, "peers": entries}


def results(*cells, isa="avx512"):
    return {
        "schema": report.SCHEMA,
        "environment": {"stn_cuda": {"cpu_isa": isa}},
        "cells": list(cells),
    }


@pytest.fixture
def run(tmp_path):
    """The command on a run's file."""

    def run(of, *options):
        path = tmp_path / "results.json"
        path.write_text(report.to_json(of))
        return goals.main([str(path), *options])

    return run


def row(printed, title):
    """A line's columns after its title."""
    lines = [line for line in printed.splitlines() if line.startswith(f"| {title} |")]
    assert len(lines) == 1, printed
    return [column.strip() for column in lines[0].strip("|").split("|")][1:]


def test_the_mean_and_the_worst_cell(run, capsys):
    cells = [cell(torch=16.0), cell(replace(WORK, theta="zoom4"), torch=4.0)]
    assert run(results(*cells)) == 0
    seen = row(capsys.readouterr().out, "affine 2-D, forward")
    assert seen == ["8.00 (4.00, affine 1x3x512x512 zoom4)", "6 (3)", "yes"]


@pytest.mark.parametrize("ratios", [(5.9,), (50.0, 2.9)])
def test_what_falls_short(run, capsys, ratios):
    """Of the mean, or of the worst cell alone."""
    cells = [cell(replace(WORK, shape=(n + 1, 3, 9, 9)), torch=r) for n, r in enumerate(ratios)]
    assert run(results(*cells)) == 1
    assert row(capsys.readouterr().out, "affine 2-D, forward")[-1] == "no"


def test_two_threads_are_told_and_not_wanted(run, capsys):
    assert run(results(cell(torch=7.0), cell(torch=2.0, ours=0.5, threads=2))) == 0
    printed = capsys.readouterr().out
    assert row(printed, "affine 2-D, forward") == ["7.00", "2.00", "6 (3)", "yes"]
    scaling = row(printed, "one image, affine 2-D, forward: speed / one thread's")
    assert scaling == ["", "2.00", "1.7, 2 threads", "yes"]


def test_one_image_needs_both_threads(run, capsys):
    assert run(results(cell(torch=7.0), cell(torch=7.0, ours=0.6, threads=2))) == 1
    printed = capsys.readouterr().out
    assert row(printed, "one image, affine 2-D, forward: speed / one thread's")[1] == "1.67"


def test_a_run_on_two_threads_says_nothing_of_one(run, capsys):
    assert run(results(cell(torch=2.0, threads=2))) == 0
    assert row(capsys.readouterr().out, "affine 2-D, forward") == ["2.00", "6 (3)", ""]


def test_half_types_against_our_own_float32(run, capsys):
    half = replace(WORK, dtype="float16")
    assert run(results(cell(torch=7.0), cell(half, ours=1.25, torch=9.0))) == 1
    assert row(capsys.readouterr().out, "half types, speed / float32's")[0] == "0.80"


def test_other_libraries_by_name(run, capsys):
    assert run(results(cell(torch=7.0, opencv=1.1))) == 1
    title = "OpenCV warpAffine, 1x3x512x512, 8x3x512x512"
    assert row(capsys.readouterr().out, title) == ["1.10", "1.2 (1)", "no"]


@pytest.mark.parametrize("isa, wanted", [("avx512", "6 (3)"), ("avx2", "4 (2)")])
def test_a_forced_instruction_set_has_goals_of_its_own(run, capsys, isa, wanted):
    cells = [cell(torch=1.0), cell(BACKWARD, torch=4.5)]
    assert run(results(*cells, isa=isa)) == (1 if isa == "avx512" else 0)
    printed = capsys.readouterr().out
    assert row(printed, "affine 2-D, forward + backward")[1] == wanted
    assert ("affine 2-D, forward |" in printed) == (isa == "avx512")


def test_all_goals_of_a_processor_without_the_other_instruction_set(run, capsys):
    """They are told; the ones of its own are wanted alone."""
    cells = [cell(torch=1.0), cell(BACKWARD, torch=4.5)]
    assert run(results(*cells, isa="avx2"), "--all") == 0
    printed = capsys.readouterr().out
    assert row(printed, "affine 2-D, forward") == ["1.00", "6 (3)", ""]
    title = "| affine 2-D, forward + backward |"
    found = [line for line in printed.splitlines() if line.startswith(title)]
    assert found == [f"{title} 4.50 | 6 (3) |  |", f"{title} 4.50 | 4 (2) | yes |"]
    assert run(results(*cells), "--all") == 1
    assert capsys.readouterr().out.count(title) == 1


def test_every_goal_has_cells_in_the_matrix():
    """A group that was renamed would be a goal that is always held."""
    for goal in goals.GOALS:
        assert any(goal.cells(case) for case in CASES), goal.title
    titles = [(goal.title, goal.forced) for goal in goals.GOALS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "must be a JSON file"),
        ('{"schema": 0}', "schema must be"),
        (report.to_json(results()), "must hold a cell that a goal is for, got none"),
    ],
)
def test_a_wrong_call_is_told_in_a_sentence(tmp_path, capsys, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(SystemExit) as failed:
        goals.main([str(path)])
    assert failed.value.code == 2
    assert message in capsys.readouterr().err
