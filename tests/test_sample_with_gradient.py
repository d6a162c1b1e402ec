"""stn_cuda.sample_with_gradient: sample's values, and their derivatives by the looks' positions."""

import itertools
import math

import pytest
import torch
from accuracy import (
    ROUNDINGS,
    S0,
    S1,
    S2,
    Checks,
    _magnitude,
    _stored,
    coordinate_error,
    forward_bound,
    pixels_of,
    smooth_points,
    weight_roundoff,
)
from cases import (
    ALL_CONFIGURATIONS,
    DTYPES,
    GRID_LAYOUTS,
    IMAGE_LAYOUTS,
    PADDINGS,
    Call,
    channels_last,
    configuration_id,
    image,
    modes,
    poisoned_memory,
    sample_inputs,
    scattered_grid,
    shapes,
    smooth_grid,
    thetas,
)
from path_cases import path_cases
from test_gradients import away_from_kinks

import stn_cuda
from stn_cuda import reference

F64 = torch.float64


def with_gradient(call, x=None, warp=None):
    x = call.input if x is None else x
    warp = call.warp if warp is None else warp
    size = call.size if call.map == "affine" else None
    warp = stn_cuda.Affine(warp) if call.map == "affine" else warp
    with poisoned_memory(x.device):
        return stn_cuda.sample_with_gradient(x, warp, size, **call.keywords)


def expect_with_gradient(call):
    """The reference's values, and (N, C, dims, *out) their derivatives by pixel coordinates."""
    x = call.input.detach().cpu().double()
    batch, channels, *size = call.output_shape
    # Each channel as an image of its own, whose values are all that its points have.
    images = x.expand(batch, *x.shape[1:]).flatten(0, 1).unsqueeze(1)
    pixels = pixels_of(call).expand(batch, *size, call.dims).repeat_interleave(channels, 0)
    at = pixels.detach().requires_grad_()
    values = reference.sample(images, at, coords="pixel", **call.settings)
    # (Of nearest, the weights depend on nothing.)
    (slopes,) = torch.autograd.grad((values + 0 * at.sum(-1).unsqueeze(1)).sum(), at)
    lost = call.grid64().isnan().unsqueeze(1)  # read as -1, wherever it moves
    slopes = slopes.unflatten(0, (batch, channels)).masked_fill(lost, 0.0)
    return values.detach().reshape(call.output_shape), slopes.movedim(-1, 2)


def gradient_bound(call, expected):
    """As that of a grid's gradient in accuracy.py, per pixel and of each channel alone."""
    s0, s1, s2, dims = S0[call.mode], S1[call.mode], S2[call.mode], call.dims
    delta = coordinate_error(call)
    own = delta * s2 * s0 ** (dims - 1)
    others = (delta.sum(-1, keepdim=True) - delta) * s1**2 * s0 ** (dims - 2)
    arithmetic = 2 * ROUNDINGS[call.mode] * weight_roundoff(call) * s1 * s0 ** (dims - 1)
    error = _magnitude(call) * (own + others + arithmetic)
    error = error.movedim(-1, 1).unsqueeze(1) + 2 * _stored(call.input.dtype, expected)
    return torch.where(smooth_points(call)[:, None, None], error, torch.inf)


def check(checks, call):
    value, gradient = with_gradient(call)
    expected, slopes = expect_with_gradient(call)
    bound = 2 * forward_bound(call, expected)
    if call.mode == "nearest":
        bound = torch.where(smooth_points(call).unsqueeze(1), bound, torch.inf)
    checks.close(value, call.run().detach().cpu().double(), bound, f"value of {call}")
    checks.close(gradient, slopes, gradient_bound(call, slopes), f"gradient of {call}")
    for name, result in (("value", value), ("gradient", gradient)):
        checks.true(result.dtype == call.input.dtype, f"dtype of the {name} of {call}")


def warps(batch, size, dtype=torch.float32):
    """Grids and thetas: (warp, map, size)."""
    yield scattered_grid(batch, size, dtype), "grid", size
    yield smooth_grid(batch, size, dtype), "grid", size
    yield thetas(batch, len(size), dtype), "affine", size


