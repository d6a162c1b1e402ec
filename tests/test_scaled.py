"""Splat through maps that keep the axes apart, beyond the cases in scaled_path_cases.py."""

import math

import pytest
import torch
from accuracy import Checks, grad_input_bound
from cases import Call, image
from machine import paths_of
from ways import aslant, diagonal


@pytest.mark.quick
@pytest.mark.parametrize("value", (math.nan, math.inf))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16))
def test_values_that_are_not_finite(value, dtype):
    """One reaches the pixels that its point sees, and no others: not with a weight of 0."""
    whole = diagonal(1.0, 1.0) * torch.eye(2, 3)  # every point sees one pixel, with others at 0
    with Checks() as checks:
        for theta in (whole, diagonal(0.4, 0.3), diagonal(-0.9, 0.7)):
            warp = theta.to(torch.promote_types(dtype, torch.float32))
            call = Call(image((1, 3, 20, 40)).to(dtype), warp, "affine", (20, 40))
            for point in (0, 20 * 40 // 2 + 20, 39, 20 * 40 - 1):
                mark = torch.zeros(call.output_shape, dtype=dtype)
                mark.flatten(2)[:, 1, point] = 1
                clean = call.cotangent() * (1 - mark)
                expected = call.expect_gradients(clean)[1]
                reached = call.expect_gradients(mark)[1] > 1e-6  # no more than the reference rounds
                spoilt = clean.masked_fill(mark != 0, value)
                (output, grad), ways = paths_of(lambda: _gradient(call, spoilt))  # noqa: B023
                checks.true("scaled" in ways, f"{sorted(ways)} of {call}")
                if theta is whole and point == 0:  # its other pixels are in the image
                    checks.true("scaled_carefully" in ways, f"{sorted(ways)} of {call}")
                checks.same(grad.isfinite(), ~reached, f"{value}, point {point}, {call}")
                grad = torch.where(reached, expected, grad.double())
                bound = grad_input_bound(call, clean, expected)
                checks.close(grad, expected, bound, f"beside {value}, point {point}, {call}")


def _gradient(call, cotangent):
    leaf = call.input.detach().requires_grad_()
    output = call.run(leaf)
    return output, torch.autograd.grad(output, leaf, cotangent)[0]


@pytest.mark.quick
def test_as_a_map_that_is_nearly_so():
    """Where it is hardly aslant, the result hardly differs: the two ways meet."""
    size, spread = (50, 60), 1e-5
    with Checks() as checks:
        for scale in (0.3, 0.8, 1.0, 1.7):
            straight = diagonal(scale, -scale)
            bent = straight + (aslant(straight) - straight) * (spread / 0.01)
            grads = []
            for theta, scaled in ((straight, True), (bent, False)):
                call = Call(image((2, 3, 41, 52)).double(), theta.double(), "affine", size)
                (_, grad), ways = paths_of(lambda: _gradient(call, call.cotangent()))  # noqa: B023
                checks.true(("scaled" in ways) == scaled, f"{sorted(ways)} of {call}")
                grads.append(grad)
            # A look moves by less than spread * 52 / 2 pixels, and weights by as much.
            near = (grads[0] - grads[1]).abs().max() <= 52 * spread * 40 / scale**2
            checks.true(bool(near), f"scaled by {scale}")
            checks.true(bool(grads[0].abs().max() > 1), "nothing to compare")
