"""The ceiling by bytes: how many times as fast as torch any sampler could be, cell by cell.

`python -m benchmarks.bounds --ceiling` prints it for affine 2-D bilinear float32 on one thread.
The ceiling is torch's time over the floor's, and the floor is what is left of a sampler that
computes nothing:

fixed   the call on an image of one pixel: Python, the dispatcher, autograd. Torch pays it too.
moved   the bytes that a sampler cannot but read or write, moved without any arithmetic:
        forward   reads the image where it is looked at, writes the output
        backward  reads the output's gradient where it looks at the image, and the image where the
                  forward did, or what the forward kept of it; writes the image's gradient

Wherever there was a choice the fewer bytes are counted and the faster way of moving them, since a
floor that is too high would tell of a ceiling that somebody may break:

- Of the image and of the output's gradient only the cache lines count that hold a tap whose weight
  is not zero; those of theta, of its gradient and of what autograd keeps count as nothing.
- The backward is one pass, as torch's is: with a kernel for each gradient, as ours are, the
  output's gradient is read twice.
- To write a line is to write it once. That the processor mostly has to read it first, that a splat
  adds to it, and that memory comes from an allocator are left out.
- The passes move their bytes between the same two buffers, made beforehand: smaller than the
  tensors together, and warm if they fit into the cache.
- Bytes are moved in each of the `plans`; the fastest counts, without what its calls cost on one
  element.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from . import peers, problem, timing
from .cases import FIRST, Case, select
from .report import DIRECTIONS

GROUP = "affine 2-D bilinear"
# What is aimed at: the least geometric mean of torch / ours, and the least of any cell.
GOALS = {"mean": 6.0, "worst": 3.0}
LINE = 64  # bytes of a cache line; where lines are longer, more bytes move than are counted
RATIOS = ("torch/ours", "torch/floor")
COLUMNS = ("torch", "ours", "fixed", "floor", *RATIOS)

# A way of moving bytes, named as in `_step`, and how many.
Step = tuple[str, int]


@dataclass(frozen=True)
class Pass:
    """The bytes that one pass over the tensors cannot but move."""

    read: int
    written: int


def cells() -> list[Case]:
    """The cases of the whole matrix that the goals are about."""
    return [
        case
        for case in select("full")
        if case.group == GROUP and case.dtype == "float32" and case.direction in FIRST
    ]


def show(cases: Iterable[Case], effort: timing.Effort) -> None:
    """Print a row per case as it is measured, then the summary."""
    print(_line(["cell", "direction", *COLUMNS]) + "\n|---|---" + "|---:" * len(COLUMNS) + "|")
    measured = []
    for case in cases:
        numbers = measure(case, effort)
        measured.append((case, numbers))
        values = [f"{numbers[column]:.2f}" for column in COLUMNS]
        print(_line([case.work, DIRECTIONS[case.direction], *values]), flush=True)
    titles = [title for name in RATIOS for title in (f"{name}, geo. mean", "worst cell")]
    limits = [f"ceilings below {goal:g}" for goal in GOALS.values()]
    print("\n" + _line(["direction", "cells", *titles, *limits]))
    print("|---" + "|---:" * (1 + len(titles) + len(limits)) + "|")
    for row in summarise(measured):
        ratios = [
            text
            for name in RATIOS
            for text in (f"{row[name]['mean']:.2f}", "{:.2f} ({})".format(*row[name]["worst"]))
        ]
        counts = [str(row["below"][goal]) for goal in GOALS.values()]
        print(_line([DIRECTIONS[row["direction"]], str(row["cells"]), *ratios, *counts]))


def summarise(measured: Sequence[tuple[Case, dict[str, float]]]) -> list[dict]:
    """For each direction: mean and worst cell of both ratios, and the ceilings below each goal."""
    rows = []
    for direction in DIRECTIONS:
        entries = [entry for entry in measured if entry[0].direction == direction]
        if not entries:
            continue
        row: dict = {"direction": direction, "cells": len(entries)}
        for name in RATIOS:
            values = [(numbers[name], case.work) for case, numbers in entries]
            mean = timing.geometric_mean([value for value, _ in values])
            row[name] = {"mean": mean, "worst": min(values)}
        row["below"] = {
            goal: sum(numbers["torch/floor"] < goal for _, numbers in entries)
            for goal in GOALS.values()
        }
        rows.append(row)
    return rows


# --- time -------------------------------------------------------------------------------------


def measure(case: Case, effort: timing.Effort) -> dict[str, float]:
    """The columns of one cell: ns per output element, and the medians of the ratios."""
    made = problem.build(case)
    pixel = problem.build(
        replace(case, shape=(1, 1, 1, 1), size=None, warps=None, channels_last=False)
    )
    moves = plans(passes(made))
    works = {
        "torch": problem.work(made, peers.torch_eager(made)),
        "ours": problem.work(made, peers.ours(made)),
        "fixed": problem.work(pixel, peers.ours(pixel)),
    }
    for name, steps in moves.items():
        works[name] = moving(steps)
        works[f"{name}, one element"] = moving([(kind, 4) for kind, _ in steps])
    times = timing.interleave(works, timing.cpu_block(1), effort)
    return columns({name: time["blocks_s"] for name, time in times.items()}, moves, case.elements)


def columns(
    blocks: dict[str, list[float]], moves: Iterable[str], elements: int
) -> dict[str, float]:
    """What the blocks of a cell amount to, with the fastest of the moves.

    The floor is taken round by round, so that a slow spell meets it and torch alike.
    """
    moved = [
        [max(0.0, a - b) for a, b in zip(blocks[name], blocks[f"{name}, one element"], strict=True)]
        for name in moves
    ]
    fastest = min(moved, key=_median)
    floor = [a + b for a, b in zip(blocks["fixed"], fastest, strict=True)]
    known = {name: blocks[name] for name in ("torch", "ours", "fixed")} | {"floor": floor}
    numbers = {name: _median(seconds) / elements * 1e9 for name, seconds in known.items()}
    for name in RATIOS:
        theirs, _, other = name.partition("/")
        numbers[name] = timing.ratio(known[theirs], known[other])["median"]
    return numbers


def plans(moved: Sequence[Pass]) -> dict[str, list[Step]]:
    """The ways to move the bytes of the passes, by name.

    copy_, memmove  copies of half as many bytes: as much read and written together
    apart           as much as is both read and written is copied; the rest is read, or written,
                    alone: the faster one where nearly all is reading
    """
    halves = [(one.read + one.written) // 2 for one in moved]
    apart = []
    for one in moved:
        both = min(one.read, one.written)
        apart += [("copy_", both), ("read", one.read - both), ("write", one.written - both)]
    return {
        "copy_": [("copy_", half) for half in halves],
        "memmove": [("memmove", half) for half in halves],
        "apart": [step for step in apart if step[1]],
    }


def moving(steps: Sequence[Step]) -> timing.Work:
    """The steps as one function without arguments, over buffers that they share."""
    longest = max(size for _, size in steps) // 4
    source = torch.ones(longest)  # zeros may be one page, many times
    target = torch.ones(longest)
    works = [_step(kind, size // 4, source, target) for kind, size in steps]

    def move() -> None:
        for work in works:
            work()

    return move


def _step(kind: str, count: int, source: torch.Tensor, target: torch.Tensor) -> timing.Work:
    source, target = source[:count], target[:count]
    if kind == "copy_":
        return functools.partial(target.copy_, source)
    if kind == "memmove":
        # Through the tensors, which hence live as long as the function does.
        return lambda: ctypes.memmove(target.data_ptr(), source.data_ptr(), 4 * count)
    if kind == "write":
        return functools.partial(target.fill_, 0.0)
    # A dot product of the halves: a sum leaves the processor waiting for its additions.
    half = (count + 1) // 2
    return functools.partial(torch.dot, source[:half], source[-half:])


def _median(seconds: Sequence[float]) -> float:
    return timing.quartiles(seconds)[1]


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(texts) + " |"


# --- bytes ------------------------------------------------------------------------------------


def passes(made: problem.Problem) -> list[Pass]:
    """What the forward and, where the case has one, the backward to image and theta move."""
    case, element = made.case, made.input.element_size()
    of_image, of_output = looked_at(made)
    image = bytes_of_lines(of_image, case, element)
    output = case.elements * element
    forward = Pass(image, output)
    if case.direction == "forward":
        return [forward]
    # The theta's gradient needs the output's derivatives along the axes. Where the image is much
    # larger than the output, the forward does better to keep them: they are written, and read.
    derivatives = 2 * (len(case.shape) - 2) * output
    gradient = bytes_of_lines(of_output, case, element)
    return [forward, Pass(gradient + min(image, derivatives), made.input.numel() * element)]


def looked_at(made: problem.Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pixels of the images (N, ...) are looked at, and which outputs (N, ...) look at any.

    A tap counts if it lies in the image and its weight is not zero.
    """
    case = made.case
    images, batch = case.shape[0], case.output_shape[0]
    lengths = torch.tensor(case.shape[2:]).flip(0)  # as the positions run: (x, y)
    pixels = problem.pixels_of(problem.grid_of(made), case)
    # To a thousandth of a pixel, so that rounding makes no tap of what is none in an exact
    # computation; real ones with less weight than that go uncounted with them.
    pixels = folded((pixels * 1024).round() / 1024, lengths, case)
    low = pixels.floor()
    between, low = pixels > low, low.long()

    plane = math.prod(case.shape[2:])
    strides = lengths.cumprod(0) // lengths
    first = torch.arange(batch).view(-1, *[1] * len(lengths)) % images * plane
    of_image = torch.zeros(images * plane, dtype=torch.bool)
    of_output = torch.zeros(batch, *case.output_shape[2:], dtype=torch.bool)
    for corner in itertools.product((0, 1), repeat=len(lengths)):
        tap = low + torch.tensor(corner)
        weighs = between | (torch.tensor(corner) == 0)
        counts = ((tap >= 0) & (tap < lengths) & weighs).all(-1)
        of_output |= counts
        of_image[(first + (tap * strides).sum(-1))[counts.expand(of_output.shape)]] = True
    return of_image.view(images, *case.shape[2:]), of_output


def folded(pixels: torch.Tensor, lengths: torch.Tensor, case: Case) -> torch.Tensor:
    """The positions that the padding looks at in the place of those outside."""
    if case.padding == "zeros":
        return pixels
    if case.padding == "reflection":
        # About the outer pixels' centres, or about their outer edges.
        first, span = (0, lengths - 1) if case.align_corners else (-0.5, lengths)
        distance = (pixels - first).remainder(2 * span.clamp(min=1))
        pixels = first + torch.minimum(distance, 2 * span - distance)
    return torch.minimum(pixels.clamp(min=0), lengths - 1)


def bytes_of_lines(mask: torch.Tensor, case: Case, element: int) -> int:
    """Bytes of the cache lines that hold a pixel of `mask` (N, ...) in any of the channels."""
    elements = mask.unsqueeze(1).expand(-1, case.shape[1], *mask.shape[1:])
    if case.channels_last:
        elements = elements.movedim(1, -1)
    flat = elements.flatten()
    beyond = -len(flat) % (LINE // element)  # what the last line holds beyond the tensor
    lines = F.pad(flat, (0, beyond)).view(-1, LINE // element).any(1)
    return int(lines.sum()) * LINE - bool(lines[-1]) * beyond * element
