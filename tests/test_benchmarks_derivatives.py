"""The benchmark's derivatives beyond a gradient: what is timed, against what, and the gate."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import stn_cuda
from benchmarks import check, derivatives, floor, peers, report, runner, timing
from benchmarks.cases import CASES, DERIVATIVES, FIRST, Case, select
from benchmarks.cli import main
from benchmarks.labels import DIRECTIONS, work_label
from benchmarks.problem import DOUBLE, build, result_names, work

pytestmark = pytest.mark.quick

EFFORT = timing.Effort(repeats=1, min_time=0.0, block_time=1e-6)
needs_double_backward = pytest.mark.skipif(
    not derivatives.torch_has_double_backward(), reason="this torch has no double backward"
)


def small(case):
    """The case on an image that takes no time."""
    return dataclasses.replace(case, shape=(2, 3, *(7, 6, 5)[: len(case.shape) - 2]))


def double_precision(case):
    return build(dataclasses.replace(case, dtype="float64", warp_dtype="float64"))


def results_of(problem, make):
    return [result.detach() for result in work(problem, make(problem))()]


def assert_same(results, expected):
    for one, other in zip(results, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, check_stride=False)


SMALL = list(dict.fromkeys(small(case) for case in DERIVATIVES))
by_name = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)


# --- cases ------------------------------------------------------------------------------------


def test_every_direction_has_a_label_and_derivatives_their_cases():
    assert {case.direction for case in CASES} == set(DIRECTIONS)
    assert {case.direction for case in DERIVATIVES} == set(DIRECTIONS) - set(FIRST)
    assert max(map(len, DIRECTIONS.values())) <= 16  # the terminal's column
    quick = [case for case in select("quick") if case.direction not in FIRST]
    assert sorted(case.direction for case in quick) == ["double", "gradient", "jvp"]


def test_the_filter_of_the_readme_finds_them():
    wanted = select("full", " (double(-whole)?|jvp(-warp)?|gradient)$")
    assert wanted == DERIVATIVES


def test_labels_tell_the_tangents():
    case = Case("affine", (1, 1, 4, 4), direction="jvp", wrt=("warp",))
    assert work_label(case.to_json()) == "affine 1x1x4x4, along warp only"
    both = dataclasses.replace(case, wrt=("input", "warp"))
    assert work_label(both.to_json()) == "affine 1x1x4x4"
    assert case.name != both.name
    assert Case.from_json(case.to_json()) == case


@by_name
def test_problem_has_what_the_derivative_needs(case):
    problem = build(dataclasses.replace(case, channels_last=True))
    shapes = {"input": problem.input.shape, "warp": problem.warp.shape}
    if case.direction == "gradient":
        assert problem.tangents == ()
    else:
        assert [t.shape for t in problem.tangents] == [shapes[name] for name in case.wrt]
    if "input" in case.wrt and problem.tangents:
        assert problem.tangents[0].stride() == problem.input.stride()
    assert (problem.grad_output is not None) == (case.direction in DOUBLE)
    # The same image and warp as in the other directions.
    forward = build(dataclasses.replace(case, direction="forward", channels_last=True))
    assert torch.equal(problem.input, forward.input)
    assert torch.equal(problem.warp, forward.warp)


# --- what is computed ---------------------------------------------------------------------------


@by_name
def test_ours_is_right_in_float64(case):
    problem = double_precision(case)
    results = results_of(problem, peers.ours)
    assert len(results) == len(result_names(case))
    assert_same(results, results_of(problem, peers.exact))


@needs_double_backward
@by_name
def test_the_ways_of_torch_agree(case):
    """What a torch without double backward is compared with is what the other computes."""
    problem = double_precision(case)
    expected = results_of(problem, peers.torch_of)
    if case.direction in DOUBLE:
        ways = [derivatives.composed]
    elif case.direction == "jvp":
        ways = [
            peers.torch_channels_as_images,
            lambda p: derivatives.along_tangents(p, derivatives.by_channel),
        ]
    else:
        ways = [peers.torch_channels_as_images]
    for way in ways:
        assert_same(results_of(problem, way), expected)


@pytest.mark.parametrize("align_corners", [False, True])
def test_one_image_through_several_warps(align_corners):
    for direction in ("double", "jvp", "gradient"):
        problem = double_precision(
            Case(
                "affine",
                (1, 2, 6, 7),
                (5, 4),
                warps=3,
                direction=direction,
                align_corners=align_corners,
            )
        )
        expected = results_of(problem, peers.exact)
        for peer in peers.chosen(False):
            if peer.can(problem) and peer.name != peers.FORWARD_ALONE:
                assert_same(results_of(problem, peer.build), expected)


def test_the_gradient_is_per_pixel():
    ramp = torch.arange(7.0).expand(1, 1, 5, 7).contiguous()
    case = Case("affine", (1, 1, 5, 7), direction="gradient", theta="zoom4")
    problem = dataclasses.replace(build(case), input=ramp)
    for make in (peers.ours, peers.torch_of, peers.torch_channels_as_images):
        _, gradient = work(problem, make(problem))()
        assert gradient.shape == (1, 1, 2, 5, 7)
        torch.testing.assert_close(gradient[:, :, 0], torch.ones(1, 1, 5, 7))
        torch.testing.assert_close(gradient[:, :, 1], torch.zeros(1, 1, 5, 7))


def test_the_forward_alone_is_ours():
    case = Case("smooth", (2, 3, 6, 7), direction="jvp", wrt=("warp",))
    problem = build(case)
    [value] = work(problem, peers.forward_alone(problem))()
    assert torch.equal(value, stn_cuda.sample(problem.input, problem.warp))


def test_double_backward_is_the_second_step_alone(monkeypatch):
    """The forward and the backward are done beforehand; the whole has them in every call."""
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        return sample(*arguments, **options)

    sample = stn_cuda.sample
    monkeypatch.setattr("stn_cuda.sample", counted)
    for direction, made, repeated in (("double", 1, 1), ("double-whole", 0, 3)):
        calls.clear()
        problem = build(Case("affine", (1, 2, 5, 6), direction=direction))
        timed = work(problem, peers.ours(problem))
        assert len(calls) == made
        for _ in range(3):
            timed()
        assert len(calls) == repeated


# --- the run ------------------------------------------------------------------------------------


def wrong_gradient(image, warp, size=None, **options):
    value, gradient = sample_with_gradient(image, warp, size, **options)
    return value, gradient * 1.1


sample_with_gradient = stn_cuda.sample_with_gradient


def test_a_wrong_derivative_is_refused(monkeypatch):
    monkeypatch.setattr("stn_cuda.sample_with_gradient", wrong_gradient)
    case = Case("affine", (2, 3, 9, 7), direction="gradient")
    [(_, _, outcome)] = runner.run([case], peers.chosen(False), [1], "cpu", EFFORT)
    assert isinstance(outcome, runner.WrongResult)
    assert str(outcome).startswith("gradient is off")


@pytest.mark.parametrize(
    ("direction", "broken"), [("double", "^grad_grad_output is off"), ("jvp", "^output is off")]
)
def test_a_wrong_sampler_is_refused(monkeypatch, direction, broken):
    def shifted(image, warp, size=None, **options):
        return F.grid_sample(image, warp.grid(size, options["align_corners"]) + 0.2, **options)

    problem = build(Case("affine", (2, 3, 9, 7), direction=direction))
    expected = check.reference(problem)
    if direction == "jvp":  # torch's sampler has no forward mode
        results = work(problem, lambda x, w: (peers.torch_eager(problem)(x, w) + 0.1, x))()
    else:
        monkeypatch.setattr("stn_cuda.sample", shifted)
        results = work(problem, peers.ours(problem))()
    assert re.match(broken, check.disagreement(results, expected))


@pytest.mark.parametrize("twice", [True, False])
def test_a_torch_without_double_backward_is_left_out(monkeypatch, twice):
    if not twice:
        monkeypatch.setattr(derivatives, "torch_has_double_backward", lambda: False)
    elif not derivatives.torch_has_double_backward():
        pytest.skip("this torch has no double backward")
    cases = [case for case in SMALL if case.op == "affine" and len(case.shape) == 4]
    for case, _, cell in runner.run(cases, peers.chosen(False), [1], "cpu", EFFORT):
        assert not isinstance(cell, runner.WrongResult), cell
        for entry in cell["peers"].values():
            assert entry["wrong"] is None
        assert ("torch" in cell["peers"]) == (twice or case.direction == "gradient")
        if case.direction in DOUBLE:
            assert set(cell["peers"]) - {"torch"} == {peers.OURS, "torch, composed"}
        else:
            assert {peers.FORWARD_ALONE, "torch, channels as images"} < set(cell["peers"])
        assert bool(report.headline(cell)) == (twice or case.direction not in DOUBLE)


def test_smoke(tmp_path, capsys):
    few = ["--quick", "--filter=(double|jvp-warp|gradient)$", "--threads=1", "--repeats=1"]
    assert main([*few, "--min-time=0.001", "--out", str(tmp_path)]) == 0
    assert "double backward" in capsys.readouterr().out
    text = (tmp_path / "results.md").read_text()
    assert "| derivatives | direction | threads | µs |" in text
    assert "| work |" not in text  # there is nothing else
    [titles] = [line for line in text.splitlines() if line.startswith("| derivatives |")]
    assert titles.endswith("| stn_cuda, forward alone / ours |")
    # A line of the summary for each.
    for label in ("double backward", "forward+jvp", "forward+gradient"):
        assert f"| all | {label} | 1 | 1 |" in text


def test_the_other_tables_are_without_them():
    ratios = {"wrong": None, "headline": True, "median_s": 4.0, "ratio": {"median": 4.0}}
    cell = {
        "case": Case("affine", (1, 1, 4, 4)).to_json(),
        "threads": 1,
        "peers": {"stn_cuda": {"wrong": None, "median_s": 1.0}, "torch": ratios},
    }
    derived = {**cell, "case": Case("affine", (1, 1, 4, 4), direction="double").to_json()}
    rows = report.summarise([cell, derived])
    assert [(row["group"], row["direction"], row["cells"]) for row in rows] == [
        ("affine 2-D bilinear", "forward", 1),
        ("affine 2-D bilinear", "double", 1),
        ("all", "forward", 1),
        ("all", "double", 1),
    ]
    assert len(report._cells_table([cell, derived])) == 3
    assert report._cells_table([derived]) == report._others([derived]) == []


@pytest.mark.parametrize(
    ("direction", "wrt", "moved"),
    [
        ("jvp", ("warp",), "i + g + o + g + o"),
        ("jvp", ("input", "warp"), "i + g + o + i + g + o"),
        ("gradient", ("input", "warp"), "i + g + o + 2 * o"),
        # grad_output, image, grid; what their gradients are multiplied with; the results
        ("double", ("input", "warp"), "o + i + g + i + g + o + i + g"),
        ("double", ("warp",), "o + i + g + g + o + g"),
    ],
)
def test_traffic(direction, wrt, moved):
    made = build(Case("random", (2, 3, 8, 8), (40, 40), direction=direction, wrt=wrt))
    sizes = {"i": 4 * 2 * 3 * 64, "g": 4 * 2 * 1600 * 2, "o": 4 * 2 * 3 * 1600}
    assert floor.traffic(made)["moved_bytes"] == eval(moved, sizes)


def test_traffic_of_all_steps():
    of = {
        direction: floor.traffic(build(Case("random", (2, 3, 8, 8), (40, 40), direction=direction)))
        for direction in ("backward", "double", "double-whole")
    }
    moved = {name: entry["moved_bytes"] for name, entry in of.items()}
    assert moved["double-whole"] == moved["backward"] + moved["double"]
    for entry in of.values():
        assert entry["touched_bytes"] <= entry["moved_bytes"]
