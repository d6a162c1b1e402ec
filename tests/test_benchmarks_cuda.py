"""The benchmark on CUDA, as far as it can be told without a GPU, whose clock is replaced."""

import dataclasses
import json
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import cuda_problem

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import (
    check,
    compare,
    cuda_tables,
    environment,
    floor,
    peers,
    problem,
    report,
    runner,
    timing,
)
from benchmarks.cases import CASES, CUDA_CASES, SUITES, Case, select
from benchmarks.cli import main

pytestmark = pytest.mark.quick

FORWARD = Case("affine", (2, 3, 9, 7))
BACKWARD = dataclasses.replace(FORWARD, direction="backward")
L2_BYTES = 2**23
OFTEN = timing.Effort(repeats=2, min_time=0.0, block_time=1e-9)


class Clock:
    """torch.cuda's events and synchronisation, by the time of the CPU."""

    def __init__(self):
        self.log = []

    def event(self, enable_timing):
        assert enable_timing
        event = SimpleNamespace(at=None)

        def record():
            self.log.append("record")
            event.at = time.perf_counter() * 1e3

        event.record = record
        event.synchronize = lambda: None
        event.elapsed_time = lambda stop: max(stop.at - event.at, 1e-6)
        return event


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("torch.cuda.Event", clock.event)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: clock.log.append("synchronize"))
    return clock


@pytest.fixture
def stand_in(clock, monkeypatch):
    """A machine whose "cuda" tensors are on the CPU."""
    properties = SimpleNamespace(
        major=9, minor=0, multi_processor_count=3, total_memory=2**30, L2_cache_size=L2_BYTES
    )
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda: properties)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "Slide Rule")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 92000)  # asks every GPU
    monkeypatch.setattr(runner, "build", lambda case, device: problem.build(case, "cpu"))
    speeds = [{"threads": 1, "cache": 4000.0, "memory": 2000.0}]
    monkeypatch.setattr(environment, "copy_speeds", lambda *arguments: speeds)


def run(case, effort=OFTEN):
    [(_, _, cell)] = runner.run([case], peers.chosen(False, "cuda"), [1], "cuda", effort)
    assert not isinstance(cell, Exception), cell
    return cell


# --- cases and peers --------------------------------------------------------------------------


def test_cases_of_the_device():
    names = [case.name for case in CUDA_CASES + CASES]
    assert len(set(names)) == len(names)
    for suite in SUITES:
        on_cuda = select(suite, device="cuda")
        assert on_cuda == select(suite, device="cuda")[: -len(select(suite))] + select(suite)
        assert not set(select(suite)) & set(CUDA_CASES)
    assert select("full", device="cuda") == CUDA_CASES + CASES
    quick = {case.name for case in select("quick", device="cuda")}
    for name in (
        "affine 64x3x512x512 noise contiguous float32 bilinear zeros backward",
        "random 64x3x512x512 noise contiguous float32 bilinear zeros align_corners backward",
        "affine 16x64x256x256 noise channels_last bfloat16/float32 bilinear zeros forward",
        "affine 16x64x256x256 noise channels_last bfloat16 bilinear zeros forward",
        "affine 2x16x128x128x128 noise contiguous float32 bilinear zeros backward",
        "affine 64x1x28x28 noise contiguous float32 bilinear zeros graph backward",
    ):
        assert name in quick


def test_half_types_have_their_float32_in_the_same_suite():
    for suite in SUITES:
        cases = select(suite, "16x64x256x256", "cuda")
        for case in cases:
            wide = dataclasses.replace(case, dtype="float32", warp_dtype="float32")
            assert wide.name in {one.name for one in cases}


def test_a_case_survives_its_json():
    for case in CUDA_CASES:
        assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