@pytest.mark.quick
@pytest.mark.parametrize("configuration", ALL_CONFIGURATIONS, ids=configuration_id)
def test_against_the_reference(configuration, device):
    """Every size and dtype, one-pixel axes too."""
    dims, *settings = configuration
    with Checks() as checks:
        for dtype, warp_dtype in itertools.product(DTYPES, (torch.float32, F64)):
            some = shapes(dims) if dtype == warp_dtype else shapes(dims)[1::4]
            for shape, size in some:
                for warp in warps(shape[0], size, warp_dtype):
                    check(checks, Call(image(shape, dtype), *warp, *settings).on(device))


@pytest.mark.quick
def test_every_way_through_the_cpu_kernels():
    """The calls that test_cpu_paths.py has for first derivatives.

    Splines have a test of their own: test_thin_plate_spline.py.
    """
    with Checks() as checks:
        for case in path_cases():
            if case.call.map != "thin_plate_spline" and math.prod(case.call.output_shape) < 100_000:
                check(checks, case.call)


@pytest.mark.quick
def test_per_unit_of_a_grid(device):
    """Times half the image's extent, and summed with a cotangent, it is the grid's gradient."""
    with Checks() as checks:
        for call in sample_inputs(maps=("grid",)):
            keep = away_from_kinks(call)
            cotangent = call.cotangent() * keep
            _, _, expected = call.gradients(cotangent)
            half = [(n - call.align_corners) / 2 for n in reference.sizes_of(call.input)]
            gradient = with_gradient(call.on(device))[1].cpu() * cotangent.unsqueeze(2)
            ours = gradient.sum(1).movedim(1, -1) * torch.tensor(half, dtype=F64)
            checks.close(ours, expected, 1e-12, str(call))


@pytest.mark.quick
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_layouts_of_the_input(layout, device):
    """Of any strides; each axis' part lies in memory as the image does."""
    with Checks() as checks:
        for dims, shape, size in ((2, (2, 5, 13, 14), (12, 17)), (3, (2, 5, 5, 6, 7), (4, 5, 6))):
            for mode, warp in itertools.product(modes(dims), warps(2, size)):
                pixels = IMAGE_LAYOUTS[layout](image(shape)).to(device)
                call = Call(pixels, *warp, mode).on(device)
                check(checks, call)
                value, gradient = with_gradient(call)
                last = layout in ("channels_last", "channels in NaN")
                form = channels_last(pixels) if last else torch.contiguous_format
                what = f"{layout} {call}"
                checks.true(value.is_contiguous(memory_format=form), f"value, {what}")
                if last:  # (N, dims, *size, C) in memory
                    checks.true(gradient.movedim(1, -1).is_contiguous(), f"gradient, {what}")
                else:
                    checks.true(gradient.is_contiguous(), f"gradient, {what}")


@pytest.mark.quick
@pytest.mark.parametrize("layout", GRID_LAYOUTS)
def test_layouts_of_the_grid(layout, device):
    with Checks() as checks:
        for size, shape in (((12, 17), (2, 3, 9, 8)), ((3, 5, 17), (2, 3, 4, 5, 6))):
            for mode in modes(len(size)):
                grid = GRID_LAYOUTS[layout](scattered_grid(2, size))
                check(checks, Call(image(shape), grid, mode=mode).on(device))


@pytest.mark.quick
def test_broadcast(device):
    """A batch of 1 on either side; gradients are sums."""
    with Checks() as checks:
        for shape, size in (((3, 5, 9, 10), (8, 20)), ((3, 2, 4, 5, 6), (3, 4, 5))):
            for warp, kind, _ in warps(3, size, F64):
                call = Call(image(shape, F64), warp, kind, size).on(device)
                one_image = Call(call.input[:1], call.warp, kind, size)
                one_warp = Call(call.input, call.warp[:1], kind, size)
                for narrow in (one_image, one_warp):
                    check(checks, narrow)
                    leaves = [t.clone().requires_grad_() for t in (narrow.input, narrow.warp)]
                    ours = with_gradient(call, *leaves)
                    wide = [t.expand(3, *t.shape[1:]) for t in leaves]
                    wanted = with_gradient(call, *wide)
                    probes = [torch.ones_like(t) for t in ours]
                    ours = torch.autograd.grad(ours, leaves, probes)
                    wanted = torch.autograd.grad(wanted, leaves, probes)
                    for mine, theirs in zip(ours, wanted, strict=True):
                        checks.close(mine, theirs.cpu(), 1e-10, f"gradient of {narrow}")


