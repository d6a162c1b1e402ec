"""`python -m benchmarks.compare`: what counts as slower, and what is noise."""

import json
import re
import sys
from pathlib import Path

import pytest

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import compare, peers, report, runner
from benchmarks.cases import CASES, Case

pytestmark = pytest.mark.quick

WORK = Case("affine", (2, 3, 9, 7))
OTHER = Case("smooth", (2, 3, 9, 7), direction="backward")


def cell(ratio, case=WORK, threads=1, clock="torch"):
    """A cell whose ratio is (q1, median, q3); one number for all three is one without noise."""
    q1, median, q3 = ratio if isinstance(ratio, tuple) else (ratio,) * 3
    theirs = {"wrong": None, "headline": True, "median_s": median}
    theirs["ratio"] = {"median": median, "q1": q1, "q3": q3}
    ours = {"wrong": None, "headline": False, "median_s": 1.0}
    return {"case": case.to_json(), "threads": threads, "peers": {peers.OURS: ours, clock: theirs}}


def results(*cells, refused=(), **facts):
    return {
        "schema": report.SCHEMA,
        "environment": {"device": "cpu", "device_name": "Slide Rule", "torch": "9.9"} | facts,
        "effort": {"repeats": 1, "min_time": 0.001, "block_time": 1e-5, "most_rounds": 2},
        "cells": list(cells),
        "refused": list(refused),
    }


@pytest.fixture
def run(tmp_path):
    """Compare two results, as the command does."""

    def run(old, new, *arguments):
        paths = []
        for name, content in (("old", old), ("new", new)):
            paths.append(tmp_path / f"{name}.json")
            text = content if isinstance(content, str) else report.to_json(content)
            paths[-1].write_text(text)
        return compare.main([*map(str, paths), *arguments])

    return run


def test_equal(run, capsys):
    both = results(cell(2.0), cell((2.5, 3.0, 3.5), OTHER, threads=2))
    assert run(both, both) == 0
    printed = capsys.readouterr().out
    assert "2 cells in both; new / old, geometric mean: 1.000x" in printed
    assert not re.search("slower|faster|only|warning", printed)


def test_slower(run, capsys):
    old = results(cell((3.9, 4.0, 4.1)), cell(2.0, OTHER))
    new = results(cell((1.9, 2.0, 2.1)), cell(2.0, OTHER))
    assert run(old, new) == 1
    printed = capsys.readouterr().out
    assert "slower: 1\n" in printed
    assert f"{WORK.name}, 1 thr: torch / ours 4.00 (3.90-4.10) -> 2.00" in printed
    assert "geometric mean: 0.707x" in printed
    assert OTHER.name not in printed


def test_faster(run, capsys):
    assert run(results(cell(2.0)), results(cell(4.0))) == 0
    printed = capsys.readouterr().out
    assert "faster: 1\n" in printed
    assert "slower" not in printed


def test_overlapping_quartiles_are_noise(run, capsys):
    assert run(results(cell((1.5, 3.0, 4.0))), results(cell((1.0, 1.4, 1.6)))) == 0
    assert run(results(cell((1.0, 1.4, 1.6))), results(cell((1.5, 3.0, 4.0)))) == 0
    assert not re.search("slower|faster", capsys.readouterr().out)


def test_tolerance(run):
    old, new = results(cell((1.99, 2.0, 2.01))), results(cell((1.85, 1.86, 1.87)))
    assert run(old, new) == 0
    assert run(old, new, "--tolerance", "0.05") == 1


def test_cells_in_one_file_only(run, capsys):
    old = results(cell(2.0), cell(2.0, threads=2))
    new = results(cell(2.0), cell(2.0, OTHER))
    assert run(old, new) == 0
    printed = capsys.readouterr().out
    assert f"in the old file only: 1\n  {WORK.name}, 2 thr\n" in printed
    assert f"in the new file only: 1\n  {OTHER.name}, 1 thr\n" in printed


