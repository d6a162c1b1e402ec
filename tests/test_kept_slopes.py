"""Images of one channel, seen through a free map whose values want a gradient: sample looks at the
image once, and keeps what its gradient is to be multiplied by. (Other maps:
test_kept_slopes_summed.py.)"""

import pytest
import torch
from cases import generator, image, scattered_grid, smooth_grid
from machine import paths_of
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import stn_cuda

pytestmark = pytest.mark.quick

OPTIONS = [
    (dims, {"mode": mode, "padding_mode": padding, "align_corners": align})
    for dims, mode in ((2, "bilinear"), (3, "bilinear"), (2, "bicubic"))
    for padding in ("zeros", "border", "reflection", "wrap")
    for align in (False, True)
]
SIZES = {2: ((20, 37), (9, 45)), 3: ((6, 7, 19), (4, 5, 21))}


def grids(dims, dtype=torch.float32, warps=2):
    """Of neighbouring points that look at neighbouring pixels, and anywhere."""
    size = SIZES[dims][1]
    return [smooth_grid(warps, size, dtype), scattered_grid(warps, size, dtype)]


def warps_of(grid, pixels):
    """Every free map, of values that are moved by little from where the grid's points look."""
    shape = grid.movedim(-1, 1).shape
    flat = 3 * torch.randn(shape, generator=generator("flow")).to(grid.dtype)
    yield "grid", grid, lambda values, **how: stn_cuda.sample(pixels, values, **how)
    pixel = (grid + 1) * 8
    yield (
        "pixels",
        pixel,
        lambda values, **how: stn_cuda.sample(pixels, values, coords="pixel", **how),
    )
    yield (
        "planes",
        grid.movedim(-1, 1).contiguous().movedim(1, -1),
        (lambda values, **how: stn_cuda.sample(pixels, values, **how)),
    )
    for normalized in (False, True):
        moved = flat / 16 if normalized else flat
        yield (
            f"flow, normalized={normalized}",
            moved,
            lambda values, n=normalized, **how: stn_cuda.sample(
                pixels, stn_cuda.Flow(values, normalized=n), **how
            ),
        )


def kept(call):
    result, ways = paths_of(call)
    return result, "grad_kept" in ways


@pytest.mark.parametrize(("dims", "options"), OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_as_without(dims, options, dtype):
    """Values to the bit, gradients but for the rounding of a product."""
    eps = torch.finfo(dtype).eps
    for batch in (1, 2):
        pixels = image((batch, 1, *SIZES[dims][0]), dtype)
        for grid in grids(dims, dtype):
            for name, values, call in warps_of(grid, pixels):
                leaf = values.detach().requires_grad_()
                output, was_kept = kept(lambda: call(leaf, **options))  # noqa: B023
                assert was_kept, name
                assert torch.equal(output.detach(), call(values, **options)), name
                cotangent = torch.randn(output.shape, generator=generator(name)).to(dtype)
                (ours,) = torch.autograd.grad(output, leaf, cotangent, retain_graph=True)
                (usual,) = torch.autograd.grad(output, leaf, cotangent, create_graph=True)
                assert ours.stride() == usual.stride(), name
                # A value's slope is a sum over taps whose terms, for pixels of about 1, are below
                # the greatest slope there is, that of the two pixels farthest apart.
                most = (pixels.max() - pixels.min()) * cotangent.abs().max()
                scale = 1 if "False" in name or name == "pixels" else max(SIZES[dims][0])
                bound = 32 * eps * most * scale
                torch.testing.assert_close(ours, usual, rtol=4 * eps, atol=bound.item(), msg=name)
                assert usual.abs().max() > 1000 * bound, name


def image_and_leaf(channels=1, dtype=torch.float32):
    pixels = image((1, channels, *SIZES[2][0]), dtype)
    return pixels, grids(2, dtype)[0].requires_grad_()


def of_dual(pixels, grid):
    with forward_ad.dual_level():
        return stn_cuda.sample(pixels, forward_ad.make_dual(grid, torch.ones_like(grid)))


@pytest.mark.parametrize(
    "change",
    (
        "no warp's gradient",
        "two channels",
        "half a grid",
        "nearest",
        "a constant image",
        "images of one grid",
        "a dual number",
        "func.grad",
        "no gradient",
    ),
)
def test_only_where_it_gains(change):
    """What has more to say than one channel's slopes, and what nobody differentiates."""
    pixels, grid = image_and_leaf(2 if change == "two channels" else 1)
    calls = {
        "no warp's gradient": lambda: stn_cuda.sample(pixels.requires_grad_(), grid.detach()),
        "two channels": lambda: stn_cuda.sample(pixels, grid),
        "half a grid": lambda: stn_cuda.sample(pixels, grid.half().detach().requires_grad_()),
        "nearest": lambda: stn_cuda.sample(pixels, grid, mode="nearest"),
        "a constant image": lambda: stn_cuda.sample(
            torch.ones(1, 1, 1, 1).expand(1, 1, 9, 9), grid
        ),
        "images of one grid": lambda: stn_cuda.sample(pixels.repeat(3, 1, 1, 1), grid[:1]),
        "a dual number": lambda: of_dual(pixels, grid),
        "func.grad": lambda: torch.func.grad(lambda values: stn_cuda.sample(pixels, values).sum())(
            grid.detach()
        ),
        "no gradient": lambda: stn_cuda.sample(pixels, grid.detach()),
    }
    assert kept(lambda: stn_cuda.sample(image((1, 1, *SIZES[2][0])), grid))[1]
    assert not kept(calls[change])[1]


def test_both_gradients():
    """The image's comes as usual."""
    pixels, grid = image_and_leaf()
    pixels.requires_grad_()
    output, was_kept = kept(lambda: stn_cuda.sample(pixels, grid))
    assert was_kept
    cotangent = torch.randn(output.shape, generator=generator("both"))
    for leaves in ((pixels, grid), (pixels,), (grid,)):
        ours = torch.autograd.grad(output, leaves, cotangent, retain_graph=True)
        usual = torch.autograd.grad(output, leaves, cotangent, create_graph=True)
        for one, other in zip(ours, usual, strict=True):
            if one.shape == pixels.shape:
                assert torch.equal(one, other)
            else:
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3)
    output.sum().backward()
    assert pixels.grad.isfinite().all()
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(output, pixels, cotangent)


