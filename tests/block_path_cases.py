"""Small calls whose vectors are blocks of points, or of pixels (csrc/cpu/blocks.h)."""

import itertools

import torch
from cases import PADDINGS, image, modes
from ways import ALL, BASELINE, TURNING, TURNING_FLOAT, case, turn

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def where(dtype):
    """The machines whose vectors of such numbers are longer than a row of a block."""
    return TURNING if dtype == torch.float64 else ALL - BASELINE


def block_cases():
    # Outputs that end in the middle of a block, and at the edge of one.
    for dtype in DTYPES:
        wide = torch.promote_types(dtype, torch.float32)
        for degrees, size in ((45, (67, 71)), (90, (64, 65)), (-60, (70, 64)), (250, (16, 80))):
            for mode in modes(2):
                pixels = image((2, 3, 75, 90)).to(dtype)
                ways = {"sees_columns": ALL, "in_blocks": where(dtype)}
                label = f"blocks, {degrees} degrees -> {size}, {dtype}, {mode}"
                yield case(label, pixels, turn(degrees, 0.9, wide), size, ways, mode=mode)
    for rule in (*PADDINGS, "wrap"):
        ways = {"in_blocks": ALL - BASELINE}
        pixels = image((2, 5, 60, 50))
        yield case(f"blocks, {rule}", pixels, turn(50), (66, 70), ways, padding_mode=rule)
    none = {"in_blocks": set()}
    yield case("blocks of too few rows", image((1, 3, 70, 70)), turn(90), (15, 70), none)
    wide = turn(90, dtype=torch.float64)
    yield case("blocks, wide theta", image((1, 3, 70, 70)), wide, (70, 70), none)
    last = image((1, 3, 70, 70)).contiguous(memory_format=torch.channels_last)
    yield case("blocks, channels_last", last, turn(90), (70, 70), none)
    volume = torch.eye(3, 4)[None, [1, 0, 2]]
    yield case("blocks, volume", image((1, 2, 20, 70, 70)), volume, (5, 70, 70), none)
    # Of pixels. (From five or six rows of points, with AVX2 from four.)
    for degrees, dtype in itertools.product((90, 45, -70), DTYPES):
        theta = turn(degrees, 1.4, torch.promote_types(dtype, torch.float32))
        turned = TURNING_FLOAT if degrees == 90 and dtype == torch.float32 else TURNING
        for size in ((61, 67), (60, 68)):
            ways = {"turned_in_blocks": turned}
            label = f"blocks of pixels, {degrees} degrees, {size}, {dtype}"
            yield case(label, image((2, 4, *size)).to(dtype), theta, (70, 66), ways)
    ways = {"turned_in_blocks": TURNING_FLOAT}
    label = "blocks of pixels, 30 degrees"
    yield case(label, image((2, 4, 61, 67)), turn(30, 1.4), (70, 66), ways)
    ways = {"turned_in_blocks": TURNING_FLOAT, "turned_onto": TURNING_FLOAT}
    onto = turn(60, 1.3, batch=3)
    yield case("blocks of pixels, three warps", image((1, 5, 30, 41)), onto, (33, 44), ways)
    ways = {"turned_in_blocks": TURNING, "slabs": ALL}
    pixels = image((1, 8, 71, 70))
    yield case("blocks of pixels, slabs", pixels, turn(60, 1.3), (70, 70), ways, threads=2)
    for rule in ("border", "reflection"):
        ways = {"turned_in_blocks": TURNING, "splat_beyond": TURNING}
        label = f"blocks of pixels, {rule}"
        warp = turn(60, 1.3)
        yield case(label, image((2, 6, 40, 45)), warp, (40, 45), ways, padding_mode=rule)
    for label, degrees, scale in (("a row", 8, 1.0), ("too many rows", 45, 1.0)):
        ways = {"turned_in_blocks": set()}
        yield case(
            f"blocks of pixels, {label}",
            image((1, 4, 40, 40)),
            turn(degrees, scale),
            (40, 40),
            ways,
        )
