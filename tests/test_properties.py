"""Random search: shapes, strides, dtypes, modes, hostile coordinates; and memory that is not ours.

Every drawn call must equal the float64 reference within the derived bounds, and must neither read
nor write outside its tensors: images and grids lie inside storage full of NaN, at the end of a
mapped page, and results are checked by a malloc with canaries.
"""

import contextlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accuracy import Checks, check_call
from cases import (
    DTYPES,
    FREE,
    GRID_LAYOUTS,
    IMAGE_LAYOUTS,
    MIXED,
    PADDINGS,
    THETA_LAYOUTS,
    WARPS,
    Call,
    free_values,
    generator,
    image,
    modes,
    scattered_grid,
    smooth_grid,
    splines,
    thetas,
)
from hypothesis import given, settings
from hypothesis import strategies as st

HOSTILE = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3e38, -3e38, 1e9, -1e9, 1e-40]
HOSTILE += [0.0, -0.0, 1.0, -1.0, 0.5, -3.0, 65504.0, 2.0**31, -(2.0**31), 2.0**63, 1e5]
MAPS = ("grid", "affine")
NAMES = ("output", "grad_input", "grad_warp")


@st.composite
def calls(draw):
    """A call of sample, small enough to be quick and odd enough to find the corners."""
    dims = draw(st.sampled_from((2, 3)))
    batch = draw(st.integers(0, 3))
    channels = draw(st.sampled_from((0, 1, 1, 2, 3, 4, 5, 8, 9, 16, 17)))
    spatial = tuple(draw(st.integers(1, 9)) for _ in range(dims))
    size = tuple(draw(st.integers(0, 6)) for _ in range(dims - 1)) + (draw(st.integers(0, 40)),)
    input_dtype, warp_dtype = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES))
    kind = draw(st.sampled_from(MAPS))
    align = draw(st.booleans())
    one_image, one_warp = draw(st.booleans()), draw(st.booleans())
    key = draw(st.integers(0, 2**32))

    pixels = image((1 if one_image and batch else batch, channels, *spatial), input_dtype, key)
    if pixels.numel():
        pixels = IMAGE_LAYOUTS[draw(st.sampled_from(sorted(IMAGE_LAYOUTS)))](pixels)
    warps = 1 if one_warp and batch else batch
    hostile = draw(st.lists(st.sampled_from(HOSTILE), max_size=6))
    if kind == "grid":
        warp = scattered_grid(warps, size, torch.float64, key, reach=2.5)
        if draw(st.booleans()):  # on whole pixels and halves
            steps = torch.tensor(list(reversed(spatial)), dtype=torch.float64)
            steps = (steps - 1).clamp(min=1) if align else steps
            warp = (warp * steps).round() / steps
    else:
        spread = draw(st.sampled_from((0.1, 1.0, 4.0)))
        warp = thetas(warps, dims, torch.float64, key, spread)
    if warp.numel() and hostile:
        places = torch.randint(warp.numel(), (len(hostile),), generator=generator(key))
        warp.view(-1)[places] = torch.tensor(hostile, dtype=torch.float64)
    warp = warp.to(warp_dtype)
    layouts = GRID_LAYOUTS if kind == "grid" else THETA_LAYOUTS
    if warp.numel():
        warp = layouts[draw(st.sampled_from(sorted(layouts)))](warp)
    mode = draw(st.sampled_from(modes(dims)))
    padding = draw(st.sampled_from((*PADDINGS, "wrap", MIXED[dims])))
    return Call(pixels, warp, kind, None if kind == "grid" else size, mode, padding, align)


