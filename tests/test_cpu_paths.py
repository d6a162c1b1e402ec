"""The ways through the CPU kernels, which sizes, layouts, angles and values choose among.

Each has small calls that provably go it, on the kernels that have it and on no others, and whose
results are right.
"""

import functools
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accuracy import (
    Checks,
    check_call,
    forward_bound,
    grad_input_bound,
    grad_warp_bound,
    smooth_points,
)
from cases import IMAGE_LAYOUTS, Call, image, scattered_grid, smooth_grid
from machine import ENVIRONMENTS, MACHINES, all_paths, machine, paths_of, processor_has
from path_cases import path_cases
from ways import (
    AVX2_WINDOWS_FIRST,
    AVX512,
    BASELINE,
    BY_SIZE,
    GATHER,
    GATHERS,
    INSERTS,
    REST_GATHER,
    TURNING,
    TURNING_FLOAT,
    VECTORS,
    WINDOWS,
    WINDOWS_FIRST,
    diagonal,
    turn,
    turning,
)

import stn_cuda
from stn_cuda import reference

CASES = path_cases()
WINDOWED = {f"{op}_{way}" for op in ("sample", "grad") for way in ("windows", "narrow")}
TURNED = {f"turned_{way}" for way in ("2", "3", "4", "by_y", "narrow", "onto", "in_blocks")}
WIDE = {"sample_wide", "grad_wide", "turned_channels"}
# The ways that only some kernels have.
SOME = {"runs_gathered": GATHERS, "runs_announced": GATHERS, "runs_inserted": INSERTS}
SOME |= dict.fromkeys(TURNED, TURNING_FLOAT) | dict.fromkeys(WIDE, TURNING)
SOME |= dict.fromkeys(WINDOWED | {"in_blocks", "scaled_windows", "windows_apart"}, WINDOWS)
SOME |= {"splat_collected": TURNING, "runs_woven": WINDOWS, "woven_apart": WINDOWS}
# The way of images of bytes, which have no gradients: test_bytes.py.
OF_BYTES = {"sample_pairs"}
# The ways that values choose: test_values_that_are_not_finite.
BY_VALUE = {"splat_points", "splat_beyond_points", "scaled_carefully"}
# Of both gradients together: test_gradients_together.py.
TOGETHER = {"gradients_in_turns"}
# Of planes of many pages of memory: test_planes_of_many_pages.
OF_PAGES = {"in_bands"}


def ways_of(call, cotangent=None):
    """The ways of sample and of both its gradients."""
    cotangent = call.cotangent() if cotangent is None else cotangent
    ways = paths_of(call.run)[1]
    for name in ("input", "warp"):
        leaf = getattr(call, name).detach().requires_grad_()
        output, forward = paths_of(lambda: call.run(**{name: leaf}))  # noqa: B023
        backward = paths_of(lambda: torch.autograd.grad(output, leaf, cotangent))[1]  # noqa: B023
        ways |= forward | backward
    return ways


@pytest.mark.quick
@pytest.mark.parametrize("case", CASES, ids=str)
def test_way(case, threads):
    """The call goes the ways that it is there for, on these kernels, and its results are right."""
    threads(case.threads)
    ways = ways_of(case.call)
    with Checks() as checks:
        for way, machines in case.ways.items():
            what = f"{way} on {machine()}, which goes {sorted(ways)}, of {case.call}"
            checks.true((way in ways) == (machine() in machines), what)
        check_call(checks, case.call)
        if case.threads > 1:
            cotangent = case.call.cotangent()
            cut = case.call.gradients(cotangent)
            threads(1)
            for ours, whole in zip(cut, case.call.gradients(cotangent), strict=True):
                checks.same(ours, whole, f"one thread instead of {case.threads}, {case.call}")


@pytest.mark.quick
def test_every_way_has_a_case():
    """A way that no case names, on kernels that have it, is one that no test is known to enter."""
    named = {way for case in CASES for way, machines in case.ways.items() if machine() in machines}
    absent = {way for way, machines in SOME.items() if machine() not in machines}
    derived = {way for way in all_paths() if way.startswith("derive_")}
    elsewhere = BY_VALUE | BY_SIZE | OF_PAGES | TOGETHER | OF_BYTES
    assert named | elsewhere | derived == all_paths() - absent


