"""stn_cuda.splat: the adjoint of sample, as a function of its own and with its own derivatives."""

import itertools

import pytest
import torch
from accuracy import Checks, grad_input_bound, grad_warp_bound, smooth_points
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
    thetas,
)
from conftest import walk_problem, walking
from second import like
from test_gradients import away_from_kinks
from torch.func import jvp

import stn_cuda

F64 = torch.float64


def splat(call, values, warp=None):
    """Of values at the call's output points, into an image like its input."""
    warp = call.warp if warp is None else warp
    warp = stn_cuda.Affine(warp) if call.map == "affine" else warp
    with poisoned_memory(values.device):
        return stn_cuda.splat(values, warp, call.input.shape[2:], **call.keywords)


def warps(batch, size, dtype=torch.float32):
    """A grid and thetas: (warp, map, size)."""
    yield scattered_grid(batch, size, dtype), "grid", size
    yield thetas(batch, len(size), dtype), "affine", size


def smooth_values(call):
    """Values, 0 where a rounding decides which pixels they go to."""
    return (call.cotangent() * smooth_points(call).unsqueeze(1)).to(call.input.dtype)


def check_splat(checks, call):
    values = smooth_values(call)
    _, expected, _ = call.expect_gradients(values)
    actual = splat(call, values.to(call.input.device))
    checks.close(actual, expected, grad_input_bound(call, values, expected), str(call))
    checks.true(actual.dtype == values.dtype, f"{actual.dtype} of {call}")


@pytest.mark.quick
@pytest.mark.parametrize("configuration", ALL_CONFIGURATIONS, ids=configuration_id)
def test_against_the_reference(configuration, device):
    """Every size and dtype, into images larger and smaller than the values."""
    dims, *settings = configuration
    with Checks() as checks:
        for dtype, warp_dtype in itertools.product(DTYPES, (torch.float32, F64)):
            some = shapes(dims) if dtype == warp_dtype else shapes(dims)[1::4]
            for shape, size in some:
                for warp in warps(shape[0], size, warp_dtype):
                    check_splat(checks, Call(image(shape, dtype), *warp, *settings).on(device))


@pytest.mark.quick
def test_inner_products(device):
    """<sample(x), y> = <x, splat(y)>."""
    with Checks() as checks:
        for dtype, close in ((F64, 1e-14), (torch.float32, 1e-6)):
            for call in (call.on(device) for call in sample_inputs(dtype)):
                y = call.cotangent().to(device)
                output, adjoint = call.run().double(), splat(call, y).double()
                left, right = (output * y).sum(), (call.input * adjoint).sum()
                scale = output.norm() * y.double().norm() + 1e-300
                checks.true(abs(left - right) <= close * scale, f"{left} == {right}: {call}")


@pytest.mark.quick
def test_is_the_gradient_of_sample(device):
    """Bit for bit."""
    with Checks() as checks:
        for dtype in DTYPES:
            for call in (call.on(device) for call in sample_inputs(dtype)):
                for last in (torch.contiguous_format, channels_last(call.input)):
                    x = call.input.contiguous(memory_format=last).requires_grad_()
                    y = call.cotangent().to(device).contiguous(memory_format=last)
                    (grad,) = torch.autograd.grad(call.run(x), x, y)
                    actual = splat(call, y)
                    checks.same(actual, grad, f"{last} {call}")
                    checks.true(actual.stride() == grad.stride(), f"strides, {last} {call}")


@pytest.mark.quick
def test_default_size(device):
    """That of the values, whatever the warp."""
    with Checks() as checks:
        for dims, size in ((2, (5, 7)), (3, (3, 4, 5))):
            values = image((2, 3, *size)).to(device)
            for warp in (
                scattered_grid(2, size).to(device),
                stn_cuda.Affine(thetas(2, dims).to(device)),
            ):
                ours = stn_cuda.splat(values, warp)
                checks.same(ours, stn_cuda.splat(values, warp, size), f"{size}")
            eye = stn_cuda.Affine(torch.eye(dims, dims + 1, device=device)[None])
            checks.same(stn_cuda.splat(values, eye), values, "the identity")


