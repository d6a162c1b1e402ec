"""fill and return_mask: what lies around an image, and how much of a look lies inside."""

import itertools
from dataclasses import replace

import pytest
import torch
from accuracy import UNIT_ROUNDOFF, forward_bound, smooth_points
from cases import DTYPES, IMAGE_LAYOUTS, MIXED, Call, image, modes, scattered_grid, thetas
from torch.func import grad, hessian, jvp, vmap

from stn_cuda import Affine, Flow, reference, sample

F64 = torch.float64
ZEROS = {2: ("zeros", ("border", "zeros"), ("zeros", "wrap")), 3: ("zeros", MIXED[3])}


def calls(dims, dtype=F64, mode="bilinear", padding="zeros"):
    """Of several kinds of maps, partly outside, batches of 1 on either side."""
    wide = F64 if dtype == F64 else torch.float32
    shape, size = ((2, 3, 7, 9), (6, 19)) if dims == 2 else ((2, 3, 4, 5, 6), (3, 4, 17))
    x = image(shape, dtype)
    yield Call(x, scattered_grid(2, size, wide), "grid", None, mode, padding)
    yield Call(x, thetas(2, dims, wide, spread=1.0), "affine", size, mode, padding)
    yield Call(x, thetas(1, dims, wide, spread=1.0), "affine", size, mode, padding, True)
    yield Call(x[:1], 3 * scattered_grid(2, size, wide), "flow", None, mode, padding)


def run(call, x=None, w=None, **keywords):
    x, w = call.input if x is None else x, call.warp if w is None else w
    return sample(x, *call.arguments(w), **call.keywords, **keywords)


def pixels(call):
    sizes = reference.sizes_of(call.input)
    return reference.pixel_coordinates(call.grid64(), sizes, call.align_corners)


def weights_inside(call, mode, padding):
    """(N, 1, *out) float64: the sum of the weights inside, of an image of ones; its bound."""
    ones = torch.ones(1, 1, *call.input.shape[2:], dtype=call.input.dtype)
    call = replace(call, input=ones, mode=mode, padding_mode=padding)
    weights = call.expect()
    return weights, forward_bound(call, weights)


def well_inside(call):
    """(N, 1, *out): so far inside that all taps are, whatever is rounded."""
    last = torch.tensor(reference.sizes_of(call.input)) - 1
    x = pixels(call)
    return ((x > 1.001) & (x < last - 1.001)).all(-1).unsqueeze(1)


def sure(call):
    """(N, 1, *out): where rounding does not choose another nearest pixel."""
    if call.mode != "nearest":
        return torch.tensor(True)
    return smooth_points(call, 8).unsqueeze(1)


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fill(dims, dtype, device):
    """y = S + (1 - M) fill, and S itself, bit for bit, where all taps are inside."""
    seen = 0
    for mode, padding in itertools.product(modes(dims), ZEROS[dims]):
        for call in calls(dims, dtype, mode, padding):
            weights, bound = weights_inside(call, mode, padding)
            inside, certain = well_inside(call).to(device), sure(call)
            on = call.on(device)
            plain = run(on)
            for fill in (0.75, torch.tensor([-1.5, 0.25, 2.0]).to(device, dtype)):
                y = run(on, fill=fill)
                assert y.dtype == dtype and y.stride() == plain.stride()
                values = torch.as_tensor(fill, dtype=F64).cpu().expand(3).reshape(1, 3, *[1] * dims)
                wanted = plain.cpu().double() + (1 - weights) * values
                close = bound * values.abs() + 2 * UNIT_ROUNDOFF[dtype] * (wanted.abs() + 2)
                off = (y.cpu().double() - wanted).abs()
                assert ((off <= close) | ~certain).all(), str(call)
                same = inside.expand_as(y)
                assert torch.equal(y[same], plain[same])
                seen += int(same.sum())
    assert seen > 100


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mask(dims, dtype, device):
    """The bilinear footprint's part inside, whatever the padding; exactly 1 where that is all."""
    for mode in modes(dims):
        for padding in ("zeros", "border", "reflection", "wrap", MIXED[dims]):
            for call in calls(dims, dtype, mode, padding):
                footprint = "nearest" if mode == "nearest" else "bilinear"
                wanted, bound = weights_inside(call, footprint, "zeros")
                inside, certain = well_inside(call), sure(call)
                on = call.on(device)
                y, mask = run(on, return_mask=True)
                assert torch.equal(y, run(on)) and mask.dtype == dtype
                assert mask.shape == (y.shape[0], 1, *y.shape[2:])
                mask = mask.cpu()
                off = (mask.double() - wanted).abs()
                assert ((off <= bound) | ~certain).all(), str(call)
                assert mask.min() >= 0 and mask.max() <= 1
                assert (mask[inside.expand_as(mask)] == 1).all()


