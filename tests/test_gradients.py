"""Gradients against the mathematics: finite differences, the adjoint, linearity."""

import pytest
import torch
from accuracy import Checks, grad_input_bound, grad_warp_bound, smooth_points
from cases import (
    ALL_CONFIGURATIONS,
    CONFIGURATIONS,
    DTYPES,
    Call,
    channels_last,
    configuration_id,
    generator,
    image,
    modes,
    sample_inputs,
    scattered_grid,
    smooth_grid,
    thetas,
    torch_sample,
)

import stn_cuda
from stn_cuda import reference

# gradcheck moves each entry by 1e-6: a pixel coordinate by up to 1e-6 x size, so points that are
# 1e-4 pixels away from a kink stay on their side of it.
STEP_MARGIN = 1e-4


def away_from_kinks(call):
    """(N, 1, *out) 1 where finite differences see a smooth function."""
    margin = STEP_MARGIN / (8 * 2.0**-53 * 100)  # in units of the float64 coordinate error
    keep = smooth_points(call, margin)
    assert keep.double().mean() > 0.5, f"too few points to test: {call}"
    return keep.unsqueeze(1).double()


@pytest.mark.quick
@pytest.mark.parametrize("configuration", ALL_CONFIGURATIONS, ids=configuration_id)
def test_gradcheck(configuration, device):
    """Grid and theta, input and warp, against finite differences in float64."""
    dims, *settings = configuration
    shape, size = ((2, 2, 4, 5), (3, 4)) if dims == 2 else ((2, 1, 3, 4, 3), (2, 2, 3))
    for kind in ("grid", "affine"):
        if kind == "grid":
            warp = scattered_grid(2, size, torch.float64)
        else:
            warp = thetas(2, dims, torch.float64)
        call = Call(image(shape, torch.float64), warp, kind, size, *settings)
        keep = away_from_kinks(call).to(device)
        call = call.on(device)
        torch.autograd.gradcheck(
            lambda x, w, call=call, keep=keep: call.run(x, w) * keep,
            (call.input.requires_grad_(), call.warp.requires_grad_()),
            fast_mode=dims == 3,
        )


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
def test_gradcheck_of_affine_grid(align, device):
    for size in ((3, 4), (2, 3, 4)):
        theta = thetas(2, len(size), torch.float64).to(device).requires_grad_()

        def fn(theta, size=size):
            return stn_cuda.affine_grid(theta, (2, 1, *size), align_corners=align)

        assert torch.autograd.gradcheck(fn, (theta,))
        assert torch.autograd.gradgradcheck(fn, (theta,))  # linear: its second derivative is 0


@pytest.mark.quick
def test_adjoint(device):
    """<sample(x), y> = <x, grad_input(y)>, in float64 and float32, at every kind of coordinate."""
    with Checks() as checks:
        for dtype, close in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            for call in (call.on(device) for call in sample_inputs(dtype)):
                x = call.input.requires_grad_()
                output = call.run(x)
                y = call.cotangent().to(device)
                (adjoint,) = torch.autograd.grad(output, x, y)
                left = (output.detach().double() * y.double()).sum()
                right = (x.detach().double() * adjoint.double()).sum()
                scale = output.detach().double().norm() * y.double().norm() + 1e-300
                checks.true(abs(left - right) <= close * scale, f"{left} == {right}: {call}")


@pytest.mark.quick
def test_adjoint_on_larger_images(threads):
    """The same where several threads and whole tiles take part, and for strongly shrinking maps."""
    threads(2)
    shapes = [((1, 3, 150, 170), (160, 155)), ((2, 20, 40, 50), (43, 57))]
    shapes += [((1, 2, 17, 23, 30), (19, 25, 27))]
    with Checks() as checks:
        for shape, size in shapes:
            dims = len(size)
            for spread in (0.3, 3.0):
                for kind in ("grid", "affine"):
                    for mode in modes(dims):
                        warp = (
                            smooth_grid(shape[0], size, torch.float64, spread=spread)
                            if kind == "grid"
                            else thetas(shape[0], dims, torch.float64, spread=spread)
                        )
                        call = Call(
                            image(shape, torch.float64), warp, kind, size, mode, "border", True
                        )
                        x = call.input.requires_grad_()
                        output = call.run(x)
                        y = call.cotangent()
                        (adjoint,) = torch.autograd.grad(output, x, y)
                        left = (output * y).sum()
                        right = (x * adjoint).sum()
                        scale = output.norm() * y.norm()
                        checks.true(abs(left - right) <= 1e-12 * scale, f"{left} {right}: {call}")


