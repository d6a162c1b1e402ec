"""`python -m benchmarks.kornia_calls`: kornia's warps with and without `stn_cuda.accelerate()`.

On one thread of the CPU, in float32 and with kornia's defaults, in turns. A ratio is that of the
whole call: kornia's own work on matrices and grids is in both. Then what accelerating costs a call:
of a sampler of one pixel, and of a function that has nothing to do with it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from . import environment, report, timing
from .cases import FIRST
from .labels import DIRECTIONS, line, rule, times

SHAPES = ((64, 1, 28, 28), (8, 3, 224, 224), (1, 3, 512, 512))
CALLS = ("warp_affine", "warp_perspective", "remap")
PLAIN, OURS = "torch", "stn_cuda"

# Of the mean result, as a fraction of it: tells a wrong kernel from rounding, no more. Tests are
# exact.
TOLERANCE = 1e-2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the two tables, write the file. Returns the exit status, 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kornia_calls",
        description=__doc__.partition("\n")[0].partition(": ")[2],
    )
    parser.add_argument("--min-time", type=float, default=2.0, metavar="S", help="seconds per row")
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="rounds at least")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only rows with that text")
    parser.add_argument(
        "--out",
        type=Path,
        default=environment.ROOT / "benchmarks" / "results" / "local" / "kornia.json",
        metavar="FILE",
    )
    options = parser.parse_args(arguments)
    try:
        import kornia
    except ImportError as error:
        parser.error(f"kornia must be installed (pip install kornia): {error}")

    effort = timing.Effort(options.repeats, options.min_time)
    facts = environment.describe("cpu") | {"kornia": kornia.__version__}
    print(
        f"{facts['device_name']}, 1 thread, torch {facts['torch']}, kornia {facts['kornia']}\n\n"
        + line(["kornia's", "direction", f"{PLAIN}, ms", f"{OURS}, ms", "ratio", "quartiles"])
        + "\n"
        + rule(5)
    )
    rows = []
    for name, build in rows_of_calls():
        for direction in FIRST:
            if options.filter in f"{name} {DIRECTIONS[direction]}":
                rows.append(measure(name, direction, build(direction), effort))
                print(row_text(rows[-1]), flush=True)
    print("\n" + line(["what accelerating costs", "µs", "adds, µs"]) + "\n" + rule(2))
    costs = measure_costs(effort)
    for cost in costs:
        added = "" if cost["adds_us"] is None else f"{cost['adds_us']:+.2f}"
        print(line([cost["call"], f"{cost['us']:.2f}", added]))
    results = {"environment": facts, "threads": 1, "rows": rows, "costs": costs}
    report.write_atomically(options.out, report.to_json(results))
    print(f"\n{options.out}")
    return 0


# --- kornia's calls ---------------------------------------------------------------------------

# direction -> work
Build = Callable[[str], timing.Work]


def rows_of_calls() -> list[tuple[str, Build]]:
    """Every call on images of every shape."""
    return [
        (f"{call} {'x'.join(map(str, shape))}", functools.partial(build_call, call, shape))
        for shape in SHAPES
        for call in CALLS
    ]


def build_call(call: str, shape: tuple[int, ...], direction: str) -> timing.Work:
    """kornia's function on fixed random images, near the identity.

    Backward: to the images, and to the matrices or maps.
    """
    import kornia.geometry.transform as transform

    batch, _, height, width = shape
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=rng)
    matrix = torch.eye(3).repeat(batch, 1, 1)
    matrix[:, :2] += 0.05 * torch.randn(batch, 2, 3, generator=rng)
    if call == "remap":
        x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
        noise = torch.rand(2, batch, height, width, generator=rng)
        warps = (x + noise[0], y + noise[1])
        settings = {}
    else:
        warps = (matrix[:, :2] if call == "warp_affine" else matrix,)
        settings = {"dsize": (height, width)}
    function = functools.partial(getattr(transform, call), **settings)
    if direction == "forward":
        return functools.partial(function, image, *warps)
    leaves = [tensor.clone().requires_grad_() for tensor in (image, *warps)]
    grad_output = torch.randn(shape, generator=rng)

    def forward_and_backward() -> tuple[torch.Tensor, ...]:
        output = function(*leaves)
        return output, *torch.autograd.grad(output, leaves, grad_output)

    return forward_and_backward


def measure(name: str, direction: str, work: timing.Work, effort: timing.Effort) -> dict:
    """A row: the medians of both and the ratio, once the results agree."""
    from stn_cuda import accelerate

    expected = work()
    with accelerate():
        result = work()
    for ours, theirs in zip(_outputs(result), _outputs(expected), strict=True):
        # The mean, since where a look falls on a pixel, rounding chooses the side whose slope the
        # warp's gradient has: there the two differ.
        off = (ours - theirs).abs().mean() / theirs.abs().mean()
        if not off < TOLERANCE:
            raise RuntimeError(f"{name}: accelerated, the results are off by {off:.1%}")
    timed = timing.interleave(
        {PLAIN: work, OURS: work}, timing.cpu_block(1), effort, {OURS: accelerate}
    )
    blocks = {peer: entry["blocks_s"] for peer, entry in timed.items()}
    return {
        "call": name,
        "direction": direction,
        "median_s": {peer: timing.quartiles(seconds)[1] for peer, seconds in blocks.items()},
        "ratio": timing.ratio(blocks[PLAIN], blocks[OURS]),
    }


def row_text(row: dict) -> str:
    """A row of the Markdown table."""
    milliseconds = [f"{1e3 * row['median_s'][peer]:.3f}" for peer in (PLAIN, OURS)]
    ratio = row["ratio"]
    quartiles = f"{ratio['q1']:.2f}-{ratio['q3']:.2f}"
    return line(
        [
            row["call"],
            DIRECTIONS[row["direction"]],
            *milliseconds,
            f"**{times(ratio['median'])}**",
            quartiles,
        ]
    )


def _outputs(result) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


# --- what it costs ----------------------------------------------------------------------------


def measure_costs(effort: timing.Effort) -> list[dict]:
    """Of single calls: the median time accelerated, and the median of what that is more.

    "elsewhere": while another context is accelerated, and this one is not.
    """
    from stn_cuda import accelerate

    pixel, grid = torch.rand(1, 1, 1, 1), torch.zeros(1, 1, 1, 2)
    theta = torch.eye(2, 3)[None]
    calls = {
        "grid_sample of one pixel": functools.partial(
            F.grid_sample, pixel, grid, align_corners=False
        ),
        "affine_grid of one pixel": functools.partial(
            F.affine_grid, theta, (1, 1, 1, 1), align_corners=False
        ),
        "torch.add of one pixel": functools.partial(torch.add, pixel, pixel),
    }
    works, contexts = {}, {}
    for call, work in calls.items():
        works |= dict.fromkeys((call, f"{call}, accelerated", f"{call}, elsewhere"), work)
        contexts |= {
            f"{call}, accelerated": accelerate,
            f"{call}, elsewhere": accelerated_elsewhere,
        }
    works["with accelerate(): pass"] = _enter_and_leave
    timed = timing.interleave(works, timing.cpu_block(1), effort, contexts)
    blocks = {name: [1e6 * s for s in entry["blocks_s"]] for name, entry in timed.items()}
    costs = []
    for name, microseconds in blocks.items():
        plain = blocks.get(name.partition(",")[0])
        added = None
        if name in contexts:
            added = timing.quartiles([a - b for a, b in zip(microseconds, plain, strict=True)])[1]
        costs.append({"call": name, "us": timing.quartiles(microseconds)[1], "adds_us": added})
    return costs


@contextlib.contextmanager
def accelerated_elsewhere():
    """Meanwhile another context is accelerated, as another thread's."""
    import contextvars

    from stn_cuda import accelerate

    handle = contextvars.Context().run(lambda: accelerate().__enter__())
    try:
        yield
    finally:
        handle.remove()


def _enter_and_leave() -> None:
    from stn_cuda import accelerate

    with accelerate():
        pass


if __name__ == "__main__":
    environment.prefer_installed()
    environment.keep_memory()
    raise SystemExit(main())
