"""The tensors of a case, and a case's work as a function without arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .cases import Case
from .warps import FAMILIES

SEED = 0

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Results = tuple[torch.Tensor, ...]

# The directions in which the gradients are differentiated.
DOUBLE = ("double", "double-whole")


@dataclass(frozen=True)
class Problem:
    """A case with its data: what every peer is given.

    input        of the case's shape, dtype and layout, uniform in [0, 1), of bytes in [0, 255]
    warp         a map's parameters, such as theta (N, 2, 3) / (N, 3, 4), a displacement (N, 2 | 3,
                 ...), or a grid (N, ..., 2 | 3)
    grad_output  of the output's shape and the input's dtype and layout; None where there is no
                 backward
    tangents     one for each of `case.wrt`, of its shape, dtype and layout: the direction in which
                 a jvp moves it; what double backward multiplies its gradient with
    """

    case: Case
    input: torch.Tensor
    warp: torch.Tensor
    grad_output: torch.Tensor | None
    tangents: tuple[torch.Tensor, ...] = ()


def build(case: Case, device: str = "cpu") -> Problem:
    """Draw the case's data: the same numbers for every run, machine and device."""
    generator = torch.Generator().manual_seed(SEED)
    dtype = getattr(torch, case.dtype)
    warp_dtype = getattr(torch, case.warp_dtype)
    layout = torch.contiguous_format
    if case.channels_last:
        layout = torch.channels_last if len(case.shape) == 4 else torch.channels_last_3d

    image = torch.rand(case.shape, generator=generator)
    if dtype == torch.uint8:
        image = 256 * image
    theta = _theta(case, generator)
    if case.is_grid:
        warp = _grid(case, theta, generator)
    else:
        warp = FAMILIES[case.op].parameters(case, theta, generator)
    grad_output = None
    if case.direction in ("backward", *DOUBLE):
        grad_output = torch.randn(case.output_shape, generator=generator)
        grad_output = grad_output.to(device, dtype).contiguous(memory_format=layout)
    made = {
        "input": image.to(device, dtype).contiguous(memory_format=layout),
        "warp": warp.to(device, warp_dtype),
    }
    tangents = []
    for name in case.wrt if case.direction in ("jvp", *DOUBLE) else ():
        drawn = torch.randn(made[name].shape, generator=generator)
        # In the layout of what it goes with.
        tangents.append(torch.empty_like(made[name]).copy_(drawn))
    return Problem(case=case, **made, grad_output=grad_output, tangents=tuple(tangents))


def result_names(case: Case) -> list[str]:
    """What the work of the case returns."""
    gradients = [f"grad_{name}" for name in case.wrt]
    if case.direction in DOUBLE:
        return ["grad_grad_output", *gradients]
    others = {"forward": [], "backward": gradients, "jvp": ["tangent"], "gradient": ["gradient"]}
    return ["output", *others[case.direction]]


def work(problem: Problem, forward: Forward) -> Callable[[], Results]:
    """The work to time: calling it returns what `result_names` tells.

    "jvp" and "gradient" are the forward's own work there: it returns both results.
    """
    call = _call(problem, forward)
    return graphed(call) if problem.case.graph else call


def graphed(call: Callable[[], Results]) -> Callable[[], Results]:
    """The call captured in a CUDA graph: each replay overwrites the same results."""
    # A first call may do what cannot be captured: compile, load kernels, allocate workspaces.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay() -> Results:
        graph.replay()
        return results

    return replay


def _call(problem: Problem, forward: Forward) -> Callable[[], Results]:
    case = problem.case
    if case.direction == "forward":
        return lambda: (forward(problem.input, problem.warp),)
    if case.direction in ("jvp", "gradient"):
        return lambda: forward(problem.input, problem.warp)

    image = problem.input.detach().requires_grad_("input" in case.wrt)
    warp = problem.warp.detach().requires_grad_("warp" in case.wrt)
    needed = [{"input": image, "warp": warp}[name] for name in case.wrt]

    def forward_and_backward() -> Results:
        output = forward(image, warp)
        return output, *torch.autograd.grad(output, needed, problem.grad_output)

    if case.direction == "backward":
        return forward_and_backward

    grad_output = problem.grad_output.detach().requires_grad_()

    def twice_differentiable() -> Results:
        return torch.autograd.grad(forward(image, warp), needed, grad_output, create_graph=True)

    def double_backward(gradients: Results, keep: bool) -> Results:
        leaves = [grad_output, *needed]
        return torch.autograd.grad(gradients, leaves, problem.tangents, retain_graph=keep)

    if case.direction == "double-whole":
        return lambda: double_backward(twice_differentiable(), keep=False)
    # Its graph is made here, once, and not in what is timed.
    gradients = twice_differentiable()
    return lambda: double_backward(gradients, keep=True)


def grid_of(problem: Problem) -> torch.Tensor:
    """The normalised positions in the input that the outputs look at, in float64."""
    case, grid = problem.case, problem.warp.double()
    return grid if case.is_grid else FAMILIES[case.op].grid(case, grid)(grid)


def pixels_of(grid: torch.Tensor, case: Case) -> torch.Tensor:
    """Normalised positions in the case's input as pixels: 0 is the first pixel's centre."""
    lengths = torch.tensor(case.shape[2:], dtype=grid.dtype, device=grid.device).flip(0)
    if case.align_corners:
        return (grid + 1) / 2 * (lengths - 1)
    return ((grid + 1) * lengths - 1) / 2


def _theta(case: Case, generator: torch.Generator) -> torch.Tensor:
    dims = len(case.shape) - 2
    count = case.warps or case.shape[0]
    theta = torch.eye(dims, dims + 1).repeat(count, 1, 1)
    if case.theta == "noise":
        theta += 0.1 * torch.randn(theta.shape, generator=generator)
    elif case.theta.startswith("zoom"):
        # theta maps output to input, so a theta of 1/4 magnifies.
        theta *= {"zoom4": 1 / 4, "zoom1/4": 4.0}[case.theta]
    elif case.theta.startswith("rotate"):
        angle = math.radians(float(case.theta.removeprefix("rotate")))
        # Rounded, so that 90 degrees has an exact 0 on the diagonal.
        cos, sin = round(math.cos(angle), 12), round(math.sin(angle), 12)
        height, width = case.shape[2:]
        # Normalised units differ between x and y; the rotation is one of pixels.
        rotation = [[cos, -sin * height / width], [sin * width / height, cos]]
        theta[:, :, :2] = torch.tensor(rotation)
    elif case.theta != "identity":
        raise ValueError(f"Case: theta is not a known kind, got {case.theta!r}")
    return theta


def _grid(case: Case, theta: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    shape = (theta.shape[0], *case.output_shape[1:])
    grid = F.affine_grid(theta, shape, align_corners=case.align_corners)
    if case.op == "random":
        return 2 * torch.rand(grid.shape, generator=generator) - 1
    # The last axis of a grid runs (x, y[, z]); half a pixel is 1 / length in normalised units.
    half_pixel = 1 / torch.tensor(case.shape[2:]).flip(0)
    return grid + half_pixel * torch.randn(grid.shape, generator=generator)
