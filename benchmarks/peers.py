"""Who is timed: stn_cuda first, then what a user would pick instead. A peer is one entry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from .problem import Forward, Problem

OURS = "stn_cuda"


@dataclass(frozen=True)
class Peer:
    """One competitor.

    build        Problem -> function (input, warp) -> output. Called once per cell under the
                 cell's number of threads; what it does is not timed.
    supports     whether the peer can do the problem
    optional     timed only when asked for by name
    headline     counts for the ratio of the summary, which is taken against the fastest such peer
    """

    name: str
    build: Callable[[Problem], Forward]
    supports: Callable[[Problem], bool] = lambda problem: True
    optional: bool = False
    headline: bool = True


def ours(problem: Problem) -> Forward:
    """`stn_cuda.sample`, fused for an affine warp."""
    import stn_cuda  # imported late: --list and --render need no built extension

    case = problem.case
    options = {
        "mode": case.mode,
        "padding_mode": case.padding,
        "align_corners": case.align_corners,
    }
    if case.op != "affine":
        return lambda image, grid: stn_cuda.sample(image, grid, **options)
    size = case.output_shape[2:]
    return lambda image, theta: stn_cuda.sample(image, stn_cuda.Affine(theta), size, **options)


def torch_eager(problem: Problem) -> Forward:
    """`F.affine_grid` + `F.grid_sample`, or `F.grid_sample` alone for a given grid."""
    case = problem.case
    shape = case.output_shape
    prepare = []  # only the steps that the case needs, so that torch pays for no empty one
    if case.op == "affine":
        grid_shape = (problem.warp.shape[0], *shape[1:])
        prepare.append(lambda theta: F.affine_grid(theta, grid_shape, case.align_corners))
    if case.dtype != case.warp_dtype:  # torch takes one dtype only
        prepare.append(lambda grid: grid.to(problem.input.dtype))
    if problem.warp.shape[0] != shape[0]:
        prepare.append(lambda grid: grid.expand(shape[0], *grid.shape[1:]))
    broadcast = problem.input.shape[0] != shape[0]

    def forward(image: torch.Tensor, warp: torch.Tensor) -> torch.Tensor:
        for step in prepare:
            warp = step(warp)
        if broadcast:
            image = image.expand(shape[0], *image.shape[1:])
        return F.grid_sample(image, warp, case.mode, case.padding, case.align_corners)

    return forward


def torch_is_safe(problem: Problem) -> bool:
    """Whether torch's own kernel stays inside its tensors.

    On the CPU its kernels for 16-bit types keep the offset of a pixel in 16 bits: with more pixels
    than that counts, they read and, backward, write elsewhere.
    """
    wide = problem.input.element_size() > 2 or problem.input.is_cuda
    return wide or math.prod(problem.case.shape[2:]) < 2**15


def torch_in_float32(problem: Problem) -> Forward:
    """`torch_eager` on the image in float32: what a 16-bit image on the CPU needs to be right."""
    dtype = problem.input.dtype
    forward = torch_eager(replace(problem, input=problem.input.float()))
    return lambda image, warp: forward(image.float(), warp.float()).to(dtype)


def torch_compiled(problem: Problem) -> Forward:
    """The expression of `torch_eager` through `torch.compile`."""
    # The generated code is fixed to a shape and a number of threads: nothing is to be reused.
    torch.compiler.reset()
    return torch.compile(torch_eager(problem), dynamic=False)


PEERS: list[Peer] = [
    Peer(OURS, ours, headline=False),
    Peer("torch", torch_eager, torch_is_safe),
    Peer(
        "torch in float32",
        torch_in_float32,
        supports=lambda problem: problem.input.element_size() == 2,
    ),
    Peer("torch.compile", torch_compiled, torch_is_safe, optional=True),
]


def chosen(compiled: bool) -> list[Peer]:
    """The peers of a run."""
    return [peer for peer in PEERS if not peer.optional or compiled]
