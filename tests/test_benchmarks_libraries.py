"""The benchmark's peers of other libraries: each computes what stn_cuda computes."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

import stn_cuda  # noqa: F401

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import check, libraries, peers
from benchmarks.cases import Case, select
from benchmarks.cli import main
from benchmarks.problem import build, work

CASES = [
    Case("affine", (3, 1, 28, 28)),
    Case("affine", (2, 3, 20, 30), (11, 17)),
    Case("affine", (2, 3, 20, 30), (11, 17), align_corners=True),
    Case("affine", (1, 4, 12, 9), warps=3),
    Case("affine", (1, 3, 20, 30), theta="rotate45"),
    Case("affine", (1, 3, 20, 30), theta="zoom1/4"),
    Case("smooth", (2, 3, 20, 30)),
    Case("random", (1, 1, 20, 30), (13, 13), warps=4),
    Case("smooth", (2, 3, 20, 30), align_corners=True),
    Case("affine", (2, 16, 8, 9), channels_last=True),
    Case("affine", (2, 1, 8, 9, 10)),
    Case("affine", (1, 2, 8, 9, 10), (5, 6, 7), warps=2),
    Case("smooth", (2, 3, 8, 9, 10), align_corners=True),
    Case("random", (2, 3, 8, 9, 10), channels_last=True),
]
# OpenCV may round the position between two pixels to 1/32, in each direction.
STEP = 1 / 32


PAIRS = [
    pytest.param(module, case, id=f"{peer.name}: {case.name}")
    for module, (_, peer) in libraries.LIBRARIES.items()
    for case in CASES
    if peer.supports(build(case))
]


@pytest.mark.parametrize(("module", "case"), PAIRS)
def test_agrees_with_stn_cuda(module, case):
    pytest.importorskip(module)
    peer = libraries.LIBRARIES[module][1]
    problem = build(case)
    [got] = work(problem, peer.build(problem))()
    [want] = work(problem, peers.ours(problem))()
    assert got.shape == want.shape and got.dtype == want.dtype
    if peer.name == "opencv":
        torch.testing.assert_close(got, want, rtol=0, atol=STEP, check_stride=False)
        assert (got - want).abs().mean() < STEP / 4
    else:
        assert check.disagreement((got,), check.reference(problem)) is None


def test_opencv_uses_the_threads_of_the_cell():
    cv2 = pytest.importorskip("cv2")
    problem = build(CASES[0])
    usual = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            libraries.opencv(problem)
            assert cv2.getNumThreads() == count
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize(
    "unlike",
    [
        {"mode": "bicubic"},
        {"padding": "border"},
        {"direction": "backward"},
        {"dtype": "float16"},
        {"dtype": "float64", "warp_dtype": "float64"},
    ],
    ids=str,
)
def test_only_what_they_do_alike(unlike):
    problem = build(Case("affine", (1, 1, 8, 9), **unlike))
    for _, peer in libraries.LIBRARIES.values():
        assert not peer.supports(problem)


def test_each_has_cases_in_the_suites():
    problems = [build(Case(c.op, c.shape, warps=c.warps)) for c in select("quick", " forward")]
    for _, peer in libraries.LIBRARIES.values():
        assert any(peer.supports(problem) for problem in problems)
        assert not peer.headline


def test_the_run_names_what_is_not_installed(monkeypatch, tmp_path, capsys):
    real = importlib.import_module

    def only_scipy(name, *arguments):
        if name in ("cv2", "interpol"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", only_scipy)
    few = ["--quick", "--filter=64x1x60x60.*forward", "--repeats=1", "--min-time=0.001"]
    few += ["--threads=1", f"--out={tmp_path}"]
    assert main([*few, "--libraries"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("without opencv: No module named 'cv2'") == 1
    assert printed.count("pip install torch-interpol") == 1
    assert main(few) == 0
    assert "without" not in capsys.readouterr().out
