"""Calls that look at planes woven together, and that add to such: csrc/cpu/woven.h."""

import torch
from cases import IMAGE_LAYOUTS, PADDINGS, channels_last, image, scattered_grid, smooth_grid
from ways import ALL, GATHERS, WINDOWS, aslant, case, diagonal, turn

WOVEN = {"runs_woven": WINDOWS, "splat_woven": ALL, "woven_apart": set()}
APART = WOVEN | {"woven_apart": WINDOWS}
NOT_WOVEN = {"runs_woven": set(), "splat_woven": set()}
SUMS = {"runs_woven": set(), "splat_woven": ALL}


def woven_cases():
    yield from _images()
    yield from _batches()
    yield from _volumes()
    yield from _not_woven()


def _images():
    size, grid = (110, 100), scattered_grid(1, (90, 80))
    for channels in (2, 3, 4, 5, 7, 8, 9):
        yield case(f"woven, C={channels}", image((1, channels, *size)), grid, None, WOVEN)
    for rule in (*PADDINGS, ("border", "wrap")):
        for aligned in (False, True):
            label, settings = f"woven, {rule}", {"padding_mode": rule, "align_corners": aligned}
            yield case(label, image((1, 3, *size)), grid * 1.3, None, WOVEN, **settings)
    # So many channels of so many pixels that they are woven some at a time.
    pixels, points = image((1, 9, 300, 320)), scattered_grid(1, (160, 150))
    yield case("woven, some channels at a time", pixels, points, None, WOVEN)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        pixels = image((1, 3, *size)).to(dtype)
        points = grid.to(torch.promote_types(dtype, torch.float32))
        yield case(f"woven, {dtype}", pixels, points, None, SUMS)
    for dtype in (torch.float64, torch.float16):
        yield case(f"woven, {dtype} grid", image((1, 5, *size)), grid.to(dtype), None, WOVEN)
    pixels = image((1, 9, 300, 320))
    points = scattered_grid(1, (160, 150)).half()
    yield case("woven, some at a time, float16 grid", pixels, points, None, WOVEN)
    # Rows that do not begin where the last one ends; the image's gradient has no such rows.
    cut = image((1, 3, 110, 130))[..., :100]
    yield case("woven, rows with gaps", cut, grid, None, SUMS)
    yield case("woven, a few columns", image((1, 3, 4000, 2)), grid, None, WOVEN)


def _batches():
    pixels, grid = image((3, 3, 110, 100)), scattered_grid(3, (90, 80))
    slabs = {"slabs": ALL, "slabs_by_points": ALL}
    yield case("woven, a batch", pixels, grid, None, WOVEN)
    yield case("woven, a batch on two threads", pixels, grid, None, APART | slabs, threads=2)
    yield case("woven, one image", pixels[:1], grid, None, WOVEN | slabs, threads=2)
    yield case("woven, one grid", pixels, grid[:1], None, APART | slabs, threads=2)
    many = image((1, 10, 110, 100))
    by_channel = APART | {"slabs_by_channel": ALL}
    yield case("woven, by channel", many, grid[:1], None, by_channel, threads=2)
    # One that is not, beside others.
    beside = grid.clone()
    beside[1] = smooth_grid(1, (90, 80), spread=0.05)[0]
    yield case("woven, beside another", pixels, beside, None, APART, threads=2)
    # More images, or volumes, than are woven together, all of them seen by one warp.
    images = image((12, 3, 110, 100))
    yield case("woven, many images, one grid", images, grid[:1], None, WOVEN)
    # (Sums of parts are not rounded to 16 bits.)
    half = WOVEN | {"runs_gathered": GATHERS}
    yield case("woven, many images, one float16 grid", images, grid[:1].half(), None, half)


def _volumes():
    for channels in (2, 3, 5, 8):
        pixels = image((1, channels, 9, 10, 11))
        for points in (smooth_grid(1, (8, 9, 20), spread=0.1), scattered_grid(1, (8, 9, 20))):
            yield case(f"woven, volume, C={channels}", pixels, points, None, WOVEN)
    for rule in PADDINGS:
        pixels, points = image((1, 4, 9, 10, 11)), scattered_grid(1, (8, 9, 20)) * 1.3
        yield case(f"woven, volume, {rule}", pixels, points, None, WOVEN, padding_mode=rule)
    # An image that wraps under some tiles' points, whose taps are found one by one.
    wrapped, rule = {"splat_taps": ALL, "sample_taps": ALL}, ("wrap", "zeros", "border")
    yield case("woven, wrap", pixels, points, None, wrapped, padding_mode=rule)
    near = diagonal(0.9, 0.8, 0.7)
    yield case("woven, affine volume", image((1, 3, 9, 10, 11)), near, (8, 9, 20), WOVEN)
    several = image((3, 4, 40, 41, 42))
    yield case("woven, affine volumes", several, near, (30, 31, 32), WOVEN)
    seen = torch.cat([near, aslant(near), near * 0.7])
    yield case("woven, one volume, several warps", several[:1], seen, (30, 31, 32), WOVEN)
    pixels, points = image((1, 5, 40, 41, 42)), smooth_grid(1, (30, 31, 32), spread=0.05)
    cut = APART | {"slabs": ALL}
    yield case("woven, slabs of a volume", pixels, points, None, cut, threads=2)
    for dtype in (torch.float64, torch.float16):
        pixels = image((1, 3, 9, 10, 11)).to(dtype)
        points = smooth_grid(1, (8, 9, 20), spread=0.1)
        yield case(f"woven, volume, {dtype}", pixels, points.double(), None, SUMS)


def _not_woven():
    grid = scattered_grid(1, (90, 80))
    pixels = image((1, 3, 110, 100))
    yield case("not woven, one channel", pixels[:, :1], grid, None, NOT_WOVEN)
    yield case("not woven, few points", pixels, grid[:, :20], None, NOT_WOVEN)
    yield case("not woven, a small image", image((1, 3, 60, 70)), grid, None, SUMS)
    last = IMAGE_LAYOUTS["channels_last"](pixels)
    yield case("not woven, channels_last", last, grid, None, NOT_WOVEN)
    near = smooth_grid(1, (90, 80), spread=0.05)
    yield case("not woven, smooth", pixels, near, None, SUMS)
    yield case("not woven, affine", pixels, turn(20), (90, 80), NOT_WOVEN)
    for mode in ("nearest", "bicubic"):
        yield case(f"not woven, {mode}", pixels, grid, None, NOT_WOVEN, mode=mode)
    # Four megabytes at most.
    large, points = image((1, 4, 520, 520)), scattered_grid(1, (270, 260))
    yield case("not woven, a large image", large, points, None, NOT_WOVEN)
    volume = image((1, 3, 9, 10, 11))
    last = volume.contiguous(memory_format=channels_last(volume))
    points = smooth_grid(1, (8, 9, 20), spread=0.1)
    yield case("not woven, volume, channels_last", last, points, None, NOT_WOVEN)
    few = image((1, 3, 20, 30, 40))
    yield case("not woven, volume, few points", few, points, None, NOT_WOVEN)
