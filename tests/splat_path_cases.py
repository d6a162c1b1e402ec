"""Small calls that go the ways of splat through the CPU kernels, as path_cases.py's do others."""

import torch
from cases import (
    IMAGE_LAYOUTS,
    PADDINGS,
    Call,
    image,
    scattered_grid,
    smooth_grid,
    splines,
    thetas,
)
from collected_path_cases import grid_of
from scaled_path_cases import scaled_cases
from ways import (
    ALL,
    TURNING,
    TURNING_FLOAT,
    PathCase,
    aslant,
    case,
    case_of_part,
    diagonal,
    turn,
    turning,
)


def added(channels, dtype=torch.float32):
    """The way of tiles whose points are added, not turned round."""
    fewest = 8 if dtype == torch.float64 else 3
    return "splat_patched" if channels >= fewest else "splat_inside"


def channels_held():
    """Points added one by one: channels for vectors, some together, one alone, and a rest."""
    held = {"splat_channels": ALL, "splat_held": ALL, "turned_channels": set()}
    for dims, spatial, size in ((2, (24, 30), (30, 33)), (3, (7, 9, 10), (9, 8, 11))):
        last = IMAGE_LAYOUTS["channels_last"](image((2, 83, *spatial)))
        warps = {"whole pixels": diagonal(*[1.0] * dims) * torch.eye(dims, dims + 1)}
        warps |= {
            "magnified": diagonal(*[0.4] * dims),
            "mirrored": diagonal(-0.9, *[0.9] * (dims - 1)),
        }
        warps |= {"spread": thetas(2, dims, spread=0.2)}
        for name, warp in warps.items():
            looks = grid_of(warp.expand(2, -1, -1), size)
            yield case(f"channels held, {dims}-D, {name}", last, looks, None, held)
        for rule in PADDINGS:
            beyond = grid_of(thetas(2, dims, spread=0.2) * 1.3, size)
            label = f"channels held, {dims}-D, {rule}"
            yield case(label, last, beyond, None, held, padding_mode=rule)
            label = f"channels held, {dims}-D, scattered, {rule}"
            yield case(label, last, scattered_grid(2, size), None, held, padding_mode=rule)
        one = IMAGE_LAYOUTS["channels_last"](image((1, 83, *spatial)))
        warp = grid_of(thetas(1, dims, spread=0.1), size)
        held_in_slabs = held | {"slabs": ALL}
        yield case(f"slabs, channels held, {dims}-D", one, warp, None, held_in_slabs, threads=2)
    few = IMAGE_LAYOUTS["channels_last"](image((1, 3, 24, 30)))
    none = {"splat_channels": ALL, "splat_held": set()}
    yield case("too few channels to hold", few, grid_of(turn(3), (24, 30)), None, none)


def gathering(channels, dtype):
    """The machines on which a pixel gathers so many channels: where they are not one vector."""
    lanes = 8 if dtype == torch.float64 else 16
    return set() if channels == lanes else TURNING


