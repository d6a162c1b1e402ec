"""float16 and bfloat16, and every mix of dtypes, against float64 on the same quantised values.

Nothing but the product's own roundings counts: coordinates and weights in float32, sums in float32,
one rounding to the output's dtype at the end. torch's own CPU kernels give garbage here from 182 x
182 pixels on.
"""

import itertools

import pytest
import torch
from accuracy import Checks, check_call
from cases import (
    DTYPES,
    LOW_PRECISION,
    PADDINGS,
    Call,
    channels_last,
    generator,
    image,
    modes,
    scattered_grid,
    smooth_grid,
    thetas,
    torch_sample,
)

import stn_cuda

PAIRS = list(itertools.product(DTYPES, DTYPES))


def pair_id(dtypes):
    return "-".join(str(d)[6:] for d in dtypes)


def unit_image(shape, dtype, key="unit"):
    """Values in [0, 1), as pictures have them."""
    return torch.rand(shape, generator=generator(shape, key)).to(dtype)


@pytest.mark.quick
@pytest.mark.parametrize("mode", modes(2))
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
@pytest.mark.parametrize("size", (256, 512))
def test_large_images(size, dtype, mode):
    """The headline: 256 x 256 and 512 x 512, grid in the same dtype and in float32, no garbage."""
    pixels = unit_image((1, 2, size, size), dtype)
    with Checks() as checks:
        for grid_dtype in (dtype, torch.float32):
            for make in (scattered_grid, smooth_grid):
                grid = make(1, (200, 210), grid_dtype)
                for memory_format in (torch.contiguous_format, torch.channels_last):
                    x = pixels.contiguous(memory_format=memory_format)
                    call = Call(x, grid, "grid", None, mode, "zeros", False)
                    check_call(checks, call, torch_sample)
                    output = call.run()
                    checks.true(bool(output.abs().max() <= 1.375**2), f"range of {call}")


@pytest.mark.quick
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
@pytest.mark.parametrize("size", (256, 512))
def test_identity_of_large_images(size, dtype):
    """The identity grid in float32 gives the image back, rounded once."""
    pixels = unit_image((1, 3, size, size), dtype)
    grid = stn_cuda.affine_grid(torch.eye(2, 3)[None], pixels.shape, align_corners=False)
    call = Call(pixels, grid)
    with Checks() as checks:
        check_call(checks, call, torch_sample, gradients=False)
    identity = stn_cuda.Affine(torch.eye(2, 3, dtype=dtype)[None])
    assert torch.equal(stn_cuda.sample(pixels, identity), pixels)


@pytest.mark.quick
@pytest.mark.parametrize("dtypes", PAIRS, ids=pair_id)
def test_all_pairs_of_dtypes(dtypes, device):
    """Input dtype x grid or theta dtype: values, gradients and the dtypes of both."""
    input_dtype, warp_dtype = dtypes
    with Checks() as checks:
        for dims in (2, 3):
            shape, size = ((2, 5, 9, 20), (7, 33)) if dims == 2 else ((2, 3, 4, 5, 6), (3, 4, 17))
            for mode in modes(dims):
                for padding in PADDINGS:
                    for last in (False, True):
                        pixels = image(shape, input_dtype)
                        if last:
                            pixels = pixels.contiguous(memory_format=channels_last(pixels))
                        for kind in ("grid", "affine"):
                            if kind == "grid":
                                warp = scattered_grid(2, size, warp_dtype)
                            else:
                                warp = thetas(2, dims, warp_dtype)
                            call = Call(pixels, warp, kind, size, mode, padding, last)
                            check_call(checks, call.on(device), torch_sample)


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_gradients_accumulate_in_float32(dtype):
    """Thousands of outputs on one pixel: a sum in the dtype itself would stop growing at 256."""
    pixels = torch.ones(1, 1, 3, 3, dtype=dtype)
    theta = torch.zeros(1, 2, 3, dtype=dtype)  # every output looks at the middle
    for mode in ("bilinear", "nearest"):
        call = Call(pixels, theta, "affine", (60, 70), mode, "zeros", True)
        cotangent = torch.ones(1, 1, 60, 70, dtype=dtype)
        output, grad_input, _ = call.gradients(cotangent)
        assert (output == 1).all()
        expected = torch.zeros(3, 3)
        expected[1, 1] = 4200
        assert torch.equal(grad_input[0, 0].float(), expected.to(dtype).float()), mode


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_theta_gradient_of_large_images(dtype):
    """theta's gradient sums 50,000 points: in float32, stored once in theta's dtype."""
    with Checks() as checks:
        for theta_dtype in (dtype, torch.float32):
            for mode in ("bilinear", "bicubic"):
                call = Call(
                    unit_image((2, 3, 230, 220), dtype),
                    thetas(2, 2, theta_dtype),
                    "affine",
                    (225, 231),
                    mode,
                    "border",
                    False,
                )
                check_call(checks, call, torch_sample)


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_special_values_of_the_dtype(dtype):
    """Subnormals, the largest numbers, infinities and NaN go through a copy unharmed."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)  # every number
    pixels = bits.view(dtype).reshape(1, 1, 256, 256)
    identity = stn_cuda.Affine(torch.eye(2, 3)[None])
    with Checks() as checks:
        for mode in ("nearest", "bilinear"):
            for memory_format in (torch.contiguous_format, torch.channels_last):
                x = pixels.expand(1, 2, 256, 256).contiguous(memory_format=memory_format)
                checks.same(stn_cuda.sample(x, identity, mode=mode), x, f"{mode} {memory_format}")


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_rounding_is_to_nearest_even(dtype):
    """The only rounding of an average of two pixels is the storing: equal to torch's conversion."""
    left = image((1, 1, 64, 64), dtype)
    right = image((1, 1, 64, 64), dtype, key="right")
    pixels = torch.stack([left, right], -1).reshape(1, 1, 64, 128)
    grid = torch.zeros(1, 64, 64, 2)
    grid[..., 0] = (4 * torch.arange(64.0) + 2) / 128 - 1  # the middle of each pair, exactly
    grid[..., 1] = ((2 * torch.arange(64.0) + 1) / 64 - 1).unsqueeze(1)
    expected = ((left.float() + right.float()) / 2).to(dtype)
    assert torch.equal(stn_cuda.sample(pixels, grid), expected)
