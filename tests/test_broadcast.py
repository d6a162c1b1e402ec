"""A batch of 1 on either side serves the other's whole batch; its gradient is the sum."""

import pytest
import torch
from accuracy import Checks, check_call, forward_bound
from cases import (
    CONFIGURATIONS,
    IMAGE_LAYOUTS,
    Call,
    channels_last,
    configuration_id,
    image,
    scattered_grid,
    smooth_grid,
    thetas,
)

import stn_cuda


def broadcast_calls(dims, settings, dtype):
    spatial, size = ((7, 9), (6, 17)) if dims == 2 else ((4, 5, 6), (3, 2, 17))
    for images, warps in ((1, 3), (3, 1), (1, 1)):
        for channels in (1, 5, 16):
            pixels = image((images, channels, *spatial), dtype)
            for memory_format in (torch.contiguous_format, channels_last(pixels)):
                x = pixels.contiguous(memory_format=memory_format)
                yield Call(x, scattered_grid(warps, size, dtype), "grid", None, *settings)
                yield Call(x, thetas(warps, dims, dtype), "affine", size, *settings)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_against_the_reference(configuration, unwalked_device):
    dims, *settings = configuration
    with Checks() as checks:
        for dtype in (torch.float32, torch.float64):
            for call in broadcast_calls(dims, settings, dtype):
                check_call(checks, call.on(unwalked_device))


@pytest.mark.quick
def test_equal_to_the_expanded_call(device):
    """The output is that of the expanded operand, and the gradient is the sum of its gradient.

    Within rounding: an expanded batch may go another way through the kernels.
    """
    with Checks() as checks:
        for dims, *settings in CONFIGURATIONS[::2]:
            for call in broadcast_calls(dims, settings, torch.float32):
                call = call.on(device)
                batch = call.output_shape[0]
                x = call.input.expand(batch, *call.input.shape[1:])
                warp = call.warp.expand(batch, *call.warp.shape[1:])
                expanded = Call(x, warp, call.map, call.size, *settings)
                cotangent = call.cotangent().to(device)
                ours, theirs = call.gradients(cotangent), expanded.gradients(cotangent)
                wanted = theirs[0].double().cpu()
                checks.close(ours[0], wanted, 2 * forward_bound(call, wanted), f"output of {call}")
                for name, mine, other, of in zip(
                    ("input", "warp"), ours[1:], theirs[1:], (call.input, call.warp), strict=True
                ):
                    wanted = other.double().cpu()
                    wanted = wanted.sum(0, keepdim=True) if of.shape[0] == 1 else wanted
                    bound = 64 * 2.0**-24 * (wanted.abs().max() + 10)
                    checks.close(mine, wanted, bound, f"gradient of {name} of {call}")


@pytest.mark.quick
def test_low_precision():
    """Broadcast sums of many float16 gradients are taken in float32 and rounded once."""
    with Checks() as checks:
        for dtype in (torch.float16, torch.bfloat16):
            for name in ("contiguous", "channels_last"):
                x = IMAGE_LAYOUTS[name](image((1, 3, 8, 9), dtype))
                check_call(checks, Call(x, smooth_grid(40, (10, 11), dtype)))
                check_call(checks, Call(x, thetas(40, 2, dtype), "affine", (10, 11)))
                many = IMAGE_LAYOUTS[name](image((40, 3, 8, 9), dtype))
                check_call(checks, Call(many, smooth_grid(1, (10, 11), dtype)))
                check_call(checks, Call(many, thetas(1, 2, dtype), "affine", (10, 11)))


@pytest.mark.quick
def test_nothing_is_copied():
    """No operand of the whole batch is made: the memory that a call takes is its result's."""
    x = image((1, 4, 64, 64))
    grid = smooth_grid(50, (8, 8))
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        stn_cuda.sample(x, grid)
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in profile.events())
    result = 50 * 4 * 8 * 8 * 4
    assert allocated <= 2 * result, f"{allocated} bytes for a result of {result}"