@pytest.mark.quick
def test_linear_in_the_input(device):
    with Checks() as checks:
        for call in (call.on(device) for call in sample_inputs()):
            x, y = call.input, image(call.input.shape, torch.float64, key="other").to(device)
            combined = call.run(2.5 * x - 0.75 * y)
            separate = (2.5 * call.run(x) - 0.75 * call.run(y)).cpu()
            checks.close(combined, separate, 1e-13 * 100, str(call))


def called_ops(function):
    """Names of the stn_cuda ops that function() runs, as the profiler sees them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    names = {event.name for event in profile.events() or ()}
    return {name.split("::")[1] for name in names if name.startswith("stn_cuda::")}


@pytest.mark.quick
@pytest.mark.parametrize("kind", ("grid", "affine"))
def test_only_the_needed_gradients_are_computed(kind):
    for needs_input, needs_warp in ((True, False), (False, True), (True, True)):
        warp = scattered_grid(2, (4, 5)) if kind == "grid" else thetas(2, 2)
        call = Call(image((2, 3, 6, 7)), warp, kind, (4, 5))
        call.input.requires_grad_(needs_input)
        call.warp.requires_grad_(needs_warp)
        output = call.run()
        ops = called_ops(lambda output=output: output.sum().backward())
        assert ("splat" in ops) == (needs_input and not needs_warp)
        assert ("sample_grad_warp" in ops) == (needs_warp and not needs_input)
        assert ("sample_gradients" in ops) == (needs_input and needs_warp)
        assert (call.input.grad is not None) == needs_input
        assert (call.warp.grad is not None) == needs_warp


@pytest.mark.quick
def test_no_gradient_where_none_is_wanted():
    call = Call(image((1, 2, 4, 5)), scattered_grid(1, (3, 3)))
    assert not call.run().requires_grad
    call.input.requires_grad_()
    with torch.no_grad():
        assert not call.run().requires_grad
    with torch.inference_mode():
        assert call.run().is_inference()
    assert call.run().requires_grad


@pytest.mark.quick
def test_nearest_has_a_zero_gradient_to_the_warp():
    """A step function's: zeros, not None, as torch's."""
    for kind, warp in (("grid", scattered_grid(1, (3, 4))), ("affine", thetas(1, 2))):
        call = Call(image((1, 2, 5, 5)), warp.requires_grad_(), kind, (3, 4), "nearest")
        call.run().sum().backward()
        assert torch.equal(warp.grad, torch.zeros_like(warp))


@pytest.mark.quick
def test_nan_coordinates_have_no_gradient(device):
    with Checks() as checks:
        for dims in (2, 3):
            shape, size = ((2, 5, 6, 7), (5, 8)) if dims == 2 else ((2, 3, 4, 5, 6), (3, 4, 5))
            for dtype in DTYPES:
                for mode in modes(dims):
                    for padding in ("zeros", "border", "reflection"):
                        grid = scattered_grid(2, size, dtype)
                        hole = torch.rand(grid.shape, generator=generator(size)) < 0.3
                        call = Call(
                            image(shape, dtype),
                            grid.masked_fill(hole, float("nan")),
                            mode=mode,
                            padding_mode=padding,
                        ).on(device)
                        _, grad_input, grad_grid = call.gradients(call.cotangent().to(device))
                        what = f"{dims}-D {dtype} {mode} {padding}"
                        checks.true(bool(grad_input.isfinite().all()), f"grad_input, {what}")
                        checks.true(bool(grad_grid.isfinite().all()), f"grad_grid, {what}")
                        checks.true(bool((grad_grid.cpu()[hole] == 0).all()), f"at the NaN, {what}")


def touched(call, marked):
    """(N, C, *in) bool: the pixels that the marked outputs (N, 1, *out) read with some weight."""
    sizes = reference.sizes_of(call.input)
    pixels = reference.pixel_coordinates(call.grid64(), sizes, call.align_corners)
    hits = torch.zeros(call.input.shape).flatten(2)
    for flat, inside, weight in reference.all_taps(
        pixels, sizes, call.mode, call.padding_mode, call.align_corners
    ):
        hit = (marked & (inside & (weight != 0)).unsqueeze(1)).expand(call.output_shape)
        index = flat.unsqueeze(1).expand(call.output_shape)
        hits.scatter_add_(2, index.flatten(2), hit.flatten(2).float())
    return hits.reshape(call.input.shape) > 0


@pytest.mark.quick
def test_incoming_gradients_that_are_not_finite(device):
    """An infinite or NaN gradient reaches the pixels that its output read, and no others."""
    with Checks() as checks:
        for dims, *settings in CONFIGURATIONS:
            shape, size = ((2, 3, 9, 11), (5, 14)) if dims == 2 else ((2, 3, 4, 5, 6), (3, 4, 5))
            for memory_format in (torch.contiguous_format, channels_last(image(shape))):
                pixels = image(shape).contiguous(memory_format=memory_format)
                call = Call(pixels, scattered_grid(2, size), "grid", None, *settings)
                smooth = smooth_points(call).unsqueeze(1)
                marked = smooth & (torch.arange(smooth.numel()).reshape(smooth.shape) % 13 == 5)
                clean = call.cotangent() * (smooth & ~marked)
                _, expected, expected_grid = call.expect_gradients(clean)
                bound = grad_input_bound(call, clean, expected)
                reached = touched(call, marked)
                checks.true(bool(reached.any() and not reached.all()), f"too easy: {call}")
                for value in (float("inf"), float("nan")):
                    cotangent = clean.masked_fill(marked, value).to(device)
                    _, *grads = call.on(device).gradients(cotangent)
                    grad_input, grad_grid = (grad.cpu() for grad in grads)
                    checks.same(grad_input.isfinite(), ~reached, f"{value}, {call}")
                    others = torch.where(reached, expected, grad_input.double())
                    checks.close(others, expected, bound, f"beside {value}, {call}")
                    others = torch.where(marked.movedim(1, -1), 0.0, grad_grid.double())
                    grid_bound = grad_warp_bound(call, clean, expected_grid)
                    checks.close(others, expected_grid, grid_bound, f"grid beside {value}, {call}")


def cotangent_layouts(values):
    room = torch.full((*values.shape[:-1], 2 * values.shape[-1]), float("nan"))
    return {
        "every second column in NaN": room[..., ::2].copy_(values),
        "transposed": values.mT.contiguous().mT,
        "channels_last": values.contiguous(memory_format=channels_last(values)),
        "expanded": torch.ones(()).expand(values.shape),  # as from sum()
    }


@pytest.mark.quick
def test_layout_of_the_incoming_gradient():
    """However the output's gradient lies in memory, the gradients are the same, bit for bit."""
    with Checks() as checks:
        for dims in (2, 3):
            shape, size = ((2, 5, 6, 7), (5, 8)) if dims == 2 else ((2, 5, 4, 5, 6), (3, 4, 5))
            for kind, warp in (("grid", smooth_grid(2, size)), ("affine", thetas(2, dims))):
                for image_format in (torch.contiguous_format, channels_last(image(shape))):
                    pixels = image(shape).contiguous(memory_format=image_format)
                    call = Call(pixels, warp, kind, size)
                    for name, cotangent in cotangent_layouts(call.cotangent()).items():
                        expected = call.gradients(cotangent.contiguous())
                        for ours, wanted in zip(call.gradients(cotangent), expected, strict=True):
                            checks.same(ours, wanted, f"{name} gradient, {image_format}, {call}")