def test_tracing_sees_the_op():
    """A graph has sample in it, and none of what is done to keep slopes."""
    pixels, grid = image_and_leaf()
    traced = make_fx(
        lambda values: torch.autograd.grad(stn_cuda.sample(pixels, values).sum(), values)
    )(grid)
    names = {str(node.target) for node in traced.graph.nodes}
    assert "stn_cuda.sample_grad_warp.default" in names


def test_vmap():
    """It makes one call of all, which is kept."""
    pixels, grid = image_and_leaf()
    mapped = torch.vmap(lambda one: stn_cuda.sample(pixels, one[None])[0])
    output, was_kept = kept(lambda: mapped(grid))
    assert was_kept
    expected = stn_cuda.sample(pixels, grid)
    assert torch.equal(output, expected)
    ours, usual = (torch.autograd.grad(of.sum(), grid)[0] for of in (output, expected))
    assert torch.equal(ours, usual)


def test_again_differentiated():
    pixels, grid = image_and_leaf(dtype=torch.float64)
    assert kept(lambda: stn_cuda.sample(pixels, grid))[1]
    inner = grid.detach() * 0.7 + 0.013
    assert torch.autograd.gradgradcheck(
        lambda values: stn_cuda.sample(pixels, values), inner[:1, :2, :5].requires_grad_()
    )


def test_hooks_see_what_is_kept():
    """Offloading, and checkpoints that drop what was saved."""
    pixels, grid = image_and_leaf()
    (usual,) = torch.autograd.grad(stn_cuda.sample(pixels, grid).sum(), grid)
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: packed.append(tensor.detach().clone()) or len(packed) - 1,
        lambda k: packed[k],
    ):
        output = stn_cuda.sample(pixels, grid)
    assert len(packed) == 3  # the image, the grid, the slopes
    for _ in range(2):  # what a hook has is its own
        (ours,) = torch.autograd.grad(output.sum(), grid, retain_graph=True)
        assert torch.equal(ours, usual)
    (ours,) = torch.autograd.grad(output.sum(), grid)
    assert torch.equal(ours, usual)
    again = torch.utils.checkpoint.checkpoint(
        lambda values: stn_cuda.sample(pixels, values), grid, use_reentrant=False
    )
    (ours,) = torch.autograd.grad(again.sum(), grid)
    assert torch.equal(ours, usual)


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_pixels_that_are_not_finite(value):
    pixels = image((1, 1, 33, 40))
    pixels[..., 7, 9] = pixels[..., 20:22, :] = value
    grid = torch.cat(grids(2))
    grid[0, 0, 3] = float("nan")
    leaf = grid.requires_grad_()
    output = stn_cuda.sample(pixels, leaf)
    # But for what stands beside a NaN in a vector, which is computed tap by tap.
    torch.testing.assert_close(
        output.detach(), stn_cuda.sample(pixels, grid.detach()), equal_nan=True
    )
    cotangent = torch.ones_like(output)
    (ours,) = torch.autograd.grad(output, leaf, cotangent, retain_graph=True)
    (usual,) = torch.autograd.grad(output, leaf, cotangent, create_graph=True)
    torch.testing.assert_close(ours, usual, equal_nan=True)
    assert not usual.isfinite().all()
    assert usual.isfinite().any()


@pytest.mark.parametrize("dims", (2, 3))
def test_threads(dims, threads):
    """More points than a thread alone is given."""
    size = (300, 300) if dims == 2 else (40, 50, 50)
    pixels = image((1, 1, *(s // 2 for s in size)))
    grid = smooth_grid(1, size).requires_grad_()
    results = []
    for count in (1, 2):
        threads(count)
        output = stn_cuda.sample(pixels, grid)
        cotangent = torch.randn(output.shape, generator=generator("threads"))
        results.append((output, *torch.autograd.grad(output, grid, cotangent)))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
