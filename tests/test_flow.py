"""Flow and grids in pixels: the free maps beside the normalised grid, against the reference."""

import pytest
import torch
from accuracy import Checks, check_call
from cases import (
    CONFIGURATIONS,
    DTYPES,
    FREE,
    GRID_LAYOUTS,
    IMAGE_LAYOUTS,
    NAN,
    PADDINGS,
    Call,
    configuration_id,
    free_values,
    generator,
    image,
    sample_inputs,
    scattered_grid,
    smooth_grid,
)
from second import oracle as second_oracle
from second import product
from test_gradients import away_from_kinks

import stn_cuda
from stn_cuda import Affine, Flow, reference, sample
from stn_cuda._extension import _C

F64 = torch.float64
KINDS = tuple(map for map in FREE if map != "grid")
SIZES = {2: (17, 24), 3: (9, 17, 24)}


def randn(*shape, key=0):
    return torch.randn(*shape, generator=generator("flow", *shape, key), dtype=F64)


def make(kind, shape, size, dtype=F64, layout="planar", grid=smooth_grid, **settings):
    """A call of a kind of map whose values lie as displacements do."""
    align = settings.get("align_corners", False)
    grid = grid(shape[0], size, F64, key=kind)
    values = free_values(kind, grid, shape[2:], align).to(dtype)
    return Call(image(shape, dtype), GRID_LAYOUTS[layout](values), kind, None, **settings)


def large(dtype=F64):
    """Large enough for every loop: rows laid end to end, windows, runs, padded tiles."""
    for number, (shape, size) in enumerate(
        (
            ((2, 1, 60, 70), (50, 40)),
            ((1, 3, 90, 160), (80, 150)),
            ((2, 20, 20, 30), (21, 31)),
            ((1, 2, 12, 20, 25), (11, 12, 33)),
        )
    ):
        for kind in KINDS:
            padding = PADDINGS[(number + KINDS.index(kind)) % 3]
            yield make(kind, shape, size, dtype, padding_mode=padding)


def layouts(dtype=F64):
    """Of every layout of the values and of the image."""
    for kind in KINDS:
        for name in GRID_LAYOUTS:
            yield make(kind, (2, 3, 9, 8), (7, 19), dtype, name)
            yield make(kind, (2, 2, 5, 6, 4), (3, 4, 18), dtype, name)
        for name, lay in IMAGE_LAYOUTS.items():
            call = make(kind, (2, 3, 9, 8), (7, 19), dtype)
            yield Call(lay(call.input), call.warp, kind, label=name)


def broadcast(dtype=F64):
    for kind in KINDS:
        one, three = (make(kind, (n, 2, 9, 8), (7, 19), dtype) for n in (1, 3))
        yield Call(three.input, one.warp, kind)
        yield Call(one.input, three.warp, kind)


def calls(dtype=F64):
    yield from sample_inputs(dtype, maps=KINDS)
    yield from large(dtype)
    yield from layouts(dtype)
    yield from broadcast(dtype)


# --- against the reference ------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_reference(dtype, device):
    """Values and both gradients, within what the arithmetic's roundings explain."""
    with Checks() as checks:
        for call in calls(dtype):
            check_call(checks, call.on(device))