@pytest.mark.quick
def test_identity(device):
    """The whole image is inside, its outermost pixels too."""
    for dims, size in ((2, (9, 33)), (3, (4, 5, 17))):
        x = image((2, 3, *size)).to(device)
        for mode in modes(dims):
            warp = Affine(torch.eye(dims, dims + 1, device=device)[None])
            y, mask = sample(x, warp, mode=mode, fill=7.0, return_mask=True)
            assert (mask == 1).all()
            if mode != "bicubic":  # which looks beyond them, with weights of 0
                assert torch.equal(y, x)
            torch.testing.assert_close(y, x)


@pytest.mark.quick
def test_outside(device):
    """Far away there is nothing but the fill, NaN and infinities included."""
    x = image((1, 2, 5, 6)).to(device)
    far = torch.full((1, 3, 4, 2), 9.0, device=device)
    for fill in (3.0, float("nan"), -torch.inf, torch.tensor([1.0, float("nan")])):
        fill = fill.to(device) if isinstance(fill, torch.Tensor) else fill
        y, mask = sample(x, far, fill=fill, return_mask=True)
        wanted = torch.as_tensor(fill, device=device).expand(2).view(1, 2, 1, 1).expand_as(y)
        torch.testing.assert_close(y, wanted, rtol=0, atol=0, equal_nan=True)
        assert (mask == 0).all()
    near = sample(x, Affine(torch.eye(2, 3, device=device)[None]), fill=float("nan"))
    assert torch.equal(near, x)


@pytest.mark.quick
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_layouts(layout, device):
    """Large enough for every loop; what is in memory beside an image does not matter."""
    for shape, size in (((2, 5, 40, 50), (37, 61)), ((2, 3, 6, 9, 20), (5, 8, 33))):
        x = IMAGE_LAYOUTS[layout](image(shape)).to(device)
        theta = thetas(2, len(size), spread=0.5).to(device)
        fill = torch.arange(1.0, 1 + shape[1], device=device)
        y, mask = sample(x, Affine(theta), size, fill=fill, return_mask=True)
        plain = sample(x, Affine(theta), size)
        wanted = plain + (1 - mask) * fill.view(1, -1, *[1] * len(size))
        torch.testing.assert_close(y, wanted, rtol=1e-6, atol=1e-6)
        assert torch.equal(torch.where(mask == 1, y, 0), torch.where(mask == 1, plain, 0))


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_gradcheck(dims, device):
    """First and second derivatives and forward mode, by image, warp and fill, in float64."""
    for mode, padding in itertools.product(("bilinear", "bicubic")[: 4 - dims], ZEROS[dims]):
        shape, size = ((1, 2, 4, 5), (3, 2)) if dims == 2 else ((1, 2, 3, 4, 3), (2, 1, 3))
        for kind in ("grid", "affine"):
            if kind == "grid":
                warp = scattered_grid(1, size, F64)
            else:
                warp = thetas(1, dims, F64, spread=0.7)
            call = Call(image(shape, F64), warp, kind, size, mode, padding)
            keep = smooth_points(call, 1e9).unsqueeze(1).to(device)
            call = call.on(device)
            fill = torch.tensor([0.5, -1.5], dtype=F64, device=device, requires_grad=True)

            def filled(x, w, f, call=call, keep=keep):
                y, mask = run(call, x, w, fill=f, return_mask=True)
                return y * keep, mask * keep

            leaves = (call.input.requires_grad_(), call.warp.requires_grad_(), fill)
            torch.autograd.gradcheck(filled, leaves, check_forward_ad=True, fast_mode=dims == 3)
            torch.autograd.gradgradcheck(filled, leaves, fast_mode=True)


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients(dtype, device):
    """Those of the definition, computed in float64 from the same operands."""
    for dims in (2, 3):
        for call in calls(dims, dtype, "bilinear", ZEROS[dims][-1]):
            keep = smooth_points(call, 8).unsqueeze(1)
            g = call.cotangent() * keep
            fill = torch.tensor([0.5, -1.5, 2.0], dtype=dtype)
            x, w, f = (t.detach().double().requires_grad_() for t in (call.input, call.warp, fill))
            around = 1 - reference.sample(
                torch.ones_like(x[:1, :1]), call.grid64(w), **call.settings
            )
            y = call.expect(input=x, warp=w) + around * f.view(1, 3, *[1] * dims)
            wanted = torch.autograd.grad(y, (x, w, f), g.double())
            leaves = [t.detach().to(device).requires_grad_() for t in (call.input, call.warp, fill)]
            y = run(call, *leaves[:2], fill=leaves[2])
            actual = torch.autograd.grad(y, leaves, g.to(device))
            for ours, of, expected in zip(actual, leaves, wanted, strict=True):
                assert ours.dtype == of.dtype and ours.shape == of.shape
                close = 8 * UNIT_ROUNDOFF[of.dtype] + (2e-4 if dtype != F64 else 1e-12)
                scale = 1 + expected.abs().max()
                assert (ours.cpu().double() - expected).abs().max() <= close * scale, str(call)