@pytest.mark.quick
def test_every_value_arrives_inside(device):
    """Nothing is lost where all points look into the image: the sums are equal."""
    values = image((2, 3, 9, 20), F64).to(device)
    warp = stn_cuda.Affine(0.5 * thetas(2, 2, F64).to(device))
    for mode in modes(2):
        ours = stn_cuda.splat(values, warp, (30, 31), mode=mode).sum((-1, -2))
        torch.testing.assert_close(ours, values.sum((-1, -2)), rtol=1e-12, atol=1e-12)


@pytest.mark.quick
def test_average_of_the_documentation():
    values, theta = torch.full((1, 2, 28, 28), 3.5), thetas(1, 2)
    total = stn_cuda.splat(values, stn_cuda.Affine(theta), size=(28, 28))
    mean = total / stn_cuda.splat(torch.ones_like(values), stn_cuda.Affine(theta), (28, 28))
    reached = total > 1e-3
    assert reached.any()
    torch.testing.assert_close(mean[reached], torch.full_like(mean[reached], 3.5))


@pytest.mark.quick
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_layouts_of_the_values(layout, device):
    """Of any strides; channels_last in, channels_last out."""
    with Checks() as checks:
        for dims, shape, size in ((2, (2, 5, 13, 14), (12, 17)), (3, (2, 5, 5, 6, 7), (4, 5, 6))):
            for mode in modes(dims):
                for warp in warps(2, size):
                    call = Call(image(shape), *warp, mode=mode)
                    values = IMAGE_LAYOUTS[layout](smooth_values(call))
                    expected = call.expect_gradients(values)[1]
                    values, call = values.to(device), call.on(device)
                    actual = splat(call, values)
                    bound = grad_input_bound(call, values, expected)
                    checks.close(actual, expected, bound, f"{layout} {call}")
                    last = layout in ("channels_last", "channels in NaN")
                    form = channels_last(values) if last else torch.contiguous_format
                    checks.true(actual.is_contiguous(memory_format=form), f"{layout} {call}")


@pytest.mark.quick
@pytest.mark.parametrize("layout", GRID_LAYOUTS)
def test_layouts_of_the_grid(layout, device):
    with Checks() as checks:
        for size, shape in (((12, 17), (2, 3, 9, 8)), ((3, 5, 17), (2, 3, 4, 5, 6))):
            for mode in modes(len(size)):
                grid = GRID_LAYOUTS[layout](scattered_grid(2, size))
                check_splat(checks, Call(image(shape), grid, mode=mode).on(device))


@pytest.mark.quick
def test_broadcast(device):
    """A batch of 1 on either side: values that many warps see, and one warp of many values."""
    with Checks() as checks:
        for shape, size in (((3, 5, 9, 10), (8, 20)), ((3, 2, 4, 5, 6), (3, 4, 5))):
            for warp, kind, _ in warps(3, size, F64):
                call = Call(image(shape, F64), warp, kind, size).on(device)
                values = call.cotangent().to(device)
                for v, w in ((values[:1], call.warp), (values, call.warp[:1])):
                    v, w = (t.detach().clone().requires_grad_() for t in (v, w))
                    out = splat(call, v, w)
                    whole = splat(call, v.expand_as(values), w.expand_as(call.warp))
                    what = f"{tuple(v.shape)} {call}"
                    checks.close(out, whole.detach().cpu(), 1e-13, what)
                    probe = call.input
                    ours = torch.autograd.grad(out, (v, w), probe)
                    wanted = torch.autograd.grad(whole, (v, w), probe)
                    for name, mine, theirs in zip("vw", ours, wanted, strict=True):
                        checks.close(mine, theirs.cpu(), 1e-11, f"gradient by {name}, {what}")


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(dtype, device):
    """By the values: sample's output, to the bit. By the warp: within sample's own bounds."""
    with Checks() as checks:
        for call in sample_inputs(dtype):
            values = smooth_values(call)
            _, _, expected = call.expect_gradients(values)
            bound = grad_warp_bound(call, values, expected)
            call = call.on(device)
            v, w = values.to(device).requires_grad_(), call.warp.detach().requires_grad_()
            out = splat(call, v, w)
            by_values, by_warp = torch.autograd.grad(out, (v, w), call.input)
            checks.same(by_values, call.run().detach(), f"by the values, {call}")
            checks.close(by_warp, expected, bound, f"by the warp, {call}")
            checks.true(by_warp.dtype == call.warp.dtype, f"dtype by the warp, {call}")


