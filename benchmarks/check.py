"""The gate before the stop-watch: a result is compared with torch in float64 before it is timed.

The bounds follow from rounding alone. A coordinate computed in float32 is off by some `delta`
pixels. Where the result is continuous in the coordinate, an error of that order is all there may
be. Where it jumps (nearest; the bilinear gradient to the warp, between two pixels), a point closer
than `delta` to a jump may fall on the other side: the share of such points is counted in the
data, and so many and no more may differ freely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from .cases import FIRST
from .peers import exact as exact_work
from .peers import without_cudnn
from .problem import Problem, grid_of, pixels_of, result_names, work

# Roundings on a coordinate's way from theta to pixels: three products and sums, the scaling.
COORDINATE_ROUNDINGS = 4
# The rounding of bytes as a share of the largest one.
BYTE = 1 / 255
# An image of random pixels changes by about 1 per pixel and direction, bicubic by up to 2;
# the rest is room for sums of several taps.
SLOPE = 8


@dataclass(frozen=True)
class Reference:
    """Results in float64, of CPU or CUDA tensors, and the bounds' scales."""

    problem: Problem
    results: tuple[torch.Tensor, ...]
    delta: float  # error of a coordinate, pixels
    jumps: float  # share of the points within delta of a jump


def reference(problem: Problem) -> Reference:
    """What torch computes in float64 from the same (quantised) tensors."""
    exact = replace(
        problem,
        case=replace(problem.case, dtype="float64", warp_dtype="float64", graph=False),
        input=problem.input.double(),
        warp=problem.warp.double(),
        grad_output=None if problem.grad_output is None else problem.grad_output.double(),
        tangents=tuple(tangent.double() for tangent in problem.tangents),
    )
    # By torch's own kernels: cuDNN's are among what is judged.
    with without_cudnn():
        results = tuple(tensor.detach() for tensor in work(exact, exact_work(exact))())
    return Reference(problem, results, *_jumps(exact, problem))


def disagreement(results: tuple[torch.Tensor, ...], expected: Reference) -> str | None:
    """None if the results are right, else a sentence that says which is wrong and by how much."""
    case = expected.problem.case
    for name, got, want in zip(result_names(case), results, expected.results, strict=False):
        message = _compare(name, got.detach(), want, expected)
        if message:
            return f"{name} {message}"
    return None


def _jumps(exact: Problem, problem: Problem) -> tuple[float, float]:
    case = exact.case
    grid = grid_of(exact)
    pixels = pixels_of(grid, case)
    if case.mode == "nearest":
        pixels = pixels + 0.5  # jumps half-way between pixels, else on them
    unit = 2.0**-53 if problem.warp.dtype == torch.float64 else 2.0**-24
    size = max(case.shape[2:]) * max(1.0, grid.abs().max().item())
    delta = COORDINATE_ROUNDINGS * unit * size
    near = ((pixels - pixels.round()).abs() <= delta).any(-1)
    return delta, near.double().mean().item()


def _compare(name: str, got: torch.Tensor, want: torch.Tensor, expected: Reference) -> str | None:
    problem = expected.problem
    case = problem.case
    dims = len(case.shape) - 2
    owner = problem.warp if name == "grad_warp" else problem.input
    if got.shape != want.shape:
        return f"must have shape {tuple(want.shape)}, got {tuple(got.shape)}"
    if got.dtype != owner.dtype:
        return f"must have dtype {owner.dtype}, got {got.dtype}"
    if not bool(torch.isfinite(got).all()):
        return "must be finite, got NaN or Inf"

    sum_unit = torch.finfo(torch.float64 if owner.dtype == torch.float64 else torch.float32).eps
    unit = BYTE if got.dtype == torch.uint8 else 4 * torch.finfo(got.dtype).eps
    rounding = SLOPE * dims * expected.delta + unit
    error = (got.double() - want).abs()
    # Of bicubic the second derivative jumps, of bilinear the first.
    derived = name == "grad_warp" or (case.direction not in FIRST and name != "output")
    jumping = case.mode == "nearest" or derived
    # A flipped point changes its value by about the value's own size.
    flips = 4 * math.sqrt(expected.jumps) if jumping else 0.0

    is_sum = name == "grad_warp" and case.is_parametric  # over all points: no single outlier
    terms = math.prod(case.output_shape[1:]) if is_sum else 2**dims * SLOPE
    limit = rounding + flips + 4 * sum_unit * math.sqrt(terms)
    scale = want.norm().item() or 1.0
    relative = error.norm().item() / scale
    if relative > limit:
        return f"is off by {relative:.2g} of its norm (allowed {limit:.2g})"
    if is_sum:
        return None

    bound = (rounding + 4 * sum_unit * math.sqrt(terms)) * max(want.abs().max().item(), 1e-30)
    allowed = 0.0
    if jumping:
        # A flip moves the gradient of two input pixels; that of a derivative, of a point's taps on
        # either side.
        taps = 4 if case.mode == "bicubic" else 2
        pixels = (taps + 1) * taps ** (dims - 1) if derived else 2
        moved = pixels * math.prod(case.output_shape[2:]) / math.prod(case.shape[2:])
        allowed = expected.jumps * (max(1.0, moved) if name == "grad_input" else 1.0)
    share = (error > bound).double().mean().item()
    if share > allowed:
        worst = error.max().item()
        return f"has {share:.2g} of its elements off, by up to {worst:.2g} (bound {bound:.2g})"
    return None