@st.composite
def calls_of_tiles(draw):
    """A call of several tiles of points, most of them next to each other where they look, too.

    What suits the ways of the CPU kernels that look at a whole tile: windows, runs, patches,
    collecting pixels; and what only nearly does.
    """
    dims = draw(st.sampled_from((2, 2, 2, 3)))
    extents = st.integers(1, 80 if dims == 2 else 16)
    spatial, size = (tuple(draw(extents) for _ in range(dims)) for _ in range(2))
    batch, channels = draw(st.integers(1, 3)), draw(st.sampled_from((1, 2, 3, 4, 5, 8, 9, 16, 17)))
    if batch * channels * max(math.prod(spatial), math.prod(size)) > 60000:
        batch, channels = 1, min(channels, 4)
    dtype = draw(st.sampled_from((torch.float32, *DTYPES)))
    key, align = draw(st.integers(0, 2**32)), draw(st.booleans())
    pixels = image((batch, channels, *spatial), dtype, key)
    pixels = IMAGE_LAYOUTS[draw(st.sampled_from(("contiguous", *sorted(IMAGE_LAYOUTS))))](pixels)

    spread = draw(st.sampled_from((0.02, 0.1, 0.4)))
    scale = draw(st.sampled_from((1.0, 1.0, 0.1, 0.4, -1.0, 3.0)))
    kind = draw(st.sampled_from(("affine", "thin_plate_spline", *FREE)))
    if kind == "thin_plate_spline" and dims == 2:
        warp, size_given = splines(batch, dims, torch.float64, key, spread), size
    elif kind in WARPS:
        kind, size_given = "affine", size
        warp = scale * thetas(batch, dims, torch.float64, key, spread)
    else:
        size_given = None
        grid = scale * smooth_grid(batch, size, torch.float64, key, spread)
        grid = grid.flip(-1) if draw(st.booleans()) else grid  # columns of what it looks at
        pixel = 2 / torch.tensor(list(reversed(spatial)))
        rough = draw(st.sampled_from((0.0, 0.0, 0.4, 1.0, 4.0)))
        grid = grid + rough * pixel * scattered_grid(batch, size, torch.float64, key, reach=1.0)
        warp = free_values(kind, grid, spatial, align)
    usual = torch.promote_types(dtype, torch.float32)
    warp = warp.to(draw(st.sampled_from((usual, torch.float64))))
    mode = draw(st.sampled_from(("bilinear", *modes(dims))))
    padding = draw(st.sampled_from((*PADDINGS, "wrap", MIXED[dims])))
    return Call(pixels, warp, kind, size_given, mode, padding, align)


def bounded(call):
    """Whether the error bounds say anything: huge theta or folded coordinates are unbounded."""
    warp = call.warp.double().nan_to_num(nan=1.0, posinf=1e30, neginf=-1e30)
    return (
        not warp.numel()
        or warp.abs().max() < 1e4
        or (call.map == "grid" and call.padding_mode in ("zeros", "border"))
    )


@pytest.mark.quick
@settings(max_examples=400)
@given(calls())
def test_random_calls_equal_the_reference(call):
    if not bounded(call):
        return
    with Checks() as checks:
        check_call(checks, call)


@contextlib.contextmanager
def on_threads(count):
    """Like the fixture `threads`, of which hypothesis wants none for each example."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.quick
@settings(max_examples=200)
@given(calls_of_tiles(), st.sampled_from((1, 2)))
def test_random_calls_of_tiles_equal_the_reference(call, threads):
    # On an axis of one pixel a grid under align_corners looks at that one wherever it says; what
    # tells pixels does not. The reference goes by the grid.
    if call.align_corners and call.map in FREE[1:] and 1 in call.input.shape[2:]:
        return
    with on_threads(threads), Checks() as checks:
        check_call(checks, call)


@pytest.mark.quick
@settings(max_examples=100)
@given(calls_of_tiles())
def test_random_calls_of_tiles_do_not_depend_on_threads(call):
    cotangent = call.cotangent()
    with on_threads(1):
        alone = call.gradients(cotangent)
    with on_threads(3):
        several = call.gradients(cotangent)
    with Checks() as checks:
        for name, ours, cut in zip(NAMES, alone, several, strict=True):
            checks.same(cut, ours, f"{name} of {call}")


@pytest.mark.quick
@settings(max_examples=300)
@given(calls())
def test_random_calls_stay_finite_and_in_range(call):
    """Finite images give finite results whatever the warp, within the image's range."""
    output, grad_input, grad_warp = call.gradients(call.cotangent())
    assert output.shape == call.output_shape and output.dtype == call.input.dtype
    assert output.isfinite().all() and grad_input.isfinite().all()
    if output.numel():
        # linear interpolation is a mean; cubic convolution overshoots by up to 1.375 an axis
        reach = {"bicubic": 1.375**2}.get(call.mode, 1.0) * call.input.abs().max().double()
        assert output.abs().max().double() <= reach * (1 + 2.0**-7)
    if bounded(call) and call.warp.dtype != torch.float16:  # float16 overflows at 65504
        assert grad_warp.isfinite().all()
    assert not grad_warp.isnan().any() or not bounded(call)


