"""For each way through the CPU kernels, small calls that go it; csrc/cpu/paths.h lists the ways."""

import math

import torch
from block_path_cases import block_cases
from cases import (
    GRID_LAYOUTS,
    IMAGE_LAYOUTS,
    PADDINGS,
    image,
    scattered_grid,
    smooth_grid,
    thetas,
)
from collected_path_cases import collected_cases
from patched_path_cases import patched_cases
from seam_cases import seam_cases
from splat_path_cases import splat_cases
from spline_path_cases import spline_cases
from ways import (
    ALL,
    ALWAYS_GATHERS,
    AVX2_GATHER,
    AVX2_PAIRS,
    AVX512,
    BASELINE,
    GATHER,
    GATHERS,
    INSERTS,
    PAIRS_FIRST,
    SOME_GATHER,
    TURNING,
    VECTORS,
    WINDOWS,
    WINDOWS_FIRST,
    around,
    aslant,
    case,
    case_of_part,
    diagonal,
    turn,
)
from woven_path_cases import woven_cases

from stn_cuda.reference import affine_grid


def affine_cases():
    near = thetas(1, 2, spread=0.05)
    for channels, gather in ((1, "runs"), (3, "windows"), (8, "windows"), (13, "windows")):
        ways = around("windows", VECTORS | (GATHER if gather == "windows" else set()))
        gathered = PAIRS_FIRST | (GATHER if gather == "runs" else set())
        ways |= around("runs", BASELINE | gathered)
        ways |= {"runs_copied": BASELINE, "runs_gathered": gathered}
        ways |= dict.fromkeys(("grad_kept", "slopes_summed"), ALL if channels == 1 else set())
        pixels = image((1, channels, 40, 48))
        yield case(f"near the identity, C={channels}", pixels, diagonal(0.9, 0.9), (40, 48), ways)
    ways = around("windows", WINDOWS - PAIRS_FIRST) | around("runs", BASELINE | PAIRS_FIRST)
    padded = (40, 36)  # rows end with a vector of AVX2 that has no points
    yield case("a vector of padding", image((1, 3, 40, 40)), diagonal(0.9, 0.9), padded, ways)
    for width, narrow in ((28, TURNING), (13, WINDOWS - PAIRS_FIRST)):
        ways = around("narrow", narrow) | around("windows", VECTORS - narrow)
        yield case(f"W={width}", image((2, 3, 20, width)), near, (24, 40), ways)
    ways = around("narrow", WINDOWS)
    yield case("W=13, bicubic", image((2, 3, 20, 13)), near, (24, 40), ways, mode="bicubic")
    # Windows have to be wider than two vectors, or even than four.
    for size, output, wide in (
        ((60, 99), (20, 32), TURNING),
        ((60, 51), (20, 17), set()),  # wider than the image
        ((60, 160), (20, 32), set()),
        ((160, 99), (20, 32), TURNING),
    ):
        ways = around("wide", wide) | around("runs", ALL - wide)
        pixels, label = image((1, 3, *size)), f"{size} -> {output}"
        yield case(label, pixels, diagonal(1, 1), output, ways)
        for rule in PADDINGS[1:]:
            warp = diagonal(1.02, 1.1)
            yield case(f"{label}, {rule}", pixels, warp, output, ways, padding_mode=rule)
    ways = around("wide", set()) | around("runs", ALL) | around("windows", set())
    yield case("downscaling", image((1, 3, 60, 200)), diagonal(1, 1), (20, 32), ways)
    yield case("aslant -> (32, 32)", image((1, 3, 99, 99)), turn(30), (32, 32), ways)
    single = around("wide", TURNING - GATHER) | around("runs", ALL - TURNING | GATHER)
    yield case("one channel -> (20, 32)", image((1, 1, 60, 99)), diagonal(1, 1), (20, 32), single)
    for degrees in (45, 90):
        yield case(
            f"rotated by {degrees} degrees",
            image((1, 3, 70, 70)),
            turn(degrees),
            (70, 70),
            {"sees_columns": ALL},
        )
    # The row stride decides; an image's rows are computed with in float32.
    for dtype, width, runs, splat in (
        (torch.float32, 512, ALL, ALL),
        (torch.float16, 512, ALL, ALL),
        (torch.float32, 128, set(), ALL),
        (torch.float32, 500, set(), set()),
    ):
        ways = {"sees_columns": ALL, "runs_by_plane": runs, "splat_by_plane": splat}
        pixels = image((1, 3, 70, width)).to(dtype)
        label = f"rotated by 90 degrees, W={width}, {dtype}"
        yield case(label, pixels, turn(90), (20, 70), ways, padding_mode="border")
    rotated = affine_grid(turn(60), (40, 64)).float()
    ways = {"sees_columns": ALL} | around("windows", set())
    yield case("rotated grid", image((1, 2, 50, 50)), rotated, None, ways)
    yield case("upright", image((1, 3, 70, 70)), turn(5), (70, 70), {"sees_columns": set()})
    for mode in ("bilinear", "nearest", "bicubic"):
        nothing = {"sample_nothing": ALL}
        if mode != "nearest":
            nothing["grad_nothing"] = ALL
        for channels in (1, 2):
            pixels = image((1, channels, 9, 10)).contiguous(memory_format=torch.channels_last)
            far = turn(20, 7)
            # (Channels next to each other are gathered, if they are looked at linearly.)
            gathered = channels > 1 and mode == "bilinear"
            nothing["splat_nothing"] = ALL - TURNING if gathered else ALL
            yield case(f"zoomed out, {mode}", pixels, far, (64, 64), dict(nothing), mode=mode)
    border = {"sample_nothing": set(), "grad_nothing": set(), "splat_nothing": set()}
    pixels = image((1, 2, 9, 10))
    yield case("zoomed out, border", pixels, turn(20, 7), (64, 64), border, padding_mode="border")
    many = {"tiles_in_groups": ALL}
    yield case("many tiles", image((1, 1, 30, 30)), diagonal(0.8, 0.7), (140, 140), many)
    few = {"tiles_in_groups": set()}
    yield case("few tiles", image((1, 32, 30, 30)), diagonal(0.8, 0.7), (30, 30), few)
    alike = torch.cat([turn(5), turn(4), turn(6)])
    unlike = torch.cat([turn(5), turn(70), turn(6)])
    for label, warps, ways in (("alike", alike, set()), ("unlike", unlike, ALL)):
        ways = {"cut_apart": ways}
        yield case(f"warps {label}", image((3, 2, 70, 70)), warps, (70, 70), ways)
    folding = GATHERS | BASELINE  # where one channel has no windows
    for channels, machines in ((1, folding), (3, PAIRS_FIRST | BASELINE)):
        ways = {"folded": machines, "slopes_summed": set()}
        pixels = image((2, channels, 20, 28))
        yield case(f"rows end to end, C={channels}", pixels, near, (24, 28), ways)
    ways = {"folded": ALL, "slopes_summed": ALL}
    pixels = image((2, 1, 20, 28))
    yield case("slopes, rows end to end", pixels, thetas(2, 2), (24, 28), ways)
    ways = {"folded": folding, "sample_nothing": ALL, "grad_nothing": ALL, "splat_nothing": ALL}
    yield case("end to end, zoomed out", image((2, 1, 9, 10)), turn(20, 7), (60, 60), ways)
    theta = near.clone()
    theta[0, 0, 2] = math.nan
    nan = around("runs", ALL) | around("windows", set()) | around("nothing", set())
    nan["runs_of_nan"] = ALL
    yield case("NaN theta", image((1, 2, 20, 40)), theta, (12, 33), nan)
    singular = {f"turned_{k}": set() for k in (2, 3, 4)} | {"splat_inside": ALL}
    flat = aslant(diagonal(0.5, 0))
    yield case("singular theta", image((1, 2, 20, 40)), flat, (20, 40), singular)
    wide = around("runs", ALL) | around("windows", set()) | singular
    yield case("float64 theta", image((1, 2, 20, 40)), near.double(), (20, 40), wide)
    # Windows of some rows, which share their part of the L1 cache where they are 4 KiB apart.
    for width, apart in ((1024, True), (1000, False)):
        falls = torch.tensor([[[64 / width, 0.0, 0.01], [0.19, 0.4, 0.02]]])
        for mode, windows in (("bilinear", VECTORS | GATHER), ("bicubic", WINDOWS)):
            ways = around("windows", windows) | {"windows_apart": windows if apart else set()}
            label, pixels = f"W={width}, aslant, {mode}", image((1, 8, 50, width))
            yield case(label, pixels, falls, (20, 64), ways, mode=mode)


