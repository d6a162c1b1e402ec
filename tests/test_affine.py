"""The fused affine warp and `affine_grid`: against the written-out grid, torch, and the exact."""

import math

import pytest
import reference
import torch
import torch.nn.functional as F
from accuracy import UNIT_ROUNDOFF, Checks, check_call
from cases import (
    CONFIGURATIONS,
    DTYPES,
    IMAGE_LAYOUTS,
    PADDINGS,
    THETA_LAYOUTS,
    Call,
    channels_last,
    configuration_id,
    generator,
    image,
    modes,
    shapes,
    thetas,
    torch_sample,
)

import stn_cuda

SINGLE_POINT = "ignore:Since version 1.3.0, affine_grid behavior"


@pytest.mark.quick
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_fused_shapes_and_dtypes(configuration, device):
    """Forward and the gradients of input and theta over every shape, against the float64 grid."""
    dims, *settings = configuration
    with Checks() as checks:
        for shape, size in shapes(dims):
            for dtype in (torch.float32, torch.float64):
                for spread in (0.4, 1.5):
                    theta = thetas(shape[0], dims, dtype, spread=spread)
                    call = Call(image(shape, dtype), theta, "affine", size, *settings)
                    check_call(checks, call.on(device), torch_sample)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_fused_layouts(configuration, unwalked_device):
    dims, *settings = configuration
    shape, size = ((2, 5, 7, 9), (6, 17)) if dims == 2 else ((2, 3, 4, 5, 6), (3, 2, 17))
    with Checks() as checks:
        for number, (image_name, image_layout) in enumerate(IMAGE_LAYOUTS.items()):
            for theta_name, theta_layout in THETA_LAYOUTS.items():
                dtype = (torch.float32, torch.float64)[number % 2]
                call = Call(
                    image_layout(image(shape, dtype).to(unwalked_device)),
                    theta_layout(thetas(shape[0], dims, dtype).to(unwalked_device)),
                    "affine",
                    size,
                    *settings,
                    label=f"[{image_name}, {theta_name}]",
                )
                check_call(checks, call, torch_sample)


@pytest.mark.parametrize("configuration", CONFIGURATIONS[::3], ids=configuration_id)
def test_fused_large_enough_for_several_threads(configuration):
    dims, *settings = configuration
    shape, size = ((1, 3, 91, 103), (97, 111)) if dims == 2 else ((1, 2, 17, 23, 30), (19, 25, 27))
    with Checks() as checks:
        for name in ("contiguous", "channels_last"):
            pixels = IMAGE_LAYOUTS[name](image(shape))
            theta = thetas(1, dims, spread=0.6)
            call = Call(pixels, theta, "affine", size, *settings, label=f"[{name}]")
            check_call(checks, call, torch_sample)


def special_thetas(dims):
    """Maps on which an inverse, a bounding box or an interior span could trip."""
    eye = torch.eye(dims, dims + 1)
    zero = torch.zeros(dims, dims + 1)
    flat = eye.clone()
    flat[0, 0] = 0  # singular: a line
    twin = eye.clone()
    twin[1] = twin[0]  # singular: rows alike
    shifted = eye.clone()
    shifted[:, -1] = 5.0  # sees nothing
    half = eye.clone()
    half[:, -1] = 1.0  # sees a corner
    point = zero.clone()
    point[:, -1] = 0.123  # every output the same place
    tiny = eye * 1e-6  # all but singular
    tiny[:, -1] = 0.2
    swap = eye.clone()
    swap[[0, 1]] = swap[[1, 0]]
    return {
        "flat": flat,
        "twin rows": twin,
        "outside": shifted,
        "corner": half,
        "one point": point,
        "tiny": tiny,
        "magnified 20x": eye * 0.05 + 0.01,
        "shrunk 9x": eye * 9 + 0.013,
        "shrunk 300x": eye * 300 + 0.013,
        "mirrored": -eye + 0.017,
        "axes swapped": swap + 0.011,
    }


@pytest.mark.parametrize("dims", (2, 3))
def test_special_matrices(dims, device):
    """Singular, far outside, much magnified or shrunk: forward and gradients."""
    shape, size = ((1, 3, 21, 34), (25, 37)) if dims == 2 else ((1, 2, 6, 7, 8), (5, 9, 10))
    with Checks() as checks:
        for name, theta in special_thetas(dims).items():
            for mode in modes(dims):
                for padding in PADDINGS:
                    for align in (False, True):
                        call = Call(
                            image(shape),
                            theta.unsqueeze(0),
                            "affine",
                            size,
                            mode,
                            padding,
                            align,
                            label=f"[{name}]",
                        )
                        check_call(checks, call.on(device), torch_sample)


