"""Splines whose control points are fixed: all is as before, and these have no gradient."""

import pytest
import torch
from cases import DTYPES, Call, image, splines
from spline_path_cases import with_points_of_first

import stn_cuda
from stn_cuda import ThinPlateSpline

POINTS = 5
OTHERS = POINTS + 3  # rows of weights and of theta, which come first
SIZE = (20, 40)  # more than a tile


def parameters_of(dtype, shared):
    """The same splines with control points that are free, and that are fixed."""
    free = splines(3, 2, dtype, points=POINTS)
    free = with_points_of_first(free) if shared else free
    row = torch.full((3, 1, 2), torch.nan, dtype=dtype)  # of which nothing is read
    return free, torch.cat((free, row), 1)


def check(free, fixed):
    """The parameters' gradients: bit by bit, of the control points 0."""
    assert torch.equal(fixed[:, :OTHERS], free[:, :OTHERS])
    assert not fixed[:, OTHERS:].any()
    assert free[:, OTHERS:].all()


@pytest.mark.quick
@pytest.mark.parametrize("shared", (False, True))
@pytest.mark.parametrize("mode", ("bilinear", "bicubic"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(dtype, mode, shared, device):
    x = image((3, 2, 20, 24), dtype).to(device)
    calls = [
        Call(x, parameters.to(device), "thin_plate_spline", SIZE, mode)
        for parameters in parameters_of(dtype, shared)
    ]
    free, fixed = (call.gradients(calls[0].cotangent().to(device)) for call in calls)
    for ours, theirs in zip(fixed[:2], free[:2], strict=True):
        assert torch.equal(ours, theirs)
    check(free[2], fixed[2])


@pytest.mark.quick
def test_gradient_of_the_grid(device):
    free, fixed = (p.to(device).requires_grad_() for p in parameters_of(torch.float64, True))
    cotangent = image((3, 2, *SIZE), torch.float64).movedim(1, -1).to(device)
    grids = [
        torch.ops.stn_cuda.warp_grid(p, "thin_plate_spline", SIZE, False) for p in (free, fixed)
    ]
    assert torch.equal(*grids)
    check(
        *(
            torch.autograd.grad(y, p, cotangent)[0]
            for y, p in zip(grids, (free, fixed), strict=True)
        )
    )


@pytest.mark.quick
@pytest.mark.parametrize("shared", (False, True))
def test_second_derivatives(shared, device):
    """Of what the gradient of the weights and of theta does along a direction of these."""
    x = image((3, 2, 20, 24), torch.float64).to(device)
    cotangent = image((3, 2, *SIZE), torch.float64, key=1).to(device)
    along = splines(3, 2, torch.float64, key=1, points=POINTS).to(device)
    along[:, OTHERS:] = 0
    results = []
    for parameters in parameters_of(torch.float64, shared):
        call = Call(x, parameters.to(device), "thin_plate_spline", SIZE, "bicubic")
        leaves = [t.detach().requires_grad_() for t in (cotangent, x, call.warp)]
        (grad,) = torch.autograd.grad(
            call.run(*leaves[1:]), leaves[2], leaves[0], create_graph=True
        )
        results.append(torch.autograd.grad(grad[:, :OTHERS], leaves, along[:, :OTHERS]))
    free, fixed = results
    assert torch.equal(fixed[0], free[0])
    assert torch.equal(fixed[1], free[1])
    check(free[2], fixed[2])


@pytest.mark.quick
def test_default_points_are_fixed(device):
    """A default grid against the same points, given: the same outputs and gradients of targets."""
    places = ThinPlateSpline.control_grid((4, 4), dtype=torch.float64)
    targets = places + 0.1 * image((3, 1, 16, 2), torch.float64)[:, 0]
    x = image((3, 2, 20, 24), torch.float64).to(device)
    cotangent = image((3, 2, *SIZE), torch.float64, key=1).to(device)
    results = []
    for given in (None, places.to(device)):
        leaf = targets.to(device).requires_grad_()
        warp = ThinPlateSpline(leaf, given)
        assert warp.parameters.shape == (3, 2 * 16 + (4 if given is None else 3), 2)
        y = stn_cuda.sample(x, warp, SIZE)
        results.append((y, *torch.autograd.grad(y, leaf, cotangent)))
    for ours, theirs in zip(*results, strict=True):  # the system is solved another way
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.quick
@pytest.mark.parametrize("rows", (2 * 2 + 4, 2 * 256 + 5))
def test_rows_that_fit_no_points(rows):
    message = r"\(N, 2 K \+ 3, 2\) for K points, .* or a row more if these are fixed, got shape"
    with pytest.raises(ValueError, match=message):
        stn_cuda.ops.warp_grid(torch.zeros(1, rows, 2), "thin_plate_spline", SIZE, False)