@pytest.mark.quick
def test_nearest_is_a_step_function(device):
    for call in (call.on(device) for call in sample_inputs()):
        if call.mode == "nearest":
            value, gradient = with_gradient(call)
            assert torch.equal(value, call.run())
            assert gradient.shape == (*call.output_shape[:2], call.dims, *call.output_size)
            assert not gradient.any()


@pytest.mark.quick
def test_nan_coordinates_have_none(device):
    """As a coordinate that is read as -1 and does not move: 0 along it, and along it alone."""
    with Checks() as checks:
        for dims, shape, size in ((2, (2, 3, 6, 7), (5, 18)), (3, (2, 2, 4, 5, 6), (3, 4, 5))):
            for dtype, mode, padding in itertools.product(DTYPES, modes(dims), PADDINGS):
                grid = scattered_grid(2, size, dtype)
                hole = torch.rand(grid.shape) < 0.3
                call = Call(image(shape, dtype), grid.masked_fill(hole, -1.0), "grid", None, mode)
                call = call.on(device)
                nan = grid.masked_fill(hole, float("nan")).to(device)
                value, gradient = with_gradient(call, warp=nan)
                wanted, slopes = with_gradient(call)
                along = hole.movedim(-1, 1).unsqueeze(1).to(device).expand_as(gradient)
                what = f"{dtype} {mode} {padding} {dims}-D"
                checks.same(value, wanted, what)
                checks.same(gradient, slopes.masked_fill(along, 0.0), what)


@pytest.mark.quick
@pytest.mark.parametrize("mode", modes(2))
def test_signs_at_the_boundary(mode, device):
    """A ramp: its slope inside, 0 where the border holds a look, the mirrored sign beyond."""
    ramp = (2.0 * torch.arange(16.0)).expand(1, 1, 16, 16).to(device)
    # Pixels (x, 7.5): far inside, and mirrored to there from beyond either side.
    x = torch.tensor([5.3, -1 - 5.3, 31 - 5.3], dtype=F64)
    grid = torch.stack([(2 * x + 1) / 16 - 1, torch.zeros(3, dtype=F64)], -1)[None, None]
    grid = grid.to(device)
    inside = 0.0 if mode == "nearest" else 2.0
    for padding, beyond in (("zeros", 0.0), ("border", 0.0), ("reflection", -inside)):
        _, gradient = stn_cuda.sample_with_gradient(ramp, grid, mode=mode, padding_mode=padding)
        wanted = torch.tensor([[inside, beyond, beyond], [0.0, 0.0, 0.0]], device=device)
        close = 0.3 if mode == "bicubic" else 1e-4  # which with a = -0.75 bends a ramp
        torch.testing.assert_close(gradient[0, 0, :, 0], wanted, rtol=0, atol=close)


@pytest.mark.quick
@pytest.mark.parametrize("configuration", ALL_CONFIGURATIONS, ids=configuration_id)
def test_gradcheck(configuration, device):
    """Of both results, by input and warp; the gradient's by the warp once, and in reverse."""
    dims, *settings = configuration
    shape, size = ((2, 2, 4, 5), (3, 2)) if dims == 2 else ((1, 1, 3, 4, 3), (2, 2, 3))
    for warp in (w for k, w in enumerate(warps(shape[0], size, F64)) if k != 1):
        call = Call(image(shape, F64), *warp, *settings)
        keep = away_from_kinks(call).to(device)
        call = call.on(device)
        x, w = call.input.requires_grad_(), call.warp.requires_grad_()

        def run(x, w, call=call, keep=keep):
            value, gradient = with_gradient(call, x, w)
            return value * keep, gradient * keep.unsqueeze(2)

        torch.autograd.gradcheck(run, (x, w), fast_mode=True)
        still = w.detach()
        torch.autograd.gradcheck(
            lambda x, run=run, still=still: run(x, still),
            (x,),
            check_forward_ad=True,
            fast_mode=True,
        )
        torch.autograd.gradgradcheck(
            lambda x, run=run, still=still: [r.square() for r in run(x, still)],
            (x,),
            fast_mode=True,
        )
        torch.autograd.gradgradcheck(
            lambda x, w, run=run: run(x, w)[0].square(), (x, w), fast_mode=True
        )


