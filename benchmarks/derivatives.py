"""Derivatives beyond a gradient: ours, and by what torch has for them.

A function of this module makes, from a problem, a function (input, warp) -> results.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from .problem import Forward, Problem, Results, pixels_of
from .warps import FAMILIES

# (input, warp) -> (value, its derivative)
Both = Callable[[torch.Tensor, torch.Tensor], Results]


@functools.cache
def torch_has_double_backward() -> bool:
    """Whether `F.grid_sample` can be differentiated twice: from torch 2.13 on."""
    image, grid = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 2, requires_grad=True)
    output = F.grid_sample(image, grid, align_corners=False)
    try:
        (first,) = torch.autograd.grad(output.sum(), grid, create_graph=True)
        torch.autograd.grad(first.sum(), grid, allow_unused=True)
    except RuntimeError:
        return False
    return True


def forward_mode(problem: Problem, forward: Forward) -> Both:
    """The output and its derivative along the problem's tangents, by dual numbers."""

    def both(*primals: torch.Tensor) -> Results:
        with forward_ad.dual_level():
            duals = dict(zip(("input", "warp"), primals, strict=True))
            for name, tangent in zip(problem.case.wrt, problem.tangents, strict=True):
                duals[name] = forward_ad.make_dual(duals[name], tangent)
            return tuple(forward_ad.unpack_dual(forward(*duals.values())))

    return both


def by_two_backwards(problem: Problem, forward: Forward) -> Both:
    """The same without a forward mode: the gradients are linear in the output's, whose gradient is
    the derivative along what the gradients are multiplied with.
    """

    def both(*primals: torch.Tensor) -> Results:
        leaves = {
            name: primal.detach().requires_grad_(name in problem.case.wrt)
            for name, primal in zip(("input", "warp"), primals, strict=True)
        }
        output = forward(*leaves.values())
        grad_output = torch.zeros_like(output, requires_grad=True)
        wanted = [leaves[name] for name in problem.case.wrt]
        gradients = torch.autograd.grad(output, wanted, grad_output, create_graph=True)
        (moved,) = torch.autograd.grad(gradients, grad_output, problem.tangents)
        return output.detach(), moved

    return both


# --- the derivative by the position, channel by channel -----------------------------------------


def by_channel(problem: Problem) -> Both:
    """The value, and its derivatives by the grid (N, C, *size, dims): a call for each channel."""
    options = _options(problem)

    def both(image: torch.Tensor, grid: torch.Tensor) -> Results:
        grid = grid.detach().requires_grad_()
        values, slopes = [], []
        for channel in range(image.shape[1]):
            value = F.grid_sample(image[:, channel : channel + 1], grid, **options)
            slopes += torch.autograd.grad(value, grid, torch.ones_like(value))
            values.append(value.detach())
        return torch.cat(values, 1), torch.stack(slopes, 1)

    return both


def by_channels_as_images(problem: Problem) -> Both:
    """The same in one call, on as many images of one channel."""
    options = _options(problem)

    def both(image: torch.Tensor, grid: torch.Tensor) -> Results:
        pairs = image.shape[:2]
        grid = grid[:, None].expand(*pairs, *grid.shape[1:]).flatten(0, 1).detach()
        value = F.grid_sample(image.flatten(0, 1)[:, None], grid.requires_grad_(), **options)
        (slope,) = torch.autograd.grad(value, grid, torch.ones_like(value))
        return value.detach().view(*pairs, *value.shape[2:]), slope.view(*pairs, *slope.shape[1:])

    return both


def gradient_of(problem: Problem, slopes: Callable[[Problem], Both]) -> Both:
    """The value and its derivatives by the position in pixels, (N, C, dims, *size)."""
    case = problem.case
    lengths = torch.tensor(case.shape[2:], device=problem.input.device).flip(0)
    scale = 2 / (lengths - 1 if case.align_corners else lengths).to(problem.input.dtype)
    look, grid_of = slopes(problem), _grid_of(problem)

    def both(image: torch.Tensor, warp: torch.Tensor) -> Results:
        value, slope = look(_batched(image, case.output_shape[0]), grid_of(warp))
        return value, (slope * scale).movedim(-1, 2)

    return both


