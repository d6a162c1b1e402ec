"""The reference is itself held against torch's float64 kernels, where those are right."""

import pytest
import torch
from accuracy import Checks, smooth_points
from cases import (
    CONFIGURATIONS,
    Call,
    configuration_id,
    image,
    scattered_grid,
    shapes,
    smooth_grid,
    thetas,
    torch_sample,
)

from stn_cuda import reference

# Both sides are float64 sums of at most 64 terms of magnitude 10; gradients scale with the size.
CLOSE = 1e-11


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_reference_equals_torch(configuration):
    dims, *settings = configuration
    with Checks() as checks:
        for shape, size in shapes(dims):
            for make in (scattered_grid, smooth_grid):
                grid = make(shape[0], size, torch.float64)
                call = Call(image(shape, torch.float64), grid, "grid", None, *settings)
                keep = smooth_points(call).unsqueeze(1)
                results = [
                    call.expect_gradients(call.cotangent() * keep, oracle)
                    for oracle in (reference.sample, torch_sample)
                ]
                names = ("output", "grad_input", "grad_grid")
                for name, ours, theirs in zip(names, *results, strict=True):
                    checks.close(ours, theirs, CLOSE * max(1, max(shape)), f"{name} of {call}")


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior")
def test_reference_affine_grid_equals_torch():
    with Checks() as checks:
        for size in ((4, 7), (1, 5), (1, 1), (3, 4, 5), (1, 2, 1)):
            theta = thetas(2, len(size), torch.float64)
            for align in (False, True):
                wanted = torch.nn.functional.affine_grid(theta, (2, 1, *size), align_corners=align)
                checks.close(reference.affine_grid(theta, size, align), wanted, CLOSE, f"{size}")


@pytest.mark.parametrize("padding_mode", ("zeros", "border", "wrap"))
def test_second_derivatives_at_whole_pixels(padding_mode):
    """Of a bicubic look they are what they are right of it; far beyond a border, 0."""
    x = image((1, 1, 6, 7), torch.float64)

    def second(pixel):
        pixel = pixel.requires_grad_()
        place = torch.stack([pixel, torch.full_like(pixel, 2.3)], -1).reshape(1, 1, -1, 2)
        y = reference.sample(x, place, "bicubic", padding_mode, coords="pixel")
        (first,) = torch.autograd.grad(y.sum(), pixel, create_graph=True)
        return torch.autograd.grad(first.sum(), pixel)[0]

    whole = torch.arange(-5, 13, dtype=torch.float64)
    at, beside = second(whole), second(whole + 1e-9)
    torch.testing.assert_close(at, beside, rtol=0, atol=1e-7)  # third derivatives of up to 24
    if padding_mode == "border":
        beyond = (whole <= -2) | (whole >= 7)
        assert at[beyond].abs().max() < 1e-13 and at[~beyond].abs().min() > 1e-3