@pytest.mark.quick
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_fused_equals_written_out_grid(configuration, device):
    """sample(x, Affine(theta), size) and sample(x, Affine(theta).grid(size)), float64: rounding.

    The grid's own rounding moves a coordinate by a few ulp; in float64, with images of size 8,
    1e-11 is far above all of it and far below any other difference.
    """
    dims, mode, padding, align = configuration
    shape, size = ((2, 3, 8, 7), (6, 9)) if dims == 2 else ((2, 3, 5, 8, 7), (4, 6, 5))
    pixels = image(shape, torch.float64).to(device).requires_grad_()
    theta = thetas(2, dims, torch.float64).to(device).requires_grad_()
    warp = stn_cuda.Affine(theta)
    settings = dict(mode=mode, padding_mode=padding, align_corners=align)
    results = []
    for output in (
        stn_cuda.sample(pixels, warp, size, **settings),
        stn_cuda.sample(pixels, warp.grid(size, align), **settings),
    ):
        cotangent = torch.randn(output.shape, generator=generator(0), dtype=torch.float64)
        grads = torch.autograd.grad(
            output, (pixels, theta), cotangent.to(device), retain_graph=True
        )
        results.append((output, *grads))
    for fused, written in zip(*results, strict=True):
        torch.testing.assert_close(fused, written, rtol=1e-11, atol=1e-11)


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
def test_identity_is_exact(align, device):
    """The identity warp of the same size returns the image, bit for bit (torch's does not)."""
    sizes = [(1, 1), (1, 5), (2, 2), (3, 7), (28, 28), (31, 33), (100, 57), (181, 182), (255, 511)]
    sizes += [(512, 512), (3, 1023), (5, 1999), (2, 2048), (2, 4097), (4, 5, 6), (9, 11, 13)]
    with Checks() as checks:
        for size in sizes:
            dims = len(size)
            theta = torch.eye(dims, dims + 1, device=device).unsqueeze(0)
            for dtype in DTYPES:
                pixels = image((1, 2, *size), dtype).to(device)
                for memory_format in (torch.contiguous_format, channels_last(pixels)):
                    x = pixels.contiguous(memory_format=memory_format)
                    for mode in modes(dims):
                        for padding in PADDINGS if math.prod(size) < 10000 else ("zeros",):
                            y = stn_cuda.sample(
                                x,
                                stn_cuda.Affine(theta),
                                mode=mode,
                                padding_mode=padding,
                                align_corners=align,
                            )
                            checks.same(y, x, f"{size} {dtype} {mode} {padding} {memory_format}")


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
def test_identity_gradient_is_exact(align):
    """Bilinear: the identity's gradient to the input is the incoming gradient itself."""
    with Checks() as checks:
        for size in [(3, 7), (28, 28), (57, 101), (4, 5, 7)]:
            dims = len(size)
            x = image((2, 3, *size)).requires_grad_()
            g = image((2, 3, *size), key="gradient")
            warp = stn_cuda.Affine(torch.eye(dims, dims + 1).unsqueeze(0))
            y = stn_cuda.sample(x, warp, align_corners=align)
            checks.same(torch.autograd.grad(y, x, g)[0], g, f"{size}")


@pytest.mark.quick
@pytest.mark.parametrize("mode", modes(2))
@pytest.mark.parametrize("align", (False, True))
def test_quarter_turns_and_mirrors(mode, align):
    """theta of zeros and ones moves pixels without interpolating: exact."""
    x = image((1, 3, 37, 37))
    quarter = torch.tensor([[0.0, 1, 0], [-1, 0, 0]])
    turns = {
        "90": (quarter, x.rot90(-1, (2, 3))),
        "180": (torch.tensor([[-1.0, 0, 0], [0, -1, 0]]), x.rot90(2, (2, 3))),
        "270": (-quarter, x.rot90(1, (2, 3))),
        "left-right": (torch.tensor([[-1.0, 0, 0], [0, 1, 0]]), x.flip(3)),
        "up-down": (torch.tensor([[1.0, 0, 0], [0, -1, 0]]), x.flip(2)),
    }
    with Checks() as checks:
        for name, (theta, expected) in turns.items():
            warp = stn_cuda.Affine(theta.unsqueeze(0))
            y = stn_cuda.sample(x, warp, mode=mode, align_corners=align)
            checks.same(y, expected.contiguous(), name)
        # cos(90 degrees) in float32 is 6e-17, not 0: exact within that times the size.
        angle = math.pi / 2
        theta = torch.tensor(
            [[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0]]
        )
        y = stn_cuda.sample(x, stn_cuda.Affine(theta.unsqueeze(0)), mode=mode, align_corners=align)
        bound = 4 * 37 * 2.0**-24 * x.abs().max()
        checks.close(y, turns["90"][1].double(), bound, "cosine and sine")


