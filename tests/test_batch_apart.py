"""What becomes of one image or warp does not depend on the others in its batch, bit for bit.

The kernels cut their work by how a warp looks at the image: along its columns, at few of its
pixels, anywhere. Warps that differ in this stand side by side here.

(One thing does: the slopes of a parametric map's values of one channel are kept for its gradient
only where those of all warps stay in the caches. What is here is small enough.)
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from accuracy import Checks
from cases import (
    FREE,
    Call,
    channels_last,
    free_values,
    image,
    scattered_grid,
    splines,
    thetas,
)
from machine import paths_of
from ways import turn

import stn_cuda
from stn_cuda import reference

pytestmark = pytest.mark.quick

NAMES = ("output", "grad_input", "grad_warp")
# By how many degrees, and how far apart the points look.
LOOKS = ((0, 1.0), (70, 0.9), (3, 1.7), (12, 0.5), (80, 1.8), (33, 1.1), (5, 0.2))


def affine(dtype=torch.float32):
    return torch.cat([turn(degrees, scale, dtype) for degrees, scale in LOOKS])


def warps(map, in_size, size, dtype):
    """Of a map, unlike each other."""
    theta = affine(torch.float64)
    if map == "affine":
        return theta.to(dtype)
    if map == "projective":
        last = torch.tensor([[[0.1, 0.05, 1.0]]], dtype=torch.float64)
        return torch.cat((theta, last.expand(len(theta), 1, 3)), 1).to(dtype)
    if map == "thin_plate_spline":
        bent = splines(len(theta), 2, torch.float64)
        bent[:, 5:8] = theta.reshape(-1, 3, 2)
        return bent.to(dtype)
    grid = reference.affine_grid(theta, size, False)
    grid[2] = scattered_grid(1, size, torch.float64)[0]
    return free_values(map, grid, in_size).to(dtype)


def check_alone(checks, call):
    gradient = call.cotangent()
    together = call.gradients(gradient)
    shared = call.input.shape[0] == 1
    for n in range(call.warp.shape[0]):
        one = slice(n, n + 1)
        alone = replace(call, input=call.input if shared else call.input[one], warp=call.warp[one])
        for name, mine, theirs in zip(NAMES, alone.gradients(gradient[one]), together, strict=True):
            if not (shared and name == "grad_input"):
                checks.same(mine, theirs[one], f"{name} of {n} of {call}")


MAPS = ("affine", "projective", "thin_plate_spline", *FREE)
SIZES = (((70, 80), (66, 70)), ((140, 150), (50, 70)), ((40, 30), (90, 130)))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16))
@pytest.mark.parametrize("map", MAPS)
def test_warps_unlike_each_other(threads, map, dtype):
    threads(2)
    paddings = itertools.cycle(("zeros", "border", "reflection", "wrap", ("border", "wrap")))
    with Checks() as checks:
        for (in_size, size), channels in itertools.product(SIZES, (1, 3, 9)):
            if channels == 9 and in_size[0] > 100:
                continue
            values = warps(map, in_size, size, torch.promote_types(dtype, torch.float32))
            at = None if map in FREE else size
            for mode in ("bilinear", "bicubic"):
                pixels = image((len(LOOKS), channels, *in_size), dtype)
                call = Call(pixels, values, map, at, mode, next(paddings))
                check_alone(checks, call)
            last = pixels.contiguous(memory_format=channels_last(pixels))
            check_alone(checks, replace(call, input=last))
            check_alone(checks, replace(call, input=pixels[:1], mode="bilinear"))


def test_volumes(threads):
    threads(2)
    theta = thetas(4, 3)
    theta[1, :, :3] = torch.eye(3)[[1, 0, 2]]  # along columns
    grid = reference.affine_grid(theta, (12, 20, 70), False).float()
    grid[2] = scattered_grid(1, (12, 20, 70))[0]
    with Checks() as checks:
        for channels, (map, values) in itertools.product(
            (1, 4), (("affine", theta), ("grid", grid))
        ):
            pixels = image((4, channels, 40, 41, 42))
            check_alone(checks, Call(pixels, values, map, (12, 20, 70)))


@pytest.mark.parametrize(
    ("length", "size", "way"),
    ((400, (210, 200), "splat_woven"), (620, (160, 160), "channels_apart")),
)
def test_scattered_beside_smooth(length, size, way, threads):
    """Planes of which caches hold a few: some images' are woven, or one after the other."""
    threads(2)
    theta = affine()
    grid = reference.affine_grid(theta, size, False).float()
    grid[1::2] = scattered_grid(3, size)
    with Checks() as checks:
        call = Call(image((len(LOOKS), 3, length, length)), grid)
        _, ways = paths_of(lambda: check_alone(checks, call))
    assert {way, "cut_apart"} <= ways, ways


