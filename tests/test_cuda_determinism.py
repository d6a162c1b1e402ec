"""torch.use_deterministic_algorithms(True) on CUDA: gradients repeatable bit by bit, and right."""

import pytest
import torch
from accuracy import Checks, check_call
from cases import (
    CONFIGURATIONS,
    DTYPES,
    IMAGE_LAYOUTS,
    NAN,
    Call,
    configuration_id,
    image,
    scattered_grid,
    shapes,
    smooth_grid,
    thetas,
)
from conftest import cuda_problem

if cuda_problem():
    pytest.skip(cuda_problem(), allow_module_level=True)

pytestmark = pytest.mark.cuda


def warps(batch, size, dtype=torch.float32):
    """A scattered grid, a smooth one, and theta: (warp, map, size)."""
    yield scattered_grid(batch, size, dtype), "grid", None
    yield smooth_grid(batch, size, dtype), "grid", None
    yield thetas(batch, len(size), dtype), "affine", size


def check_on_cuda(checks, *arguments, label=""):
    check_call(checks, Call(*arguments, label=label).on("cuda"))


def crowded(dtype, layout):
    """Many points that look at few pixels: the sums depend on the order where it is free."""
    pixels = IMAGE_LAYOUTS[layout](image((2, 5, 6, 7), dtype))
    return Call(pixels, smooth_grid(2, (150, 140))).on("cuda")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeatable(dtype, layout, deterministic_algorithms):
    deterministic_algorithms(True)
    call = crowded(dtype, layout)
    cotangent = call.cotangent().cuda()
    first = call.gradients(cotangent)
    with Checks() as checks:
        for _ in range(100):
            for actual, expected in zip(call.gradients(cotangent), first, strict=True):
                checks.same(actual, expected, str(call))


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_fixed_point_sums(configuration, deterministic_algorithms):
    """The deterministic gradients are right too, also for images that are shared by a batch."""
    deterministic_algorithms(True)
    dims, *settings = configuration
    with Checks() as checks:
        for shape, size in shapes(dims):
            for dtype in (torch.float32, torch.float64, torch.float16):
                for warp in warps(shape[0], size):
                    check_on_cuda(checks, image(shape, dtype), *warp, *settings)
        shape, size = ((1, 3, 7, 6), (5, 8)) if dims == 2 else ((1, 2, 4, 5, 6), (3, 4, 5))
        for warp in warps(3, size):
            check_on_cuda(checks, image(shape), *warp, *settings)


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-30, 1e30])
def test_fixed_point_range(scale, deterministic_algorithms):
    """The largest value sets the unit, whatever its magnitude."""
    deterministic_algorithms(True)
    warp = scattered_grid(2, (6, 7)).cuda()
    values = image((2, 3, 6, 7)).cuda() * scale
    arguments = (warp, "grid", (2, 3, 5, 4), False, "bilinear", "zeros", False)
    actual = torch.ops.stn_cuda.splat(values, *arguments)
    expected = torch.ops.stn_cuda.splat(values.double(), *arguments)
    error = (actual.double() - expected).abs().max().item()
    # Below 1e-38 each product is rounded to a multiple of 1.4e-45.
    assert error <= 1e-5 * expected.abs().max().item() + 2e-44


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_that_are_not_finite(dtype, repeatable, deterministic_algorithms):
    """They reach the pixels that their points see, and no other, in both kinds of sums."""
    values = image((1, 1, 3, 4), dtype)
    values[0, 0, 0, 0], values[0, 0, 1, 1], values[0, 0, 2, 2] = float("inf"), NAN, -float("inf")
    grid = scattered_grid(1, (3, 4), reach=0.8)
    grid[0, 2, 2] = grid[0, 0, 0]  # Inf - Inf
    arguments = ("grid", (1, 1, 6, 7), False, "bilinear", "zeros", False)
    expected = torch.ops.stn_cuda.splat(values, grid, *arguments)
    deterministic_algorithms(repeatable)
    actual = torch.ops.stn_cuda.splat(values.cuda(), grid.cuda(), *arguments).cpu()
    assert actual.isnan().any()
    torch.testing.assert_close(actual, expected, equal_nan=True)
