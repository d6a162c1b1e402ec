"""Small calls whose splat is collected, or only nearly so: csrc/cpu/collect.h."""

import math
from dataclasses import replace

import torch
from cases import Call, generator, image, smooth_grid, splines
from ways import ALL, TURNING, PathCase, case, case_of_part, diagonal, turn

from stn_cuda import reference

# Vectors that are long enough for it.
COLLECTING = TURNING
COLLECTED = {"splat_collected": COLLECTING, "splat_patched": ALL - COLLECTING}
ADDED = {"splat_collected": set(), "splat_inside": ALL}
PATCHED = {"splat_collected": set(), "splat_patched": ALL}


def rough(grid, pixels):
    """Every look moved by so many pixels of an image of the grid's size, on the average."""
    noise = torch.randn(grid.shape, generator=generator("rough", grid.shape), dtype=torch.float64)
    unit = torch.tensor([2 / length for length in reversed(grid.shape[1:-1])], dtype=torch.float64)
    return grid + (pixels * unit * noise).to(grid.dtype)


def grid_of(theta, size):
    """The affine map's looks as a grid, which is another map."""
    return reference.affine_grid(theta.double(), size).to(theta.dtype)


def collected_cases():
    size = (40, 64)
    for channels in (4, 5, 6, 7, 11):
        grid = smooth_grid(2, size, spread=0.05)
        pixels = image((2, channels, 41, 66))
        yield case_of_part(f"collected, C={channels}", pixels, grid, COLLECTED)
    # Three, four and up to six points of a row that may see a pixel.
    for scale, channels in ((1.0, 4), (0.63, 16), (1.4, 8), (-0.9, 4)):
        grid = grid_of(diagonal(scale, 0.9), size)
        pixels = image((1, channels, *size))
        yield case_of_part(f"collected, scaled by {scale}", pixels, grid, COLLECTED)
    for channels, pixels in ((16, 0.2), (48, 0.4)):
        grid = rough(smooth_grid(1, size, spread=0.02), pixels)
        yield case_of_part(
            f"collected, rough by {pixels}", image((1, channels, *size)), grid, COLLECTED
        )
    # Rows of points end to end: stretches begin anywhere in a tile.
    for width in (28, 37, 20):
        grid = smooth_grid(2, (30, width), spread=0.05)
        pixels = image((2, 8, 30, width))
        yield case_of_part(f"collected, rows of {width}", pixels, grid, COLLECTED)
    for dtype in (torch.float16, torch.bfloat16):
        pixels = image((2, 6, *size)).to(dtype)
        grid = smooth_grid(2, size, spread=0.05)
        yield case_of_part(f"collected, {dtype}", pixels, grid, COLLECTED)
        several = {"splat_collected": COLLECTING}
        yield case_of_part(f"collected, one image, {dtype}", pixels[:1], grid, several)
    grid = smooth_grid(3, size, spread=0.05)
    yield case_of_part("collected, three warps", image((1, 5, *size)), grid, COLLECTED)
    yield case_of_part("collected, one warp", image((3, 5, *size)), grid[:1], COLLECTED)
    for rule in ("border", "reflection"):
        inside = grid_of(diagonal(0.8, 0.8), size)
        pixels = image((1, 8, *size))
        label = f"collected, inside, {rule}"
        yield case_of_part(label, pixels, inside, COLLECTED, padding_mode=rule)
        # What a rule bends is no straight line.
        beyond = {"splat_collected": COLLECTING, "splat_patched": ALL}
        grid = grid_of(diagonal(1.3, 1.3), (80, 160))
        pixels = image((1, 8, 60, 130))
        yield case_of_part(f"collected, beyond, {rule}", pixels, grid, beyond, padding_mode=rule)
    grid = grid_of(diagonal(1.2, 1.2), size)
    yield case_of_part("collected, partly outside", image((1, 8, *size)), grid, COLLECTED)
    call = Call(image((2, 16, *size)), 0.9 * splines(2, 2), "thin_plate_spline", size)
    call = replace(call, label="collected, a spline")
    yield PathCase(call, {"splat_collected": COLLECTING})
    # Volumes.
    for channels, shape in ((4, (9, 20, 40)), (5, (1, 20, 40)), (8, (7, 12, 64))):
        pixels = image((1, channels, *shape))
        warp = torch.eye(3, 4)[None] * 1.01
        warp[0, 0, 1], warp[0, 1, 0], warp[0, 2, 0], warp[0, 0, 2] = 0.03, 0.02, -0.02, 0.01
        label = f"collected, volume {shape}"
        grid = grid_of(warp, shape)
        yield case_of_part(label, pixels, grid, {"splat_collected": COLLECTING})
    grid = smooth_grid(1, (7, 12, 64), spread=0.01)
    pixels = image((1, 8, 7, 12, 64)).half()
    yield case_of_part("collected, volume, float16", pixels, grid, {"splat_collected": COLLECTING})
    # Slabs, and pixels that are zeroed on the way.
    cut = {"splat_collected": COLLECTING, "slabs": ALL, "slabs_by_points": ALL}
    for channels, dtype in ((8, torch.float32), (8, torch.float16), (40, torch.float32)):
        grid = smooth_grid(1, (70, 70), spread=0.05)
        pixels = image((1, channels, 70, 70)).to(dtype)
        label = f"collected, slabs, {dtype}, C={channels}"
        yield case_of_part(label, pixels, grid, cut, threads=2)
    grid = rough(smooth_grid(1, (12, 20, 30), spread=0.05), 0.05)
    yield case_of_part("collected, slabs, volume", image((1, 8, 12, 20, 30)), grid, cut, threads=2)
    grid = smooth_grid(1, (50, 60), spread=0.05) * 0.3
    late = {"splat_collected": COLLECTING, "zeros_on_the_way": ALL}
    yield case("collected, zeros", image((1, 4, 150, 190)), grid, None, late)
    yield from _not_collected(size)


def _not_collected(size):
    pixels = image((1, 8, *size))
    straight = smooth_grid(1, size, spread=0.05)
    yield case_of_part("not collected, C=3", image((1, 3, *size)), straight, PATCHED)
    wide = straight.double()
    yield case_of_part("not collected, float64", pixels.double(), wide, PATCHED)
    yield case_of_part("not collected, float64 grid", pixels, wide, PATCHED)
    # More stretches than a tile may have; an image that goes round.
    rows = smooth_grid(2, (30, 9), spread=0.05)
    yield case_of_part("not collected, rows of 9", image((2, 8, 30, 9)), rows, PATCHED)
    ways = {"splat_collected": set()}
    yield case_of_part("not collected, wrap", pixels, straight, ways, padding_mode="wrap")
    steep = grid_of(turn(60), size)
    yield case_of_part("not collected, steep", pixels, steep, PATCHED)
    yield case_of_part("not collected, near", pixels, grid_of(diagonal(0.2, 0.2), size), PATCHED)
    yield case_of_part("not collected, rough", pixels, rough(straight, 2), ADDED)
    # A look that is no number, or far away, leaves its tile to the others' way.
    for value in (math.nan, math.inf, 1e6):
        one = smooth_grid(1, (4, 64), spread=0.05)
        one[0, 2, 33, 0] = value
        label = f"not collected, {value}"
        yield case_of_part(label, image((1, 8, 40, 64)), one, ADDED)