@pytest.mark.quick
@settings(max_examples=100)
@given(calls())
def test_random_calls_are_repeatable(call):
    """The same call twice: the same bits, forward and backward."""
    first, second = (call.gradients(call.cotangent()) for _ in range(2))
    with Checks() as checks:
        for name, ours, again in zip(NAMES, first, second, strict=True):
            checks.same(ours, again, f"{name} of {call}")


@pytest.mark.quick
@settings(max_examples=100)
@given(calls())
def test_random_calls_are_linear_in_the_gradient(call):
    """Doubling the incoming gradient doubles both gradients: a power of two rounds nothing."""
    cotangent = call.cotangent()
    once, twice = call.gradients(cotangent), call.gradients(2 * cotangent)
    normal = call.input.dtype not in (torch.float16,) and call.warp.dtype not in (torch.float16,)
    if normal:  # float16's subnormals and overflow do not double
        with Checks() as checks:
            checks.same(twice[0], once[0], f"output of {call}")
            checks.same(twice[1], 2 * once[1], f"grad_input of {call}")
            if bounded(call):
                checks.same(twice[2], 2 * once[2], f"grad_warp of {call}")


def run_worker(*arguments, **environment):
    """Runs memory_worker.py, which ends abnormally when memory is touched that is not ours."""
    worker = Path(__file__).with_name("memory_worker.py")
    return subprocess.run(
        [sys.executable, str(worker), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "2", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="guard pages are set up for Linux only")
@pytest.mark.parametrize("side", ("end", "start"))
def test_nothing_is_read_outside(side):
    """Images, grids and gradients end (or start) at an unreadable page: reading on is a crash."""
    result = run_worker("pages", side)
    assert result.returncode == 0 and "calls" in result.stdout, (
        f"exit status {result.returncode} ({-result.returncode} is the signal)\n"
        f"last calls:\n{result.stdout[-1500:]}\n{result.stderr[-1500:]}"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="malloc's checks are glibc's")
def test_nothing_is_written_outside():
    """Under glibc's checking malloc a write past a result's end aborts when it is freed."""
    libraries = [
        Path(folder) / "libc_malloc_debug.so.0"
        for folder in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64")
    ]
    library = next((str(path) for path in libraries if path.exists()), None)
    if library is None:
        pytest.skip("glibc's libc_malloc_debug.so.0 is not installed")
    # The detector itself first: a write one byte past the end must be caught.
    broken = run_worker("canary", LD_PRELOAD=library, MALLOC_CHECK_="3")
    assert broken.returncode != 0, "the checking malloc does not notice a write past the end"
    result = run_worker("malloc", LD_PRELOAD=library, MALLOC_CHECK_="3")
    assert result.returncode == 0 and "calls" in result.stdout, (
        f"exit status {result.returncode} ({-result.returncode} is the signal)\n"
        f"last calls:\n{result.stdout[-1500:]}\n{result.stderr[-1500:]}"
    )