@pytest.mark.quick
@pytest.mark.parametrize("kind", ("grid", "affine"))
def test_second_derivative_through_the_input(kind, unwalked_device):
    """The output is linear in the input: its second derivative is taken, and is right."""
    for dims in (2, 3):
        size = (3, 4) if dims == 2 else (2, 2, 3)
        warp = thetas(1, dims, torch.float64)
        if kind == "grid":
            warp = scattered_grid(1, size, torch.float64)
        call = Call(image((1, 2, *range(4, 4 + dims)), torch.float64), warp, kind, size)
        call = call.on(unwalked_device)
        x = call.input.requires_grad_()
        torch.autograd.gradgradcheck(lambda x, call=call: call.run(x) ** 2, (x,))
        torch.autograd.gradgradcheck(call.run, (x,))


@pytest.mark.quick
def test_input_gradient_differentiated_by_the_warp():
    """grad_input depends on the warp too: a mixed derivative, right or refused, never wrong."""
    call = Call(image((1, 2, 4, 5), torch.float64), thetas(1, 2, torch.float64), "affine", (3, 4))
    x, theta = call.input.requires_grad_(), call.warp.requires_grad_()
    v = image((1, 2, 4, 5), torch.float64, key="v")

    def directional(theta, oracle):
        output = call.run(x, theta) if oracle is None else call.expect(oracle, x, theta)
        (grad,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
        return (grad * v).sum()

    (expected,) = torch.autograd.grad(directional(theta, torch_sample), theta)
    try:
        (actual,) = torch.autograd.grad(directional(theta, None), theta)
    except NotImplementedError:
        return
    torch.testing.assert_close(actual, expected)


@pytest.mark.quick
def test_retained_and_repeated_backward():
    """Backward twice over one graph, and accumulation into .grad."""
    call = Call(image((2, 2, 5, 6)), scattered_grid(2, (4, 4)))
    x, grid = call.input.requires_grad_(), call.warp.requires_grad_()
    output = call.run()
    output.sum().backward(retain_graph=True)
    first = x.grad.clone(), grid.grad.clone()
    output.sum().backward()
    assert torch.equal(x.grad, 2 * first[0])
    assert torch.equal(grid.grad, 2 * first[1])
