"""Splines whose basis functions are kept, and shared by all that have the same control points."""

import torch
from cases import IMAGE_LAYOUTS, Call, image, splines
from ways import ALL, PathCase

MAP = "thin_plate_spline"


def with_points_of_first(parameters):
    """The same weights and affine parts about the first spline's control points."""
    count = (parameters.shape[1] - 3) // 2
    parameters[:, -count:] = parameters[:1, -count:]
    return parameters


def spline_cases():
    cases = []

    def add(label, images, shared, parameters, shape=(2, 20, 24), size=(20, 24), threads=1, **how):
        dtype = how.pop("dtype", torch.float32)
        pixels = image((images, *shape), dtype)
        if how.pop("channels_last", False):
            pixels = IMAGE_LAYOUTS["channels_last"](pixels)
        # The gradient finds a tile's functions where the look has left them.
        ways = {"basis_shared": ALL if shared else set(), "basis_found": ALL, "basis_kept": ALL}
        call = Call(pixels, parameters, MAP, size, label=f"splines, {label}", **how)
        cases.append(PathCase(call, ways, threads))

    def same(count, dtype=torch.float32, points=5):
        return with_points_of_first(splines(count, 2, dtype, points=points))

    add("one", 1, True, splines(1, 2))
    add("same points", 3, True, same(3))
    add("others", 3, False, splines(3, 2))
    add("one image, same points", 1, True, same(3))
    add("one image, others", 1, False, splines(3, 2))
    add("several images", 3, True, splines(1, 2))
    last = same(3)
    last[2, -1, 1] += 1e-3  # a single number of a single point
    add("a point elsewhere", 3, False, last)
    add("float64", 2, True, same(2, torch.float64), dtype=torch.float64)
    add("float16", 2, True, same(2), dtype=torch.float16)
    add("channels_last", 3, True, same(3), (8, 20, 24), channels_last=True)
    add("rows end to end", 4, True, same(4), (1, 28, 28), (28, 28))
    for rule in ("border", "reflection", "wrap"):
        add(rule, 2, True, same(2), padding_mode=rule)
    for mode in ("nearest", "bicubic"):
        add(mode, 2, True, same(2), mode=mode)
    # More tiles than are kept, cut among threads; and with so many points but one.
    large = dict(shape=(2, 40, 50), size=(70, 150), threads=2)
    add("many tiles", 4, True, same(4), **large)
    add("many tiles, others", 4, False, splines(4, 2), **large)
    add("many tiles, one image", 1, True, same(3), **large)
    add("many tiles, three images", 3, True, same(3, points=16), **large)
    add("many points", 2, True, same(2, points=256), (1, 20, 20), (30, 70), threads=2)
    return cases
