"""`python -m benchmarks.bounds`: what the time of a few cells is made of, and what bounds it.

For each cell, on one thread, ns per output element, all measured in turns:

bytes     what forward + backward has to read and write, at the speed of copies as large as the
          output: no sampler is faster
fixed     forward + backward of an image of one pixel: Python, the dispatcher, autograd
sample, splat, grad_warp
          the three kernels, called directly
f+b       forward + backward through autograd, and torch's

`--ceiling` tells instead how many times as fast as torch any sampler could be, for every cell of
affine 2-D bilinear float32: see `ceiling.py`.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

import torch

from . import ceiling, environment, peers, problem, timing
from .cases import Case, select

# The cells that users meet most: a spatial transformer on MNIST, augmentation of a batch of
# photographs, one large image, an optical flow, the registration of a volume.
CELLS = (
    "affine 64x1x28x28 noise",
    "affine 8x3x224x224 noise",
    "affine 1x3x512x512 noise",
    "smooth 8x3x224x224 noise",
    "smooth 1x1x128x128x128 noise",
)
COLUMNS = ("bytes", "fixed", "sample", "splat", "grad_warp", "f+b", "torch f+b")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table that is asked for. Returns the exit status, 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bounds",
        description=__doc__.partition("\n")[0].partition(": ")[2],
    )
    parser.add_argument(
        "--ceiling",
        action="store_true",
        help=f"how fast any sampler could be, for every cell of {ceiling.GROUP} in float32",
    )
    parser.add_argument("--min-time", type=float, default=2.0, metavar="S", help="seconds per cell")
    options = parser.parse_args(arguments)
    effort = timing.Effort(9, options.min_time)
    print(
        f"ns per output element, one thread; {environment.processor()}, torch {torch.__version__}"
    )
    if options.ceiling:
        print()
        ceiling.show(ceiling.cells(), effort)
        return 0
    print("\n| cell | " + " | ".join(COLUMNS) + " |\n|---" + "|---:" * len(COLUMNS) + "|")
    for prefix in CELLS:
        case = find(prefix)
        numbers = measure(case, effort)
        print(
            f"| {case.work} | " + " | ".join(f"{numbers[c]:.2f}" for c in COLUMNS) + " |",
            flush=True,
        )
    return 0


def find(prefix: str) -> Case:
    """The float32, bilinear case with zeros outside, forward + backward, of that name."""
    name = f"^{prefix} contiguous float32 bilinear zeros backward$"
    (case,) = select("full", name)
    return case


def bytes_moved(made: problem.Problem) -> int:
    """Bytes that forward + backward cannot but read or write, once each and kernel by kernel."""
    image, warp, output = (
        t.numel() * t.element_size() for t in (made.input, made.warp, made.grad_output)
    )
    grid = warp if not made.case.is_parametric else 0  # theta is nothing
    forward = image + grid + output
    splat = output + grid + image
    grad_warp = output + image + 2 * grid
    return forward + splat + grad_warp


def measure(case: Case, effort: timing.Effort) -> dict[str, float]:
    """The columns of one cell, in ns per output element."""
    from stn_cuda import ops

    made = problem.build(case)
    kind = "affine" if case.op == "affine" else "grid"
    size = list(case.output_shape[2:]) if kind == "affine" else []
    how = (case.mode, case.padding, case.align_corners)
    grad, other = made.grad_output, torch.empty_like(made.grad_output)
    pixel = problem.build(Case("affine", (1, 1, 1, 1), direction="backward"))
    works = {
        "copy": functools.partial(other.copy_, grad),
        "fixed": problem.work(pixel, peers.ours(pixel)),
        "sample": functools.partial(ops.sample, made.input, made.warp, kind, size, *how),
        "splat": functools.partial(ops.splat, grad, made.warp, kind, list(case.shape), False, *how),
        "grad_warp": functools.partial(
            ops.sample_grad_warp, grad, made.input, made.warp, kind, *how
        ),
        "f+b": problem.work(made, peers.ours(made)),
        "torch f+b": problem.work(made, peers.torch_eager(made)),
    }
    times = timing.interleave(works, timing.cpu_block(1), effort)
    numbers = {
        name: timing.quartiles(time["blocks_s"])[1] / grad.numel() * 1e9
        for name, time in times.items()
    }
    copied = 2 * grad.numel() * grad.element_size()
    numbers["bytes"] = numbers["copy"] * bytes_moved(made) / copied
    return numbers


if __name__ == "__main__":
    environment.prefer_installed()
    environment.keep_memory()
    raise SystemExit(main())