@pytest.mark.quick
def test_transforms():
    """vmap by every operand, forward mode, hessians, compiled: what calls one by one say."""
    x, theta = image((3, 2, 6, 7), F64), thetas(3, 2, F64, spread=0.8)
    fills = image((3, 2), F64, key="fills")

    def both(x, theta, fill):
        y, mask = sample(x[None], Affine(theta[None]), (5, 8), fill=fill, return_mask=True)
        return torch.cat((y, mask), 1)[0]

    for mapped in itertools.product((0, None), repeat=3):
        if mapped == (None, None, None):
            continue
        operands = [t if m == 0 else t[0] for t, m in zip((x, theta, fills), mapped, strict=True)]
        each = [
            both(*(t[k] if m == 0 else t for t, m in zip(operands, mapped, strict=True)))
            for k in range(3)
        ]
        assert torch.equal(vmap(both, mapped)(*operands), torch.stack(each)), mapped

    def loss(theta, fill):
        return both(x[0], theta, fill).square().sum()

    per_sample = vmap(grad(loss, (0, 1)), (0, 0))(theta, fills)
    for k in range(3):
        one = grad(loss, (0, 1))(theta[k], fills[k])
        torch.testing.assert_close([g[k] for g in per_sample], list(one))
    direction = image(theta[0].shape, F64, key="direction")
    _, moved = jvp(lambda t: loss(t, fills[0]), (theta[0],), (direction,))
    torch.testing.assert_close(moved, (grad(loss)(theta[0], fills[0]) * direction).sum())
    curved = hessian(lambda t: loss(t, fills[0]))(theta[0])
    reverse = torch.func.jacrev(torch.func.jacrev(lambda t: loss(t, fills[0])))(theta[0])
    torch.testing.assert_close(curved, reverse)
    whole = torch.compile(both, fullgraph=True, backend="aot_eager")
    leaf = theta[0].clone().requires_grad_()
    (g,) = torch.autograd.grad(whole(x[0], leaf, fills[0]).square().sum(), leaf)
    torch.testing.assert_close(g, grad(loss)(theta[0], fills[0]))
    assert torch.equal(whole(x[0], theta[0], fills[0]), both(x[0], theta[0], fills[0]))


@pytest.mark.quick
def test_threads(threads):
    """The same bits for one and two."""
    x, theta = image((2, 3, 150, 170)), thetas(2, 2, spread=0.6)
    results = []
    for count in (1, 2):
        threads(count)
        results.append(sample(x, Affine(theta), fill=0.5, return_mask=True))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.quick
def test_constant_images(device):
    """One element in memory, expanded: what the same image is when it is written out."""
    for dims, size in ((2, (20, 40)), (3, (6, 8, 20))):
        for dtype, mode in itertools.product(DTYPES, modes(dims)):
            wide = F64 if dtype == F64 else torch.float32
            theta = thetas(2, dims, wide, spread=0.8).to(device)
            one = image((2, 3, *[1] * dims), dtype).to(device)
            for padding in ("zeros", "border", "wrap", MIXED[dims]):
                constant = one.expand(2, 3, *size)
                settings = dict(mode=mode, padding_mode=padding)
                y = sample(constant, Affine(theta), **settings)
                written = sample(constant.contiguous(), Affine(theta), **settings)
                torch.testing.assert_close(y, written, rtol=0, atol=40 * UNIT_ROUNDOFF[dtype])
    hole = torch.full((1, 1, 1, 1), float("nan"), device=device).expand(1, 1, 4, 5)
    beyond = torch.full((1, 2, 2, 2), 5.0, device=device)
    assert (sample(hole, beyond) == 0).all()


