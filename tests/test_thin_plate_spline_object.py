"""ThinPlateSpline as an object: how it is printed, its control points, what it refuses."""

import copy

import pytest
import torch
from cases import generator, spline_of
from refusals import check_refused
from test_thin_plate_spline import F64, scattered

from stn_cuda import ThinPlateSpline, sample


@pytest.mark.quick
def test_pickled_and_printed(tmp_path):
    targets, points = scattered()
    warp = ThinPlateSpline(targets, points, 0.25)
    torch.save(warp, tmp_path / "warp.pt")
    for again in (torch.load(tmp_path / "warp.pt"), copy.deepcopy(warp)):
        assert torch.equal(again.parameters, warp.parameters)
        assert again.regularization == 0.25
    assert repr(warp) == (
        "ThinPlateSpline(targets=(2, 6, 2), control_points=(2, 6, 2), regularization=0.25, "
        "dtype=torch.float64, device=cpu)"
    )


@pytest.mark.quick
def test_control_grid():
    """Row by row, x first, to the corners."""
    expected = [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]
    assert ThinPlateSpline.control_grid((2, 3)).tolist() == expected
    warp = ThinPlateSpline.identity(3, (2, 3), dtype=F64)
    assert warp.targets.shape == (3, 6, 2) and warp.parameters.dtype == F64


@pytest.mark.quick
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("regularization", (0.0, 0.3))
@pytest.mark.parametrize("side", (2, 4, 5))
def test_a_default_grid_is_one_that_is_given(side, regularization, dtype):
    """But for the row more, whose parameters and gradients are those of the system solved anew."""
    random = generator("default grid", side)
    for batch in (3, 0):
        targets = torch.rand(batch, side**2, 2, generator=random, dtype=F64).to(dtype)
        leaves = [targets.clone().requires_grad_() for _ in range(2)]
        points = ThinPlateSpline.control_grid((side, side), dtype=dtype)
        ours = ThinPlateSpline(leaves[0], regularization=regularization)
        given = ThinPlateSpline(leaves[1], points, regularization)
        assert torch.equal(ours.control_points, points)
        assert ours.parameters.dtype == given.parameters.dtype
        assert not ours.parameters[:, -1:].any()
        close = 1e-10 if dtype == F64 else 1e-5
        rows = (ours.parameters[:, :-1], given.parameters)
        torch.testing.assert_close(*rows, rtol=0, atol=close)
        cotangent = torch.rand(given.parameters.shape, generator=random, dtype=F64)
        gradients = [
            torch.autograd.grad(r, leaf, cotangent.to(r.dtype))[0]
            for r, leaf in zip(rows, leaves, strict=True)
        ]
        # Of bfloat16, what is rounded to it in the end may fall to either side.
        torch.testing.assert_close(*gradients, rtol=2 * torch.finfo(dtype).eps, atol=close)


@pytest.mark.quick
def test_what_is_kept_of_a_default_grid_is_nobodys():
    """Whoever changes the points of one spline in place changes no other one's."""
    targets = torch.rand(1, 16, 2, generator=generator("kept"))
    one = ThinPlateSpline(targets)
    before = one.parameters.clone()
    one.control_points.add_(1)
    one.parameters.add_(1)
    again = ThinPlateSpline(targets)
    assert torch.equal(again.control_points, ThinPlateSpline.control_grid())
    assert torch.equal(again.parameters, before)


