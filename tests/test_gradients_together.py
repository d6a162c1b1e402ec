"""Both gradients of one call, which share what they read: the same, to the bit, as one by one."""

import pytest
import torch
from accuracy import Checks, grad_input_bound, grad_warp_bound
from cases import (
    GRID_LAYOUTS,
    IMAGE_LAYOUTS,
    Call,
    image,
    scattered_grid,
    smooth_grid,
    splines,
    thetas,
)
from machine import paths_of

IN_TURNS = "gradients_in_turns"


def calls():
    """(call, number of threads, whether each image's two gradients come one after the other)."""
    size = (40, 50)
    for threads in (1, 2):
        for channels in (2, 5, 64):
            pixels, warp = image((4, channels, 41, 52)), thetas(4, 2, spread=0.2)
            yield Call(pixels, warp, "affine", size), threads, True
            yield Call(pixels, warp, "affine", size, padding_mode="border"), threads, True
            yield Call(pixels, smooth_grid(4, size, spread=0.1), "grid", None), threads, True
            last = IMAGE_LAYOUTS["channels_last"](pixels)
            yield Call(last, warp, "affine", size), threads, True
        pixels = image((4, 3, 41, 52))
        planar = GRID_LAYOUTS["planar"](scattered_grid(4, size))
        yield Call(pixels, planar, "grid", None), threads, True
        yield Call(pixels, warp, "affine", size, "bicubic"), threads, True
        yield Call(pixels.double(), warp.double(), "affine", size), threads, True
        yield Call(pixels.half(), warp, "affine", size), threads, True
        yield Call(pixels.bfloat16(), smooth_grid(4, size).bfloat16(), "grid", None), threads, True
        volume = image((2, 3, 8, 9, 10))  # of which so few points see too little to weave it
        yield Call(volume, thetas(2, 3), "affine", (3, 4, 12)), threads, True
        # Many small images at a time.
        yield Call(image((64, 2, 9, 10)), thetas(64, 2), "affine", (8, 8)), threads, True
    # One image, or one warp, for all of them; basis functions that all warps share.
    yield Call(image((1, 3, 41, 52)), thetas(3, 2), "affine", size), 1, False
    yield Call(image((3, 3, 41, 52)), thetas(1, 2), "affine", size), 1, False
    yield Call(image((1, 3, 41, 52)), thetas(1, 2), "affine", size), 1, False
    shared = splines(1, 2).repeat(3, 1, 1)
    yield Call(image((3, 3, 41, 52)), shared, "thin_plate_spline", size), 1, False
    yield Call(image((3, 3, 41, 52)), splines(3, 2), "thin_plate_spline", size), 1, True
    # Fewer images than threads, or more but not a multiple.
    yield Call(image((3, 8, 70, 70)), thetas(3, 2), "affine", (70, 70)), 2, False
    yield Call(image((2, 3, 20, 20)), thetas(2, 2), "affine", (9, 9), "nearest"), 1, False


CALLS = list(calls())


def both(call, cotangent):
    leaves = [t.detach().requires_grad_() for t in (call.input, call.warp)]
    output = call.run(*leaves)
    return paths_of(lambda: torch.autograd.grad(output, leaves, cotangent))


def one_by_one(call, cotangent):
    grads = []
    for name in ("input", "warp"):
        leaf = getattr(call, name).detach().requires_grad_()
        grads += torch.autograd.grad(call.run(**{name: leaf}), leaf, cotangent)
    return grads


@pytest.mark.quick
@pytest.mark.parametrize("of", range(len(CALLS)))
def test_as_one_by_one(of, threads):
    call, number, in_turns = CALLS[of]
    threads(number)
    cotangent = call.cotangent()
    together, ways = both(call, cotangent)
    assert (IN_TURNS in ways) == in_turns, f"{sorted(ways)} of {call}"
    with Checks() as checks:
        for ours, alone in zip(together, one_by_one(call, cotangent), strict=True):
            checks.same(ours, alone, call)
            checks.true(ours.stride() == alone.stride(), f"{ours.stride()} of {call}")


@pytest.mark.quick
def test_what_flows_back_in_any_layout():
    """Expanded, as of a sum; permuted, as of another layout."""
    call = CALLS[0][0]
    cotangent = call.cotangent()
    with Checks() as checks:
        for laid in (
            torch.ones(()).expand_as(cotangent),
            cotangent.contiguous(memory_format=torch.channels_last),
            cotangent.flip(-1),
            cotangent.repeat_interleave(2, 2)[:, :, ::2],
        ):
            _, expected, expected_warp = call.expect_gradients(laid)
            of_input, of_warp = both(call, laid)[0]
            label = f"strides {laid.stride()}"
            bound = grad_input_bound(call, laid, expected)
            checks.close(of_input, expected, bound, label)
            bound = grad_warp_bound(call, laid, expected_warp)
            checks.close(of_warp, expected_warp, bound, label)


@pytest.mark.quick
def test_derivatives_of_both():
    """Where they are themselves to be differentiated, they are as they were."""
    call = CALLS[0][0]
    cotangent = call.cotangent().requires_grad_()
    leaves = [t.detach().requires_grad_() for t in (call.input, call.warp)]
    grads = torch.autograd.grad(call.run(*leaves), leaves, cotangent, create_graph=True)
    with Checks() as checks:
        for ours, alone in zip(grads, one_by_one(call, cotangent.detach()), strict=True):
            checks.same(ours.detach(), alone, call)
    assert all(grad.grad_fn is not None for grad in grads)
    second = torch.autograd.grad(sum((g * g).sum() for g in grads), [*leaves, cotangent])
    assert all(grad.abs().sum() > 0 for grad in second)


@pytest.mark.quick
def test_no_images():
    for shape, size in (((0, 3, 5, 6), (4, 5)), ((2, 0, 5, 6), (4, 5)), ((2, 3, 5, 6), (0, 5))):
        call = Call(image(shape), thetas(shape[0], 2), "affine", size)
        leaves = [t.detach().requires_grad_() for t in (call.input, call.warp)]
        output = call.run(*leaves)
        grads = torch.autograd.grad(output, leaves, torch.ones_like(output))
        for grad, leaf in zip(grads, leaves, strict=True):
            assert torch.equal(grad, torch.zeros_like(leaf))