@pytest.mark.quick
@pytest.mark.parametrize("configuration", ALL_CONFIGURATIONS, ids=configuration_id)
def test_gradcheck(configuration, device):
    """First and second derivatives, and forward mode, against finite differences in float64."""
    dims, *settings = configuration
    shape, size = ((2, 2, 4, 5), (3, 2)) if dims == 2 else ((1, 1, 3, 4, 3), (2, 2, 3))
    for warp in warps(shape[0], size, F64):
        call = Call(image(shape, F64), *warp, *settings)
        keep = away_from_kinks(call).to(device)
        values = call.cotangent().to(device)
        call = call.on(device)

        def run(v, w, call=call, keep=keep):
            return splat(call, v * keep, w)

        leaves = (values.requires_grad_(), call.warp.requires_grad_())
        torch.autograd.gradcheck(run, leaves, check_forward_ad=True, fast_mode=dims == 3)
        torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@pytest.mark.quick
def test_jvp(device):
    """Along the values it is a splat; along the warp, what sample's forward mode is adjoint to."""
    with Checks() as checks:
        for call in (call.on(device) for call in sample_inputs()):
            keep = away_from_kinks(call).to(device)
            values, moved = (like(call.cotangent(), key).to(device) * keep for key in "vm")
            dw = like(call.warp, "dw").to(device)

            def run(v, w, call=call):
                return splat(call, v, w)

            out, along = jvp(run, (values, call.warp), (moved, torch.zeros_like(dw)))
            checks.same(out, run(values, call.warp), str(call))
            wanted = run(moved, call.warp).cpu()
            checks.close(along, wanted, 1e-12, f"along the values, {call}")
            _, along = jvp(run, (values, call.warp), (torch.zeros_like(moved), dw))
            _, other = jvp(lambda w, call=call: call.run(warp=w), (call.warp,), (dw,))
            left, right = (along * call.input).sum(), (other * values).sum()
            scale = other.norm() * values.norm() + 1e-300
            checks.true(abs(left - right) <= 1e-12 * scale, f"along the warp, {call}")


@pytest.mark.quick
def test_nothing_to_add(device):
    """No images, no channels, no values: images of zeros, and gradients."""
    for shape, size in (((0, 3, 4, 5), (6, 7)), ((2, 0, 4, 5), (6, 7)), ((2, 3, 4, 5), (0, 7))):
        for warp, kind, _ in warps(shape[0], size):
            call = Call(image(shape), warp, kind, size).on(device)
            v = call.cotangent().to(device).requires_grad_()
            w = call.warp.requires_grad_()
            out = splat(call, v, w)
            assert torch.equal(out, torch.zeros(shape, device=device))
            for grad, of in zip(torch.autograd.grad(out.sum(), (v, w)), (v, w), strict=True):
                assert torch.equal(grad, torch.zeros_like(of))


@pytest.mark.quick
def test_nan_coordinates(device):
    """They are read as -1; their gradient is 0."""
    with Checks() as checks:
        for dims, shape, size in ((2, (2, 5, 6, 7), (5, 18)), (3, (2, 2, 4, 5, 6), (3, 4, 5))):
            for dtype, mode, padding in itertools.product(DTYPES, modes(dims), PADDINGS):
                grid = scattered_grid(2, size, dtype)
                hole = torch.rand(grid.shape) < 0.3
                keywords = dict(mode=mode, padding_mode=padding)
                call = Call(image(shape, dtype), grid.masked_fill(hole, -1.0), **keywords)
                call = call.on(device)
                nan = call.warp.masked_fill(hole.to(device), float("nan")).requires_grad_()
                values = call.cotangent().to(device)
                out = splat(call, values, nan)
                what = f"{dtype} {mode} {padding} {dims}-D"
                checks.same(out.detach(), splat(call, values), what)
                (grad,) = torch.autograd.grad(out, nan, call.input)
                checks.true(bool(grad.isfinite().all()), f"finite, {what}")
                checks.true(bool((grad[hole.to(device)] == 0).all()), f"at the NaN, {what}")