def volume_cases():
    # A part of a higher volume, so few points that it is not woven.
    near, size = diagonal(0.9, 0.16, 0.7), (6, 8, 34)
    pixels = image((1, 2, 6, 40, 40))
    windows = WINDOWS_FIRST | AVX512
    ways = around("windows", windows) | around("runs", ALL - windows) | {"splat_inside": ALL}
    gathered = ALWAYS_GATHERS - windows
    ways |= {"runs_gathered": gathered, "runs_inserted": gathered & INSERTS}
    yield case("volume", pixels, near, size, ways)
    ways = around("windows", TURNING) | around("runs", ALL - TURNING)
    yield case("float64 volume", pixels.double(), near.double(), size, ways)
    windows = SOME_GATHER | AVX512  # of grids
    ways = around("windows", windows) | around("runs", ALL - windows)
    grid = affine_grid(near, size).float()
    yield case("volume, grid", image((1, 5, 6, 40, 40)), grid, None, ways)
    # Few enough rows of pixels along y and along z, too many in all.
    ways = around("runs", ALL) | around("windows", set())
    tilted = diagonal(1.0, 0.5, 0.5)
    tilted[0, 1, 0] = tilted[0, 2, 0] = 0.4
    yield case("tilted volume", image((1, 2, 30, 30, 40)), tilted, (3, 4, 40), ways)
    grid = smooth_grid(1, (4, 5, 17), spread=0.05)
    for channels in (1, 2):
        ways = around("narrow", windows) | around("runs", ALL - windows)
        label = f"narrow volume, grid, C={channels}"
        yield case_of_part(label, image((1, channels, 6, 7, 20)), grid, ways)
    for shape in ((1, 2, 1, 7, 90), (1, 2, 7, 1, 90), (1, 2, 1, 1, 90)):
        label = f"an axis of one pixel, {shape}"
        ways = around("runs", ALL)
        yield case(label, image(shape), scattered_grid(1, (4, 5, 17)), None, ways)
    ways = around("strided", ALL)
    yield case("W=1", image((1, 2, 4, 7, 1)), scattered_grid(1, (4, 5, 17)), None, ways)