@pytest.mark.quick
def test_derivatives_go_the_ways_of_values(threads):
    """What finds the pixels of a point's value finds those of its derivative.

    But where pixels are gathered that windows do not hold, a volume's derivatives have no windows.
    """
    threads(1)  # several may cut the channels of a woven image, of which a single one has windows
    found = set()
    with Checks() as checks:
        for case in CASES:
            call = case.call
            if call.mode == "nearest":
                continue
            size = [] if call.map == "grid" else list(call.output_size)
            run = functools.partial(
                torch.ops.stn_cuda.sample_derivative,
                *(call.input, call.warp, torch.ones_like(call.warp), -1, call.map, size),
                *call.op_settings,
            )
            ways = paths_of(run)[1]
            derived = {way for way in ways if way.startswith("derive_")}
            values = {way for way in paths_of(call.run)[1] if "sample_" in way}
            values = {re.sub("narrow|wide", "windows", way) for way in values}
            if machine() in REST_GATHER and call.dims == 3 and call.input.dtype != torch.float64:
                values = {way.replace("windows", "runs") for way in values}
            values = {way.replace("sample_", "derive_") for way in values}
            checks.true(derived == values - {"derive_nothing"}, f"{derived} {values} of {call}")
            found |= derived
    ways = {way for way in all_paths() if way.startswith("derive_")}
    assert found == ways - ({"derive_windows"} if machine() in BASELINE else set())


@pytest.mark.quick
@pytest.mark.parametrize(("degrees", "scale"), ((70, 1.3), (-90, 1.3), (45, 0.9)))
def test_planes_of_many_pages(degrees, scale):
    """Tiles, and blocks of pixels, are gone through column by column; the last bands are lower."""
    call = Call(image((1, 1, 1500, 1500)), turn(degrees, scale), "affine", (1301, 1403))
    with Checks() as checks:
        _, ways = paths_of(lambda: check_call(checks, call))
    assert "in_bands" in ways
    small = replace(call, input=call.input[..., :1000, :1000], size=(400, 400))
    assert "in_bands" not in paths_of(small.run)[1]


