"""The same bits with any number of threads; the same numbers with any instruction set."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace

import outputs_worker
import pytest
import torch
from accuracy import Checks, forward_bound, grad_input_bound, grad_warp_bound, smooth_points
from cases import PADDINGS, image, modes, scattered_grid, smooth_grid
from machine import processor_has
from ways import turn

import stn_cuda

NAMES = ("output", "grad_input", "grad_warp")


@pytest.fixture(scope="module")
def pairs():
    return outputs_worker.calls()


@pytest.mark.quick
def test_thread_counts(threads, pairs):
    """1, 2, 3 and 8 threads: every output and gradient is the same bit for bit."""
    threads(1)
    expected = outputs_worker.evaluate(pairs)
    with Checks() as checks:
        for count in (2, 3, 8):
            threads(count)
            actual = outputs_worker.evaluate(pairs)
            for (call, _), ours, wanted in zip(pairs, actual, expected, strict=True):
                for name, mine, theirs in zip(NAMES, ours, wanted, strict=True):
                    checks.same(mine, theirs, f"{name} with {count} threads of {call}")


@pytest.mark.quick
@pytest.mark.parametrize("kind", (scattered_grid, smooth_grid))
@pytest.mark.parametrize("channels", (1, 3, 7))
def test_thread_counts_of_what_is_not_finite(threads, kind, channels):
    """Values that are not finite have a way of their own, which must not depend on the cut."""
    x, grid = image((1, channels, 140, 150)), kind(1, (190, 180))
    values = image((1, channels, 190, 180))
    values[0, channels // 2, ::17, ::13] = float("inf")
    values[0, 0, 5, 5] = float("nan")
    results = []
    for count in (1, 2, 3, 8):
        threads(count)
        results.append(stn_cuda.splat(values, grid, x.shape[2:]))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0, equal_nan=True)
    assert results[0].isfinite().any()


@pytest.mark.quick
@pytest.mark.parametrize("padding_mode", (*PADDINGS, "wrap"))
@pytest.mark.parametrize("dims", (2, 3))
def test_thread_counts_wherever_points_look(threads, dims, padding_mode):
    """Images are cut where the points are: in a corner, beyond the image, in one row, nowhere."""
    size = {2: (90, 70), 3: (23, 21, 40)}[dims]
    corner = smooth_grid(1, size) * 0.2 - 0.75
    row, nowhere = smooth_grid(1, size), torch.full((1, *size, dims), float("nan"))
    row[..., -1] = 0.31
    some = corner.clone()
    some[:, ::3] = float("nan")
    scales = torch.tensor([0.3, 0.2, 0.1][:dims])
    theta = torch.cat((torch.diag(scales), torch.full((dims, 1), 0.6)), 1)[None]
    ways = {
        "corner": corner,
        "beyond": corner + 5,
        "row": row,
        "nowhere": nowhere,
        "some": some,
        "strided": corner.flip(-1).flip(-2),
        "affine": stn_cuda.Affine(theta),
        "many": stn_cuda.Affine(theta * torch.linspace(-1, 1, 5).view(5, 1, 1)),
        "flow": stn_cuda.Flow(5 * corner.movedim(-1, 1)),
    }
    if dims == 2:
        ways["turned"] = stn_cuda.Affine(turn(60, 1.2))  # in blocks of pixels
    with Checks() as checks:
        kinds = [(mode, 3) for mode in modes(dims)] + [("bilinear", 6)]
        for (label, warp), (mode, channels) in itertools.product(ways.items(), kinds):
            x = image((1, channels, *size)).requires_grad_()
            at = size if label in ("affine", "many", "turned") else None
            output = stn_cuda.sample(x, warp, at, mode=mode, padding_mode=padding_mode)
            results = []
            for count in (1, 2, 3, 8):
                threads(count)
                seen = image(output.shape, key=1)
                results += torch.autograd.grad(output, x, seen, retain_graph=True)
            for result in results[1:]:
                checks.same(result, results[0], f"{label}, {mode}, C={channels}")


@pytest.mark.quick
def test_batch_is_independent(threads, pairs):
    """An image gives the same bits alone and in a batch: what threads share does not show."""
    threads(2)
    with Checks() as checks:
        for call, gradient in pairs:
            batch = call.input.shape[0]
            if batch == 1 or call.warp.shape[0] == 1:
                continue
            together = call.gradients(gradient)
            for n in range(batch):
                alone = replace(call, input=call.input[n : n + 1], warp=call.warp[n : n + 1])
                single = alone.gradients(gradient[n : n + 1])
                for name, mine, theirs in zip(NAMES, single, together, strict=True):
                    checks.same(mine, theirs[n : n + 1], f"{name} of image {n} of {call}")


@pytest.mark.quick
def test_thread_count_in_the_middle(threads, pairs):
    """Forward with one number of threads, backward with another."""
    with Checks() as checks:
        for call, gradient in pairs[::5]:
            x, warp = call.input.clone().requires_grad_(), call.warp.clone().requires_grad_()
            grads = []
            for forward, backward in ((1, 2), (2, 1)):
                threads(forward)
                output = call.run(x, warp)
                threads(backward)
                grads.append(torch.autograd.grad(output, (x, warp), gradient))
            for name, one, other in zip(NAMES[1:], *grads, strict=True):
                checks.same(one, other, f"{name} of {call}")


def run_with(isa, path):
    environment = {**os.environ, "STN_CUDA_ISA": isa}
    command = [sys.executable, outputs_worker.__file__, str(path)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_instruction_sets(tmp_path, pairs):
    """baseline, AVX2 and AVX-512: forced by STN_CUDA_ISA, equal within twice the error bounds.

    Each is within the bound of the exact result; nearest outputs are copies and thus the same.
    """
    results = {}
    for isa in ("baseline", "avx2", "avx512"):
        process = run_with(isa, tmp_path / isa)
        if process.returncode == 0:
            results[isa] = torch.load(tmp_path / isa)
        else:
            assert "STN_CUDA_ISA" in process.stderr, process.stderr[-2000:]
            assert not processor_has(isa), f"{isa} is refused: {process.stderr[-500:]}"
    assert "baseline" in results
    with Checks() as checks:
        for number, (call, gradient) in enumerate(pairs[::2]):
            wanted = [tensor.double() for tensor in results["baseline"][number]]
            bounds = [
                forward_bound(call, wanted[0]),
                grad_input_bound(call, gradient, wanted[1]),
                grad_warp_bound(call, gradient, wanted[2]),
            ]
            if call.mode == "nearest":
                bounds[0] = torch.where(smooth_points(call).unsqueeze(1), bounds[0], torch.inf)
            for isa, outputs in results.items():
                for name, mine, theirs, bound in zip(
                    NAMES, outputs[number], wanted, bounds, strict=True
                ):
                    checks.close(mine, theirs, 2 * bound, f"{name} with {isa} of {call}")


@pytest.mark.quick
def test_the_instruction_set_is_told():
    assert stn_cuda.build_info()["cpu_isa"] in ("baseline", "avx2", "avx512")
    forced = os.environ.get("STN_CUDA_ISA")
    if forced:
        assert stn_cuda.build_info()["cpu_isa"] == forced
