"""Second derivatives against finite differences and against autograd's of the reference."""

import math

import pytest
import torch
from accuracy import Checks
from cases import (
    ALL_CONFIGURATIONS,
    DTYPES,
    IMAGE_LAYOUTS,
    Call,
    configuration_id,
    image,
    modes,
    sample_inputs,
    scattered_grid,
    thetas,
)
from path_cases import path_cases
from second import check_second, directions, like, product
from test_gradients import away_from_kinks

import stn_cuda


def run_of(call, keep):
    return lambda x, w: call.run(x, w) * keep


@pytest.mark.quick
@pytest.mark.parametrize("configuration", ALL_CONFIGURATIONS, ids=configuration_id)
def test_gradgradcheck(configuration, device):
    """Grid and theta, input and warp, against finite differences in float64."""
    dims, *settings = configuration
    shape, size = ((2, 2, 4, 5), (3, 2)) if dims == 2 else ((1, 1, 3, 4, 3), (2, 2, 3))
    for kind in ("grid", "affine"):
        if kind == "grid":
            warp = scattered_grid(shape[0], size, torch.float64, key=7)
        else:
            warp = thetas(shape[0], dims, torch.float64, key=7)
        call = Call(image(shape, torch.float64), warp, kind, size, *settings)
        keep = away_from_kinks(call).to(device)
        call = call.on(device)
        torch.autograd.gradgradcheck(
            run_of(call, keep),
            (call.input.requires_grad_(), call.warp.requires_grad_()),
            fast_mode=True,
        )


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_reference(dtype, device):
    with Checks() as checks:
        for call in sample_inputs(dtype):
            check_second(checks, call.on(device))


@pytest.mark.quick
def test_every_way_through_the_cpu_kernels():
    """The calls that test_cpu_paths.py has for first derivatives.

    But for splines, whose bounds are others: test_thin_plate_spline.py.
    """
    with Checks() as checks:
        for case in path_cases():
            if case.call.map != "thin_plate_spline" and math.prod(case.call.output_shape) < 200_000:
                check_second(checks, case.call)


@pytest.mark.quick
def test_broadcast(device):
    with Checks() as checks:
        for dims, shape, size in ((2, (3, 2, 9, 10), (8, 20)), (3, (3, 2, 4, 5, 6), (3, 4, 5))):
            for kind in ("grid", "affine"):
                many = (
                    scattered_grid(3, size, torch.float64)
                    if kind == "grid"
                    else thetas(3, dims, torch.float64)
                )
                for pixels, warp in (
                    (image((1, *shape[1:]), torch.float64), many),
                    (image(shape, torch.float64), many[:1]),
                ):
                    check_second(checks, Call(pixels, warp, kind, size).on(device))


@pytest.mark.quick
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_layouts(layout, device):
    with Checks() as checks:
        for dims, shape, size in ((2, (2, 8, 13, 14), (12, 17)), (3, (2, 5, 5, 6, 7), (4, 5, 6))):
            for mode in modes(dims):
                pixels = IMAGE_LAYOUTS[layout](image(shape, torch.float64))
                warp = thetas(2, dims, torch.float64)
                check_second(checks, Call(pixels, warp, "affine", size, mode).on(device))


@pytest.mark.quick
def test_threads_do_not_matter(threads):
    """Bit for bit, on images that several threads share."""
    calls = [
        Call(image((1, 3, 150, 160)), thetas(1, 2), "affine", (140, 150)),
        Call(image((1, 3, 150, 160)), scattered_grid(1, (140, 150)), mode="bicubic"),
        Call(image((1, 2, 30, 31, 32)), thetas(1, 3), "affine", (30, 31, 32)),
    ]
    with Checks() as checks:
        for call in calls:
            given = directions(call)
            threads(1)
            alone = product(call, *given)
            threads(2)
            for ours, wanted in zip(product(call, *given), alone, strict=True):
                checks.same(ours, wanted, str(call))


@pytest.mark.quick
def test_nan_coordinates_have_none(device):
    with Checks() as checks:
        for dims, shape, size in ((2, (1, 5, 6, 7), (5, 18)), (3, (1, 2, 4, 5, 6), (3, 4, 5))):
            for mode in modes(dims):
                for padding in ("zeros", "border", "reflection"):
                    grid = scattered_grid(1, size)
                    hole = torch.rand(grid.shape) < 0.3
                    call = Call(
                        image(shape), grid.masked_fill(hole, float("nan")), "grid", None, mode
                    )
                    g, a, b = call.cotangent(), like(call.input, "a"), like(grid, "b")
                    results = product(call.on(device), g, a, b)
                    what = f"{mode} {padding} {dims}-D"
                    for result in results:
                        checks.true(bool(result.isfinite().all()), what)
                    checks.true(bool((results[2].cpu()[hole] == 0).all()), f"at the NaN, {what}")


@pytest.mark.quick
def test_pixels_that_are_not_finite_stay_where_they_are_seen():
    """A point that does not see the infinite pixel has finite second derivatives."""
    pixels = image((1, 2, 20, 40))
    pixels[0, :, 10, 20] = float("inf")
    seen = torch.zeros_like(pixels)
    seen[0, :, 10, 20] = 1
    grid = scattered_grid(1, (18, 40))
    unseen = stn_cuda.sample(seen, grid) == 0
    call = Call(pixels, grid)
    by_g, _, by_grid = product(call, call.cotangent(), like(pixels, "a"), like(grid, "b"))
    assert by_g[unseen].isfinite().all() and not by_g.isfinite().all()
    assert by_grid[unseen.all(1)].isfinite().all()


@pytest.mark.quick
@pytest.mark.parametrize("kind", ("grid", "affine"))
def test_third_derivatives(kind):
    """Those that involve the warp twice are refused; the others are there."""
    warp = scattered_grid(1, (4, 5)) if kind == "grid" else thetas(1, 2)
    call = Call(image((1, 2, 6, 7)), warp.requires_grad_(), kind, (4, 5))
    x = call.input.requires_grad_()
    (first,) = torch.autograd.grad(call.run().square().sum(), warp, create_graph=True)
    by_x, by_warp = torch.autograd.grad(first.square().sum(), (x, warp), create_graph=True)
    (third,) = torch.autograd.grad(by_x.sum(), x, retain_graph=True)
    assert third.isfinite().all() and third.abs().max() > 0
    with pytest.raises(NotImplementedError, match="third derivatives.*are not implemented"):
        by_warp.sum().backward()
