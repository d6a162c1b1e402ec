"""Who is timed: stn_cuda first, then what a user would pick instead. A peer is one entry."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from . import derivatives
from .cases import FIRST
from .labels import DIRECTIONS
from .problem import DOUBLE, Forward, Problem
from .timing import Context
from .warps import FAMILIES

OURS = "stn_cuda"
# Ours again, under torch.use_deterministic_algorithms(True); "unfilled": without what that does to
# new memory besides, which is to fill it with NaN.
DETERMINISTIC = "stn_cuda, deterministic"
UNFILLED = "stn_cuda, deterministic, unfilled"
# Beside derivatives that come with the forward: what they add to it.
FORWARD_ALONE = "stn_cuda, forward alone"
WITH_FORWARD = ("jvp", "gradient")


@dataclass(frozen=True)
class Peer:
    """One competitor.

    build        Problem -> function (input, warp) -> output; for "jvp" and "gradient", -> both
                 results. Called once per cell under the cell's number of threads; what it does is
                 not timed.
    supports     whether the peer can do the problem
    directions   those of the cases that it is for
    optional     timed only when asked for by name
    headline     counts for the ratio of the summary, which is taken against the fastest such peer
    device       the only device on which there is such a peer; None: any
    context      under which it is built and called; entering it is not timed
    """

    name: str
    build: Callable[[Problem], Forward]
    supports: Callable[[Problem], bool] = lambda problem: True
    directions: tuple[str, ...] = FIRST
    optional: bool = False
    headline: bool = True
    device: str | None = None
    context: Context = contextlib.nullcontext

    def can(self, problem: Problem) -> bool:
        """Whether it is to be timed on the problem."""
        return problem.case.direction in self.directions and self.supports(problem)


def ours(problem: Problem) -> Forward:
    """`stn_cuda.sample`, or `sample_with_gradient`, fused for a warp that is no grid."""
    import stn_cuda  # imported late: --list and --render need no built extension

    case = problem.case
    options = {
        "mode": case.mode,
        "padding_mode": case.padding,
        "align_corners": case.align_corners,
    }
    size = case.output_shape[2:]
    gradient = case.direction == "gradient"
    function = stn_cuda.sample_with_gradient if gradient else stn_cuda.sample

    def of_parameters(image: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        return function(image, make(parameters), size, **options)

    def of_grid(image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return function(image, grid, **options)

    if case.is_grid:
        forward = of_grid
    else:
        make, forward = FAMILIES[case.op].make, of_parameters
    return derivatives.forward_mode(problem, forward) if case.direction == "jvp" else forward


def forward_alone(problem: Problem) -> Forward:
    """Ours without the derivative that the case wants with the output."""
    forward = ours(replace(problem, case=replace(problem.case, direction="forward")))
    return lambda image, warp: (forward(image, warp),)


def torch_derivative(problem: Problem) -> Forward:
    """What torch has for a jvp and a gradient by the position: neither as such."""
    if problem.case.direction == "jvp":
        return derivatives.by_two_backwards(problem, torch_eager(problem))
    return derivatives.gradient_of(problem, derivatives.by_channel)


def torch_channels_as_images(problem: Problem) -> Forward:
    """The same by way of the derivatives by the grid, of all channels in one call."""
    jvp = problem.case.direction == "jvp"
    make = derivatives.along_tangents if jvp else derivatives.gradient_of
    return make(problem, derivatives.by_channels_as_images)


def torch_of(problem: Problem) -> Forward:
    """The calls of torch that do the case's work, in every direction."""
    derives = problem.case.direction in WITH_FORWARD
    return torch_derivative(problem) if derives else torch_eager(problem)


def torch_can(problem: Problem) -> bool:
    """Whether torch can do that, and stays inside its tensors."""
    twice = problem.case.direction in ("jvp", *DOUBLE)
    return torch_is_safe(problem) and (not twice or derivatives.torch_has_double_backward())


def exact(problem: Problem) -> Forward:
    """What is right in float64: torch's, or what an old torch can do in its place."""
    if torch_can(problem):
        return torch_of(problem)
    if problem.case.direction == "jvp":
        return derivatives.along_tangents(problem, derivatives.by_channel)
    return derivatives.composed(problem)


def torch_eager(problem: Problem) -> Forward:
    """`F.affine_grid`, or a warp's grid in elementary operations, and `F.grid_sample`.

    `F.grid_sample` alone for a given grid.
    """
    case = problem.case
    shape = case.output_shape
    prepare = []  # only the steps that the case needs, so that torch pays for no empty one
    if not case.is_grid:
        prepare.append(FAMILIES[case.op].grid(case, problem.warp))
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
    than that counts, they read and, backward, write elsewhere. Of bytes it has none.
    """
    if problem.input.dtype == torch.uint8:
        return False
    wide = problem.input.element_size() > 2 or problem.input.is_cuda
    return wide or math.prod(problem.case.shape[2:]) < 2**15


def torch_in_float32(problem: Problem) -> Forward:
    """`torch_eager` on the image in float32: what a 16-bit image on the CPU needs to be right, and
    bytes anywhere, which are rounded and saturated again.
    """
    dtype = problem.input.dtype
    forward = torch_eager(replace(problem, input=problem.input.float()))
    if dtype == torch.uint8:
        return lambda image, warp: forward(image.float(), warp).round_().clamp_(0, 255).to(dtype)
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
    Peer(OURS, ours, headline=False, directions=tuple(DIRECTIONS)),
    Peer("torch", torch_of, torch_can, directions=tuple(DIRECTIONS)),
    Peer("torch, channels as images", torch_channels_as_images, directions=WITH_FORWARD),
    Peer(FORWARD_ALONE, forward_alone, directions=WITH_FORWARD, headline=False),
    # What there was before torch's own double backward. (The graph of its backward is large.)
    Peer("torch, composed", derivatives.composed, directions=DOUBLE, headline=False),
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
        supports=lambda problem: problem.input.element_size() <= 2,
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