@pytest.mark.parametrize("case", CUDA_CASES, ids=lambda case: case.name)
def test_the_gate_passes_ours_on_a_small_one(case):
    """The same work with fewer pixels, on the CPU."""
    small = (2, min(case.shape[1], 5), *(length // 16 for length in case.shape[2:]))
    made = problem.build(dataclasses.replace(case, shape=small, graph=False))
    results = problem.work(made, peers.ours(made))()
    assert check.disagreement(results, check.reference(made)) is None


def test_peers_of_the_device():
    on_cpu, on_cuda = ([peer.name for peer in peers.chosen(True, d)] for d in ("cpu", "cuda"))
    derived = ["torch, channels as images", "stn_cuda, forward alone", "torch, composed"]
    assert on_cpu == ["stn_cuda", "torch", *derived, "torch in float32", "torch.compile"]
    assert set(on_cuda) == {peer.name for peer in peers.PEERS} > set(on_cpu)


@pytest.mark.parametrize(
    ("changes", "uses"),
    [
        ({}, True),
        ({"op": "random"}, True),
        ({"align_corners": False}, False),
        ({"padding": "border"}, False),
        ({"mode": "nearest"}, False),
        ({"shape": (1, 1025, 2, 2)}, False),
        ({"shape": (1, 1, 3, 3, 3)}, False),
    ],
)
def test_where_torch_uses_cudnn(monkeypatch, changes, uses):
    made = problem.build(dataclasses.replace(FORWARD, **({"align_corners": True} | changes)))
    assert not peers.torch_uses_cudnn(made)  # the CPU's tensors never
    monkeypatch.setattr("torch.backends.cudnn.is_acceptable", lambda tensor: True)
    assert peers.torch_uses_cudnn(made) == uses


def test_contexts_are_left_as_they_were_found():
    def state():
        return (
            torch.backends.cudnn.enabled,
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        )

    assert state() == (True, False, True)
    seen = {}
    for peer in peers.PEERS:
        with peer.context():
            seen[peer.name] = state()
        assert state() == (True, False, True)
    assert seen["torch without cuDNN"] == (False, False, True)
    assert seen[peers.DETERMINISTIC] == seen["torch, deterministic"] == (True, True, True)
    assert seen[peers.UNFILLED] == (True, True, False)


def test_peers_are_built_checked_and_timed_in_their_context(stand_in):
    seen = []

    def build(made):
        seen.append(torch.are_deterministic_algorithms_enabled())
        forward = peers.ours(made)

        def spy(image, warp):
            seen.append(torch.are_deterministic_algorithms_enabled())
            return forward(image, warp)

        return spy

    pair = [
        peers.Peer(peers.OURS, peers.ours),
        peers.Peer("spy", build, headline=False, context=peers.deterministic),
    ]
    [(_, _, cell)] = runner.run([BACKWARD], pair, [1], "cuda", OFTEN)
    assert "cold" in cell["peers"]["spy"]
    assert len(seen) > 8 and all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


# --- the clock --------------------------------------------------------------------------------


def test_cold_block_flushes_before_every_call_and_outside_of_its_time(clock):
    class Other:
        def sum(self):
            clock.log.append("flush")

    block = timing.cold_block(Other())
    seconds = block(lambda: clock.log.append("work"), 2)
    assert clock.log == [
        *("work", "work", "synchronize"),  # warm-up
        *("flush", "record", "work", "record"),
        *("flush", "record", "work", "record"),
        "synchronize",
    ]
    assert 0 < seconds < 1


def test_graphed_replays_what_was_captured(monkeypatch):
    log = []

    class Graph:
        def replay(self):
            log.append("replay")

    class Context:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            log.append(self.name)

        def __exit__(self, *error):
            log.append(f"end of {self.name}")

        def wait_stream(self, other):
            log.append(f"{self.name} waits for {other.name}")

    monkeypatch.setattr("torch.cuda.Stream", lambda: Context("side"))
    monkeypatch.setattr("torch.cuda.current_stream", lambda: Context("main"))
    monkeypatch.setattr("torch.cuda.stream", lambda stream: stream)
    monkeypatch.setattr("torch.cuda.CUDAGraph", Graph)
    monkeypatch.setattr("torch.cuda.graph", lambda graph: Context("capture"))
    case = dataclasses.replace(FORWARD, graph=True)
    made = problem.build(case)

    def forward(image, warp):
        log.append("call")
        return image

    replay = problem.work(made, forward)
    assert log == [
        *("side waits for main", "side", "call", "call", "call", "end of side"),
        *("main waits for side", "capture", "call", "end of capture"),
    ]
    assert replay()[0] is made.input and replay()[0] is made.input
    assert log[-2:] == ["replay", "replay"]


def test_copies_are_sized_by_the_cache(stand_in):
    assert environment.copied("cpu") == environment.COPIED
    assert environment.copied("cuda") == {"cache": L2_BYTES // 4, "memory": 2**28}


# --- cells, files and tables ------------------------------------------------------------------


def test_a_cell_has_warm_and_cold_times_of_every_peer(stand_in):
    cell = run(BACKWARD)
    assert set(cell["peers"]) == {
        *("stn_cuda", "torch", peers.DETERMINISTIC, peers.UNFILLED, "torch, deterministic")
    }
    for name, entry in cell["peers"].items():
        for times in (entry, entry["cold"]):
            assert times["median_s"] > 0 and times["blocks_s"]
            assert ("ratio" in times) == (name != peers.OURS)
    assert cell["traffic"]["moved_bytes"] >= cell["traffic"]["touched_bytes"] > 0
    assert report.headline(cell)[0] == "torch"
    assert set(run(FORWARD)["peers"]) == {"stn_cuda", "torch"}


def cell_of(case, ours, **rivals):
    """A cell with these microseconds, warm and cold: pairs, or an error's text."""
    timed, cold, remarks = {}, {}, {}
    for name, times in {peers.OURS: ours, **rivals}.items():
        if isinstance(times, str):
            remarks[name] = {"error": times}
            continue
        remarks[name] = {"wrong": None, "headline": name.startswith("torch")}
        for blocks, microseconds in zip((timed, cold), times, strict=True):
            blocks[name] = {"blocks_s": [microseconds * 1e-6] * 3, "runs_per_block": 1}
    cell = runner.cell(case, 1, timed, remarks, cold)
    cell["traffic"] = {"moved_bytes": 40_000, "touched_bytes": 30_000}
    cell["floor"] = floor.of(cell, {"cache": 4.0, "memory": 2.0}, L2_BYTES)
    return cell


def test_tables():
    bfloat16 = dataclasses.replace(FORWARD, dtype="bfloat16")
    deterministic = {
        peers.DETERMINISTIC: (60.0, 70.0),
        peers.UNFILLED: (55.0, 70.0),
        "torch, deterministic": "RuntimeError: no deterministic implementation",
    }
    cells = [
        cell_of(FORWARD, (20.0, 40.0), torch=(60.0, 80.0)),
        cell_of(bfloat16, (10.0, 25.0), torch=(30.0, 50.0)),
        cell_of(BACKWARD, (50.0, 50.0), torch=(100.0, 75.0), **deterministic),
    ]
    cells[0]["peers"]["torch.compile"] = {"error": "RuntimeError: no"}
    cells[1]["peers"]["torch"]["wrong"] = "output is off"
    cells[1]["floor"]["warm"] |= {"place": "memory", "fraction": 0.85}
    titles, _, *rows = cuda_tables.cells_table(cells)
    assert titles == (
        "| work | direction | µs | of the floor | cold µs | of the floor "
        "| torch / ours, warm, cold | torch.compile / ours, warm, cold |"
    )
    name = FORWARD.work
    assert rows[:3] == [
        f"| {name} | forward | 20.0 | 50%‡ | 40.0 | 50% | 3.0x, 2.0x | failed |",
        f"| {bfloat16.work} | forward | 10.0 | 85% | 25.0 | 80% | 3.0x†, 2.0x† |  |",
        f"| {name} | forward+backward | 50.0 | 20%‡ | 50.0 | 40% | 2.0x, 1.50x |  |",
    ]
    assert cuda_tables.deterministic_table(cells)[2:] == [
        f"| {name} | forward+backward | 50.0 | 1.20x, 1.40x | 1.10x, 1.40x | raises |"
    ]
    assert cuda_tables.half_table(cells)[2:] == [
        f"| {bfloat16.work} | forward | 10.0 | 2.0x, 1.60x |"
    ]
    assert cuda_tables.deterministic_table(cells[:2]) == []
    assert cuda_tables.half_table(cells[1:]) == []


def test_the_terminal_has_the_share_of_the_floor():
    cell = cell_of(FORWARD, (20.0, 40.0), torch=(60.0, 80.0))
    table = report.Table([cell["case"]], ["torch", "torch without cuDNN"], floors=True)
    head, row = table.head().splitlines()[0], table.row(cell)
    assert "50% (50%)" in row and "3.00x" in row
    for title, value in (("of floor (cold)", "50% (50%)"), ("torch/ours", "3.00x ")):
        assert head.index(title) + len(title) == row.index(value) + len(value)


def test_the_command(stand_in, tmp_path, capsys):
    few = ["--device=cuda", "--quick", "--filter=64x1x60x60", "--repeats=1", "--min-time=0.001"]
    assert main([*few, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (
        "geo. mean" in printed
        and "of floor (cold)" in printed
        and peers.DETERMINISTIC not in printed
    )
    results = report.load(tmp_path / "results.json")
    assert results["environment"]["gpu"]["l2_bytes"] == L2_BYTES
    assert [cell["case"]["direction"] for cell in results["cells"]] == ["forward", "backward"]
    for cell in results["cells"]:
        assert cell["floor"]["warm"]["place"] == "cache"
    text = (tmp_path / "results.md").read_text()
    assert "Slide Rule, driver" in text
    assert "4000.0 GB/s within the cache, 2000.0 GB/s in memory." in text
    assert len(re.findall(r"^\| (?:work|deterministic mode|group) \|", text, re.M)) == 3
    assert main(["--render", str(tmp_path / "results.json")]) == 0
    assert capsys.readouterr().out == text
    assert compare.main([str(tmp_path / "results.json")] * 2) == 0
    assert "2 cells in both" in capsys.readouterr().out


def test_a_fault_keeps_what_was_measured(stand_in, monkeypatch, tmp_path):
    measured = run(FORWARD)

    def faulty(cases, *arguments):
        yield cases[0], 1, measured
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(runner, "run", faulty)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        main(["--device=cuda", "--quick", "--filter=64x1x60x60", "--out", str(tmp_path)])
    results = report.load(tmp_path / "results.json")
    assert results["interrupted"] and len(results["cells"]) == 1


@pytest.mark.cuda
@pytest.mark.skipif(cuda_problem() is not None, reason=str(cuda_problem()))
def test_on_a_gpu(tmp_path):
    few = ["--device=cuda", "--quick", "--filter=64x1x(28x28|60x60)"]
    assert main([*few, "--repeats=2", "--min-time=0.01", "--out", str(tmp_path)]) == 0
    results = report.load(tmp_path / "results.json")
    [copies] = results["environment"]["copy_gb_per_s"]
    assert copies["cache"] > 0 and copies["memory"] > 0
    cells = {cell["case"]["name"]: cell for cell in results["cells"]}
    assert any("graph" in name for name in cells)
    for name, cell in cells.items():
        assert cell["floor"]["warm"]["place"] == "cache"
        assert cell["peers"]["torch"]["cold"]["median_s"] > 0
        assert (peers.DETERMINISTIC in cell["peers"]) == name.endswith("backward")


COMMITTED = sorted((environment.ROOT / "benchmarks" / "results").glob("20*"))


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_committed_results_are_still_read(folder, capsys):
    path = str(folder / "results.json")
    assert main(["--render", path]) == 0
    assert capsys.readouterr().out == (folder / "results.md").read_text()
    assert compare.main([path, path]) == 0