@pytest.mark.quick
def test_dtypes_mix(device):
    """Coordinates are computed in float32 at least, whatever the displacement is stored in."""
    with Checks() as checks:
        for kind in KINDS:
            for of_image, of_values in (
                (torch.float32, torch.float16),
                (torch.bfloat16, torch.float32),
                (torch.float32, F64),
                (F64, torch.bfloat16),
            ):
                call = make(kind, (2, 3, 9, 8), (7, 19), of_image)
                call = Call(call.input, call.warp.to(of_values), kind)
                check_call(checks, call.on(device))
    # A 16-bit position of pixel 2049 would be off by one.
    x = image((1, 1, 1, 4096)).to(device)
    y = sample(x, Flow(torch.ones(1, 2, 1, 4096, dtype=torch.float16, device=device) / 2))
    torch.testing.assert_close(y[..., :-1], (x[..., :-1] + x[..., 1:]) / 4, rtol=0, atol=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize("normalized", (False, True))
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("dims", (2, 3))
def test_identity_is_exact(dims, align_corners, normalized, device):
    for size in (SIZES[dims], (1, 7, 3)[:dims], (64,) * dims, (33,) * dims):
        x = image((1, 2, *size)).to(device)
        zero = Flow(torch.zeros(1, dims, *size, device=device), normalized)
        for mode in ("bilinear", "nearest"):
            y = sample(x, zero, mode=mode, align_corners=align_corners)
            assert torch.equal(y, x), size


@pytest.mark.quick
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("dims", (2, 3))
def test_zero_resizes_as_the_affine_identity_does(dims, align_corners, device):
    x = image((2, 3, *SIZES[dims]), F64).to(device)
    size = (5, 31, 40)[:dims]
    zero = torch.zeros(1, dims, *size, dtype=F64, device=device)
    y = sample(x, Flow(zero), align_corners=align_corners)
    identity = Affine.identity(dims=dims, dtype=F64, device=device)
    assert torch.equal(y, sample(x, identity, size, align_corners=align_corners))


@pytest.mark.quick
def test_whole_pixels_move_by_themselves(device):
    """A displacement in pixels looks that many pixels further on, x first."""
    x = image((1, 2, 6, 9)).to(device)
    for dx, dy in ((2, 0), (0, -1), (3, 2)):
        shift = torch.tensor([dx, dy], dtype=torch.float32, device=device)
        y = sample(x, Flow(shift.view(1, 2, 1, 1).expand(1, 2, 6, 9)), padding_mode="border")
        rows = (torch.arange(6) + dy).clamp(0, 5)
        columns = (torch.arange(9) + dx).clamp(0, 8)
        assert torch.equal(y, x[:, :, rows][..., columns]), (dx, dy)


@pytest.mark.quick
@pytest.mark.parametrize("padding", PADDINGS)
def test_axes_of_one_pixel(padding, device):
    """With align_corners they have no normalised extent, but pixels still have their unit."""
    x = image((1, 2, 1, 5), F64).to(device)
    displacement = randn(1, 2, 4, 6).to(device)
    for align in (False, True):
        settings = {"padding_mode": padding, "align_corners": align}
        pixels = reference.flow_coordinates(displacement, (1, 5), align)
        expected = reference.sample(x, pixels, coords="pixel", **settings)
        for y in (
            sample(x, Flow(displacement), **settings),
            sample(x, pixels, coords="pixel", **settings),
        ):
            torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.quick
@pytest.mark.parametrize("kind", KINDS)
def test_no_value_reads_outside(kind, device):
    """NaN is read as -1 and has no gradient; infinite and huge values lie outside."""
    call = make(kind, (1, 2, 6, 7), (5, 20))
    values = call.warp.clone()
    values[0, 0, 0], values[0, 1, 1], values[0, 2, 2] = NAN, torch.inf, -1e30
    for padding in PADDINGS:
        call = Call(call.input, values, kind, padding_mode=padding).on(device)
        y, grad_input, grad_values = call.gradients(call.cotangent().to(device))
        assert y.isfinite().all() and grad_input.isfinite().all(), padding
        assert grad_values.isfinite().all() and (grad_values[0, 0, 0] == 0).all(), padding
        first = torch.full((1, 1, 1, 2), -1.0, dtype=F64)
        corner = reference.sample(call.input.cpu(), first, padding_mode=padding)
        torch.testing.assert_close(y[..., 0, 0].cpu(), corner[..., 0, 0], rtol=0, atol=1e-12)


# --- gradients ------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GRID_LAYOUTS)
def test_gradient_lies_as_the_values_do(kind, name, device):
    """A tensor without gaps keeps its strides, any other the order of its axes."""
    call = make(kind, (2, 3, 9, 8), (7, 19), torch.float32, name).on(device)
    values = GRID_LAYOUTS[name](call.warp) if name.startswith("expanded") else call.warp
    arguments = (call.cotangent().to(device), call.input, values, kind, "bilinear", "zeros", False)
    grad = torch.ops.stn_cuda.sample_grad_warp(*arguments)
    assert grad.stride() == torch.empty_like(values).stride()
    contiguous = torch.ops.stn_cuda.sample_grad_warp(
        *arguments[:2], values.contiguous(), *arguments[3:]
    )
    assert torch.equal(grad, contiguous)


@pytest.mark.quick
def test_gradient_of_a_displacement_needs_no_copy(device):
    displacement = randn(2, 2, 7, 19).float().to(device).requires_grad_()
    y = sample(image((2, 3, 9, 8)).to(device), Flow(displacement))
    (grad,) = torch.autograd.grad(y.sum(), displacement)
    assert grad.is_contiguous()


@pytest.mark.quick
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_gradgradcheck(configuration, kind):
    dims, mode, padding, align = configuration
    shape, size = ((2, 2, 4, 5), (3, 2)) if dims == 2 else ((1, 1, 3, 4, 3), (2, 2, 3))
    settings = {"mode": mode, "padding_mode": padding, "align_corners": align}
    call = make(kind, shape, size, grid=scattered_grid, **settings)
    keep = away_from_kinks(call)
    leaves = (call.input.requires_grad_(), call.warp.requires_grad_())

    def run(x, values):
        return call.run(x, values) * keep

    torch.autograd.gradcheck(run, leaves, check_forward_ad=True, fast_mode=True)
    torch.autograd.gradgradcheck(run, leaves, fast_mode=True, check_fwd_over_rev=True)


@pytest.mark.quick
def test_second_derivatives_against_the_reference(device):
    with Checks() as checks:
        for call in [*sample_inputs(F64, maps=KINDS), *large()]:
            if call.mode == "nearest":
                continue
            call = call.on(device)
            g, a, b = call.cotangent(), randn(*call.input.shape), randn(*call.warp.shape)
            ours, theirs = product(call, g, a, b), second_oracle(call, g, a, b)
            for one, other in zip(ours, theirs, strict=True):
                scale = other.abs().max().item() + 1
                checks.close(one, other, 1e-11 * scale, str(call))


@pytest.mark.quick
def test_splat_is_the_adjoint(device):
    for call in [*sample_inputs(F64, maps=KINDS), *large()]:
        call = call.on(device)
        y = call.cotangent().to(device)
        pushed = stn_cuda.splat(y, call.arguments()[0], call.input.shape[2:], **call.keywords)
        inner, outer = (call.run() * y).sum(), (call.input * pushed).sum()
        assert (inner - outer).abs() <= 1e-13 * (call.run() * y).abs().sum(), str(call)


@pytest.mark.quick
def test_values_with_gradients(device):
    """d value / d pixel is what a displacement's gradient in pixels is."""
    for call in sample_inputs(F64, maps=KINDS):
        if call.mode == "nearest":
            continue  # a step function
        call = call.on(device)
        warp, size = call.arguments()
        value, slope = stn_cuda.sample_with_gradient(call.input, warp, size, **call.keywords)
        torch.testing.assert_close(value, call.run(), rtol=0, atol=1e-12)
        pixels = reference.pixel_coordinates(
            call.grid64(), reference.sizes_of(call.input), call.align_corners
        ).to(device)
        for c in range(call.input.shape[1]):
            leaf = pixels.detach().requires_grad_()
            plane = call.input[:, c : c + 1]
            y = reference.sample(plane, leaf, **call.settings, coords="pixel")
            (expected,) = torch.autograd.grad(y.sum(), leaf)
            torch.testing.assert_close(
                slope[:, c], expected.movedim(-1, 1), rtol=0, atol=1e-11, msg=str(call)
            )


# --- the ways of the CPU kernels ------------------------------------------------------------


@pytest.mark.quick
def test_ways():
    """Planar rows are read as vectors, and a narrow output's are laid end to end."""
    for name, way in (("planar", "grid_planar"), ("contiguous", "grid_packed")):
        for kind in KINDS:
            call = make(kind, (1, 1, 13, 13), (13, 13), torch.float32, name)
            _C.count_cpu_paths(True)
            try:
                call.gradients(call.cotangent())
                counts = _C.cpu_paths()
            finally:
                _C.count_cpu_paths(False)
            assert counts[way] and not counts["grid_strided"], (kind, name)
            assert counts["flattened" if kind == "pixel_grid" else "folded"], (kind, name)


# --- torch's transforms ---------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("normalized", (False, True))
def test_transforms(normalized):
    x, displacements = image((1, 2, 6, 5), F64), 0.4 * randn(3, 2, 4, 5)

    def f(displacement):
        return sample(x, Flow(displacement[None], normalized), padding_mode="border")[0]

    def expected(displacement):
        pixels = reference.flow_coordinates(displacement[None], (6, 5), False, normalized)
        return reference.sample(x, pixels, padding_mode="border", coords="pixel")[0]

    close = {"rtol": 0, "atol": 1e-11}
    mapped = torch.func.vmap(f)(displacements)
    torch.testing.assert_close(mapped, torch.stack([expected(d) for d in displacements]), **close)
    primal, tangent = displacements[0], randn(2, 4, 5)
    ours = torch.func.jvp(f, (primal,), (tangent,))
    for one, other in zip(ours, torch.func.jvp(expected, (primal,), (tangent,)), strict=True):
        torch.testing.assert_close(one, other, **close)
    ours = torch.func.hessian(lambda d: f(d).square().sum())(primal)
    oracle = torch.func.jacrev(torch.func.jacrev(lambda d: expected(d).square().sum()))(primal)
    torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-9)
    each = torch.func.vmap(torch.func.grad(lambda d: f(d).square().sum()))(displacements)
    alone = [torch.func.grad(lambda d: expected(d).square().sum())(d) for d in displacements]
    torch.testing.assert_close(each, torch.stack(alone), rtol=0, atol=1e-10)


@pytest.mark.quick
def test_compiled():
    x, displacement = image((2, 2, 9, 8)), randn(2, 2, 5, 6).float().requires_grad_()

    def f(x, d):
        flow, pixels = Flow(d), (4 + d).movedim(1, -1)
        y = sample(x, flow) + sample(x, pixels, coords="pixel")
        return (y + sample(x, flow.grid(in_size=x.shape[2:]))).square().sum()

    compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
    ours, eager = compiled(x, displacement), f(x, displacement)
    assert torch.equal(ours, eager)
    one, other = (torch.autograd.grad(value, displacement)[0] for value in (ours, eager))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