def channels_turned():
    """Pixels that gather their channels."""
    gathered = {"turned_channels": TURNING, "splat_channels": ALL - TURNING}
    for channels in (2, 8, 16, 83):
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            pixels = IMAGE_LAYOUTS["channels_last"](image((2, channels, 24, 35)).to(dtype))
            wide = torch.promote_types(dtype, torch.float32)
            machines = gathering(channels, dtype)
            ways = {"turned_channels": machines, "splat_channels": ALL - machines}
            for name, warp in (
                ("aslant", turn(12, 0.9, wide, batch=2)),
                ("steep", turn(45, 1.2, wide)),
                ("mirrored", diagonal(-1.0, 1.0, dtype=wide)),
                ("whole pixels", torch.eye(2, 3, dtype=wide)[None]),
                ("shifted out", diagonal(1.0, 1.0, dtype=wide) + 0.7 * torch.eye(3)[2].to(wide)),
            ):
                label = f"channels turned, {name}, {dtype}, C={channels}"
                yield case(label, pixels, warp, (26, 37), ways)
    three = IMAGE_LAYOUTS["channels_last"](image((1, 70, 24, 30)))
    onto = gathered | {"turned_onto": TURNING}
    yield case("channels turned, three warps", three, turn(3, 0.9, batch=3), (24, 30), onto)
    cut = gathered | {"slabs": ALL, "slabs_by_points": ALL - TURNING}
    last = IMAGE_LAYOUTS["channels_last"](image((1, 9, 70, 71)))
    yield case("slabs, channels turned", last, turn(3), (70, 70), cut, threads=2)
    added = {"turned_channels": set(), "splat_channels": ALL}
    yield case("channels, magnified", last, diagonal(0.3, 0.3), (70, 70), added)
    yield case("channels, half a pixel", last, diagonal(0.55, 0.55), (71, 71), gathered)
    yield case("channels, sparse", last, diagonal(0.9, 0.9), (40, 40), added)
    yield case("channels, tiny output", last[..., :2, :2], diagonal(0.9, 0.9), (1, 2), added)
    half = last.half()
    warps = turn(3, 0.9, batch=3)
    yield case("half channels, three warps", half, warps, (24, 30), added)
    for rule in ("border", "reflection", "wrap"):
        yield case(f"channels, {rule}", last, turn(3), (70, 70), added, padding_mode=rule)


