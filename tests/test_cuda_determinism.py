"""torch.use_deterministic_algorithms(True) on CUDA: gradients repeatable bit by bit, and right.

On a GPU where there is one, and walked on the CPU.
"""

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
    torch_sample,
)
from conftest import cuda_problem

from stn_cuda import reference


def warps(batch, size, dtype=torch.float32):
    """A scattered grid, a smooth one, and theta: (warp, map, size)."""
    yield scattered_grid(batch, size, dtype), "grid", None
    yield smooth_grid(batch, size, dtype), "grid", None
    yield thetas(batch, len(size), dtype), "affine", size


def crowded(dtype, layout):
    """Many points that look at few pixels: the sums depend on the order where it is free."""
    pixels = IMAGE_LAYOUTS[layout](image((2, 5, 6, 7), dtype))
    yield Call(pixels, smooth_grid(2, (150, 140)))
    yield Call(pixels, thetas(2, 2), "affine", (150, 140))
    yield Call(pixels, thetas(2, 2), "affine", (150, 140), padding_mode="reflection")
    yield Call(pixels, 1e-3 * thetas(2, 2), "affine", (150, 140))


@pytest.mark.cuda
@pytest.mark.skipif(bool(cuda_problem()), reason=str(cuda_problem()))
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeatable(dtype, layout, deterministic_algorithms):
    """Walked, it is so in any order: test_cuda_walk.py."""
    deterministic_algorithms(True)
    with Checks() as checks:
        for call in (call.on("cuda") for call in crowded(dtype, layout)):
            cotangent = call.cotangent().cuda()
            first = call.gradients(cotangent)
            for _ in range(100):
                for actual, expected in zip(call.gradients(cotangent), first, strict=True):
                    checks.same(actual, expected, str(call))


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_fixed_point_sums(configuration, gpu):
    """The deterministic gradients are right too, also for images that are shared by a batch."""
    dims, *settings = configuration

    def check(*arguments, oracle=torch_sample):
        check_call(checks, Call(*arguments, *settings).on(gpu.device), oracle)

    with Checks() as checks, gpu.deterministic():
        for shape, size in shapes(dims):
            for dtype in (torch.float32, torch.float64, torch.float16):
                for warp in warps(shape[0], size):
                    check(image(shape, dtype), *warp)
        shape, size = ((1, 3, 7, 6), (5, 8)) if dims == 2 else ((1, 2, 4, 5, 6), (3, 4, 5))
        for warp in warps(3, size):
            check(image(shape), *warp, oracle=reference.sample)


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-30, 1e30])
def test_fixed_point_range(scale, gpu):
    """The largest value sets the unit, whatever its magnitude."""
    warp = scattered_grid(2, (6, 7)).to(gpu.device)
    values = image((2, 3, 6, 7)).to(gpu.device) * scale
    arguments = (warp, "grid", (2, 3, 5, 4), False, "bilinear", "zeros", False)
    with gpu.deterministic():
        actual = torch.ops.stn_cuda.splat(values, *arguments)
        expected = torch.ops.stn_cuda.splat(values.double(), *arguments)
    error = (actual.double() - expected).abs().max().item()
    # Below 1e-38 each product is rounded to a multiple of 1.4e-45.
    assert error <= 1e-5 * expected.abs().max().item() + 2e-44


def test_small_sums_beside_large_values(gpu):
    """float64's sums have a second integer, for what is below the first one's unit."""
    values = image((1, 1, 6, 7), torch.float64) * 1e-18
    values[0, 0, 0, 0] = 1.0
    grid = scattered_grid(1, (6, 7), torch.float64, reach=0.9)
    arguments = ("grid", (1, 1, 20, 21), False, "bilinear", "zeros", False)
    with gpu.paused():
        expected = torch.ops.stn_cuda.splat(values, grid, *arguments)
    with gpu.deterministic():
        on_gpu = values.to(gpu.device), grid.to(gpu.device)
        actual = torch.ops.stn_cuda.splat(*on_gpu, *arguments).cpu()
    small = expected.abs() < 1e-15
    assert 0 < small.sum() < expected.numel()
    # At most 16 terms, each rounded to the second unit, for 64 points: 2^-(60 - 6) 2^-(57 - 6).
    assert (actual - expected)[small].abs().max() <= 16 * 2.0 ** (-61 + 6 - 57 + 6 + 1)


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_that_are_not_finite(dtype, repeatable, gpu):
    """They reach the pixels that their points see, and no other, in both kinds of sums."""
    values = image((1, 1, 3, 4), dtype)
    values[0, 0, 0, 0], values[0, 0, 1, 1], values[0, 0, 2, 2] = float("inf"), NAN, -float("inf")
    grid = scattered_grid(1, (3, 4), reach=0.8)
    grid[0, 2, 2] = grid[0, 0, 0]  # Inf - Inf
    arguments = ("grid", (1, 1, 6, 7), False, "bilinear", "zeros", False)
    with gpu.paused():
        expected = torch.ops.stn_cuda.splat(values, grid, *arguments)
    with gpu.deterministic(repeatable):
        on_gpu = values.to(gpu.device), grid.to(gpu.device)
        actual = torch.ops.stn_cuda.splat(*on_gpu, *arguments).cpu()
    assert actual.isnan().any()
    torch.testing.assert_close(actual, expected, equal_nan=True)
