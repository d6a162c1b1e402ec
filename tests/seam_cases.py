"""Calls that go round an image that wraps: what path_cases.py has for the other boundary rules."""

import torch
from cases import MIXED, image, scattered_grid, thetas
from ways import ALL, WINDOWS, around, case, diagonal


def seam_cases():
    """Groups of points that cross the seam are read tap by tap, the others as ever."""
    cases = []

    def add(label, *arguments, **settings):
        cases.append(case(f"{label}, {settings['padding_mode']}", *arguments, **settings))

    pixels, volume = image((1, 2, 30, 96)), image((1, 2, 9, 8, 40))
    scattered = scattered_grid(1, (9, 40))
    for padding in ("wrap", MIXED[2]):
        settings = dict(padding_mode=padding)
        ways = around("taps", ALL) | {"splat_taps": ALL}
        fast = around("windows", WINDOWS)
        add("linear", pixels, diagonal(1.4, 1.4), (30, 96), ways, **settings)
        add("linear, scattered", pixels, scattered, None, ways | around("runs", ALL), **settings)
        add("linear, inside", pixels, diagonal(0.8, 0.8), (30, 96), {"inside": ALL}, **settings)
        last = pixels.contiguous(memory_format=torch.channels_last)
        add(
            "channels_last", last, diagonal(1.4, 1.4), (30, 96), around("channels", ALL), **settings
        )
        settings["mode"] = "bicubic"
        add("bicubic", pixels, diagonal(1.4, 1.4), (30, 96), ways | fast, **settings)
        add("bicubic, scattered", pixels, scattered, None, ways | around("runs", ALL), **settings)
        settings["mode"] = "nearest"
        ways = {"sample_taps": set(), "splat_taps": ALL}
        add("nearest", pixels, diagonal(1.4, 1.4), (30, 96), ways, **settings)
        add("nearest, scattered", pixels, scattered, None, ways, **settings)
    for padding in ("wrap", MIXED[3]):
        theta = thetas(1, 3, spread=0.3)
        ways = around("taps", ALL) | {"splat_taps": ALL}
        add("volume", volume, theta, (8, 9, 40), ways, padding_mode=padding)
        add("volume", volume, theta, (8, 9, 40), {}, padding_mode=padding, mode="nearest")
    return cases
