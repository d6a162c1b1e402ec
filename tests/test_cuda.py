"""CUDA against the CPU, and what only CUDA has: streams, graphs, deterministic algorithms.

The tests with a `device` parameter elsewhere run on CUDA as well where there is one.
"""

import pytest
import torch
from accuracy import Checks, check_call
from cases import (
    CONFIGURATIONS,
    DTYPES,
    GRID_LAYOUTS,
    IMAGE_LAYOUTS,
    Call,
    image,
    sample_inputs,
    scattered_grid,
    shapes,
    smooth_grid,
    thetas,
)
from conftest import cuda_problem

import stn_cuda

if cuda_problem():
    pytest.skip(cuda_problem(), allow_module_level=True)

pytestmark = pytest.mark.cuda


def test_shapes_dtypes_and_layouts():
    """The matrix of the CPU's tests in one: against the float64 reference within the bounds."""
    with Checks() as checks:
        for dims, *settings in CONFIGURATIONS:
            for number, (shape, size) in enumerate(shapes(dims)):
                for dtype in DTYPES:
                    image_layout = list(IMAGE_LAYOUTS.values())[number % len(IMAGE_LAYOUTS)]
                    grid_layout = list(GRID_LAYOUTS.values())[number % len(GRID_LAYOUTS)]
                    pixels = image_layout(image(shape, dtype).cuda())
                    grid = grid_layout(scattered_grid(shape[0], size, dtype).cuda())
                    check_call(checks, Call(pixels, grid, "grid", None, *settings))
                    theta = thetas(shape[0], dims, torch.float32).cuda()
                    check_call(checks, Call(pixels, theta, "affine", size, *settings))


def test_cpu_and_cuda_agree():
    """The same call on both: within twice the error bounds, and NaN and infinity alike."""
    hostile = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1.0, -1.0])
    with Checks() as checks:
        for call in sample_inputs(torch.float32):
            if call.map == "grid":
                call.warp.view(-1)[:7] = hostile
            ours = call.on("cuda").gradients(call.cotangent().cuda())
            theirs = call.gradients(call.cotangent())
            for mine, wanted in zip(ours, theirs, strict=True):
                finite = wanted.double().nan_to_num(0, 0, 0)
                bound = 1e-4 * (1 + finite.abs().max())
                if call.mode != "nearest":  # ties of nearest may fall to either side
                    checks.close(mine, wanted.double(), bound, str(call))
            checks.true(all(bool(t.isfinite().all()) for t in ours), str(call))


def big_calls():
    for shape, size in (((2, 3, 300, 310), (290, 305)), ((1, 33, 64, 65), (70, 71))):
        for name in ("contiguous", "channels_last"):
            pixels = IMAGE_LAYOUTS[name](image(shape).cuda())
            yield Call(pixels, smooth_grid(shape[0], size).cuda())
            yield Call(pixels, thetas(shape[0], 2).cuda(), "affine", size)
            yield Call(pixels, thetas(1, 2).cuda() * 5, "affine", size)
    yield Call(image((1, 2, 30, 31, 32)).cuda(), thetas(1, 3).cuda(), "affine", (30, 31, 33))


def test_deterministic_algorithms():
    """Bitwise repeatable backward under torch.use_deterministic_algorithms(True)."""
    torch.use_deterministic_algorithms(True)
    try:
        with Checks() as checks:
            for call in big_calls():
                cotangent = call.cotangent().cuda()
                first = call.gradients(cotangent)
                for _ in range(5):
                    for mine, wanted in zip(call.gradients(cotangent), first, strict=True):
                        checks.same(mine, wanted, str(call))
    finally:
        torch.use_deterministic_algorithms(False)


def test_side_stream():
    """Work goes to the current stream: without waiting for the default one, and in its order."""
    call = next(big_calls())
    expected = call.run()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x = torch.zeros_like(call.input)
        torch.cuda._sleep(20_000_000)
        x.copy_(call.input)
        actual = call.run(x)
    stream.synchronize()
    assert torch.equal(actual, expected)


def test_cuda_graph():
    """A call is captured in a CUDA graph, forward and backward: it does not wait for the device."""
    for call in list(big_calls())[:2]:
        x, warp = call.input.clone().requires_grad_(), call.warp.clone().requires_grad_()
        cotangent = call.cotangent().cuda()

        def step(call=call, x=x, warp=warp, cotangent=cotangent):
            return torch.autograd.grad(call.run(x, warp), (x, warp), cotangent)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            expected = step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        graph.replay()
        torch.cuda.synchronize()
        for mine, wanted in zip(captured, expected, strict=True):
            scale = wanted.abs().max().item()
            torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4 * scale)


def test_devices_must_agree():
    x, grid = image((1, 2, 4, 5)), scattered_grid(1, (3, 3))
    for a, b in ((x.cuda(), grid), (x, grid.cuda())):
        with pytest.raises(RuntimeError, match="same device"):
            stn_cuda.sample(a, b)
    with pytest.raises(RuntimeError, match="same device"):
        stn_cuda.sample(x.cuda(), stn_cuda.Affine(thetas(1, 2)))


@pytest.mark.large_memory
def test_beyond_32_bit_indices():
    """More than 2^31 elements on the device: the far end, forward and backward."""
    free, _ = torch.cuda.mem_get_info()
    if free < 12 * 2**30:
        pytest.skip(f"needs 12 GiB of device memory, {free / 2**30:.1f} GiB free")
    x = torch.zeros(3, 700, 1024, 1000, dtype=torch.float16, device="cuda")
    x[-1, -1, -1, -1] = 4.0
    x.requires_grad_()
    grid = torch.ones(3, 1, 1, 2, device="cuda")
    y = stn_cuda.sample(x, grid, align_corners=True)
    assert y[-1, -1, 0, 0].item() == 4.0
    cotangent = torch.zeros_like(y)
    cotangent[-1, -1] = 3.0
    (grad,) = torch.autograd.grad(y, x, cotangent)
    assert grad[-1, -1, -1, -1].item() == 3.0 and grad.count_nonzero().item() == 1
