"""benchmarks/bounds.py, ceiling.py: what they sum up is what the kernels have to move."""

from dataclasses import replace

import pytest
import torch

from benchmarks import bounds, ceiling, problem, timing
from benchmarks.cases import Case

EFFORT = timing.Effort(1, 0.0, 1e-4)


@pytest.mark.parametrize("prefix", bounds.CELLS)
def test_the_cells_are_cases(prefix):
    case = bounds.find(prefix)
    assert case.direction == "backward" and case.wrt == ("input", "warp")


def test_bytes_of_a_grid():
    case = Case("smooth", (2, 3, 4, 5), size=(7, 11), direction="backward")
    image, grid, output = 4 * 2 * 3 * 4 * 5, 4 * 2 * 7 * 11 * 2, 4 * 2 * 3 * 7 * 11
    forward, splat, grad_warp = (
        image + grid + output,
        output + grid + image,
        output + image + 2 * grid,
    )
    assert bounds.bytes_moved(problem.build(case)) == forward + splat + grad_warp


def test_bytes_of_a_warp():
    case = Case("affine", (2, 3, 4, 5), size=(7, 11), direction="backward", dtype="float16")
    image, output = 2 * 2 * 3 * 4 * 5, 2 * 2 * 3 * 7 * 11
    assert bounds.bytes_moved(problem.build(case)) == 3 * (image + output)


@pytest.mark.parametrize("op", ("affine", "smooth"))
def test_every_column_is_measured(op):
    case = Case(op, (2, 3, 16, 17), direction="backward")
    numbers = bounds.measure(case, EFFORT)
    assert all(numbers[column] > 0 for column in bounds.COLUMNS)


# --- the ceiling ------------------------------------------------------------------------------


def looked_at(case, theta=None):
    """Pixels of the image that are looked at, and outputs that look, as rows of 0 and 1."""
    made = problem.build(case)
    if theta is not None:
        made = replace(made, warp=torch.tensor([theta]))
    return [mask[0].int().tolist() for mask in ceiling.looked_at(made)]


def test_cells_of_the_ceiling():
    cells = ceiling.cells()
    assert {case.direction for case in cells} == {"forward", "backward"}
    assert {case.padding for case in cells} == {"zeros", "border", "reflection"}
    assert {(case.dtype, case.mode, len(case.shape)) for case in cells} == {
        ("float32", "bilinear", 4)
    }


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("padding", ("zeros", "border", "reflection"))
def test_the_identity_looks_at_all(padding, align_corners):
    case = Case(
        "affine",
        (1, 1, 3, 5),
        theta="identity",
        padding=padding,
        align_corners=align_corners,
    )
    assert looked_at(case) == [[[1] * 5] * 3] * 2


def test_a_magnified_middle_is_all_that_is_looked_at():
    # A quarter of 8 pixels, from 3 to 5, and by interpolation as far as the pixels beside them.
    image, output = looked_at(Case("affine", (1, 1, 8, 8), theta="zoom4"))
    middle = [0, 0, 1, 1, 1, 1, 0, 0]
    assert image == [middle if looked else [0] * 8 for looked in middle]
    assert output == [[1] * 8] * 8


def test_outputs_outside_look_at_nothing():
    # Outputs lie 4 pixels apart, in x and y at -10.5, -6.5, -2.5, 1.5, 5.5, 9.5 and so on.
    image, output = looked_at(Case("affine", (1, 1, 8, 8), theta="zoom1/4"))
    seen, looking = [0, 1, 1, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0, 0, 0]
    assert image == [seen if looked else [0] * 8 for looked in seen]
    assert output == [looking if looks else [0] * 8 for looks in looking]


@pytest.mark.parametrize(
    ("padding", "image", "output"),
    (
        ("zeros", [0, 0, 0, 1], [1, 0, 0, 0]),
        ("border", [0, 0, 0, 1], [1, 1, 1, 1]),
        ("reflection", [0, 1, 1, 1], [1, 1, 1, 1]),
    ),
)
def test_what_the_paddings_look_at(padding, image, output):
    # By three pixels of 4 to the right: pixels 3, 4, 5, 6, which are reflected to 3, 3, 2, 1.
    case = Case("affine", (1, 1, 1, 4), padding=padding)
    assert looked_at(case, [[1.0, 0.0, 1.5], [0.0, 1.0, 0.0]]) == [[image], [output]]


def test_warps_look_at_the_one_image():
    case = Case("affine", (1, 1, 4, 4), warps=2, theta="identity")
    of_image, of_output = ceiling.looked_at(problem.build(case))
    assert of_image.shape == (1, 4, 4) and of_output.shape == (2, 4, 4)
    assert of_image.all() and of_output.all()


def test_images_share_the_one_warp():
    case = Case("affine", (3, 1, 8, 8), warps=1, theta="zoom4")
    of_image, _ = ceiling.looked_at(problem.build(case))
    assert of_image.sum((1, 2)).tolist() == [16, 16, 16]


def test_bytes_of_lines():
    # Three rows of 8 float32: the first line is the rows 0 and 1, half a line is left.
    mask = torch.zeros(1, 3, 8, dtype=torch.bool)
    case = Case("affine", (1, 1, 3, 8))
    assert ceiling.bytes_of_lines(mask, case, 4) == 0
    mask[0, 2, 7] = True
    assert ceiling.bytes_of_lines(mask, case, 4) == 32
    mask[0, 1, 0] = True
    assert ceiling.bytes_of_lines(mask, case, 4) == 96