def crowded(dtype=torch.float32, layout="contiguous"):
    """Many points per pixel: a sum shows the order of its terms."""
    flat, deep = (2, 5, 6, 7), (2, 3, 3, 4, 4)
    for shape, size in ((flat, (50, 51)), (deep, (12, 13, 14))):
        pixels = IMAGE_LAYOUTS[layout](image(shape, dtype))
        for mode in ("bilinear", "bicubic") if len(size) == 2 else ("bilinear",):
            for warp in warps(2, size):
                yield Call(pixels, *warp, mode)
            yield Call(pixels, 1e-3 * thetas(2, len(size)) + 0.03, "affine", size, mode)


def derivative(call, values, tangent=None, axis=-1):
    shape = (values.shape[0], *call.input.shape[1:])
    last = values.is_contiguous(memory_format=channels_last(values)) and not values.is_contiguous()
    settings = call.op_settings
    return torch.ops.stn_cuda.splat_derivative(
        values, call.warp, tangent, axis, call.map, shape, last, *settings
    )


@pytest.mark.quick
def test_threads_do_not_matter(threads):
    """Bit for bit, with images that several threads share."""
    calls = [
        Call(image((1, 3, 150, 160)), thetas(1, 2), "affine", (140, 150)),
        Call(image((1, 3, 150, 160)), scattered_grid(1, (140, 150)), mode="bicubic"),
        Call(image((1, 2, 30, 31, 32)), thetas(1, 3), "affine", (30, 31, 32)),
        *crowded(),
    ]

    def results(call):
        y, b = call.cotangent(), like(call.warp, "b")
        return splat(call, y), derivative(call, y, b), derivative(call, y, axis=1)

    with Checks() as checks:
        for call in calls:
            threads(1)
            alone = results(call)
            for count in (2, 3):
                threads(count)
                for ours, wanted in zip(results(call), alone, strict=True):
                    checks.same(ours, wanted, f"{count} threads, {call}")


def in_both_orders(function):
    """What is walked from the first thread to the last, and the other way round."""
    results = []
    for descending in (False, True):
        with walking(deterministic=True, descending=descending):
            results.append(function())
    return results


needs_walk = pytest.mark.skipif(bool(walk_problem()), reason=str(walk_problem()))


@needs_walk
@pytest.mark.walk
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_deterministic_in_any_order(dtype, layout):
    """On CUDA, under torch.use_deterministic_algorithms(True): bitwise, and right."""
    with Checks() as checks:
        for call in crowded(dtype, layout):
            values = IMAGE_LAYOUTS[layout](smooth_values(call))
            b = like(call.warp, "b")
            runs = {
                "splat": lambda call=call, v=values: splat(call, v),
                "along a tangent": lambda call=call, v=values, b=b: derivative(call, v, b),
                "along x": lambda call=call, v=values: derivative(call, v, axis=0),
            }
            for name, run in runs.items():
                one, other = in_both_orders(run)
                checks.same(one, other, f"{name} of {call}")
            with walking(deterministic=True):
                check_splat(checks, call)


@needs_walk
@pytest.mark.walk
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("scale", ["1e-30", "1e30", "mixed", "0"])
def test_deterministic_along_tangents_of_any_scale(scale, dtype):
    """The largest term sets the unit, whatever makes it large."""
    with Checks() as checks:
        for call in crowded(dtype):
            values, b = smooth_values(call), like(call.warp, "b")
            if scale == "mixed":
                sizes = torch.tensor([1e-30, 1.0, 1e5]).repeat(b.numel() // 3 + 1)[: b.numel()]
                b = b * sizes.view_as(b)
            else:
                b = b * float(scale)
            one, other = in_both_orders(lambda c=call, v=values, t=b: derivative(c, v, t))
            what = f"{scale} {call}"
            checks.same(one, other, what)
            precise = Call(call.input.double(), call.warp.double(), call.map, **call.keywords)
            expected = derivative(precise, values.double(), b.double())
            # Neighbouring pixels share their terms, which may cancel: a scale for all of them.
            bound = 1e-4 * expected.abs().max() + 1e-44
            checks.true(bool(one.isfinite().all()), f"finite, {what}")
            checks.close(one, expected, bound, what)


@pytest.mark.quick
def test_torch_function():
    class Seen(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function, args, kwargs

    values, grid = image((1, 2, 3, 4)), scattered_grid(1, (3, 4))
    function, args, kwargs = stn_cuda.splat(values.as_subclass(Seen), grid, (5, 6), mode="nearest")
    assert function is stn_cuda.splat and args[2] == (5, 6) and kwargs["mode"] == "nearest"
