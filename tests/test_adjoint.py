"""splat is the adjoint of sample: <sample(x, warp), y> = <x, splat(y, warp)>, for any affine map.

The images and the gradients are positive, so that what one side leaves out is not made up for by
what it adds too much, and shows far above the bounds.
"""

import math

import pytest
import torch
from accuracy import UNIT_ROUNDOFF, forward_bound
from cases import PADDINGS, Call, image
from hypothesis import given
from hypothesis import strategies as st
from machine import machine, paths_of
from ways import turning

# (image's size, output's size): wide, one row more or less than a vector, narrow, odd.
SIZES = [
    ((40, 44), (40, 44)),
    ((33, 47), (35, 49)),
    ((20, 16), (21, 17)),
    ((17, 19), (16, 18)),
    ((50, 34), (45, 32)),
]
DTYPES = (torch.float32, torch.float64)


@st.composite
def thetas(draw, angle, scale, shift):
    """Rotated by up to `angle` degrees, scaled by factors of the range `scale`, moved."""
    turn = math.radians(draw(st.floats(-angle, angle)))
    across, down = draw(st.floats(*scale)), draw(st.floats(*scale))
    rows = [
        [across * math.cos(turn), -down * math.sin(turn), draw(st.floats(-shift, shift))],
        [across * math.sin(turn), down * math.cos(turn), draw(st.floats(-shift, shift))],
    ]
    return torch.tensor([rows], dtype=torch.float64)


def check_adjoint(call):
    """The identity within the bounds of its sides; the ways that splat went.

    What a point adds to pixels is off by as much as what it reads of them, where all are the
    largest; and a pixel sums up no more than all of the points.
    """
    y = call.cotangent().abs()
    x = call.input.requires_grad_()
    output = call.run(x)
    (grad,), ways = paths_of(lambda: torch.autograd.grad(output, x, y))
    output, x = output.detach(), x.detach()
    everything = y.double().sum() * x.max()
    points = output[0, 0].numel()
    bound = 2 * (y.double() * forward_bound(call, output.double())).sum()
    bound += points * UNIT_ROUNDOFF[x.dtype] * everything
    left, right = (output.double() * y.double()).sum(), (x.double() * grad.double()).sum()
    assert abs(left - right) <= bound, f"{left} and {right}, bound {bound}: {call}"
    assert bound < 0.002 * everything, f"the bound {bound} says nothing: {call}"
    return ways


def pixels(batch, channels, size, dtype):
    return image((batch, channels, *size)).abs().clamp(max=2).to(dtype)


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
@given(
    thetas(5, (0.85, 1.15), 0.4),
    st.sampled_from(SIZES),
    st.sampled_from((6, 9)),
    st.sampled_from(PADDINGS),
)
def test_turned_round(dtype, theta, sizes, channels, padding):
    """Where each pixel gathers the points that see it, on the kernels that do."""
    size, output = sizes
    image = pixels(1, channels, size, dtype)
    call = Call(image, theta.to(dtype), "affine", output, padding_mode=padding)
    ways = check_adjoint(call)
    if channels < 8 and not theta.to(dtype)[0, [0, 1], [1, 0]].any():
        assert "scaled" in ways, f"{sorted(ways)} of {call}"
        return
    turned = any(way.startswith("turned_") for way in ways)
    assert turned == (machine() in turning(channels, dtype)), f"{sorted(ways)} of {call}"


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
@given(
    thetas(0, (-2.5, 2.5), 1.2),
    st.sampled_from(SIZES),
    st.sampled_from((1, 3)),
    st.sampled_from(PADDINGS),
)
def test_scaled(dtype, theta, sizes, channels, padding):
    """Boxes of any width, mirrored or not."""
    size, output = sizes
    theta = theta.to(dtype)
    call = Call(pixels(1, channels, size, dtype), theta, "affine", output, padding_mode=padding)
    assert "scaled" in check_adjoint(call), call


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ("affine", "grid"))
@given(
    thetas(180, (0.3, 3.0), 1.2),
    st.sampled_from(SIZES),
    st.sampled_from((1, 3)),
    st.sampled_from(PADDINGS),
)
def test_added(kind, dtype, theta, sizes, channels, padding):
    """Any map: the points add to the pixels, or not, whichever kernels and angles say."""
    size, output = sizes
    warp = theta.to(dtype)
    if kind == "grid":
        warp = Call(torch.empty(1, 1, *size), theta, "affine", output).grid64().to(dtype)
    call = Call(
        pixels(1, channels, size, dtype),
        warp,
        kind,
        output if kind == "affine" else None,
        padding_mode=padding,
    )
    ways = check_adjoint(call)
    if kind == "grid":
        assert not any(way.startswith("turned_") for way in ways)
        added = {"splat_inside", "splat_patched", "splat_woven", "splat_nothing"}
        assert ways & added, f"{sorted(ways)} of {call}"