def integer_shift(size, shift, align):
    """theta (1, 2, 3) that moves an image of `size` by whole pixels (x, y)."""
    theta = torch.eye(2, 3, dtype=torch.float64)
    for axis, (length, pixels) in enumerate(zip(reversed(size), shift, strict=True)):
        theta[axis, 2] = 2 * pixels / (length - 1 if align else length)
    return theta.unsqueeze(0)


@pytest.mark.quick
def test_whole_pixel_shifts():
    """A shift by whole pixels moves the image; zeros come in, the border or the mirror image."""
    size = (32, 64)  # powers of two: the shift is exact without align_corners
    x = image((1, 2, *size))
    with Checks() as checks:
        for dx, dy in ((1, 0), (-3, 5), (63, 31), (64, 0), (-64, -32), (200, 0)):
            theta = integer_shift(size, (dx, dy), align=False).float()
            columns = torch.arange(64) + dx
            rows = torch.arange(32) + dy
            seen = ((columns >= 0) & (columns < 64)) & ((rows >= 0) & (rows < 32)).unsqueeze(1)
            clamped = x[:, :, rows.clamp(0, 31)][:, :, :, columns.clamp(0, 63)]
            folded_rows = torch.minimum(rows.remainder(64), 63 - rows.remainder(64))
            folded_columns = torch.minimum(columns.remainder(128), 127 - columns.remainder(128))
            mirrored = x[:, :, folded_rows][:, :, :, folded_columns]
            expected = {"zeros": clamped * seen, "border": clamped, "reflection": mirrored}
            for mode in ("bilinear", "nearest"):
                for padding, wanted in expected.items():
                    y = stn_cuda.sample(x, stn_cuda.Affine(theta), mode=mode, padding_mode=padding)
                    checks.same(y, wanted, f"shift {dx, dy} {mode} {padding}")


@pytest.mark.parametrize("dims", (2, 3))
def test_thetas_that_are_not_finite(dims, device):
    """NaN, infinite and huge theta: finite results, and the rest of the batch is unharmed."""
    shape, size = ((4, 3, 9, 11), (7, 33)) if dims == 2 else ((4, 2, 4, 5, 6), (3, 4, 17))
    with Checks() as checks:
        for value in (float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3e38):
            for row in range(dims):
                for column in range(dims + 1):
                    theta = thetas(4, dims)
                    theta[1, row, column] = value
                    for mode in modes(dims):
                        for padding in PADDINGS:
                            call = Call(
                                image(shape), theta, "affine", size, mode, padding, False
                            ).on(device)
                            out, grad_input, _ = call.gradients(torch.ones_like(call.run()))
                            what = f"theta[1, {row}, {column}] = {value}, {mode}, {padding}"
                            limit = image(shape).abs().max() * 1.375**dims
                            checks.true(bool((out.abs() <= limit).all()), f"output, {what}")
                            checks.true(bool(grad_input.isfinite().all()), f"gradient, {what}")
                            others = [0, 2, 3]
                            clean = Call(call.input[others], call.warp[others], *_rest(call)).run()
                            checks.same(out[others].cpu(), clean.cpu(), f"others, {what}")


def _rest(call):
    return call.map, call.size, call.mode, call.padding_mode, call.align_corners


