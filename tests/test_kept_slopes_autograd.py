"""What autograd may ask of a call that has kept slopes, whatever the map."""

import pytest
import torch
from cases import generator, image, smooth_grid, thetas
from machine import paths_of
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import stn_cuda

pytestmark = pytest.mark.quick

KINDS = ("grid", "affine", "chain", "chain's field")
SIZE = (9, 45)


def problem(kind):
    """(image, leaf, call(image)): the leaf is what the call's warp is made of."""
    theta = thetas(1, 2, spread=0.2)
    flow = torch.randn(1, 2, *SIZE, generator=generator("flow"))
    leaf = {"grid": smooth_grid(1, SIZE), "affine": theta, "chain": theta, "chain's field": flow}[
        kind
    ].requires_grad_()
    warp = leaf if kind == "grid" else stn_cuda.Affine(theta)
    if "chain" in kind:
        warp = stn_cuda.Compose(warp, stn_cuda.Flow(flow))
    size = None if kind == "grid" else SIZE
    return image((1, 1, 20, 37)), leaf, lambda pixels: stn_cuda.sample(pixels, warp, size)


def sampled(kind):
    """(output, leaf), of a call that has kept slopes."""
    pixels, leaf, call = problem(kind)
    output, ways = paths_of(lambda: call(pixels))
    assert "grad_kept" in ways
    return output, leaf


def cotangents(output, *count):
    return torch.randn(*count, *output.shape, generator=generator("back", *count))


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_that_is_kept(kind):
    """Slopes become a gradient only where nobody comes for them again."""
    output, leaf = sampled(kind)
    cotangent = cotangents(output)
    (first,) = torch.autograd.grad(output, leaf, cotangent, retain_graph=True)
    before = first.clone()
    (second,) = torch.autograd.grad(output, leaf, 2 * cotangent, retain_graph=True)
    assert torch.equal(first, before)
    assert torch.equal(second, 2 * before)
    (last,) = torch.autograd.grad(output, leaf, cotangent)
    assert torch.equal(last, before)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(output, leaf, cotangent)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_batches(kind):
    """As torch.autograd.functional.jacobian(vectorize=True) has them."""
    output, leaf = sampled(kind)
    several = cotangents(output, 3)
    (together,) = torch.autograd.grad(
        output, leaf, several, is_grads_batched=True, retain_graph=True
    )
    for k, cotangent in enumerate(several):
        (alone,) = torch.autograd.grad(output, leaf, cotangent, retain_graph=True)
        torch.testing.assert_close(together[k], alone, rtol=1e-5, atol=1e-3)
        assert alone.abs().max() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_a_dual_number(kind):
    """Linear in what flows back: its derivative is the gradient of that one's."""
    output, leaf = sampled(kind)
    cotangent, tangent = cotangents(output, 2)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(cotangent, tangent)
        (gradient,) = torch.autograd.grad(output, leaf, dual, retain_graph=True)
        moved = forward_ad.unpack_dual(gradient).tangent
    (expected,) = torch.autograd.grad(output, leaf, tangent)
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mode_sees_the_way_back(kind):
    """One that answers for operators, such as a counter of what they do."""
    output, leaf = sampled(kind)
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Watch():
        torch.autograd.grad(output, leaf, torch.ones_like(output))
    assert "stn_cuda.sample_grad_warp.default" in seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
def test_half_an_image(kind, dtype):
    """Values are rounded, slopes are not."""
    pixels, leaf, call = problem(kind)
    narrow = pixels.to(dtype)
    output, ways = paths_of(lambda: call(narrow))
    assert "grad_kept" in ways
    assert output.dtype == dtype
    with torch.no_grad():
        assert torch.equal(output, call(narrow))
    (ours,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    wide = call(narrow.float())
    (expected,) = torch.autograd.grad(wide, leaf, torch.ones_like(wide))
    # The same slopes but for their rounding, and that of sums over points; in the unit of a
    # normalised coordinate, of a value's difference between neighbours.
    eps = torch.finfo(torch.float32).eps
    points = 1 if leaf.dim() == output.dim() else output.numel()
    bound = 16 * eps * (pixels.max() - pixels.min()).item() * max(pixels.shape) * points
    torch.testing.assert_close(ours, expected, rtol=16 * eps, atol=bound)
    assert expected.abs().max() > 100 * bound


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_any_layout(kind):
    output, leaf = sampled(kind)
    plain = cotangents(output)
    (expected,) = torch.autograd.grad(output, leaf, plain, retain_graph=True)
    turned = plain.movedim(-1, 0).contiguous().movedim(0, -1)
    (ours,) = torch.autograd.grad(output, leaf, turned, retain_graph=True)
    assert torch.equal(ours, expected)
    (ones,) = torch.autograd.grad(output, leaf, torch.ones_like(output), retain_graph=True)
    (same,) = torch.autograd.grad(output.sum(), leaf)
    assert torch.equal(ones, same)
