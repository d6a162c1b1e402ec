"""Calls, and the ways that they go through the CPU kernels; csrc/cpu/paths.h lists the ways."""

import math
from dataclasses import dataclass

import torch
from cases import Call, image
from machine import MACHINES

from stn_cuda._extension import _C

GATHER, REST_GATHER, SOME_GATHER, AVX512 = ({name} for name in MACHINES[:4])
AVX2_GATHER, AVX2_PAIRS, AVX2_REST_GATHER, AVX2_SOME_GATHER, AVX2 = (
    {name} for name in MACHINES[4:9]
)
BASELINE = {MACHINES[9]}
ALL = set(MACHINES)
PAIRS_FIRST = AVX2_GATHER | AVX2_PAIRS  # with short vectors, before windows
ALWAYS_GATHERS = GATHER | REST_GATHER | PAIRS_FIRST | AVX2_REST_GATHER  # all that can be
GATHERS = ALWAYS_GATHERS | SOME_GATHER | AVX2_SOME_GATHER  # float32 images, at least
INSERTS = GATHERS if _C.cpu_inserts() else set()  # float32 pairs, without the instruction
WINDOWS_FIRST = REST_GATHER | SOME_GATHER  # with long vectors, before gathers
AVX2_WINDOWS_FIRST = AVX2_REST_GATHER | AVX2_SOME_GATHER
VECTORS = WINDOWS_FIRST | AVX512 | AVX2_WINDOWS_FIRST | AVX2  # where windows are of most use
TURNING = GATHER | WINDOWS_FIRST | AVX512
TURNING_FLOAT = TURNING | AVX2_PAIRS | AVX2_WINDOWS_FIRST | AVX2  # float32, from three channels on
WINDOWS = ALL - BASELINE  # where there are any, of what is not gathered

# The ways of results that are too large to stay in a cache: test_past_the_caches.py.
BY_SIZE = {"sample_streams", "sample_staged", "turned_streams"}


@dataclass(frozen=True)
class PathCase:
    """A call, and for some ways the machines on which it goes them; on no others it does."""

    call: Call
    ways: dict
    threads: int = 1

    def __str__(self):
        return self.call.label


def around(way, machines):
    """The same way of sample and grad_warp."""
    return {f"sample_{way}": machines, f"grad_{way}": machines}


def case(label, pixels, warp, size=None, ways=None, threads=1, **settings):
    """size: None for a grid."""
    kind = "grid" if size is None else "affine"
    return PathCase(Call(pixels, warp, kind, size, label=label, **settings), ways, threads)


def turning(channels, dtype=torch.float32):
    """The machines on which a splat of such an image is turned round."""
    return TURNING_FLOAT if channels >= 3 and dtype == torch.float32 else TURNING


def case_of_part(label, pixels, grid, ways, **settings):
    """The same looks at the upper part of a higher image, of which they are too few to weave it."""
    *shape, height, width = pixels.shape
    looks = grid[0, ..., 0].numel() * (len(grid) if len(pixels) == 1 else 1)
    higher = max(height, 4 * looks * height // pixels[0, 0].numel() + 1)
    points = grid.double().clone()
    points[..., 1] = (points[..., 1] + 1) * (height / higher) - 1
    higher_image = image((*shape, higher, width)).to(pixels.dtype)
    return case(label, higher_image, points.to(grid.dtype), None, ways, **settings)


def turn(degrees, scale=1.0, dtype=torch.float32, batch=1):
    """Rotations about the middle of a square image; each of a batch by a degree more."""
    angles = [math.radians(degrees + n) for n in range(batch)]
    rows = [[[math.cos(a), -math.sin(a), 0.03], [math.sin(a), math.cos(a), -0.02]] for a in angles]
    return (torch.tensor(rows, dtype=torch.float64) * scale).to(dtype)


def diagonal(*entries, dtype=torch.float32):
    """Scaling by these factors along x, y(, z), shifted a little."""
    dims = len(entries)
    theta = torch.zeros(1, dims, dims + 1, dtype=torch.float64)
    for d, entry in enumerate(entries):
        theta[0, d, d], theta[0, d, dims] = entry, 0.013 * (d + 1)
    return theta.to(dtype)


def aslant(theta):
    """The same, but that a plane's rows of points are not quite along rows of pixels."""
    theta = theta.clone()
    theta[:, 0, 1] += 0.01
    return theta