@pytest.mark.quick
def test_third_derivatives_are_refused():
    """The gradient twice by the warp would be one. Its forward mode by the warp, too, is none."""
    x, theta = image((1, 2, 6, 7)), thetas(1, 2).requires_grad_()
    _, gradient = stn_cuda.sample_with_gradient(x, stn_cuda.Affine(theta), mode="bicubic")
    (first,) = torch.autograd.grad(gradient.square().sum(), theta, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives.*are not implemented"):
        first.sum().backward()

    def gradient_of(theta):
        return stn_cuda.sample_with_gradient(x, stn_cuda.Affine(theta), mode="bicubic")[1]

    with pytest.raises(NotImplementedError, match="forward-mode.*not implemented"):
        torch.func.jvp(gradient_of, (theta.detach(),), (torch.ones_like(theta),))


@pytest.mark.quick
@pytest.mark.parametrize("which", (0, 1))
def test_one_result_alone(which, device):
    """Backward from the values, or from the gradient, only."""
    for call in (call.on(device) for call in sample_inputs(maps=("affine",))):
        leaves = [t.detach().requires_grad_() for t in (call.input, call.warp)]
        results = with_gradient(call, *leaves)
        probes = [torch.zeros_like(r) for r in results]
        probes[which] = torch.ones_like(results[which])
        one = torch.autograd.grad(results[which].sum(), leaves, retain_graph=True)
        both = torch.autograd.grad(results, leaves, probes)
        for mine, wanted in zip(one, both, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-12)


@pytest.mark.quick
def test_empty(device):
    for shape, size in (((0, 3, 4, 5), (6, 7)), ((2, 0, 4, 5), (6, 7)), ((2, 3, 4, 5), (0, 7))):
        for warp, kind, _ in warps(shape[0], size):
            call = Call(image(shape), warp, kind, size).on(device)
            x, w = call.input.requires_grad_(), call.warp.requires_grad_()
            value, gradient = with_gradient(call, x, w)
            assert value.shape == (*shape[:2], *size) and gradient.shape == (*shape[:2], 2, *size)
            (gradient.sum() + value.sum()).backward()
            assert not x.grad.any() and not w.grad.any()


@pytest.mark.quick
def test_threads_do_not_matter(threads):
    """Bit for bit, on images that several threads share."""
    calls = [
        Call(image((1, 3, 150, 160)), thetas(1, 2), "affine", (140, 150)),
        Call(image((1, 3, 150, 160)), scattered_grid(1, (140, 150)), mode="bicubic"),
        Call(IMAGE_LAYOUTS["channels_last"](image((1, 20, 90, 80))), thetas(1, 2), "affine"),
        Call(image((1, 2, 30, 31, 32)), thetas(1, 3), "affine", (30, 31, 32)),
    ]
    with Checks() as checks:
        for call in calls:
            threads(1)
            alone = with_gradient(call)
            for count in (2, 3):
                threads(count)
                for ours, wanted in zip(with_gradient(call), alone, strict=True):
                    checks.same(ours, wanted, f"{count} threads, {call}")


@pytest.mark.quick
def test_registration_of_the_documentation():
    """The docstring's step, repeated: Gauss-Newton finds the translation between two images."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    picture = torch.exp(-((x - 15) ** 2 + (y - 17) ** 2) / 60)[None, None]
    theta = torch.eye(2, 3)[None].clone()
    theta[0, :, 2] = torch.tensor([0.11, -0.07])
    target = stn_cuda.sample(picture, stn_cuda.Affine(theta))
    theta[0, :, 2] = 0
    for _ in range(8):
        value, gradient = stn_cuda.sample_with_gradient(picture, stn_cuda.Affine(theta))
        step = (gradient * (target - value).unsqueeze(2)).mean((-1, -2))
        normal = torch.einsum("ncahw,ncbhw->nab", gradient, gradient) / (32 * 32)
        theta[0, :, 2] += torch.linalg.solve(normal, step.sum(1))[0] * 2 / 32
    torch.testing.assert_close(theta[0, :, 2], torch.tensor([0.11, -0.07]), rtol=0, atol=1e-3)


@pytest.mark.quick
def test_torch_function():
    class Seen(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function, kwargs

    x, grid = image((1, 2, 3, 4)), scattered_grid(1, (3, 4))
    function, kwargs = stn_cuda.sample_with_gradient(x.as_subclass(Seen), grid, mode="nearest")
    assert function is stn_cuda.sample_with_gradient and kwargs["mode"] == "nearest"