@pytest.mark.quick
def test_nan_theta_reads_minus_one():
    """A coordinate that comes out NaN is read as -1; it has no gradient."""
    x = image((1, 1, 8, 8))
    theta = torch.eye(2, 3).unsqueeze(0)
    theta[0, 0, 2] = float("nan")  # every x coordinate is NaN
    for align in (False, True):
        call = Call(x, theta, "affine", (5, 6), "bilinear", "zeros", align)
        out, _, grad_theta = call.gradients(torch.ones(1, 1, 5, 6))
        rows = reference.base_coordinates((5, 6), align)[..., 1]
        grid = torch.stack([-torch.ones(5, 6).double(), rows], -1).unsqueeze(0)
        expected = torch_sample(x.double(), grid, "bilinear", "zeros", align)
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
        assert (grad_theta[0, 0] == 0).all()


@pytest.mark.quick
@pytest.mark.filterwarnings(SINGLE_POINT)
def test_single_output_points():
    """Wo = 1 with align_corners=True lies at 0, not at -1 and not NaN."""
    with Checks() as checks:
        for dims, sizes in ((2, [(1, 1), (1, 6), (6, 1)]), (3, [(1, 1, 1), (1, 4, 5), (4, 5, 1)])):
            for size in sizes:
                for mode in modes(dims):
                    shape = (2, 3, *range(5, 5 + dims))
                    call = Call(image(shape), thetas(2, dims), "affine", size, mode, "zeros", True)
                    check_call(checks, call, torch_sample)


@pytest.mark.quick
@pytest.mark.filterwarnings(SINGLE_POINT)
def test_affine_grid_equals_torch(device):
    """Forward and gradient of affine_grid and Affine.grid in every dtype, against float64.

    A coordinate is a sum of dims + 1 terms, each with 3 roundings: 16 u sum(|theta|), and the
    rounding to theta's dtype. The gradient's sum over the points as in accuracy.grad_warp_bound.
    """
    sizes = [(4, 7), (1, 5), (1, 1), (33, 70), (300, 3), (3, 4, 5), (1, 2, 1), (7, 17, 16)]
    with Checks() as checks:
        for size in sizes:
            dims, points = len(size), math.prod(size)
            for dtype in DTYPES:
                u = UNIT_ROUNDOFF[torch.float64 if dtype == torch.float64 else torch.float32]
                for align in (False, True):
                    for name, layout in THETA_LAYOUTS.items():
                        theta = layout(thetas(3, dims, dtype, spread=1.0)).to(device)
                        theta = theta.detach().requires_grad_()
                        exact = theta.detach().cpu().double().requires_grad_()
                        wanted = F.affine_grid(exact, (3, 1, *size), align_corners=align)
                        g = torch.randn(wanted.shape, generator=generator(size)).to(dtype)
                        (wanted_grad,) = torch.autograd.grad(wanted, exact, g.double())
                        terms = exact.detach().abs().sum(-1).reshape(3, *[1] * dims, dims)
                        bound = 16 * u * terms + UNIT_ROUNDOFF[dtype] * wanted.detach().abs()
                        sums = g.double().abs().flatten(1, -2).sum(1).unsqueeze(-1)
                        grad_bound = (32 + 4 * math.sqrt(points)) * u * sums
                        grad_bound = grad_bound + UNIT_ROUNDOFF[dtype] * wanted_grad.abs()
                        for grid in (
                            stn_cuda.affine_grid(theta, (3, 1, *size), align_corners=align),
                            stn_cuda.Affine(theta).grid(size, align_corners=align),
                        ):
                            what = f"{size} {dtype} align {align} theta {name}"
                            checks.true(grid.dtype == dtype, f"dtype, {what}")
                            checks.close(grid, wanted.detach(), bound, f"grid, {what}")
                            (grad,) = torch.autograd.grad(grid, theta, g.to(device))
                            checks.true(grad.dtype == dtype, f"gradient's dtype, {what}")
                            checks.close(grad, wanted_grad, grad_bound, f"gradient, {what}")


@pytest.mark.quick
def test_size():
    """size: the input's when left out; as list, tuple or torch.Size; empty outputs."""
    x = image((2, 3, 5, 6))
    warp = stn_cuda.Affine(thetas(2, 2))
    assert stn_cuda.sample(x, warp).shape == (2, 3, 5, 6)
    wanted = stn_cuda.sample(x, warp, (7, 4))
    for size in ([7, 4], torch.Size((7, 4)), torch.empty(7, 4).shape):
        assert torch.equal(stn_cuda.sample(x, warp, size), wanted)
    assert stn_cuda.sample(x, warp, (0, 4)).shape == (2, 3, 0, 4)
    assert warp.theta.shape == (2, 2, 3)
    assert isinstance(warp, stn_cuda.Warp)