def grid_cases():
    flat = scattered_grid(2, (13, 13))
    for channels in (1, 8):
        ways = {"flattened": ALL, "grid_packed": ALL, "grid_strided": set()}
        ways |= {"grad_kept": ALL if channels == 1 else set()}
        yield case(f"13x13 grid, C={channels}", image((2, channels, 13, 13)), flat, None, ways)
    pixels = image((1, 1, 40, 48))
    some = scattered_grid(10, (13, 13))
    for label, warps, rows, one_row in (
        ("small grids at one image", some, ALL, ALL),
        ("every other small grid", some[::2], ALL, set()),
        ("grids with gaps at one image", GRID_LAYOUTS["points in NaN"](flat), set(), set()),
        ("larger grids at one image", scattered_grid(2, (13, 20)), set(), set()),
    ):
        ways = {"warps_as_rows": rows, "warps_in_one_row": one_row}
        yield case(label, pixels, warps, None, ways)
    planar = GRID_LAYOUTS["planar"](flat)
    ways = {"grid_planar": ALL, "grid_packed": set(), "grid_strided": set()}
    yield case("planar grid", image((2, 1, 13, 13)), planar, None, ways)
    inside = GRID_LAYOUTS["points in NaN"](flat)
    ways = {"grid_strided": ALL, "grid_packed": set(), "flattened": set()}
    yield case("grid with gaps", image((2, 1, 13, 13)), inside, None, ways)
    volume = scattered_grid(1, (3, 5, 7))
    yield case("3x5x7 grid", image((1, 2, 5, 6, 7)), volume, None, {"flattened": ALL})
    smooth = smooth_grid(1, (40, 48), spread=0.05)
    for channels, windows in ((1, set()), (2, WINDOWS_FIRST), (3, WINDOWS_FIRST), (8, VECTORS)):
        ways = around("windows", windows) | around("runs", ALL - windows)
        ways |= {"runs_gathered": GATHERS - windows, "runs_copied": ALL - GATHERS - windows}
        ways |= {"runs_inserted": INSERTS - windows}
        yield case(f"smooth grid, C={channels}", image((1, channels, 40, 48)), smooth, None, ways)
    scattered = around("runs", ALL) | around("windows", set())
    pixels = image((1, 8, 40, 48))
    yield case("scattered grid", pixels, scattered_grid(1, (24, 32)), None, scattered)
    # Planes that do not fit into the cache all together, but two of them do.
    apart, whole = {"channels_apart": ALL}, {"channels_apart": set()}
    pixels = image((1, 8, 300, 400))
    yield case("planes apart", pixels, scattered_grid(1, (90, 100)), None, apart)
    near = smooth_grid(1, (90, 100), spread=0.05)
    yield case("planes, smooth grid", pixels, near, None, whole)
    yield case("planes, few points", pixels, scattered_grid(1, (20, 30)), None, whole)
    volume = image((1, 3, 40, 50, 60))
    half = scattered_grid(1, (90, 100), torch.float16)
    yield case("planes apart, float16 grid", pixels[:, :3], half, None, apart)
    yield case("volumes apart", volume, scattered_grid(1, (20, 20, 20)), None, apart)
    double = scattered_grid(1, (24, 32), torch.float64)
    yield case("float64 grid", image((1, 8, 40, 48)), double, None, scattered)
    half = scattered_grid(1, (24, 32), torch.float16)
    yield case("float16 grid", image((1, 8, 40, 48)), half, None, scattered)