@pytest.mark.quick
@pytest.mark.parametrize("width", (1, 7, 28, 119, 127))
def test_rows_end_to_end_up_to_the_most_points(width):
    """A point's place in its row is computed in floating point: right for as many as allowed."""
    identity = torch.eye(2, 3).unsqueeze(0)
    for height, folds in ((2**20 // width, True), (2**20 // width + 1, False)):
        pixels = torch.arange(height * width).reshape(1, 1, height, width).float()
        call = Call(pixels, identity, "affine", (height, width))
        output, ways = paths_of(call.run)
        assert ("folded" in ways) == (folds and machine() in GATHERS | BASELINE)
        torch.testing.assert_close(output, pixels, rtol=0, atol=0)


def warps(dims):
    """[(warp, output size)]: windows, windows or runs, runs."""
    size = (18, 40) if dims == 2 else (3, 4, 40)
    near = diagonal(*[0.83, 0.91, 0.74][:dims])
    near[0, 1, 0] = 0.25  # aslant: windows have rows that some of their points do not see
    return [
        (near, size),
        (smooth_grid(1, size, spread=0.1), None),
        (scattered_grid(1, size), None),
    ]


def values_cases():
    for dims, spatial in ((2, (20, 40)), (3, (5, 8, 40))):
        for channels in (1, 2, 5, 6, 8):
            for warp, size in warps(dims):
                kind = "affine" if size else "grid"
                yield Call(image((1, channels, *spatial)), warp, kind, size)


def channels_cases():
    for channels in (5, 20):
        pixels = IMAGE_LAYOUTS["channels_last"](image((1, channels, 20, 40)))
        for warp, size in warps(2):
            yield Call(pixels, warp, "affine" if size else "grid", size)


def scaled_values_cases():
    """Points nearer to each other than pixels, and further apart."""
    for channels in (1, 3):
        for scales in ((0.83, 0.91), (1.3, 0.7)):
            pixels = image((1, channels, 20, 40))
            yield Call(pixels, diagonal(*scales), "affine", (18, 40))


def way_of_values(call, value):
    """By which one that is not finite reaches the pixels that its point sees."""
    channels = call.input.shape[1]
    affine = call.map == "affine" and call.dims == 2
    if affine and call.warp[0, 1, 0] == 0:
        # Of columns of points, an infinity makes what others see NaN only where a weight is 0.
        apart = machine() in WINDOWS and call.warp[0, 0, 0] > 1
        return "scaled_carefully" if apart or math.isnan(value) else "scaled"
    if call.input.stride(1) == 1 and channels > 1:
        return "turned_channels" if affine and machine() in TURNING else "splat_channels"
    turns = affine and machine() in turning(channels, call.input.dtype)
    return "turned_3" if turns else "splat_points"


def sees_windows(call):
    """Whether an affine call of values_cases() does."""
    if call.map != "affine":
        return False
    if call.dims == 3:
        return call.input.shape[1] == 1 and machine() in WINDOWS_FIRST | AVX512
    if machine() in GATHER | WINDOWS_FIRST | AVX2_WINDOWS_FIRST:
        return call.input.shape[1] > 1
    return machine() in VECTORS


@pytest.mark.quick
@pytest.mark.parametrize("value", (math.nan, math.inf))
def test_pixels_that_are_not_finite(value):
    """What a weight of 0 makes NaN is computed again, without it; other points see nothing of it.

    Runs hold no more than what their points see, unlike windows; single taps no weight of 0.
    """
    with Checks() as checks:
        for clean in values_cases():
            middle = clean.input[0, 0].numel() // 2 + 20
            pixels = clean.input.clone()
            pixels.flatten(2)[:, :, middle] = value
            call = Call(pixels, clean.warp, clean.map, clean.size)
            mark = torch.zeros_like(clean.input)
            mark.flatten(2)[:, :, middle] = 1
            seen = reference.sample(mark, call.grid64()) != 0
            smooth = smooth_points(call).unsqueeze(1)
            checks.true((seen & smooth).any() and not seen.all(), f"too easy: {call}")
            ways = ways_of(call)
            again = ways - ways_of(clean)
            if math.isnan(value):
                checks.true({"sample_taps", "grad_taps"} <= again, f"{sorted(again)} of {call}")
            elif sees_windows(call):
                checks.true({"sample_runs", "grad_runs"} <= again, f"{sorted(again)} of {call}")

            cotangent = clean.cotangent() * smooth
            output, _, grad_warp = call.gradients(cotangent)
            expected, _, expected_grad = clean.expect_gradients(cotangent)
            checks.same(output.isfinite() | ~smooth, ~seen | ~smooth, f"{value} in {call}")
            output = torch.where(seen | ~smooth, expected, output.double())
            checks.close(output, expected, forward_bound(clean, expected), f"beside it in {call}")
            if call.map == "grid":
                seen = (seen & smooth).any(1).unsqueeze(-1).expand_as(grad_warp)
                checks.same(grad_warp.isfinite(), ~seen, f"grad_warp, {value} in {call}")
                grad_warp = torch.where(seen, expected_grad, grad_warp.double())
                bound = grad_warp_bound(clean, cotangent, expected_grad)
                checks.close(grad_warp, expected_grad, bound, f"grad_warp beside it in {call}")


@pytest.mark.quick
@pytest.mark.parametrize("value", (math.nan, math.inf))
def test_values_that_are_not_finite(value):
    """One that flows back reaches the pixels that its point sees, turned round or added."""
    with Checks() as checks:
        for call in (*values_cases(), *channels_cases(), *scaled_values_cases()):
            smooth = smooth_points(call).unsqueeze(1)
            points = (smooth[0, 0] & (_pixels_inside(call)[0, 0])).flatten().nonzero()
            mark = torch.zeros(call.output_shape)
            mark.flatten(2)[:, :, points[len(points) // 2]] = 1
            clean = call.cotangent() * smooth * (1 - mark)
            _, expected, _ = call.expect_gradients(clean)
            reached = call.expect_gradients(mark)[1] != 0
            checks.true(reached.any() and not reached.all(), f"too easy: {call}")
            ways = ways_of(call, clean.masked_fill(mark != 0, value))
            wanted = way_of_values(call, value)
            checks.true(wanted in ways, f"{wanted} among {sorted(ways)} of {call}")
            grad = call.gradients(clean.masked_fill(mark != 0, value))[1]
            checks.same(grad.isfinite(), ~reached, f"{value}, {call}")
            grad = torch.where(reached, expected, grad.double())
            bound = grad_input_bound(call, clean, expected)
            checks.close(grad, expected, bound, f"beside {value}, {call}")


@pytest.mark.quick
@pytest.mark.parametrize("channels", (1, 3, 6))
def test_a_channel_that_is_not_finite(channels):
    """The others, which may be summed together with it, have the sums that they have without it."""
    grid = smooth_grid(1, (40, 50), spread=0.05)
    call = Call(image((1, channels, 41, 52)), grid, "grid", None)
    values = call.cotangent()
    clean = call.gradients(values)[1]
    with Checks() as checks:
        for channel in range(channels):
            spoilt = values.clone()
            spoilt[0, channel, 20, 20] = math.inf
            grad = call.gradients(spoilt)[1]
            checks.true(not grad[0, channel].isfinite().all(), f"channel {channel} of {call}")
            grad[0, channel] = clean[0, channel]
            checks.same(grad, clean, f"beside channel {channel} of {call}")


@pytest.mark.quick
@pytest.mark.parametrize("rule", ("border", "reflection"))
@pytest.mark.parametrize("value", (math.nan, math.inf))
def test_values_beyond_the_image_that_are_not_finite(value, rule):
    """One of a point that looks beyond it reaches the pixels that the rule lets it see."""
    call = Call(image((1, 5, 20, 40)), turn(6, 1.1), "affine", (20, 40), padding_mode=rule)
    smooth = smooth_points(call).unsqueeze(1)
    points = (smooth[0, 0] & ~_pixels_inside(call)[0, 0]).flatten().nonzero()[::7]
    assert len(points) > 10
    with Checks() as checks:
        for point in points:
            mark = torch.zeros(call.output_shape)
            mark.flatten(2)[:, :, point] = 1
            clean = call.cotangent() * smooth * (1 - mark)
            expected = call.expect_gradients(clean)[1]
            reached = call.expect_gradients(mark)[1] != 0
            values = clean.masked_fill(mark != 0, value)
            if machine() in TURNING_FLOAT:
                checks.true("splat_beyond_points" in ways_of(call, values), f"{point}, {rule}")
            grad = call.gradients(values)[1]
            checks.same(grad.isfinite(), ~reached, f"{value} at {point}, {rule}")
            grad = torch.where(reached, expected, grad.double())
            bound = grad_input_bound(call, clean, expected)
            checks.close(grad, expected, bound, f"beside {value} at {point}, {rule}")


def _pixels_inside(call):
    """(N, 1, *out) bool: the points whose taps are all inside the image."""
    ones = torch.ones(1, 1, *call.input.shape[2:])
    return reference.sample(ones, call.grid64()) > 1 - 1e-9


@pytest.mark.quick
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16), ids=str)
@pytest.mark.parametrize(
    ("channels", "shape", "size", "way"),
    (
        (5, (480, 640), (160, 150), "channels_apart"),
        (9, (190, 200), (110, 100), "splat_woven"),
        (9, (19, 40, 50), (8, 30, 50), "splat_woven"),
    ),
)
def test_some_channels_of_some_images(channels, shape, size, way, dtype):
    """Where planes are too large to be seen at once, or woven: as if each image were alone."""
    batch = 3
    pixels = image((batch, channels, *shape)).to(dtype).requires_grad_()
    grid = scattered_grid(batch, size).requires_grad_()
    fill = torch.linspace(-1, 1, channels).to(dtype)
    cotangent = image((batch, channels, *size), key=1).to(dtype)

    tangent = scattered_grid(batch, size, key=1)

    def call(x, warp, back, along):
        values, mask = stn_cuda.sample(x, warp, fill=fill, return_mask=True)
        gradients = torch.autograd.grad(values, (x, warp), back)
        _, moved = torch.func.jvp(lambda w: stn_cuda.sample(x.detach(), w), (warp,), (along,))
        return values, mask, *gradients, moved, *stn_cuda.sample_with_gradient(x, warp)

    results, ways = paths_of(lambda: call(pixels, grid, cotangent, tangent))
    assert way in ways
    assert ("runs_woven" in ways) == (way == "splat_woven" and machine() not in BASELINE)
    for n in range(batch):
        one = slice(n, n + 1)
        alone = call(pixels[one], grid[one], cotangent[one], tangent[one])
        for together, by_itself in zip(results, alone, strict=True):
            assert torch.equal(together[one], by_itself)


OTHERS = ("test_adjoint.py", "test_past_the_caches.py")


@pytest.mark.parametrize("other", MACHINES)
def test_other_kernels(other):
    """The quick tests of this file and of OTHERS on each kind of kernels."""
    isa = ENVIRONMENTS[other]["STN_CUDA_ISA"]
    if not processor_has(isa):
        pytest.skip(f"this processor is not known to have {isa}")
    if other == machine():
        pytest.skip("the kernels of this process: the quick tests themselves")
    here = Path(__file__)
    files = [str(here), *(str(here.with_name(name)) for name in OTHERS)]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "quick", "-p", "no:cacheprovider", *files],
        env={**os.environ, **ENVIRONMENTS[other], "STN_CUDA_TEST_MACHINE": other},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-1000:]


@pytest.mark.quick
def test_the_kernels_are_those_asked_for():
    asked = os.environ.get("STN_CUDA_TEST_MACHINE", machine())
    assert machine() == asked
