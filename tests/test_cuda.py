"""The kernels on CUDA against exact arithmetic and against the CPU.

The tests with a `device` parameter elsewhere run on CUDA as well where there is one.
"""

import pytest
import torch
from accuracy import Checks, check_call
from cases import (
    CONFIGURATIONS,
    DTYPES,
    GRID_LAYOUTS,
    IMAGE_LAYOUTS,
    Call,
    image,
    sample_inputs,
    scattered_grid,
    shapes,
    smooth_grid,
    thetas,
)
from conftest import cuda_problem

import stn_cuda

if cuda_problem():
    pytest.skip(cuda_problem(), allow_module_level=True)

pytestmark = pytest.mark.cuda


def test_shapes_dtypes_and_layouts():
    """The matrix of the CPU's tests in one: against the float64 reference within the bounds."""
    with Checks() as checks:
        for dims, *settings in CONFIGURATIONS:
            for number, (shape, size) in enumerate(shapes(dims)):
                for dtype in DTYPES:
                    image_layout = list(IMAGE_LAYOUTS.values())[number % len(IMAGE_LAYOUTS)]
                    grid_layout = list(GRID_LAYOUTS.values())[number % len(GRID_LAYOUTS)]
                    pixels = image_layout(image(shape, dtype).cuda())
                    grid = grid_layout(scattered_grid(shape[0], size, dtype).cuda())
                    check_call(checks, Call(pixels, grid, "grid", None, *settings))
                    theta = thetas(shape[0], dims, torch.float32).cuda()
                    check_call(checks, Call(pixels, theta, "affine", size, *settings))


def test_cpu_and_cuda_agree():
    """The same call on both: within twice the error bounds, and NaN and infinity alike."""
    hostile = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1.0, -1.0])
    with Checks() as checks:
        for call in sample_inputs(torch.float32):
            if call.map == "grid":
                call.warp.view(-1)[:7] = hostile
            ours = call.on("cuda").gradients(call.cotangent().cuda())
            theirs = call.gradients(call.cotangent())
            for mine, wanted in zip(ours, theirs, strict=True):
                finite = wanted.double().nan_to_num(0, 0, 0)
                bound = 1e-4 * (1 + finite.abs().max())
                if call.mode != "nearest":  # ties of nearest may fall to either side
                    checks.close(mine, wanted.double(), bound, str(call))
            checks.true(all(bool(t.isfinite().all()) for t in ours), str(call))


def test_mixed_dtypes():
    """Every dtype of the image with every one of the grid and of theta."""
    with Checks() as checks:
        for dtype in DTYPES:
            for warp_dtype in DTYPES:
                for layout in ("contiguous", "channels_last"):
                    pixels = IMAGE_LAYOUTS[layout](image((2, 8, 7, 9), dtype).cuda())
                    grid = scattered_grid(2, (6, 17), warp_dtype).cuda()
                    check_call(checks, Call(pixels, grid))
                    theta = thetas(2, 2, warp_dtype).cuda()
                    check_call(checks, Call(pixels, theta, "affine", (6, 17)))


MANY_BLOCKS = (
    ((1, 300, 14, 15), (13, 14)),
    ((70, 3, 28, 28), (28, 28)),
    ((2, 3, 301, 290), (290, 301)),
    ((1, 130, 5, 6, 7), (6, 5, 7)),
    ((2, 3, 20, 31, 33), (33, 20, 31)),
)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16), ids=str)
def test_many_blocks_groups_and_channels(dtype):
    """Shapes that are cut along points, images and channels, and those that are not."""
    with Checks() as checks:
        for shape, size in MANY_BLOCKS:
            for layout in ("contiguous", "channels_last"):
                pixels = IMAGE_LAYOUTS[layout](image(shape, dtype).cuda())
                check_call(checks, Call(pixels, smooth_grid(shape[0], size).cuda()))
                for theta in (thetas(shape[0], len(size)), 5 * thetas(1, len(size))):
                    check_call(checks, Call(pixels, theta.cuda(), "affine", size))


def test_devices_must_agree():
    x, grid = image((1, 2, 4, 5)), scattered_grid(1, (3, 3))
    for a, b in ((x.cuda(), grid), (x, grid.cuda())):
        with pytest.raises(RuntimeError, match="same device"):
            stn_cuda.sample(a, b)
    with pytest.raises(RuntimeError, match="same device"):
        stn_cuda.sample(x.cuda(), stn_cuda.Affine(thetas(1, 2)))


@pytest.mark.large_memory
def test_beyond_32_bit_indices():
    """More than 2^31 elements on the device: the far end, forward and backward."""
    free, _ = torch.cuda.mem_get_info()
    if free < 12 * 2**30:
        pytest.skip(f"needs 12 GiB of device memory, {free / 2**30:.1f} GiB free")
    x = torch.zeros(3, 700, 1024, 1000, dtype=torch.float16, device="cuda")
    x[-1, -1, -1, -1] = 4.0
    x.requires_grad_()
    grid = torch.ones(3, 1, 1, 2, device="cuda")
    y = stn_cuda.sample(x, grid, align_corners=True)
    assert y[-1, -1, 0, 0].item() == 4.0
    cotangent = torch.zeros_like(y)
    cotangent[-1, -1] = 3.0
    (grad,) = torch.autograd.grad(y, x, cotangent)
    assert grad[-1, -1, -1, -1].item() == 3.0 and grad.count_nonzero().item() == 1