def large_cases():
    """Images that do not stay in a cache, and parts of them that are seen."""
    part = diagonal(0.05, 0.05)
    for shape, announced in (((1, 1, 1500, 1500), ALL), ((1, 1, 500, 500), set())):
        yield case(f"a part of {shape}", image(shape), part, (60, 80), {"announced": announced})
    whole = diagonal(1.0, 1.0)
    pixels = image((1, 1, 1500, 1500))
    yield case("all of a large image, shrunk", pixels, whole, (30, 40), {"announced": set()})
    grid = affine_grid(part, (40, 50)).float()
    yield case("a grid's part of it", pixels, grid, None, {"announced": ALL})
    grid[0, 3, 5] = math.nan
    yield case("the same with a NaN", pixels, grid, None, {"announced": ALL})
    scattered = scattered_grid(1, (40, 64))
    ways = {"runs_announced": GATHERS, "runs_inserted": INSERTS}
    yield case("scattered over a large image", pixels, scattered, None, ways)
    ways = {"runs_announced": set(), "runs_gathered": GATHERS, "plane_announced": set()}
    yield case("over a smaller one", image((1, 1, 500, 500)), scattered, None, ways)
    smooth = smooth_grid(1, (40, 64), spread=0.05)
    yield case("not scattered", pixels, smooth, None, ways)
    seen = {"plane_announced": ALL}
    for shape, size, number in (
        ((2, 1, 400, 400), (200, 300), 2),
        ((1, 1, 30, 80, 90), (20, 60, 100), 1),
    ):
        grid = scattered_grid(shape[0], size)
        yield case(f"all of {shape} is seen", image(shape), grid, None, seen, threads=number)
    inside = IMAGE_LAYOUTS["channels_last"](image((1, 64, 200, 200)))
    yield case("a part, channels_last", inside, part, (20, 20), {"announced": ALL})


def mode_cases():
    near = thetas(1, 2, spread=0.1)
    pixels = image((1, 2, 30, 48))
    scattered = scattered_grid(1, (9, 40))
    for padding in PADDINGS:
        ways = around("windows", WINDOWS) | {"splat_taps": ALL}
        # Taps outside the image are where the boundary rule puts them: windows have no room.
        ways |= around("taps", set() if padding == "zeros" else ALL)
        settings = dict(mode="bicubic", padding_mode=padding)
        yield case(f"bicubic, {padding}", pixels, near, (30, 48), ways, **settings)
        ways = around("runs", ALL) | around("taps", set() if padding == "zeros" else ALL)
        ways |= {"runs_copied": ALL, "runs_gathered": set()}
        yield case(f"bicubic, {padding}, scattered", pixels, scattered, None, ways, **settings)
        ways = around("windows", WINDOWS - PAIRS_FIRST) | {"splat_inside": ALL - TURNING}
        if padding != "zeros":
            ways["splat_inside"] = ALL
        theta = aslant(diagonal(1.05, 1.05))
        yield case(f"linear, {padding}", pixels, theta, (30, 48), ways, padding_mode=padding)
        windows = WINDOWS - AVX2_GATHER
        ways = {"sample_windows": windows, "sample_runs": ALL - windows, "splat_taps": ALL}
        settings["mode"] = "nearest"
        yield case(f"nearest, {padding}", pixels, diagonal(0.9, 0.9), (30, 48), ways, **settings)
        ways = {"sample_runs": ALL, "runs_gathered": GATHERS, "splat_taps": ALL}
        ways |= {"runs_inserted": set()}  # pixels, not pairs
        yield case(f"nearest, {padding}, scattered", pixels, scattered, None, ways, **settings)
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("border", "reflection"):
            for scale, machines in ((0.5, ALL), (1.5, set())):
                theta = diagonal(scale, scale)
                settings = dict(mode=mode, padding_mode=padding)
                label = f"looks inside, {mode}, {padding}, {scale}"
                yield case(label, pixels, theta, (16, 48), {"inside": machines}, **settings)
    flat = image((1, 2, 3, 20))
    ways = around("taps", ALL) | around("runs", set())
    yield case("bicubic, H=3", flat, scattered, None, ways, mode="bicubic")


