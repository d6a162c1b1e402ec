"""`python -m benchmarks.training_step`: a spatial transformer network's step, eager and compiled.

Forward and backward of PyTorch's tutorial network on 28x28 images (stn_cuda/tutorial.py), with our
sampler and with torch's, each as it is and under torch.compile, on one thread of the CPU, in turns.
What the optimiser does is the same for all and left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from . import environment, report, timing
from .labels import line, rule, times

SAMPLERS = ("stn_cuda", "torch")
FORMS = ("eager", "compiled")

# Of the gradients, as a fraction of their largest: tells a wrong one from rounding, no more.
TOLERANCE = 1e-3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file. Returns the exit status, 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_step",
        description=__doc__.partition("\n")[0].partition(": ")[2],
    )
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images in a step")
    parser.add_argument("--min-time", type=float, default=10.0, metavar="S", help="seconds")
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="rounds at least")
    parser.add_argument(
        "--out",
        type=Path,
        default=environment.ROOT / "benchmarks" / "results" / "local" / "training_step.json",
        metavar="FILE",
    )
    options = parser.parse_args(arguments)

    facts = environment.describe("cpu")
    torch.set_num_threads(1)
    steps = build_steps(options.batch)
    effort = timing.Effort(options.repeats, options.min_time, most_rounds=2000)
    timed = timing.interleave(steps, timing.cpu_block(1), effort)
    blocks = {name: entry["blocks_s"] for name, entry in timed.items()}
    rows = [
        {
            "step": name,
            "median_s": timing.quartiles(seconds)[1],
            # How many times as long as ours takes as it is.
            "ratio": timing.ratio(seconds, blocks["stn_cuda, eager"]),
        }
        for name, seconds in blocks.items()
    ]
    print(
        f"{facts['device_name']}, 1 thread, torch {facts['torch']}, batch {options.batch}\n\n"
        + line(["forward + backward", "ms", "time / ours, eager", "quartiles"])
        + "\n"
        + rule(3)
    )
    for row in rows:
        print(row_text(row))
    results = {"environment": facts, "threads": 1, "batch": options.batch, "rows": rows}
    report.write_atomically(options.out, report.to_json(results))
    print(f"\n{options.out}")
    return 0


def build_steps(batch: int) -> dict[str, Callable[[], list[torch.Tensor]]]:
    """By "sampler, form": forward, loss and the gradients of all weights.

    The same images, labels and weights for all; dropout is on once the gradients have been found
    to agree without it.
    """
    from stn_cuda.tutorial import TutorialNet

    rng = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 1, 28, 28, generator=rng)
    labels = torch.randint(10, (batch,), generator=rng)
    # Off the identity, where every look would fall on a pixel, whose slope rounding chooses.
    off = 0.1 * torch.rand(6, generator=rng)
    steps, nets, expected = {}, [], None
    for sampler in SAMPLERS:
        torch.manual_seed(0)
        net = TutorialNet(sampler).eval()
        with torch.no_grad():
            net.transformer.localization[-1].bias += off
        nets.append(net)
        for form in FORMS:
            step = make_step(net, form, images, labels)
            expected = check(f"{sampler}, {form}", step(), expected)
            steps[f"{sampler}, {form}"] = step
    for net in nets:
        net.train()
    return steps


def make_step(net, form: str, images: torch.Tensor, labels: torch.Tensor):
    """One step of a network as it is or compiled."""
    network = torch.compile(net, fullgraph=True) if form == "compiled" else net
    weights = list(net.parameters())

    def step() -> list[torch.Tensor]:
        return list(torch.autograd.grad(F.nll_loss(network(images), labels), weights))

    return step


def check(name: str, grads: list[torch.Tensor], expected: list[torch.Tensor] | None):
    """The gradients to compare the next ones with. Raises RuntimeError for other ones."""
    for ours, theirs in zip(grads, expected or grads, strict=True):
        off = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)
        if not off < TOLERANCE:
            raise RuntimeError(f"{name}: the gradients are off by {off:.1%}")
    return expected or grads


def row_text(row: dict) -> str:
    """A row of the Markdown table."""
    ratio = row["ratio"]
    quartiles = f"{ratio['q1']:.2f}-{ratio['q3']:.2f}"
    return line(
        [row["step"], f"{1e3 * row['median_s']:.2f}", f"**{times(ratio['median'])}**", quartiles]
    )


if __name__ == "__main__":
    environment.prefer_installed()
    environment.keep_memory()
    raise SystemExit(main())
