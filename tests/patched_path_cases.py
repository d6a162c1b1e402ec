"""Small calls whose splat is summed in patches, or only nearly so: csrc/cpu/patch.h."""

from dataclasses import replace

import torch
from cases import PADDINGS, Call, image, smooth_grid, splines
from collected_path_cases import grid_of, rough
from ways import ALL, PathCase, case, case_of_part, diagonal, turn

PATCHED = {"splat_patched": ALL, "splat_inside": set(), "splat_collected": set()}
ADDED = {"splat_patched": set(), "splat_inside": ALL, "splat_collected": set()}


def patched_cases():
    size = (40, 64)
    smooth = smooth_grid(2, size, spread=0.05)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        pixels = image((2, 3, 41, 66)).to(dtype)
        yield case_of_part(f"patched, {dtype}", pixels, smooth, PATCHED)
        several = {"splat_patched": ALL}
        yield case_of_part(f"patched, one image, {dtype}", pixels[:1], smooth, several)
    # Channels that fill a patch, or leave some of it empty; of float64 none is collected.
    for channels in (8, 9, 10, 11):
        pixels = image((2, channels, *size)).double()
        yield case_of_part(f"patched, C={channels}", pixels, smooth.double(), PATCHED)
    yield case_of_part("patched, float64 grid", image((2, 3, *size)), smooth.double(), PATCHED)
    yield case_of_part("patched, one warp", image((3, 3, *size)), smooth[:1], PATCHED)
    # Many points to a pixel, and as few as pay; where the image's rows are crowded, fewer.
    near = grid_of(diagonal(0.1, 0.1), size)
    yield case_of_part("patched, near", image((1, 3, *size)), near, PATCHED)
    turned = grid_of(turn(35), (60, 60))
    yield case_of_part("patched, turned", image((1, 3, 60, 60)), turned, PATCHED)
    for width, pixels in ((66, 0.5), (256, 1.0)):
        shape = (64, width)
        grid = rough(smooth_grid(1, shape, spread=0.02), pixels)
        label = f"patched, rough by {pixels}, W={width}"
        yield case_of_part(label, image((1, 3, *shape)), grid, {"splat_patched": ALL})
    for width in (7, 28, 37):
        grid = smooth_grid(2, (30, width), spread=0.05)
        yield case_of_part(f"patched, rows of {width}", image((2, 3, 30, width)), grid, PATCHED)
    # What is beyond the image.
    for rule in PADDINGS:
        grid = grid_of(diagonal(1.3, 1.3), (50, 70))
        pixels = image((1, 3, 40, 60))
        yield case_of_part(f"patched, beyond, {rule}", pixels, grid, PATCHED, padding_mode=rule)
    within = grid_of(diagonal(0.7, 0.7), size)
    pixels = image((1, 3, *size))
    yield case_of_part("patched, wrap", pixels, within, PATCHED, padding_mode="wrap")
    call = Call(image((2, 3, *size)), 0.9 * splines(2, 2), "thin_plate_spline", size)
    yield PathCase(replace(call, label="patched, a spline"), PATCHED)
    # Slabs, and pixels that are zeroed on the way.
    cut = PATCHED | {"slabs": ALL, "slabs_by_points": ALL, "splat_across": set()}
    for channels, dtype in ((3, torch.float32), (9, torch.float64), (3, torch.bfloat16)):
        coordinates = torch.promote_types(dtype, torch.float32)
        grid = smooth_grid(1, (120, 110), spread=0.05).to(coordinates)
        pixels = image((1, channels, 110, 120)).to(dtype)
        label = f"patched, slabs, {dtype}, C={channels}"
        yield case_of_part(label, pixels, grid, cut, threads=2)
    late = PATCHED | {"zeros_on_the_way": ALL}
    grid = smooth_grid(1, (50, 60), spread=0.05) * 0.3
    yield case("patched, zeros", image((1, 3, 170, 190)), grid, None, late)
    yield from _not_patched(size)


def _not_patched(size):
    smooth = smooth_grid(1, size, spread=0.05)
    yield case_of_part("not patched, C=2", image((1, 2, *size)), smooth, ADDED)
    several = image((1, 7, *size)).double()
    yield case_of_part("not patched, C=7, float64", several, smooth.double(), ADDED)
    pixels = image((1, 3, *size))
    yield case_of_part("not patched, rough", pixels, rough(smooth, 5), ADDED)
    wide = {"splat_patched": set(), "splat_inside": ALL}
    apart = grid_of(diagonal(0.95, 0.95), (30, 40))
    yield case_of_part("not patched, apart", image((1, 3, 90, 120)), apart, wide)
    yield case("not patched, one row", image((1, 3, 1, 12000)), smooth, None, ADDED)
    wrapped = {"splat_patched": ALL, "splat_taps": ALL}
    beyond = grid_of(diagonal(1.3, 1.3), size)
    yield case_of_part("not all patched, wrap", pixels, beyond, wrapped, padding_mode="wrap")
