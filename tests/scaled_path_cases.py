"""Small calls whose splat keeps the axes apart, or nearly so: csrc/cpu/scaled.h."""

import math

import torch
from cases import IMAGE_LAYOUTS, image
from ways import ALL, TURNING, WINDOWS, aslant, case, diagonal, turning

SCALED = {"scaled": ALL, "splat_inside": set(), "splat_patched": set(), "splat_collected": set()}
NOT = {"scaled": set(), "scaled_onto": set()}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def boxes(batch, dtype=torch.float32):
    """Scaled and shifted, each otherwise, one of them mirrored."""
    scales = [(0.9, 0.4), (0.3, 1.1), (-0.7, 0.8), (1.3, -0.5)][:batch]
    shifts = [(0.1, -0.2), (0.5, 0.05), (-0.1, 0.3), (0.0, 0.2)]
    rows = [[[x, 0.0, a], [0.0, y, b]] for (x, y), (a, b) in zip(scales, shifts, strict=False)]
    return torch.tensor(rows, dtype=dtype)


def windows(dtype=torch.float32):
    """The machines on which vectors of pixels take sums by permutations, where points allow it."""
    return TURNING if dtype == torch.float64 else WINDOWS


def scaled_cases():
    for dtype in DTYPES:
        wide = torch.promote_types(dtype, torch.float32)
        for channels in (1, 3):
            for scales in (
                (0.2, 0.3),
                (0.8, 0.7),
                (1.0, 1.0),
                (1.9, 1.3),
                (-0.9, 0.6),
                (0.6, -1.1),
            ):
                pixels = image((2, channels, 35, 47)).to(dtype)
                warp = diagonal(*scales, dtype=wide)
                label = f"scaled by {scales}, {dtype}, C={channels}"
                here = windows(dtype) if scales[0] > 1.5 else set()
                ways = {**SCALED, "scaled_windows": here}
                yield case(label, pixels, warp, (33, 50), ways)
    # Whole pixels; every point at one; rows or columns of points that see the same.
    exact = diagonal(1.0, 1.0) * torch.eye(2, 3)
    yield case("scaled, identity", image((1, 2, 20, 30)), exact, (20, 30), SCALED)
    for scales in ((0.5, 0.0), (0.0, 0.5), (0.0, 0.0)):
        pixels = image((1, 2, 20, 40))
        yield case(f"scaled by {scales}", pixels, diagonal(*scales), (20, 40), SCALED)
    # Narrower than a vector, of one pixel, of one point.
    narrow = (((5, 3), (7, 9)), ((1, 40), (6, 50)), ((40, 2), (60, 6)), ((9, 9), (30, 1)))
    for shape, size in narrow:
        pixels, warp = image((2, 2, *shape)), diagonal(0.7, 0.8)
        yield case(f"scaled, {shape} -> {size}", pixels, warp, size, SCALED)
    # Points beyond the image, on either side, and none that sees it.
    for shift in (0.9, -0.9, 1.6, 5.0, -1e4):
        warp = diagonal(0.5, 0.7)
        warp[0, :, 2] = shift
        yield case(f"scaled, shifted by {shift}", image((1, 2, 21, 37)), warp, (33, 40), SCALED)
    # Where weights that many channels share are the better way, only of an image that is enlarged.
    for scale, machines in ((0.6, ALL), (0.95, None)):
        for dtype in DTYPES[:3]:
            pixels = image((2, 9, 40, 40)).to(dtype)
            warp = diagonal(scale, scale, dtype=torch.promote_types(dtype, torch.float32))
            here = ALL - turning(9, dtype) if machines is None else machines
            label = f"scaled by {scale}, C=9, {dtype}"
            yield case(label, pixels, warp, (40, 40), {"scaled": here})
    onto = {"scaled": ALL, "scaled_onto": ALL, "splat_inside": set()}
    for channels, dtype in ((1, torch.float32), (3, torch.float64)):
        pixels = image((1, channels, 30, 40)).to(dtype)
        yield case(f"scaled, four warps, {dtype}", pixels, boxes(4, dtype), (29, 35), onto)
    pixels = image((4, 2, 30, 40))
    yield case("scaled, each by its own", pixels, boxes(4), (29, 35), SCALED)
    yield case("scaled, one warp", pixels, boxes(1), (29, 35), SCALED)
    for rule in ("border", "reflection"):
        for channels, dtype in ((1, torch.float32), (3, torch.float32), (2, torch.float64)):
            beyond = {"scaled": ALL, "splat_beyond": ALL, "scaled_windows": windows(dtype)}
            pixels, warp = image((2, channels, 30, 41)).to(dtype), diagonal(1.2, 1.1, dtype=dtype)
            label = f"scaled, {rule}, {dtype}, C={channels}"
            yield case(label, pixels, warp, (33, 45), beyond, padding_mode=rule)
        beyond = {"scaled": ALL, "splat_beyond": ALL}
        label = f"scaled, several, {rule}"
        yield case(label, image((1, 2, 30, 40)), boxes(4), (29, 35), beyond, padding_mode=rule)
        half = image((1, 2, 30, 40)).half()
        yield case(f"not scaled, half, {rule}", half, boxes(1), (29, 35), NOT, padding_mode=rule)
    # Slabs: one image among two threads.
    for channels in (1, 3):
        cut = {"scaled": ALL, "slabs": ALL, "splat_inside": set()}
        large = image((1, channels, 150, 140))
        label = f"scaled, slabs, C={channels}"
        yield case(label, large, diagonal(0.9, -0.4), (200, 190), cut, threads=2)
        cut = {"scaled": ALL, "slabs": ALL, "splat_beyond": ALL}
        label = f"scaled, slabs, border, C={channels}"
        warp, rule = diagonal(1.1, 1.2), "border"
        yield case(label, large, warp, (200, 190), cut, threads=2, padding_mode=rule)
    yield from _windows()
    yield from _not_scaled()