def results_of_one_image(call, output_gradient, tangent):
    """All that there is of a call, but the image's gradient, which is all warps'."""
    output, _, grad_warp = call.gradients(output_gradient)
    found = {"output": output, "grad_warp": grad_warp}
    warp, size = call.arguments()
    masked = dict(call.keywords, padding_mode="zeros", fill=0.5, return_mask=True)
    found["filled"], found["mask"] = stn_cuda.sample(call.input, warp, size, **masked)
    if call.mode != "nearest":
        with_gradient = stn_cuda.sample_with_gradient(call.input, warp, size, **call.keywords)
        found["value"], found["slopes"] = with_gradient
        with forward_ad.dual_level():
            moving = call.run(warp=forward_ad.make_dual(call.warp, tangent))
            found["tangent"] = forward_ad.unpack_dual(moving).tangent
    return found


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16))
@pytest.mark.parametrize("size", ((13, 13), (1, 1), (5, 5), (16, 16), (1, 256), (7, 20)), ids=str)
def test_small_grids_at_one_image(threads, size, dtype):
    """Grids that are the rows of one: no point, not even one that sees infinity, moves others."""
    threads(2)
    modes = ("nearest", "bilinear", "bicubic")
    paddings = ("zeros", "border", "reflection", "wrap", ("border", "wrap"))
    pixels = image((1, 1, 30, 40), dtype)
    pixels[0, 0, 20, 20] = math.inf
    with Checks() as checks:
        for mode, padding, map in itertools.product(modes, paddings, FREE):
            count = 7 if size[1] > 13 else 60
            grid = scattered_grid(count, size, torch.float64, key=mode)
            grid[1, 0, 0] = math.nan
            coordinates = torch.promote_types(dtype, torch.float32)
            values = free_values(map, grid, (30, 40)).to(coordinates)
            call = Call(pixels, values, map, None, mode, padding)
            gradient, tangent = call.cotangent(), image(values.shape, coordinates)
            together, ways = paths_of(lambda: results_of_one_image(call, gradient, tangent))  # noqa: B023
            as_rows = map in ("grid", "pixel_grid")  # else it counts where a point stands
            checks.true(("warps_as_rows" in ways) == as_rows, f"{call}")
            for n in (0, 1, 2, count - 1):
                one = slice(n, n + 1)
                alone = replace(call, warp=call.warp[one])
                mine = results_of_one_image(alone, gradient[one], tangent[one])
                for name, result in mine.items():
                    checks.same(result, together[name][one], f"{name} of {n} of {call}")


@pytest.mark.parametrize("count", (1, 2, 40))
def test_gradients_of_grids(count):
    """The gradient of theta through Affine.grid, whose sums are made in groups of tiles."""
    theta = affine(torch.float64).repeat(6, 1, 1)[:count].requires_grad_()
    values = image((count, 90, 120, 2), torch.float64)
    (together,) = torch.autograd.grad(stn_cuda.Affine(theta).grid((90, 120)), theta, values)
    one = theta[:1].detach().requires_grad_()
    (alone,) = torch.autograd.grad(stn_cuda.Affine(one).grid((90, 120)), one, values[:1])
    assert torch.equal(alone, together[:1])