def test_bytes_of_lines_of_channels():
    # One pixel of 16: a line in each of 4 planes, and a quarter of a line of pixels.
    mask = torch.zeros(1, 1, 16, dtype=torch.bool)
    mask[0, 0, 5] = True
    case = Case("affine", (1, 4, 1, 16))
    assert ceiling.bytes_of_lines(mask, case, 4) == 4 * 64
    assert ceiling.bytes_of_lines(mask, replace(case, channels_last=True), 4) == 64


def test_passes():
    case = Case("affine", (2, 3, 16, 16), theta="identity", direction="backward")
    image = output = 4 * 2 * 3 * 16 * 16
    assert ceiling.passes(problem.build(case)) == [
        ceiling.Pass(image, output),
        ceiling.Pass(output + image, image),
    ]
    assert ceiling.passes(problem.build(replace(case, direction="forward"))) == [
        ceiling.Pass(image, output)
    ]


def test_derivatives_that_are_less_than_the_image():
    # 4 x 4 outputs at the middles of 4 x 4 pixels look at rows 1 and 2 of 4, of one line each.
    case = Case("affine", (1, 1, 16, 16), (4, 4), theta="identity", direction="backward")
    output = 4 * 4 * 4
    assert ceiling.passes(problem.build(case)) == [
        ceiling.Pass(8 * 64, output),
        ceiling.Pass(output + 4 * output, 4 * 16 * 16),
    ]


def test_plans_move_what_the_passes_do():
    moved = [ceiling.Pass(400, 1000), ceiling.Pass(900, 100), ceiling.Pass(8, 8)]
    assert ceiling.plans(moved) == {
        "copy_": [("copy_", 700), ("copy_", 500), ("copy_", 8)],
        "memmove": [("memmove", 700), ("memmove", 500), ("memmove", 8)],
        "apart": [
            *(("copy_", 400), ("write", 600)),
            *(("copy_", 100), ("read", 800)),
            ("copy_", 8),
        ],
    }


@pytest.mark.parametrize("kind", ("copy_", "memmove", "write", "read"))
def test_steps(kind):
    source, target = torch.ones(7), torch.full((7,), 2.0)
    ceiling._step(kind, 5, source, target)()
    new = {"copy_": 1.0, "memmove": 1.0, "write": 0.0, "read": 2.0}[kind]
    assert target.tolist() == [new] * 5 + [2.0] * 2 and source.tolist() == [1.0] * 7


def test_columns_take_the_fastest_move():
    blocks = {
        "torch": [24e-9, 48e-9, 36e-9],
        "ours": [12e-9, 16e-9, 9e-9],
        "fixed": [2e-9, 4e-9, 3e-9],
        "slow": [9e-9] * 3,
        "slow, one element": [1e-9] * 3,
        "fast": [3e-9, 5e-9, 4e-9],
        "fast, one element": [1e-9, 1e-9, 1e-9],
    }
    numbers = ceiling.columns(blocks, ("slow", "fast"), elements=2)
    # The floors of the rounds are 4, 8 and 6 ns.
    expected = {"torch": 18, "ours": 6, "fixed": 1.5, "floor": 3, "torch/ours": 3, "torch/floor": 6}
    assert numbers == pytest.approx(expected)


def test_a_move_takes_no_less_than_nothing():
    blocks = {name: [1.0] for name in ("torch", "ours", "fixed", "move")}
    numbers = ceiling.columns(blocks | {"move, one element": [2.0]}, ("move",), elements=1)
    assert numbers["torch/floor"] == 1


def test_summary():
    small, large = Case("affine", (1, 1, 2, 2)), Case("affine", (1, 1, 9, 9))
    backward = replace(small, direction="backward")
    measured = [
        (small, {"torch/ours": 2.0, "torch/floor": 2.5}),
        (large, {"torch/ours": 8.0, "torch/floor": 10.0}),
        (backward, {"torch/ours": 3.0, "torch/floor": 5.0}),
    ]
    both, alone = ceiling.summarise(measured)
    assert (both["direction"], both["cells"]) == ("forward", 2)
    assert both["torch/ours"] == {"mean": pytest.approx(4), "worst": (2.0, small.work)}
    assert both["torch/floor"] == {"mean": pytest.approx(5), "worst": (2.5, small.work)}
    assert both["below"] == {6.0: 1, 3.0: 1}
    assert (alone["direction"], alone["below"]) == ("backward", {6.0: 1, 3.0: 0})


def test_the_ceiling_is_printed(monkeypatch, capsys):
    case = Case("affine", (2, 3, 16, 17), (5, 4))
    monkeypatch.setattr(ceiling, "cells", lambda: [case, replace(case, direction="backward")])
    monkeypatch.setattr(timing, "Effort", lambda *_: EFFORT)
    assert bounds.main(["--ceiling"]) == 0
    _, _, head, rule, forward, backward, _, *summary = capsys.readouterr().out.splitlines()
    assert {line.count("|") for line in (head, rule, forward, backward)} == {9}
    assert forward.startswith("| affine 2x3x16x17->5x4 | forward | ")
    assert backward.startswith("| affine 2x3x16x17->5x4 | forward+backward | ")
    assert {line.count("|") for line in summary} == {9} and len(summary) == 4
