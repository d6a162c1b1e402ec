"""Images of one channel, seen through a parametric map or a chain that wants a gradient: sample
keeps each value's slopes, and going back they are summed, without another look at the image."""

import pytest
import torch
from cases import PADDINGS, generator, homographies, image, thetas
from chains import compose, tensors_of
from machine import machine, paths_of
from ways import BASELINE, turn

import stn_cuda
from stn_cuda import Affine, Projective, ThinPlateSpline

pytestmark = pytest.mark.quick

# An output whose rows hold too few points for full vectors, one of several tiles, one of volumes.
SIZES = {
    "narrow": ((20, 37), (9, 20)),
    "wide": ((30, 40), (40, 150)),
    "volume": ((6, 7, 19), (4, 5, 21)),
}


def splines(batch, dims, dtype):
    points = ThinPlateSpline.control_grid((3, 3), dtype=dtype)
    return points + 0.1 * torch.randn((batch, 9, 2), generator=generator("splines", batch)).to(
        dtype
    )


WARPS = {
    "affine": (Affine, lambda batch, dims, dtype: thetas(batch, dims, dtype, 0, 0.2)),
    "projective": (Projective, lambda batch, dims, dtype: homographies(batch, dims, dtype, 0, 0.1)),
    "spline": (ThinPlateSpline, splines),
}
SHAPES = [(kind, name) for kind in WARPS for name in SIZES if (kind, name) != ("spline", "volume")]


def ways_of(call):
    result, ways = paths_of(call)
    return result, {"grad_kept", "slopes_summed"} & set(ways)


def differentiated(output, leaves, cotangent):
    """Gradients that are to be differentiated themselves come without slopes."""
    return torch.autograd.grad(output, leaves, cotangent, create_graph=True, retain_graph=True)


def hooked(call, leaves, cotangent):
    """So do those of chains under hooks."""
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        output = call(*leaves)
    return torch.autograd.grad(output, leaves, cotangent)


def check(pixels, leaves, call, cotangent, chain=False):
    """As without: values to the bit, gradients but for the rounding of products and of sums."""
    output, ways = ways_of(lambda: call(*leaves))
    assert ways == {"grad_kept"}
    assert torch.equal(output.detach(), call(*(leaf.detach() for leaf in leaves)))
    ours, ways = ways_of(lambda: torch.autograd.grad(output, leaves, cotangent, retain_graph=True))
    assert ways == {"slopes_summed"}
    again = torch.autograd.grad(output, leaves, cotangent, retain_graph=True)
    usual, ways = ways_of(
        lambda: (
            hooked(call, leaves, cotangent) if chain else differentiated(output, leaves, cotangent)
        )
    )
    assert not ways
    last = torch.autograd.grad(output, leaves, cotangent)
    # A point's part of a sum is at most the greatest slope, of a pixel to its neighbour, times what
    # a normalised unit is worth and a factor that maps multiply by, below 4; and of what a pixel of
    # a field gets, from a few points.
    eps = torch.finfo(output.dtype).eps
    most = (pixels.max() - pixels.min()) * max(pixels.shape[2:])
    for k, (one, other, two, three) in enumerate(zip(ours, usual, again, last, strict=True)):
        assert torch.equal(one, two), k
        assert torch.equal(one, three), k
        field = other.dim() == pixels.dim()
        parts = 4 * cotangent.abs().max() if field else cotangent.abs().sum()
        bound = (16 * eps * most * parts).item()
        torch.testing.assert_close(one, other, rtol=16 * eps, atol=bound, msg=str(k))
        assert other.detach().abs().max() > 100 * bound, k


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_as_without(kind, shape, dtype):
    in_size, size = SIZES[shape]
    modes = ("bilinear",) if shape == "volume" else ("bilinear", "bicubic")
    make, parameters = WARPS[kind]
    leaf = parameters(2, len(size), dtype).requires_grad_()
    for batch in (1, 2):
        pixels = image((batch, 1, *in_size), dtype)
        cotangent = torch.randn((2, 1, *size), generator=generator(shape)).to(dtype)
        for mode in modes:
            for padding in PADDINGS:
                for align in (False, True):
                    how = {"mode": mode, "padding_mode": padding, "align_corners": align}
                    check(
                        pixels,
                        [leaf],
                        lambda warp: stn_cuda.sample(pixels, make(warp), size, **how),  # noqa: B023
                        cotangent,
                    )


# A lower-case flow is of another size than the output (chains.py).
CHAINS = {2: ("AF", "FA", "PFA", "NA", "Pf", "f"), 3: ("AF", "fP")}


@pytest.mark.parametrize(
    ("dims", "chain"), [(dims, chain) for dims, chains in CHAINS.items() for chain in chains]
)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_chains(dims, chain, dtype):
    in_size, size = SIZES["wide" if dims == 2 else "volume"]
    leaves = [t.requires_grad_() for t in tensors_of(chain, size, dtype=dtype)]
    for batch in (1, 2):
        pixels = image((batch, 1, *in_size), dtype)
        cotangent = torch.randn((2, 1, *size), generator=generator(chain)).to(dtype)
        for mode in ("bilinear", "bicubic") if dims == 2 else ("bilinear",):
            for padding in PADDINGS:
                how = {"mode": mode, "padding_mode": padding, "align_corners": padding == "border"}
                check(
                    pixels,
                    leaves,
                    lambda *parts: stn_cuda.sample(pixels, compose(chain, parts), size, **how),  # noqa: B023
                    cotangent,
                    chain=True,
                )


