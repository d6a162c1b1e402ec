"""benchmarks/floor.py: the bytes that must move, and ours beside a copy of as many."""

import dataclasses
import sys
from pathlib import Path

import pytest

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import floor, peers, problem
from benchmarks.cases import Case

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("changes", "moved", "touched"),
    [
        # image (or what is seen of it), grid and output as i, g, o
        ({}, "i + o", "i + o"),
        ({"direction": "backward"}, "i + o + o + i + i", "i + o + o + i"),
        ({"direction": "backward", "wrt": ("warp",)}, "i + o + o + i", "i + o + o"),
        ({"op": "random"}, "i + g + o", "i + g + o"),
        (
            {"op": "random", "direction": "backward"},
            "i + g + o + o + g + i + i + g",
            "i + g + o + o + i + g",
        ),
        (
            {"op": "random", "direction": "backward", "wrt": ("input",)},
            "i + g + o + o + g + i",
            "i + g + o + o + i",
        ),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_traffic(changes, moved, touched, dtype):
    case = Case("affine", (2, 3, 8, 8), (40, 40), theta="identity", dtype=dtype)
    made = problem.build(dataclasses.replace(case, **changes))
    assert floor.pixels_seen(made) == 2 * 8 * 8  # so many points that every pixel is seen
    item = {"float32": 4, "bfloat16": 2}[dtype]
    sizes = {"i": 2 * 3 * 64 * item, "g": 2 * 1600 * 2 * 4, "o": 2 * 3 * 1600 * item}
    expected = {"moved_bytes": eval(moved, sizes), "touched_bytes": eval(touched, sizes)}
    assert floor.traffic(made) == expected


def test_only_pixels_that_are_seen_count():
    # The middle quarter in each direction, and the pixel around it that the outermost points see.
    zoomed = problem.build(Case("affine", (1, 2, 64, 64), theta="zoom4"))
    assert floor.pixels_seen(zoomed) == 18 * 18
    few = problem.build(Case("random", (1, 1, 100, 120), (3, 3), warps=4, mode="nearest"))
    assert 0 < floor.pixels_seen(few) <= 4 * 3 * 3
    volume = problem.build(Case("random", (2, 2, 4, 4, 4), (12, 12, 12), dtype="bfloat16"))
    assert floor.pixels_seen(volume) == 2 * 64


def test_floor():
    cell = {
        "peers": {peers.OURS: {"median_s": 2e-6, "cold": {"median_s": 4e-6}}},
        "traffic": {"moved_bytes": 4000, "touched_bytes": 3000},
    }
    copies = {"cache": 4.0, "memory": 2.0}
    small, large = (floor.of(cell, copies, l2_bytes) for l2_bytes in (3000, 2999))
    assert small["warm"] == {"place": "cache", "s": 1e-6, "fraction": 0.5}
    assert large["warm"] == {"place": "memory", "s": 2e-6, "fraction": 1.0}
    assert small["cold"] == large["cold"] == {"place": "memory", "s": 2e-6, "fraction": 0.5}