SQUARE = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
LINE = torch.stack((torch.linspace(-0.9, 0.8, 5), 0.3 * torch.linspace(-0.9, 0.8, 5) + 0.1), 1)
ERRORS = {
    "list": (lambda: ThinPlateSpline([[0.0]]), TypeError, "targets must be a Tensor, got list"),
    "int": (
        lambda: ThinPlateSpline(SQUARE[None], SQUARE.int()),
        TypeError,
        "control_points must have a floating dtype, got torch.int32",
    ),
    "no batch": (
        lambda: ThinPlateSpline(SQUARE),
        ValueError,
        "targets must have shape (N, K, 2) with K from 3 to 256, got (4, 2)",
    ),
    "two points": (
        lambda: ThinPlateSpline(SQUARE[None, :2], SQUARE[:2]),
        ValueError,
        "targets must have shape (N, K, 2) with K from 3 to 256, got (1, 2, 2)",
    ),
    "many points": (
        lambda: ThinPlateSpline(torch.rand(1, 257, 2)),
        ValueError,
        "targets must have shape (N, K, 2) with K from 3 to 256, got (1, 257, 2)",
    ),
    "volumes": (
        lambda: ThinPlateSpline(SQUARE[None], torch.rand(4, 3)),
        ValueError,
        "control_points must have shape (K, 2) or (N, K, 2) with K from 3 to 256, got (4, 3)",
    ),
    "other points": (
        lambda: ThinPlateSpline(SQUARE[None], SQUARE[:3]),
        ValueError,
        "targets and control_points must be as many, in batches that are equal or 1, got "
        "(1, 4, 2) and (3, 2)",
    ),
    "no square": (
        lambda: ThinPlateSpline(torch.rand(1, 6, 2)),
        ValueError,
        "control_points must be given with 6 targets, which are no square grid's",
    ),
    "coincident": (
        lambda: ThinPlateSpline(torch.rand(2, 4, 2), SQUARE[[0, 1, 2, 1]]),
        ValueError,
        "control_points must be distinct, got 1 and 3 both at (1.0, -1.0)",
    ),
    "coincident in a batch": (
        lambda: ThinPlateSpline(torch.rand(2, 4, 2), torch.stack((SQUARE, SQUARE[[0, 0, 2, 1]]))),
        ValueError,
        "control_points must be distinct, got 0 and 1 of spline 1 both at (-1.0, -1.0)",
    ),
    "on a line": (
        lambda: ThinPlateSpline(torch.rand(1, 5, 2), LINE),
        ValueError,
        "control_points must not all lie on one line, got 5 that do, from (-0.89",
    ),
    "negative": (
        lambda: ThinPlateSpline(SQUARE[None], regularization=-0.5),
        ValueError,
        "regularization must be finite and not negative, got -0.5",
    ),
    "no number": (
        lambda: ThinPlateSpline(SQUARE[None], regularization="much"),
        TypeError,
        "regularization must be a number, got 'much'",
    ),
    "shape": (
        lambda: ThinPlateSpline.identity(shape=(1, 4)),
        ValueError,
        "shape must be two numbers of points, 2 or more along y and x, got (1, 4)",
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, kind, text = ERRORS[name]
    names = ("ThinPlateSpline", "ThinPlateSpline.control_grid")
    check_refused(call, kind, *(f"{name}: {text}" for name in names))


@pytest.mark.quick
def test_what_regularization_allows():
    """Control points may meet: the system is regular."""
    targets = torch.rand(2, 4, 2, generator=generator("meet"))
    grid = ThinPlateSpline(targets, SQUARE[[0, 1, 2, 1]], 0.1).grid((4, 5))
    assert grid.isfinite().all()


@pytest.mark.quick
def test_errors_of_sample():
    warp = ThinPlateSpline.identity()
    with pytest.raises(
        ValueError, match=r"sample: this warp must be used with a 4-D input, images"
    ):
        sample(torch.rand(1, 1, 4, 5, 6), warp)
    with pytest.raises(
        ValueError, match=r"warp_grid: this warp must be .*got 3 spatial dimensions"
    ):
        warp.grid((4, 5, 6))
    with pytest.raises(ValueError, match=r"theta must have shape \(N, 2 K \+ 3, 2\) for K points"):
        sample(torch.rand(1, 1, 4, 5), spline_of(torch.rand(1, 8, 2)))