@pytest.mark.quick
def test_of_a_shared_warp(device):
    """One warp of many images: one mask, expanded."""
    x = image((4, 2, 6, 7)).to(device)
    _, mask = sample(x, Affine(thetas(1, 2).to(device)), return_mask=True)
    assert mask.shape == (4, 1, 6, 7) and mask.stride(0) == 0
    _, mask = sample(x[:1], Flow(torch.zeros(4, 2, 6, 7, device=device)), return_mask=True)
    assert mask.shape == (4, 1, 6, 7) and (mask == 1).all()
    assert sample(x[:0], Affine(thetas(1, 2).to(device)), fill=1.0).shape == (0, 2, 6, 7)


@pytest.mark.quick
@pytest.mark.parametrize("dtype", (*DTYPES, torch.uint8), ids=str)
def test_is_written_beside_the_output(dtype, device):
    """The mask that the forward's kernel writes, however points and channels are taken together,
    is what is seen of an image of ones, and the output what it is without, bit for bit."""
    wide = F64 if dtype == F64 else torch.float32
    for shape, size, warps in (
        ((3, 1, 28, 28), (28, 28), 3),
        ((2, 3, 40, 70), (33, 70), 1),
        ((1, 5, 20, 13), (24, 41), 2),
        ((1, 3, 300, 500), (30, 70), 1),
        ((2, 2, 5, 6, 20), (4, 5, 19), 2),
        ((2, 0, 5, 6), (7, 8), 2),
    ):
        dims = len(size)
        real = wide if dtype == torch.uint8 else dtype
        x = image(shape, torch.float32).abs().mul(50).to(dtype).to(device)
        ones = torch.ones((1,) * (dims + 2), dtype=real, device=device)
        ones = ones.expand(1, 1, *shape[2:])  # one element in memory: no pixels are read
        moved = thetas(warps, dims, wide, spread=0.7).to(device)
        inside = moved.clone().mul_(0.5)
        grid = scattered_grid(warps, size, wide).to(device)
        for warp, out in ((Affine(moved), size), (Affine(inside), size), (grid, None)):
            for mode in modes(dims):
                by = "nearest" if mode == "nearest" else "bilinear"
                expected = sample(ones, warp, out, mode=by)
                for padding in ("zeros", "border", MIXED[dims]):
                    for laid in (x, IMAGE_LAYOUTS["channels_last"](x)):
                        settings = dict(mode=mode, padding_mode=padding)
                        y, mask = sample(laid, warp, out, **settings, return_mask=True)
                        assert mask.dtype == real
                        assert torch.equal(mask, expected.expand_as(mask))
                        assert torch.equal(y, sample(laid, warp, out, **settings))


X, GRID = image((2, 3, 5, 6)), scattered_grid(2, (5, 6))
REFUSED = {
    "padding": (
        dict(fill=1.0, padding_mode="border"),
        ValueError,
        "padding_mode 'zeros' along one",
    ),
    "paddings": (dict(fill=1.0, padding_mode=("wrap", "border")), ValueError, "got 'wrap,border'"),
    "unknown": (dict(fill=1.0, padding_mode="fog"), ValueError, "padding_mode must be 'zeros'"),
    "entries": (dict(fill=torch.ones(2)), ValueError, r"fill must be a number .* 3 channels, got"),
    "shape": (dict(fill=torch.ones(2, 3)), ValueError, r"fill must be a number .*\(2, 3\)"),
    "kind": (dict(fill="red"), TypeError, "fill must be a number or a Tensor, got str"),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    keywords, error, message = REFUSED[name]
    with pytest.raises(error, match="^sample(_filled)?: .*" + message):
        sample(X, GRID, **keywords)
    with pytest.raises(ValueError, match="fill must be"):
        torch.ops.stn_cuda.sample_filled(
            X, GRID, torch.ones(3, 3), "grid", [], "bilinear", "zeros", False
        )