def test_a_result_that_became_wrong_fails(run, capsys):
    refusal = {"name": WORK.name, "threads": 1, "reason": "output is off"}
    assert run(results(cell(2.0)), results(refused=[refusal])) == 1
    assert (
        f"wrong in the new run: 1\n  {WORK.name}, 1 thr: output is off" in capsys.readouterr().out
    )


def test_the_clock_is_a_peer_of_both(run, capsys):
    old = cell(9.0)
    old["peers"]["torch in float32"] = cell(2.0, clock="x")["peers"]["x"]
    new = cell(2.0, clock="torch in float32")
    new["peers"]["torch"] = {"error": "RuntimeError: no"}
    assert run(results(old), results(new)) == 0
    assert "1 cells in both" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(results(cell(9.0)), results(new))


def test_another_machine_is_a_warning(run, capsys):
    assert run(results(cell(2.0)), results(cell(2.0), device_name="Abacus", torch="10")) == 0
    printed = capsys.readouterr().out
    assert "warning: the files differ in device_name: Slide Rule / Abacus" in printed
    assert "warning: the files differ in torch: 9.9 / 10" in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be a JSON file"),
        ("[]", "schema must be"),
        (results() | {"schema": 0}, "schema must be 1, got 0"),
        (results() | {"cells": [{}]}, "cells must be as the benchmark writes them"),
        (results() | {"cells": 3}, "cells must be as the benchmark writes them"),
        (results(cell(0.0)), "must be positive"),
        (results(cell(1.0)) | {"environment": {}}, "must be as the benchmark writes them"),
        (results(cell(2.0, OTHER)), "must have a timed cell in common"),
    ],
)
@pytest.mark.parametrize("place", ["old", "new"])
def test_bad_files(run, capsys, content, message, place):
    pair = (content, results(cell(2.0))) if place == "old" else (results(cell(2.0)), content)
    with pytest.raises(SystemExit) as exit_:
        run(*pair)
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_missing_file(capsys):
    with pytest.raises(SystemExit) as exit_:
        compare.main(["missing.json", "missing.json"])
    assert exit_.value.code == 2
    assert "missing.json" in capsys.readouterr().err


# --- measured again ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("again", "status", "measured"),
    [
        ([4.0], 0, 1),
        ([2.0, 4.0], 0, 2),
        ([2.0, 2.1], 1, 2),
        ([runner.WrongResult("output is off")], 1, 1),
    ],
)
def test_rerun(run, monkeypatch, capsys, again, status, measured):
    outcomes = [one if isinstance(one, Exception) else cell(one) for one in again]
    asked = []

    def stub(cases, chosen, threads, device, effort):
        asked.append((cases, [peer.name for peer in chosen], threads, device, effort.repeats))
        yield cases[0], threads[0], outcomes.pop(0)

    monkeypatch.setattr(runner, "run", stub)
    old = results(cell(4.0), cell(2.0, OTHER))
    new = results(cell(2.0), cell(2.0, OTHER))
    assert run(old, new, "--rerun") == status
    assert asked == [([WORK], ["stn_cuda", "torch"], [1], "cpu", 1)] * measured
    printed = capsys.readouterr().out
    assert ("slower: 1" in printed) == bool(status)
    assert "and this machine differ in device_name: Slide Rule / " in printed


def test_rerun_measures_nothing_without_a_suspect(run, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *arguments: pytest.fail("measured"))
    assert run(results(cell(2.0)), results(cell(2.0)), "--rerun") == 0


def test_rerun_for_real(run, capsys):
    """Nothing is ten thousand times as fast as torch: that the old run says so is confirmed."""
    assert run(results(cell(1e4)), results(cell(2.0)), "--rerun") == 1
    assert capsys.readouterr().out.count("  again: affine") == compare.RERUNS


def test_a_case_survives_its_json():
    for case in CASES:
        entry = json.loads(json.dumps(case.to_json()))
        assert Case.from_json(entry | {"something": "new"}) == case