def leaf_and_image(channels=1, batch=1):
    theta = thetas(batch, 2, spread=0.2).requires_grad_()
    return theta, image((1, channels, 20, 37))


def test_only_what_stays_in_a_cache():
    theta, pixels = leaf_and_image()
    most = (512, 512)  # 2 MiB
    for size, kept in ((most, True), ((512, 513), False)):
        _, ways = ways_of(lambda: stn_cuda.sample(pixels, Affine(theta), size))  # noqa: B023
        assert ("grad_kept" in ways) == kept
    # A free map's gradient is as large as its slopes.
    flow = torch.zeros(1, 2, 600, 600).requires_grad_()
    chain = stn_cuda.Compose(Affine(theta), stn_cuda.Flow(flow))
    _, ways = ways_of(lambda: stn_cuda.sample(pixels, chain, (600, 600)))
    assert "grad_kept" in ways


@pytest.mark.parametrize("mode", ("bilinear", "bicubic"))
@pytest.mark.parametrize("padding", PADDINGS)
def test_in_blocks(padding, mode):
    """Maps that turn, whose vectors hold blocks of points (csrc/cpu/blocks.h)."""
    leaf = torch.cat([turn(70), turn(-40)]).requires_grad_()
    pixels, size = image((2, 1, 80, 90)), (67, 71)
    cotangent = torch.randn((2, 1, *size), generator=generator("blocks"))

    def call(theta):
        return stn_cuda.sample(pixels, Affine(theta), size, mode=mode, padding_mode=padding)

    check(pixels, [leaf], call, cotangent)
    assert ("in_blocks" in paths_of(lambda: call(leaf))[1]) == (machine() not in BASELINE)


@pytest.mark.parametrize("size", ((0, 0), (0, 9), (9, 0)))
@pytest.mark.parametrize("kind", WARPS)
def test_of_no_points(kind, size):
    make, parameters = WARPS[kind]
    leaf, pixels = parameters(2, 2, torch.float32).requires_grad_(), image((2, 1, 1, 1))
    output = stn_cuda.sample(pixels, make(leaf), size)
    (gradient,) = torch.autograd.grad(output, leaf, torch.empty_like(output))
    assert torch.equal(gradient, torch.zeros_like(leaf))


CHANGES = ("two channels", "nearest", "images of one theta", "no gradient")


@pytest.mark.parametrize(
    ("kind", "change"),
    # (A chain's parts are widened.)
    [("affine", "half a theta")]
    + [(kind, change) for kind in ("affine", "chain") for change in CHANGES],
)
def test_only_where_it_gains(kind, change):
    theta, pixels = leaf_and_image(2 if change == "two channels" else 1)
    flow = torch.zeros(1, 2, 9, 10)
    if change == "half a theta":
        theta = theta.half().detach().requires_grad_()
    if change == "images of one theta":
        pixels = pixels.repeat(3, 1, 1, 1)
    warp = Affine(theta)
    if kind == "chain":
        warp = stn_cuda.Compose(warp, stn_cuda.Flow(flow))
    mode = "nearest" if change == "nearest" else "bilinear"

    def call():
        with torch.set_grad_enabled(change != "no gradient"):
            return stn_cuda.sample(pixels, warp, (9, 10), mode=mode)

    assert not ways_of(call)[1]


def test_threads(threads):
    """More points than a thread alone is given."""
    theta, pixels = leaf_and_image(batch=5)
    flow = torch.randn(1, 2, 140, 150, generator=generator("threads")).requires_grad_()
    for warp in (Affine(theta), stn_cuda.Compose(Affine(theta), stn_cuda.Flow(flow))):
        results = []
        for count in (1, 2):
            threads(count)
            output = stn_cuda.sample(pixels, warp, (140, 150))
            cotangent = torch.randn(output.shape, generator=generator("threads"))
            results.append((output, *torch.autograd.grad(output, theta, cotangent)))
        for one, two in zip(*results, strict=True):
            assert torch.equal(one, two)


def chain_of_leaves():
    theta, pixels = leaf_and_image()
    flow = torch.randn(1, 2, 9, 10, generator=generator("flow")).requires_grad_()
    warp = stn_cuda.Compose(Affine(theta), stn_cuda.Flow(flow))
    return flow, lambda: stn_cuda.sample(pixels, warp, (9, 10))


def test_a_chain_under_hooks():
    """What offloading and checkpoints may want to have is not kept behind their backs."""
    flow, call = chain_of_leaves()
    (usual,) = torch.autograd.grad(call().sum(), flow)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        output, ways = ways_of(call)
    assert not ways
    (ours,) = torch.autograd.grad(output.sum(), flow)
    torch.testing.assert_close(ours, usual)
    again = torch.utils.checkpoint.checkpoint(call, use_reentrant=False)
    (ours,) = torch.autograd.grad(again.sum(), flow)
    torch.testing.assert_close(ours, usual)


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_pixels_that_are_not_finite(value):
    theta, pixels = leaf_and_image()
    pixels[..., 7, 9] = value
    output = stn_cuda.sample(pixels, Affine(theta), (40, 50))
    torch.testing.assert_close(
        output.detach(), stn_cuda.sample(pixels, Affine(theta.detach()), (40, 50)), equal_nan=True
    )
    cotangent = torch.ones_like(output)
    (ours,) = torch.autograd.grad(output, theta, cotangent, retain_graph=True)
    (usual,) = torch.autograd.grad(output, theta, cotangent, create_graph=True)
    torch.testing.assert_close(ours, usual, equal_nan=True)
    assert not usual.isfinite().all()
