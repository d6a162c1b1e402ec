"""The floor of a cell's time: what it cannot but read and write, at the speed of a copy."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from .peers import OURS, torch_eager
from .problem import DOUBLE, Problem


def traffic(problem: Problem) -> dict[str, int]:
    """Bytes that the work has to move, and bytes of the tensors that it touches.

    Forward: the pixels that are looked at, a given grid, the output. Backward, which is a call of
    its own: grad_output and a given grid, and as they are wanted grad_input, all of it, and the
    pixels again with the grid's gradient. A theta is nothing. A method that reads something
    twice, or writes a grid for a parametric map, moves more.
    """
    case = problem.case
    pixel = case.shape[1] * problem.input.element_size()  # in all channels
    seen = pixels_seen(problem) * pixel
    image = case.shape[0] * math.prod(case.shape[2:]) * pixel
    output = case.elements * problem.input.element_size()
    grid = 0 if case.is_parametric else problem.warp.numel() * problem.warp.element_size()
    moved = touched = seen + grid + output
    if case.direction in ("jvp", "gradient"):
        # Of the tangents, the image's where it is seen.
        tangents = ("input" in case.wrt) * seen + ("warp" in case.wrt) * grid
        dims = len(case.shape) - 2
        more = tangents + output if case.direction == "jvp" else dims * output
        moved, touched = moved + more, touched + more
    if case.direction in ("backward", "double-whole"):
        moved, touched = moved + output + grid, touched + output
        if "input" in case.wrt:
            moved, touched = moved + image, touched + image
        if "warp" in case.wrt:
            moved, touched = moved + seen + grid, touched + grid
    if case.direction in DOUBLE:
        along = ("input" in case.wrt) * seen + ("warp" in case.wrt) * grid
        results = output + ("input" in case.wrt) * image + ("warp" in case.wrt) * grid
        again = seen + grid + output + along + results
        if case.direction == "double":
            moved = touched = again
        else:
            moved, touched = moved + again, touched + along + results
    return {"moved_bytes": moved, "touched_bytes": touched}


def pixels_seen(problem: Problem) -> int:
    """How many of the images' pixels any output depends on: where a gradient arrives."""
    shape = (problem.case.shape[0], 1, *problem.case.shape[2:])
    case = replace(problem.case, shape=shape, dtype="float32", warp_dtype="float32", graph=False)
    image = torch.zeros(shape, device=problem.input.device, requires_grad=True)
    probe = replace(problem, case=case, input=image, warp=problem.warp.float())
    output = torch_eager(probe)(image, probe.warp)
    (gradient,) = torch.autograd.grad(output, image, torch.ones_like(output))
    return int(gradient.count_nonzero())


def of(cell: dict, copies: dict[str, float], l2_bytes: int) -> dict[str, dict]:
    """The floors of a cell that knows its traffic, and ours as a fraction of them: 1 is there.

    `copies` are the GB/s of copies within the "cache" and in "memory". Warm, tensors that fit into
    the cache together are taken to come from there; everything else comes from memory. Of tensors
    somewhat larger than the cache a part may be there, and warm then beat that floor.
    """
    ours, work = cell["peers"][OURS], cell["traffic"]
    fits = work["touched_bytes"] <= l2_bytes
    floors = {}
    for name, place, entry in (
        ("warm", "cache" if fits else "memory", ours),
        ("cold", "memory", ours["cold"]),
    ):
        seconds = work["moved_bytes"] / (copies[place] * 1e9)
        fraction = seconds / entry["median_s"]
        floors[name] = {
            "place": place,
            "s": float(f"{seconds:.5g}"),
            "fraction": float(f"{fraction:.4g}"),
        }
    return floors
