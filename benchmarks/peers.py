"""Who is timed: stn_cuda first, then what a user would pick instead. A peer is one entry."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from .problem import Forward, Problem
from .timing import Context

OURS = "stn_cuda"
# Ours again, under torch.use_deterministic_algorithms(True); "unfilled": without what that does to
# new memory besides, which is to fill it with NaN.
DETERMINISTIC = "stn_cuda, deterministic"
UNFILLED = "stn_cuda, deterministic, unfilled"


@dataclass(frozen=True)
class Peer:
    """One competitor.

    build        Problem -> function (input, warp) -> output. Called once per cell under the
                 cell's number of threads; what it does is not timed.
    supports     whether the peer can do the problem
    optional     timed only when asked for by name
    headline     counts for the ratio of the summary, which is taken against the fastest such peer
    device       the only device on which there is such a peer; None: any
    context      under which it is built and called; entering it is not timed
    """

    name: str
    build: Callable[[Problem], Forward]
    supports: Callable[[Problem], bool] = lambda problem: True
    optional: bool = False
    headline: bool = True
    device: str | None = None
    context: Context = contextlib.nullcontext


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


def without_cudnn() -> contextlib.AbstractContextManager:
    """torch by its own kernels alone."""
    return torch.backends.cudnn.flags(enabled=False)


def torch_uses_cudnn(problem: Problem) -> bool:
    """Whether `F.grid_sample` hands the problem to cuDNN, as ATen's GridSampler.cpp decides."""
    case = problem.case
    return (
        torch.backends.cudnn.is_acceptable(problem.input)
        and (len(case.shape), case.mode, case.padding) == (4, "bilinear", "zeros")
        and case.align_corners
        and case.shape[1] <= 1024
    )


@contextlib.contextmanager
def deterministic(fill: bool = True) -> Iterator[None]:
    """torch.use_deterministic_algorithms(True); fill: with its default of filling new memory."""
    usual = torch.are_deterministic_algorithms_enabled()
    usually_fills = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(usual)
        torch.utils.deterministic.fill_uninitialized_memory = usually_fills


def has_backward(problem: Problem) -> bool:
    """Whether gradients are asked for: only they depend on the order of additions."""
    return problem.case.direction == "backward"


PEERS: list[Peer] = [
    Peer(OURS, ours, headline=False),
    Peer("torch", torch_eager, torch_is_safe),
    Peer(
        "torch without cuDNN",
        torch_eager,
        supports=torch_uses_cudnn,
        device="cuda",
        context=without_cudnn,
    ),
    Peer(
        "torch in float32",
        torch_in_float32,
        supports=lambda problem: problem.input.element_size() == 2,
    ),
    Peer("torch.compile", torch_compiled, torch_is_safe, optional=True),
    *(
        Peer(name, build, has_backward, headline=False, device="cuda", context=context)
        for name, build, context in (
            (DETERMINISTIC, ours, deterministic),
            (UNFILLED, ours, functools.partial(deterministic, fill=False)),
            ("torch, deterministic", torch_eager, deterministic),
        )
    ),
]


def chosen(compiled: bool, device: str = "cpu") -> list[Peer]:
    """The peers of a run."""
    return [
        peer for peer in PEERS if peer.device in (None, device) and (compiled or not peer.optional)
    ]