def along_tangents(problem: Problem, slopes: Callable[[Problem], Both]) -> Both:
    """The value and its derivative along the tangents, from the derivatives by the grid."""
    case = problem.case
    tangents = dict(zip(case.wrt, problem.tangents, strict=True))
    look, grid_of, options = slopes(problem), _grid_of(problem), _options(problem)

    def both(image: torch.Tensor, warp: torch.Tensor) -> Results:
        grid = grid_of(warp)
        value, slope = look(_batched(image, case.output_shape[0]), grid)
        moved = torch.zeros_like(value)
        if "warp" in tangents:
            # An affine grid is linear in theta.
            moved = (slope * grid_of(tangents["warp"])[:, None]).sum(-1)
        if "input" in tangents:
            change = _batched(tangents["input"], case.output_shape[0])
            moved = moved + F.grid_sample(change, grid, **options)
        return value, moved

    return both


# --- out of elementary operations -----------------------------------------------------------------


def composed(problem: Problem) -> Forward:
    """Sampling out of `gather`, products and sums: torch differentiates it as often as one likes.

    Bilinear or bicubic, with zeros outside.
    """
    case = problem.case
    lengths = torch.tensor(case.shape[2:], device=problem.input.device).flip(0)
    strides = lengths.cumprod(0) // lengths
    taps = (-1, 0, 1, 2) if case.mode == "bicubic" else (0, 1)
    weight = _cubic if case.mode == "bicubic" else _linear
    grid_of = _grid_of(problem)

    def forward(image: torch.Tensor, warp: torch.Tensor) -> torch.Tensor:
        pixels = pixels_of(grid_of(warp), case)
        low = pixels.detach().floor()
        part, low = pixels - low, low.long()
        flat = _batched(image, case.output_shape[0]).flatten(2)
        weights = {tap: weight(part, tap) for tap in taps}
        total = torch.zeros((), dtype=image.dtype, device=image.device)
        for corner in itertools.product(taps, repeat=len(lengths)):
            at = low + torch.tensor(corner, device=low.device)
            inside = ((at >= 0) & (at < lengths)).all(-1)
            index = (torch.minimum(at.clamp(min=0), lengths - 1) * strides).sum(-1)
            index = index.flatten(1)[:, None].expand(-1, flat.shape[1], -1)
            shares = [weights[tap][..., axis] for axis, tap in enumerate(corner)]
            share = math.prod(shares[1:], start=shares[0]) * inside
            total = total + flat.gather(2, index).view(case.output_shape) * share[:, None]
        return total

    return forward


def _linear(part: torch.Tensor, tap: int) -> torch.Tensor:
    return part if tap else 1 - part


def _cubic(part: torch.Tensor, tap: int) -> torch.Tensor:
    t, a = part - tap if tap < 1 else tap - part, -0.75
    if tap in (0, 1):
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a


# --- what they have in common ---------------------------------------------------------------------


def _options(problem: Problem) -> dict:
    case = problem.case
    return {
        "mode": case.mode,
        "padding_mode": case.padding,
        "align_corners": case.align_corners,
    }


def _batched(tensor: torch.Tensor, batch: int) -> torch.Tensor:
    return tensor if tensor.shape[0] == batch else tensor.expand(batch, *tensor.shape[1:])


def _grid_of(problem: Problem) -> Callable[[torch.Tensor], torch.Tensor]:
    case = problem.case
    batch = case.output_shape[0]
    if case.is_grid:
        return lambda grid: _batched(grid, batch)
    write = FAMILIES[case.op].grid(case, problem.warp)
    return lambda parameters: write(_batched(parameters, batch))
