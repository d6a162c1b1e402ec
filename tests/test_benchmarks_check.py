"""The benchmark's gate: a wrong result is not timed, a right one passes."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import check, peers, report, runner, timing
from benchmarks.cases import Case
from benchmarks.cli import main
from benchmarks.problem import build, work

pytestmark = pytest.mark.quick

TINY = Case("affine", (2, 3, 9, 7), direction="backward")


def shifted(image, warp, size=None, **options):
    """A wrong sampler: a hundredth of the image too far to the right."""
    grid = warp.grid(size, options["align_corners"]) + 0.02
    return F.grid_sample(image, grid, **options)


def without_a_pixel(image, warp, size=None, **options):
    grid = warp.grid(size, options["align_corners"])
    output = F.grid_sample(image, grid, **options).clone()
    output[0, 0, 4, 3] = 0
    return output


def half_gradient(image, warp, size=None, **options):
    """Right forward; the gradient to the image is half of what it should be."""
    image = (image + image.detach()) / 2
    return F.grid_sample(image, warp.grid(size, options["align_corners"]), **options)


def failing(*arguments, **options):
    raise RuntimeError("out of order\nsecond line")


def test_torch_is_not_run_where_it_would_write_outside_its_tensors():
    for dtype, shape, safe in (
        ("float16", (1, 1, 181, 181), True),
        ("float16", (1, 1, 182, 182), False),
        ("bfloat16", (1, 1, 32, 32, 32), False),
        ("float32", (1, 1, 182, 182), True),
    ):
        problem = build(Case("affine", shape, dtype=dtype))
        assert peers.torch_is_safe(problem) == safe
        exact = work(problem, peers.torch_in_float32(problem))()
        assert check.disagreement(exact, check.reference(problem)) is None


@pytest.mark.parametrize(
    ("direction", "broken", "reason"),
    [
        ("forward", shifted, "^output"),
        ("backward", shifted, "^output"),
        ("forward", without_a_pixel, "^output"),
        ("backward", half_gradient, "^grad_input"),
        ("forward", lambda *a, **k: shifted(*a, **k).double(), "^output must have dtype"),
        ("forward", lambda *a, **k: shifted(*a, **k)[..., 1:], "^output must have shape"),
        ("forward", lambda *a, **k: shifted(*a, **k) * float("nan"), "^output must be finite"),
        ("forward", failing, "^RuntimeError: out of order$"),
    ],
)
def test_wrong_results_are_refused(monkeypatch, direction, broken, reason):
    monkeypatch.setattr("stn_cuda.sample", broken)
    case = dataclasses.replace(TINY, direction=direction)
    effort = timing.Effort(repeats=1, min_time=0.0, block_time=1e-6)
    [(_, _, outcome)] = runner.run([case], peers.chosen(False), [1], "cpu", effort)
    assert isinstance(outcome, runner.WrongResult)
    assert re.search(reason, str(outcome))


def test_a_refusal_fails_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("stn_cuda.sample", shifted)
    few = ["--quick", "--filter=64x1x60x60", "--threads=1", "--repeats=1", "--min-time=0.001"]
    assert main([*few, "--out", str(tmp_path)]) == 1
    assert "WRONG, not timed" in capsys.readouterr().out
    results = report.load(tmp_path / "results.json")
    assert results["cells"] == []
    assert [set(entry) for entry in results["refused"]] == [{"name", "threads", "reason"}] * 2


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("op", ["affine", "smooth", "random"])
def test_the_gate_passes_torch_in_float32(op, mode):
    problem = build(Case(op, (2, 3, 40, 50), mode=mode, direction="backward"))
    expected = check.reference(problem)
    assert check.disagreement(work(problem, peers.torch_eager(problem))(), expected) is None


@pytest.mark.parametrize("channels_last", (False, True))
def test_bytes(channels_last):
    """Rounded, they pass; two levels off, or in one pixel, they do not."""
    case = Case("affine", (2, 3, 40, 50), dtype="uint8", channels_last=channels_last)
    problem = build(case)
    assert problem.input.dtype == torch.uint8 and problem.input.max() > 250
    assert [peer.name for peer in peers.chosen(False) if peer.can(problem)] == [
        peers.OURS,
        "torch in float32",
    ]
    expected = check.reference(problem)
    for forward in (peers.ours(problem), peers.torch_in_float32(problem)):
        (output,) = work(problem, forward)()
        assert check.disagreement((output,), expected) is None
    assert check.disagreement((output.clamp(2) - 2,), expected)
    output[0, 0, 20, 25] ^= 128
    assert check.disagreement((output,), expected)


def test_the_gate_counts_the_points_on_a_jump():
    # After a quarter turn every sample lies on a pixel's centre, where the gradient jumps.
    assert check.reference(build(Case("affine", (1, 1, 8, 12), theta="rotate90"))).jumps == 1
    assert check.reference(build(Case("affine", (1, 1, 8, 12)))).jumps < 0.05
