"""ThinPlateSpline: in the kernels against the reference, and the system that makes it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accuracy import coordinate_error
from cases import (
    CONFIGURATIONS,
    DTYPES,
    WARPS,
    Call,
    configuration_id,
    generator,
    image,
    sample_inputs,
    spline_of,
    splines,
)
from conftest import walk_problem, walking
from machine import paths_of
from spline_path_cases import with_points_of_first
from test_gradients import away_from_kinks

import stn_cuda
from stn_cuda import ThinPlateSpline, reference, sample

F64 = torch.float64
MAP = "thin_plate_spline"


def randn(*shape, key=0):
    return torch.randn(*shape, generator=generator("spline", *shape, key), dtype=F64)


def scattered(batch=2, count=6, key=0):
    """Targets near control points that stand apart from each other, and these."""
    grid = ThinPlateSpline.control_grid((2, 3), dtype=F64)[:count]
    points = grid + 0.2 * torch.tanh(randn(batch, count, 2, key=(key, "points")))
    return points + 0.2 * torch.tanh(randn(batch, count, 2, key=key)), points


def oracle(call, input, parameters):
    grid = WARPS[MAP].grid(parameters, call.output_size, call.align_corners)
    return reference.sample(input, grid, **call.keywords)


# --- the map --------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("align_corners", (False, True))
def test_grid(align_corners, device):
    """Against the reference, with its gradient, and the second ones by finite differences."""
    for points, size in ((3, (1, 1)), (5, (17, 24)), (40, (3, 300))):
        parameters = splines(3, 2, F64, points=points).to(device).requires_grad_()
        grid = spline_of(parameters).grid(size, align_corners)
        expected = reference.thin_plate_spline_grid(parameters, size, align_corners)
        torch.testing.assert_close(grid, expected, rtol=1e-13, atol=1e-13)
        cotangent = randn(*grid.shape).to(device)
        ours, theirs = (torch.autograd.grad(g, parameters, cotangent)[0] for g in (grid, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)
    assert spline_of(parameters.float()).grid(size).dtype == torch.float32
    small = splines(2, 2, F64, points=3).to(device).requires_grad_()

    def grid_of(parameters):
        return spline_of(parameters).grid((2, 3), align_corners)

    torch.autograd.gradcheck(grid_of, small, check_forward_ad=True)
    torch.autograd.gradgradcheck(grid_of, small, check_fwd_over_rev=True)


@pytest.mark.quick
@pytest.mark.parametrize("dtype", (torch.float32, F64))
def test_logarithm(dtype, device):
    """r^2 log r^2 alone, at one output point, over nearly all distances that r^2 can have.

    The square is rounded once, as it is here, the logarithm is right to a unit of the last place
    and the product rounded: 2 units.
    """
    reach = 18 if dtype == torch.float32 else 150
    exponents = torch.linspace(-reach, reach, 20000, dtype=F64)
    near_one = 1 + torch.linspace(-0.5, 1, 20000, dtype=F64)
    distance = torch.cat((torch.pow(10.0, exponents), near_one)).to(dtype)
    parameters = torch.zeros(len(distance), 9, 2, dtype=dtype)
    parameters[:, 0, 0] = 1
    parameters[:, 6, 0] = distance
    # With align_corners, a single point stands at 0.
    grid = spline_of(parameters.to(device)).grid((1, 1), True).cpu()
    squared = np.square(distance.numpy()).astype(np.longdouble)
    expected = squared * np.log(squared)
    error = np.abs(grid[:, 0, 0, 0].numpy().astype(np.longdouble) - expected)
    assert (error <= 2 * torch.finfo(dtype).eps * np.abs(expected)).all()
    assert (grid[..., 1] == 0).all()


@pytest.mark.quick
def test_at_a_control_point(device):
    """Where r is 0, U and its derivatives are: nothing is NaN, as in the reference."""
    parameters = splines(1, 2, F64)
    parameters[:, 8] = 0  # the first control point, in the middle of the output
    leaves = [parameters.to(device).requires_grad_() for _ in range(2)]
    grids = (
        spline_of(leaves[0]).grid((3, 3), True),
        reference.thin_plate_spline_grid(leaves[1], (3, 3), True),
    )
    results = []
    for leaf, grid in zip(leaves, grids, strict=True):
        (first,) = torch.autograd.grad(grid, leaf, torch.ones_like(grid), create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        results.append((grid, first, second))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


# --- the system -----------------------------------------------------------------------------


@pytest.mark.quick
def test_parameters_against_the_reference(device):
    targets, points = (t.to(device) for t in scattered(3))
    for strength in (0.0, 0.3):
        for control in (points, points[0], points[:1]):
            ours = ThinPlateSpline(targets, control, strength).parameters
            expected = reference.thin_plate_spline(targets.cpu(), control.cpu(), strength)
            torch.testing.assert_close(ours.cpu(), expected, rtol=1e-10, atol=1e-11)
    one = ThinPlateSpline(targets[:1], points).parameters
    expected = reference.thin_plate_spline(targets[:1].expand(3, -1, -1).cpu(), points.cpu())
    torch.testing.assert_close(one.cpu(), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.quick
def test_control_points_look_at_their_targets(device):
    """With lambda = 0; else the more they miss them the larger it is, down to the affine map."""
    grid = ThinPlateSpline.control_grid((4, 4), dtype=F64).to(device)
    targets = (grid + 0.1 * randn(2, 16, 2).to(device)).requires_grad_()
    looks = ThinPlateSpline(targets).grid((4, 4), align_corners=True).flatten(1, 2)
    torch.testing.assert_close(looks, targets, rtol=0, atol=1e-13)
    misses = [
        (ThinPlateSpline(targets, grid, strength).grid((4, 4), True).flatten(1, 2) - targets)
        .square()
        .sum()
        for strength in (0.0, 0.01, 0.1, 1.0, 1e9)
    ]
    assert misses == sorted(misses)
    whole = torch.nn.functional.pad(grid, (0, 1), value=1.0).expand(2, -1, -1)
    affine = torch.linalg.lstsq(whole.cpu(), targets.cpu()).solution
    stiff = ThinPlateSpline(targets, grid, 1e9).grid((4, 4), True).flatten(1, 2)
    torch.testing.assert_close(stiff.cpu(), whole.cpu() @ affine, rtol=0, atol=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("dtype", DTYPES)
def test_identity_is_exact(dtype, align_corners, device):
    for size in ((17, 24), (1, 7), (64, 64), (33, 130)):
        x = image((2, 2, *size), dtype).to(device)
        own = (2 * torch.rand(9, 2, generator=generator("own")) - 1).to(device, dtype)
        for warp in (
            ThinPlateSpline.identity(2, dtype=dtype, device=device),
            ThinPlateSpline.identity(shape=(2, 5), dtype=dtype, device=device),
            ThinPlateSpline(own[None], own),
            ThinPlateSpline(own.expand(2, -1, -1), own.expand(2, -1, -1), 0.1),
        ):
            assert torch.equal(sample(x, warp, align_corners=align_corners), x), size


@pytest.mark.quick
def test_precision_of_the_points(device):
    """Parameters are float32 where the points are 16 bits, and gradients come back in those."""
    x = image((2, 1, 9, 8)).to(device)
    for dtype in DTYPES:
        targets, points = (t.to(device, dtype).requires_grad_() for t in scattered())
        warp = ThinPlateSpline(targets, points)
        assert warp.parameters.dtype == (F64 if dtype == F64 else torch.float32)
        grads = torch.autograd.grad(sample(x, warp).sum(), (targets, points))
        assert all(g.dtype == dtype and g.abs().max() > 0 for g in grads)
    assert ThinPlateSpline(targets.float(), points.double()).parameters.dtype == F64


# --- sampled through ------------------------------------------------------------------------


def calls(dtype):
    """Of every mode x padding x align_corners, small; and large enough for every loop."""
    yield from sample_inputs(dtype, maps=(MAP,))
    for shape, size in (
        ((2, 1, 60, 70), (50, 40)),  # rows laid end to end, runs
        ((1, 3, 150, 160), (140, 150)),  # windows, padded tiles
        ((2, 20, 40, 50), None),
    ):
        for padding in ("zeros", "border", "reflection"):
            warp = splines(shape[0], 2, dtype, key=padding)
            yield Call(image(shape, dtype), warp, MAP, size, padding_mode=padding)
    last = image((2, 20, 40, 50), dtype).contiguous(memory_format=torch.channels_last)
    yield Call(last, splines(2, 2, dtype), MAP)
    yield Call(image((3, 2, 9, 8), dtype), splines(1, 2, dtype), MAP)
    yield Call(image((1, 2, 9, 8), dtype), splines(3, 2, dtype, points=40), MAP)
    yield Call(image((1, 2, 9, 8), dtype), splines(2, 2, dtype, points=256), MAP)
    for shape, size in (((3, 2, 40, 50), (70, 65)), ((1, 2, 20, 30), (28, 28))):
        shared = with_points_of_first(splines(3, 2, dtype, points=9))
        yield Call(image(shape, dtype), shared, MAP, size)


def check_gradients(call):
    """Values and both gradients in float64, where rounding leaves 1e-12 of what is summed."""
    cotangent = call.cotangent().to(call.input.device)
    got = call.gradients(cotangent)
    expected = call.expect_gradients(cotangent)
    for name, ours, theirs in zip(("y", "grad_input", "grad_warp"), got, expected, strict=True):
        scale = theirs.abs().max().item() + 1
        torch.testing.assert_close(
            ours.cpu(), theirs, rtol=0, atol=3e-12 * scale, msg=f"{name}: {call}"
        )


def check_second_derivatives(call):
    device = call.input.device
    a, b = randn(*call.input.shape).to(device), randn(*call.warp.shape).to(device)
    cotangent = call.cotangent().to(device)

    def second(run):
        leaves = [t.detach().requires_grad_() for t in (cotangent, call.input, call.warp)]
        first = torch.autograd.grad(run(*leaves[1:]), leaves[1:], leaves[0], create_graph=True)
        return torch.autograd.grad(first, leaves, (a, b))

    expected = second(lambda x, parameters: oracle(call, x, parameters))
    for ours, theirs in zip(second(call.run), expected, strict=True):
        scale = theirs.abs().max().item() + 1
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11 * scale, msg=str(call))


@pytest.mark.quick
def test_against_the_reference(device):
    for call in calls(F64):
        check_gradients(call.on(device))


@pytest.mark.quick
def test_second_derivatives_against_the_reference(device):
    for call in calls(F64):
        if call.mode != "nearest":
            check_second_derivatives(call.on(device))


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
def test_precision(dtype, device):
    """A value moves by at most 2 (bicubic: 4) times the largest pixel per pixel and axis."""
    unit = torch.finfo(torch.float64 if dtype == F64 else torch.float32).eps
    for call in (call.on(device) for call in calls(dtype)):
        if call.mode == "nearest":
            continue  # a step moves by as much as there is
        y, expected = call.run().cpu(), call.expect()
        largest = call.input.abs().max().item()
        off = coordinate_error(call).sum(-1).unsqueeze(1)
        bound = (4 if call.mode == "bicubic" else 2) * largest * off + 64 * unit * largest
        stored = torch.finfo(dtype).eps * expected.abs()
        assert ((y.double() - expected).abs() <= bound + stored).all(), str(call)


@pytest.mark.quick
@pytest.mark.parametrize(
    "configuration", [c for c in CONFIGURATIONS if c[0] == 2], ids=configuration_id
)
def test_gradgradcheck(configuration, device):
    """By the image, the targets and the control points."""
    _, *settings = configuration
    targets, points = scattered()
    parameters = reference.thin_plate_spline(targets, points, 0.1)
    call = Call(image((2, 2, 4, 5), F64), parameters, MAP, (3, 2), *settings)
    keep = away_from_kinks(call).to(device)
    leaves = [t.to(device).requires_grad_() for t in (call.input, targets, points)]

    def run(x, targets, points):
        warp = ThinPlateSpline(targets, points, 0.1)
        return sample(x, warp, call.size, **call.keywords) * keep

    torch.autograd.gradcheck(run, leaves, check_forward_ad=True, fast_mode=True)
    torch.autograd.gradgradcheck(run, leaves, fast_mode=True, check_fwd_over_rev=True)


@pytest.mark.quick
def test_splat_is_the_adjoint(device):
    for call in (call.on(device) for call in calls(F64)):
        if call.input.shape[0] != call.output_shape[0]:
            continue
        y = call.cotangent().to(device)
        pushed = stn_cuda.splat(y, spline_of(call.warp), call.input.shape[2:], **call.keywords)
        inner, outer = (call.run() * y).sum(), (call.input * pushed).sum()
        scale = (call.run() * y).abs().sum()
        assert (inner - outer).abs() <= 1e-13 * scale, str(call)


@pytest.mark.quick
def test_values_with_gradients(device):
    """d value / d pixel: the sum of its products with a shift's direction is the shift's effect."""
    for call in (call.on(device) for call in calls(F64)):
        if call.mode == "nearest":
            continue
        count = (call.warp.shape[1] - 3) // 2
        value, slope = stn_cuda.sample_with_gradient(
            call.input, spline_of(call.warp), call.size, **call.keywords
        )
        torch.testing.assert_close(value, call.run(), rtol=0, atol=1e-12)
        shift = torch.zeros_like(call.warp)  # of theta's last column, a pixel's length
        extent = torch.tensor(reference.sizes_of(call.input), dtype=F64)
        half = (extent - 1 if call.align_corners else extent) / 2
        way = torch.tensor([0.6, 0.8], dtype=F64)
        shift.view(len(shift), -1)[:, 2 * count + 2 : 2 * count + 6 : 3] = way / half
        _, moved = torch.func.jvp(lambda w, call=call: call.run(warp=w), (call.warp,), (shift,))
        expected = 0.6 * slope[:, :, 0] + 0.8 * slope[:, :, 1]
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-11, msg=str(call))


@pytest.mark.quick
def test_threads_do_not_matter():
    """Bit for bit, forward and backward."""
    call = Call(image((2, 3, 90, 80)), splines(2, 2, points=16), MAP)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(call.gradients(call.cotangent()))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.quick
def test_a_batch_changes_nothing():
    """What splines with the same control points share are the bits that each has for itself."""
    call = Call(
        image((3, 2, 40, 50)), with_points_of_first(splines(3, 2, points=16)), MAP, (28, 75)
    )
    cotangent = call.cotangent()
    together = call.gradients(cotangent)
    for n in range(3):
        alone = replace(call, input=call.input[n : n + 1], warp=call.warp[n : n + 1])
        single = alone.gradients(cotangent[n : n + 1])
        for ours, theirs in zip(single[:2], together[:2], strict=True):
            assert torch.equal(ours, theirs[n : n + 1]), n
        # Of how many sums a gradient is made depends on the batch.
        torch.testing.assert_close(single[2], together[2][n : n + 1], rtol=1e-4, atol=1e-4)


@pytest.mark.quick
def test_what_splines_share():
    """The default control points, and a batch of one of them, are found once for all targets."""
    x = image((3, 2, 20, 24))
    targets = ThinPlateSpline.control_grid((3, 3)) + 0.1 * randn(3, 9, 2).float()
    places = targets[:1] + 0.05 * randn(1, 9, 2).float()
    for points, shared in (
        (None, True),
        (places[0], True),
        (places, True),
        (places + 0.05 * randn(3, 9, 2).float(), False),
    ):
        warp = ThinPlateSpline(targets, points)
        ways = paths_of(lambda: sample(x, warp))[1]  # noqa: B023
        assert ("basis_shared" in ways) == shared, points


@pytest.mark.quick
def test_shared_control_points_that_are_nan():
    """What is kept of them is NaN, and no result is."""
    parameters = with_points_of_first(splines(2, 2, points=5))
    parameters[:, -1, 0] = torch.nan
    call = Call(image((2, 2, 20, 24)), parameters, MAP)
    assert all(result.isfinite().all() for result in call.gradients(call.cotangent()))


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_parameters_are_harmless(dtype, device):
    x = image((1, 2, 6, 7), dtype).to(device)
    for value in (0.0, torch.nan, torch.inf, 1e4):
        for padding in ("zeros", "border", "reflection"):
            parameters = torch.full((1, 9, 2), value, dtype=dtype, device=device)
            call = Call(x, parameters, MAP, None, "bilinear", padding)
            y, grad_input, grad_warp = call.gradients(call.cotangent().to(device))
            assert y.isfinite().all() and grad_input.isfinite().all(), (value, padding)
            assert value == torch.inf or grad_warp.isfinite().all(), (value, padding)


@pytest.mark.walk
@pytest.mark.skipif(walk_problem() is not None, reason=str(walk_problem()))
def test_the_threads_order_does_not_matter():
    """Of the CUDA kernels, walked; the tests above walk them with the first thread first."""
    for call in (
        Call(image((2, 1, 20, 30)), splines(2, 2, points=7), MAP, (25, 23)),
        Call(image((1, 2, 9, 8)), splines(3, 2, points=40), MAP),
    ):
        results = []
        for descending in (False, True):
            with walking(descending=descending):
                y, _, grad_warp = call.gradients(call.cotangent())
                results.append((y, grad_warp))
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other), str(call)


# --- torch's transforms ---------------------------------------------------------------------


@pytest.mark.quick
def test_transforms():
    x = image((1, 2, 9, 8), F64)
    targets, points = scattered(4)

    def f(targets, points=points[0]):
        return sample(x, ThinPlateSpline(targets[None], points), (5, 6))[0]

    def expected(targets, points=points[0]):
        parameters = reference.thin_plate_spline(targets[None], points)
        return reference.sample(x, reference.thin_plate_spline_grid(parameters, (5, 6)))[0]

    close = {"rtol": 0, "atol": 1e-10}
    each = torch.stack([expected(t) for t in targets])
    torch.testing.assert_close(torch.func.vmap(f)(targets), each, **close)
    both = torch.stack([expected(t, p) for t, p in zip(targets, points, strict=True)])
    torch.testing.assert_close(torch.func.vmap(f)(targets, points), both, **close)
    tangents = (randn(6, 2), randn(6, 2, key=1))
    ours = torch.func.jvp(f, (targets[0], points[0]), tangents)
    theirs = torch.func.jvp(expected, (targets[0], points[0]), tangents)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **close)
    hessian = torch.func.hessian(lambda t: f(t).square().sum())(targets[0])
    by_hand = torch.func.jacrev(torch.func.jacrev(lambda t: expected(t).square().sum()))
    wanted = by_hand(targets[0])
    torch.testing.assert_close(hessian, wanted, rtol=0, atol=1e-9 * wanted.abs().max().item())


@pytest.mark.quick
def test_compiled():
    x, (targets, points) = image((2, 2, 9, 8)), scattered()
    leaves = [t.float().requires_grad_() for t in (targets, points)]

    def f(x, targets, points):
        mine = sample(x, ThinPlateSpline(targets, points, 0.1), (5, 6))
        square = sample(x, ThinPlateSpline(targets[:, :4]), (5, 6))
        return (mine + square).square().sum()

    ours = torch.compile(f, backend="aot_eager", fullgraph=True)(x, *leaves)
    eager = f(x, *leaves)
    torch.testing.assert_close(ours, eager, rtol=1e-6, atol=1e-6)
    for one, other in zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(eager, leaves), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