def layout_cases():
    near, size = thetas(2, 2, spread=0.1), (20, 33)
    pixels = image((2, 8, 30, 40))
    ways = around("channels", ALL) | {"splat_channels": ALL}
    for dims, shape in ((2, (2, 8, 30, 40)), (3, (2, 8, 4, 6, 7))):
        inside = IMAGE_LAYOUTS["channels_last"](image(shape))
        theta = thetas(2, dims, spread=0.1)
        out = size if dims == 2 else (3, 4, 17)
        for mode in ("bilinear", "nearest", "bicubic")[: 5 - dims]:
            expected = {k: v for k, v in ways.items() if mode != "nearest" or "grad" not in k}
            if dims == 2 and mode == "bilinear":
                expected["splat_channels"] = ALL - TURNING
            label = f"channels_last, {dims}-D, {mode}"
            yield case(label, inside, theta, out, expected, mode=mode)
    yield case(
        "taps inside",
        IMAGE_LAYOUTS["channels_last"](pixels),
        near * 0.5,
        size,
        {"taps_inside": ALL, "taps_bounded": set()},
    )
    yield case(
        "taps outside",
        IMAGE_LAYOUTS["channels_last"](pixels),
        near * 1.5,
        size,
        {"taps_bounded": ALL},
    )
    strided = around("strided", ALL)
    for layout in ("every second column in NaN", "reversed order"):
        laid = IMAGE_LAYOUTS[layout](pixels)
        yield case(f"strided, {layout}", laid, near, size, strided)
    for mode in ("nearest", "bicubic"):
        expected = {k: v for k, v in strided.items() if mode != "nearest" or "grad" not in k}
        laid = IMAGE_LAYOUTS["every second column in NaN"](pixels)
        yield case(f"strided, {mode}", laid, near, size, expected, mode=mode)
    for layout in ("expanded channels", "expanded batch", "rows in NaN"):
        laid = IMAGE_LAYOUTS[layout](pixels)
        planar = around("windows", WINDOWS - PAIRS_FIRST) | around("strided", set())
        yield case(f"planar, {layout}", laid, near, size, planar)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        warp = near.double() if dtype == torch.float64 else near
        # Pairs of float64 come first, too, where those of float32 do, and are gathered only there.
        double = dtype == torch.float64
        gathered = AVX2_PAIRS if double else ALWAYS_GATHERS
        direct = gathered if double else gathered - VECTORS - AVX2_PAIRS
        planar = around("windows", WINDOWS - direct) | {"runs_gathered": direct}
        yield case(f"{dtype}", pixels.to(dtype), warp, size, planar)
        far = image((1, 3, 20, 99)).to(dtype)
        wide = around("wide", TURNING - direct) | around("windows", set())
        yield case(f"{dtype}, downscaling", far, diagonal(1, 1, dtype=warp.dtype), (16, 32), wide)
        copied = around("runs", ALL) | {"runs_copied": ALL - gathered, "runs_gathered": gathered}
        grid = scattered_grid(2, size, warp.dtype)
        yield case(f"{dtype}, scattered", pixels.to(dtype), grid, None, copied)


def path_cases():
    parts = (affine_cases, volume_cases, grid_cases, large_cases, mode_cases, layout_cases)
    parts += (block_cases, splat_cases, collected_cases, patched_cases, seam_cases, spline_cases)
    parts += (woven_cases,)
    return [one for part in parts for one in part()]