def _windows():
    """Points at least as far apart as pixels; with long vectors, as half a pixel."""
    for dtype in DTYPES:
        wide = torch.promote_types(dtype, torch.float32)
        ways = {**SCALED, "scaled_windows": windows(dtype)}
        for scales in ((1.5, 0.6), (-1.7, 0.9), (2.1, -1.6), (-3.8, 0.9), (0.9, 1.1)):
            pixels = image((2, 2, 37, 100)).to(dtype)
            label = f"windows, scaled by {scales}, {dtype}"
            yield case(label, pixels, diagonal(*scales, dtype=wide), (30, 61), ways)
        # As near as that, so that rounding makes it less; whole pixels.
        exact = torch.eye(2, 3, dtype=wide)[None]
        for name, warp in (("near", diagonal(1.0, 0.8, dtype=wide)), ("identity", exact)):
            yield case(f"windows, {name}, {dtype}", pixels, warp, (37, 100), ways)
        for scales in ((0.51, 0.7), (-0.75, 1.9), (0.98, 0.98)):
            pixels, size = image((2, 2, 37, 100)).to(dtype), (40, 100)
            label, ways = f"windows, near by {scales}, {dtype}", {"scaled_windows": TURNING}
            yield case(label, pixels, diagonal(*scales, dtype=wide), size, ways)
    label, ways = "no windows, near and narrow", {"scaled": ALL, "scaled_windows": set()}
    yield case(label, image((1, 2, 37, 64)), diagonal(0.9, 0.9), (40, 64), ways)
    ways = {"scaled_windows": WINDOWS, "splat_patched": set(), "splat_alone": ALL - WINDOWS}
    # Few points: most pixels see none, or all of them are fewer than a vector's lanes.
    for scales, size in (((0.9, 0.9), (9, 12)), ((-0.8, 0.6), (3, 5)), ((0.9, 0.9), (1, 1))):
        for channels in (1, 3):
            pixels, label = image((1, channels, 60, 70)), f"windows, {scales} {size} C={channels}"
            yield case(label, pixels, diagonal(*scales), size, ways)
    # Many channels, if their map cannot be turned round.
    pixels = image((2, 9, 40, 50))
    far = {"scaled_windows": WINDOWS, "turned_2": set(), "turned_3": set()}
    yield case("windows, C=9, far apart", pixels, diagonal(1.8, 1.7), (40, 50), far)
    near = {"scaled_windows": WINDOWS - turning(9)}
    yield case("windows, C=9, near", pixels, diagonal(1.2, 1.1), (40, 50), near)
    # Narrow images have few vectors.
    narrow = {"scaled_windows": set()}
    yield case("no windows, narrow", image((1, 1, 50, 32)), diagonal(1.3, 0.8), (50, 32), narrow)
    onto = {"scaled_onto": ALL, "scaled_windows": WINDOWS}
    yield case("windows, four warps", image((1, 2, 30, 60)), boxes(4), (29, 35), onto)
    # The row of points that looks at 0.5 follows one that looks at -3.5.
    edges = torch.tensor([[[0.9, 0.0, 0.0], [0.0, 1.2, 0.03]]])
    for rule in ("zeros", "border", "reflection"):
        label, large = f"windows, edges, {rule}", image((1, 3, 200, 200))
        edge = {"scaled_windows": WINDOWS}
        yield case(label, large, edges, (60, 60), edge, padding_mode=rule)
    cut = {"scaled_windows": WINDOWS, "slabs": ALL}
    large = image((1, 2, 190, 200))
    yield case("windows, slabs", large, diagonal(1.3, 1.2), (160, 170), cut, threads=2)


def _not_scaled():
    pixels = image((1, 2, 30, 40))
    yield case("not scaled, aslant", pixels, aslant(diagonal(0.9, 0.9)), (30, 40), NOT)
    yield case("not scaled, float64 theta", pixels, diagonal(0.9, 0.9).double(), (30, 40), NOT)
    yield case("not scaled, wrap", pixels, diagonal(0.9, 0.9), (30, 40), NOT, padding_mode="wrap")
    yield case("not scaled, far apart", pixels, diagonal(0.5, 20.0), (30, 40), NOT)
    without = {"scaled": WINDOWS, "scaled_windows": WINDOWS}
    yield case("scaled by windows alone", pixels, diagonal(2.5, 3.5), (30, 40), without)
    half = image((1, 2, 30, 40)).half()
    yield case("not scaled, half, four warps", half, boxes(4), (29, 35), NOT)
    last = IMAGE_LAYOUTS["channels_last"](pixels)
    yield case("not scaled, channels_last", last, diagonal(0.9, 0.9), (30, 40), NOT)
    for mode in ("nearest", "bicubic"):
        yield case(f"not scaled, {mode}", pixels, diagonal(0.9, 0.9), (30, 40), NOT, mode=mode)
    nan = diagonal(0.9, 0.9)
    nan[0, 1, 2] = math.nan
    yield case("not scaled, NaN", pixels, nan, (12, 33), NOT)
