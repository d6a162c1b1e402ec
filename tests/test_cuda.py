"""The CUDA kernels against exact arithmetic and against the CPU.

On a GPU where there is one, and walked on the CPU.

The tests with a `device` parameter elsewhere run so as well.
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
    torch_sample,
)
from conftest import cuda_problem

import stn_cuda

needs_cuda = pytest.mark.skipif(bool(cuda_problem()), reason=str(cuda_problem()))


def test_shapes_dtypes_and_layouts(gpu):
    """The matrix of the CPU's tests in one: against the float64 reference within the bounds."""
    with Checks() as checks:
        for dims, *settings in CONFIGURATIONS:
            for number, (shape, size) in enumerate(shapes(dims)):
                # Walked, which takes long, every shape with half of them.
                for dtype in DTYPES[number % 2 :: 2] if gpu.walks else DTYPES:
                    image_layout = list(IMAGE_LAYOUTS.values())[number % len(IMAGE_LAYOUTS)]
                    grid_layout = list(GRID_LAYOUTS.values())[number % len(GRID_LAYOUTS)]
                    pixels = image_layout(image(shape, dtype).to(gpu.device))
                    grid = grid_layout(scattered_grid(shape[0], size, dtype).to(gpu.device))
                    check_call(checks, Call(pixels, grid, "grid", None, *settings), torch_sample)
                    theta = thetas(shape[0], dims).to(gpu.device)
                    check_call(checks, Call(pixels, theta, "affine", size, *settings), torch_sample)


def test_cpu_and_cuda_agree(gpu):
    """The same call on both: within twice the error bounds, and NaN and infinity alike."""
    hostile = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1.0, -1.0])
    with Checks() as checks:
        for call in sample_inputs(torch.float32):
            if call.map == "grid":
                call.warp.view(-1)[:7] = hostile
            ours = call.on(gpu.device).gradients(call.cotangent().to(gpu.device))
            with gpu.paused():
                theirs = call.gradients(call.cotangent())
            for mine, wanted in zip(ours, theirs, strict=True):
                finite = wanted.double().nan_to_num(0, 0, 0)
                bound = 1e-4 * (1 + finite.abs().max())
                if call.mode != "nearest":  # ties of nearest may fall to either side
                    checks.close(mine, wanted.double(), bound, str(call))
            checks.true(all(bool(t.isfinite().all()) for t in ours), str(call))


def test_mixed_dtypes(gpu):
    """Every dtype of the image with every one of the grid and of theta."""
    with Checks() as checks:
        for dtype in DTYPES:
            for warp_dtype in DTYPES:
                for layout in ("contiguous", "channels_last"):
                    pixels = IMAGE_LAYOUTS[layout](image((2, 8, 7, 9), dtype).to(gpu.device))
                    grid = scattered_grid(2, (6, 17), warp_dtype).to(gpu.device)
                    check_call(checks, Call(pixels, grid))
                    theta = thetas(2, 2, warp_dtype).to(gpu.device)
                    check_call(checks, Call(pixels, theta, "affine", (6, 17)))


MANY_BLOCKS = (
    ((1, 300, 14, 15), (13, 14)),
    ((70, 3, 28, 28), (28, 28)),
    ((2, 3, 301, 290), (290, 301)),
    ((1, 130, 5, 6, 7), (6, 5, 7)),
    ((2, 3, 20, 31, 33), (33, 20, 31)),
    # So many blocks of one image's points, or pixels, that others share them.
    ((3, 1, 9, 8), (530, 512)),
    ((3, 1, 530, 512), (9, 8)),
)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16), ids=str)
def test_many_blocks_groups_and_channels(dtype, gpu):
    """Shapes that are cut along points, images and channels, and those that are not."""
    with Checks() as checks:
        for shape, size in MANY_BLOCKS:
            for layout in ("contiguous", "channels_last"):
                pixels = IMAGE_LAYOUTS[layout](image(shape, dtype).to(gpu.device))
                for batch in (shape[0], 1):
                    grid = smooth_grid(batch, size).to(gpu.device)
                    check_call(checks, Call(pixels, grid))
                for theta in (thetas(shape[0], len(size)), 5 * thetas(1, len(size))):
                    call = Call(pixels, theta.to(gpu.device), "affine", size)
                    check_call(checks, call)


@pytest.mark.cuda
@needs_cuda
def test_devices_must_agree():
    x, grid = image((1, 2, 4, 5)), scattered_grid(1, (3, 3))
    for a, b in ((x.cuda(), grid), (x, grid.cuda())):
        with pytest.raises(RuntimeError, match="same device"):
            stn_cuda.sample(a, b)
    with pytest.raises(RuntimeError, match="same device"):
        stn_cuda.sample(x.cuda(), stn_cuda.Affine(thetas(1, 2)))


@pytest.mark.large_memory
@pytest.mark.cuda
@needs_cuda
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