def splat_cases():
    yield from scaled_cases()
    for k, scale in ((2, 1.05), (3, 0.9), (4, 0.65)):
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            for channels in (2, 6):
                warp = diagonal(scale, scale, dtype=torch.promote_types(dtype, torch.float32))
                warp[0, 0, 1] = 0.05
                turned = turning(channels, dtype)
                ways = {f"turned_{n}": turned if n == k else set() for n in (2, 3, 4)}
                ways |= {added(channels, dtype): ALL - turned, "turned_narrow": set()}
                pixels = image((2, channels, 35, 47)).to(dtype)
                yield case(f"{k} candidates, {dtype}, C={channels}", pixels, warp, (35, 47), ways)
    ways = {"turned_by_y": TURNING_FLOAT, "turned_3": TURNING_FLOAT}
    by_y = torch.tensor([[[0.0, 2.8, 0.01], [0.7, 0.02, 0.03]]])
    yield case("by y", image((1, 8, 40, 40)), by_y, (40, 40), ways)
    ways = {"turned_by_y": TURNING}
    yield case("by y, float64", image((1, 4, 40, 40)).double(), by_y.double(), (40, 40), ways)
    for size, narrow in (((20, 20), TURNING), ((9, 13), TURNING_FLOAT)):
        ways = {"turned_narrow": narrow, "turned_3": TURNING_FLOAT}
        pixels = image((2, 3, *size))
        yield case(f"narrow output {size}", pixels, aslant(diagonal(0.9, 0.9)), size, ways)
    tiny = {"turned_narrow": set(), "turned_2": set(), "turned_3": set(), "turned_4": set()}
    yield case("tiny output", image((1, 3, 4, 4)), diagonal(0.9, 0.9), (2, 2), tiny)
    onto = {"turned_onto": TURNING_FLOAT, "turned_3": TURNING_FLOAT}
    yield case(
        "one image, three warps", image((1, 5, 30, 40)), turn(3, 0.9, batch=3), (30, 40), onto
    )
    ways = {"turned_onto": set(), "turned_3": set()}
    ways |= {"splat_collected": TURNING, "splat_patched": ALL - TURNING}
    pixels = image((1, 5, 30, 40)).half()
    yield case("one half image, three warps", pixels, turn(3, 0.9, batch=3), (30, 40), ways)
    ways = {"turned_onto": set(), "turned_3": TURNING_FLOAT}
    yield case("three images, one warp", image((3, 5, 30, 40)), turn(3, 0.9), (30, 40), ways)
    falls = {"turned_2": set(), "turned_3": set(), "turned_4": set(), "splat_inside": ALL}
    theta = aslant(diagonal(0.9, 0.9))
    sparse = falls | {"splat_sparse": ALL}
    yield case("large image", image((1, 3, 60, 60)), theta, (30, 30), sparse)
    near = falls | {"splat_inside": set(), "splat_patched": ALL, "splat_sparse": set()}
    yield case("zoomed in", image((1, 3, 40, 40)), aslant(diagonal(0.4, 0.4)), (40, 40), near)
    yield case("steep", image((1, 3, 40, 40)), turn(45), (40, 40), falls)
    few = {"turned_3": TURNING, "splat_inside": ALL - TURNING}
    yield case("one channel", image((1, 1, 40, 40)), turn(3), (40, 40), few)
    for channels, turned in ((1, set()), (4, TURNING)):
        ways = {"turned_3": turned, added(channels): ALL - turned}
        pixels = image((1, channels, 40, 40))
        yield case(f"aslant, C={channels}", pixels, turn(15), (40, 40), ways)
    cubic = falls | {"splat_inside": set(), "splat_taps": ALL}
    yield case("not linear", image((1, 3, 40, 40)), turn(3), (40, 40), cubic, mode="bicubic")
    # A rule beyond the image: what looks there is added to what was gathered.
    for rule in ("border", "reflection"):
        for dtype in (torch.float32, torch.float64):
            turned = turning(6, dtype)
            ways = {"turned_3": turned, "splat_beyond": turned}
            ways[added(6, dtype)] = ALL - turned
            warp = turn(6, 0.95, dtype, batch=2)
            for size, output in (((40, 45), (40, 45)), ((31, 20), (30, 22))):
                pixels = image((2, 6, *size)).to(dtype)
                label = f"{rule}, {size}, {dtype}"
                yield case(label, pixels, warp, output, ways, padding_mode=rule)
        for channels, dtype in ((2, torch.float32), (6, torch.float16)):
            pixels = image((1, channels, 40, 40)).to(dtype)
            ways = {"turned_3": set(), "splat_beyond": set(), added(channels): ALL}
            label = f"{rule}, C={channels}, {dtype}"
            yield case(label, pixels, turn(6), (40, 40), ways, padding_mode=rule)
        ways = {"turned_onto": TURNING_FLOAT, "splat_beyond": TURNING_FLOAT}
        warp = turn(3, 0.97, batch=3)
        pixels = image((1, 5, 30, 40))
        yield case(f"one image, {rule}", pixels, warp, (30, 40), ways, padding_mode=rule)
        inside = {"turned_3": TURNING_FLOAT, "splat_beyond": set()}
        pixels = image((1, 3, 40, 40))
        yield case(f"inside, {rule}", pixels, turn(3, 0.8), (35, 35), inside, padding_mode=rule)
        cut = {"slabs": ALL, "turned_3": TURNING_FLOAT, "splat_beyond": TURNING_FLOAT}
        pixels = image((1, 8, 70, 70))
        label = f"slabs, {rule}"
        yield case(label, pixels, turn(6), (70, 70), cut, threads=2, padding_mode=rule)
        # More points beyond than are added together, of several blocks of channels.
        pixels = image((1, 11, 70, 70))
        label = f"slabs, {rule}, much of it"
        cut = {"slabs": ALL, "turned_2": TURNING_FLOAT, "splat_beyond": TURNING_FLOAT}
        yield case(label, pixels, turn(6, 1.3), (70, 70), cut, threads=2, padding_mode=rule)
    # Slabs: one image among two threads.
    cut = {"slabs": ALL, "turned_3": TURNING_FLOAT, "splat_patched": ALL - TURNING_FLOAT}
    yield case("slabs, turned", image((1, 8, 70, 70)), turn(3), (70, 70), cut, threads=2)
    # They are cut where the points are, and told from them what they do not see.
    by_points = {"slabs": ALL, "slabs_by_points": ALL, "splat_passed_over": ALL}
    cut = by_points | {"splat_across": ALL, "splat_inside": ALL}
    grid = smooth_grid(1, (150, 140), spread=0.05)
    yield case_of_part("slabs, runs", image((1, 2, 140, 150)), grid, cut, threads=2)
    planar = grid.movedim(-1, 1).contiguous().movedim(1, -1)
    yield case_of_part("slabs, planar grid", image((1, 2, 140, 150)), planar, cut, threads=2)
    grid = smooth_grid(1, (70, 70), spread=0.05)
    # What a rule folds back, or a map that bends, is told from where the points look.
    folded = {"slabs_by_points": ALL, "splat_passed_over": set(), "splat_elsewhere": ALL}
    pixels = image((1, 8, 70, 70))
    yield case("slabs, folded", pixels, grid, None, folded, threads=2, padding_mode="reflection")
    bent = {"slabs_by_points": ALL, "splat_passed_over": set(), "splat_seen_elsewhere": ALL}
    call = Call(pixels, splines(1, 2), "thin_plate_spline", (70, 70), label="slabs, bent")
    yield PathCase(call, bent, threads=2)
    grid = smooth_grid(1, (12, 20, 20), spread=0.05)
    yield case_of_part("slabs, volume", image((1, 8, 20, 21, 22)), grid, cut, threads=2)
    corner = diagonal(0.2, 0.1, 0.2)
    corner[0, :, 3] = torch.tensor([-0.75, -0.875, -0.75])
    yield case("slabs, a corner", image((1, 2, 40, 82, 42)), corner, (30, 31, 32), cut, threads=2)
    apart = {"slabs": ALL, "slabs_by_points": set(), "slabs_by_channel": ALL}
    apart |= {"splat_passed_over": set()}
    grid = scattered_grid(1, (70, 70))
    yield case("slabs, scattered", image((1, 8, 70, 70)), grid, None, apart, threads=2)
    cut = by_points | {"splat_channels": ALL}
    last = IMAGE_LAYOUTS["channels_last"](image((1, 8, 70, 70)))
    grid = smooth_grid(1, (70, 70), spread=0.05)
    yield case("slabs, channels", last, grid, None, cut, threads=2)
    yield from channels_held()
    yield from channels_turned()
    cut = by_points | {"splat_taps": ALL}
    for mode in ("nearest", "bicubic"):
        pixels = image((1, 8, 70, 70))
        yield case(f"slabs, {mode}", pixels, turn(3), (70, 70), cut, threads=2, mode=mode)
    # Points so far apart that none sees another's pixels.
    alone = {"splat_alone": ALL, "splat_inside": ALL}
    pixels = image((2, 3, 100, 100))
    for label, warp in (("shrunk", aslant(diagonal(0.9, 0.9))), ("by 40 degrees", turn(40, 0.6))):
        yield case(f"alone, {label}", pixels, warp, (15, 13), alone)
    # What a rule adds at the edge must stay: a tile begins in the row of points that looks at 0.5,
    # and the row above it, of another tile, looks at -3.5.
    large = image((1, 3, 200, 200))
    for rule in PADDINGS:
        ways = {"splat_alone": ALL if rule == "zeros" else set(), "splat_inside": ALL}
        warp = aslant(torch.tensor([[[0.9, 0.0, 0.0], [0.0, 1.2, 0.03]]]))
        yield case(f"alone, edges, {rule}", large, warp, (60, 60), ways, padding_mode=rule)
    for dtype in (torch.float64, torch.float16):
        wide = torch.promote_types(dtype, torch.float32)
        theta = aslant(diagonal(0.9, 0.9, dtype=wide))
        yield case(f"alone, {dtype}", pixels.to(dtype), theta, (15, 13), alone)
    cut = {"splat_alone": ALL, "slabs": ALL, "splat_across": ALL}
    large = image((1, 8, 300, 300))
    yield case("alone, slabs", large, turn(20, 0.7), (70, 70), cut, threads=2)
    several = {"splat_alone": set()}
    yield case("too near for that", pixels, aslant(diagonal(0.2, 0.9)), (15, 13), several)
    yield case("alone, partly outside", pixels, aslant(diagonal(1.2, 1.2)), (15, 13), several)
    yield case("one image, alone", pixels[:1], turn(3, 0.9, batch=3), (13, 13), several)
    yield case("one row", image((1, 2, 1, 60)), aslant(diagonal(0.9, 0.9)), (1, 13), several)
    # Rows of pixels 4 KiB apart.
    for width, machines in ((1024, ALL), (1000, set())):
        grid, ways = smooth_grid(1, (20, 64), spread=0.05), {"splat_by_plane": machines}
        yield case(f"grid, W={width}", image((1, 2, 40, width)), grid, None, ways)
    # Scattered points, too few for the image to be woven.
    pixels, grid = image((1, 3, 280, 300)), scattered_grid(1, (140, 149))
    apart = {"splat_scattered": ALL, "splat_inside": ALL, "slabs": set()}
    yield case("scattered", pixels, grid, None, apart | {"splat_announced": set()})
    cut = {"splat_scattered": ALL, "slabs_by_channel": ALL, "splat_across": ALL}
    for rule in PADDINGS:
        label = f"scattered, slabs, {rule}"
        yield case(label, pixels, grid, None, cut, threads=2, padding_mode=rule)
    yield case("scattered, slabs, float64", pixels.double(), grid.double(), None, cut, threads=2)
    half = image((1, 3, 290, 300)).half()
    yield case("scattered, slabs, float16", half, grid, None, cut, threads=2)
    volume, points = image((1, 1, 30, 31, 32)), scattered_grid(1, (33, 32, 32))
    yield case("scattered, slabs, volume", volume, points, None, cut, threads=2)
    several = {"splat_scattered": ALL, "slabs_by_channel": ALL, "splat_across": set()}
    yield case("scattered, channels", image((1, 4, 280, 300)), grid, None, several, threads=2)
    last = IMAGE_LAYOUTS["channels_last"](pixels)
    whole = {"slabs": ALL, "slabs_by_channel": set(), "splat_scattered": set()}
    yield case("scattered, channels_last", last, grid, None, whole, threads=2)
    ways = {"splat_scattered": set(), "splat_inside": ALL}
    few = scattered_grid(1, (30, 33))
    yield case("scattered, small image", image((1, 3, 60, 70)), few, None, ways)
    ways = {"splat_scattered": ALL, "splat_announced": ALL}
    yield case("scattered, large plane", image((1, 1, 1500, 1500)), grid, None, ways)
    # More pixels than are zeroed before the first tile; some are not seen by any.
    late = {"zeros_on_the_way": ALL}
    for label, warp in (
        ("downwards", aslant(diagonal(0.9, 0.9))),
        ("upwards", turn(170, 0.9)),
        ("a band", aslant(diagonal(0.9, 0.1))),
        ("two bands", torch.cat([diagonal(0.9, 0.1), diagonal(0.9, 0.1).add_(0.4)])),
        ("nothing", diagonal(0.1, 0.1) + 5),
    ):
        yield case(f"zeros, {label}", image((1, 1, 300, 300)), warp, (50, 60), late)
    grid = smooth_grid(1, (50, 60), spread=0.05)
    for dtype in (torch.float32, torch.float64, torch.float16):
        pixels = image((1, 3, 200, 220)).to(dtype)
        wide = grid.double() if dtype == torch.float64 else grid
        yield case(f"zeros, {dtype}", pixels, wide, None, late)
        last = IMAGE_LAYOUTS["channels_last"](pixels)
        yield case(f"zeros, {dtype}, channels_last", last, wide, None, late)
    yield case("zeros, slabs", image((1, 4, 200, 220)), grid, None, late, threads=2)
    grid = smooth_grid(1, (8, 9, 30), spread=0.05)
    yield case("zeros, volume", image((1, 2, 40, 41, 42)), grid, None, late)
    cubic = late | {"splat_taps": ALL}
    yield case("zeros, cubic", image((1, 1, 300, 300)), turn(5), (50, 60), cubic, mode="bicubic")
    early = {"zeros_on_the_way": set()}
    yield case("zeros, small image", image((1, 1, 200, 200)), turn(5), (50, 60), early)
    whole = {"slabs": set()}
    yield case("two images", image((2, 8, 70, 70)), turn(3), (70, 70), whole, threads=2)
