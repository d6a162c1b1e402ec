"""Projective: homographies, in the kernels against the reference."""

import pytest
import torch
from cases import (
    CONFIGURATIONS,
    DTYPES,
    WARPS,
    Call,
    configuration_id,
    generator,
    homographies,
    image,
    sample_inputs,
    thetas,
)
from test_gradients import away_from_kinks

import stn_cuda
from stn_cuda import Affine, Projective, reference, sample

SIZES = {2: (17, 24), 3: (9, 17, 24)}
F64 = torch.float64


def randn(*shape, key=0):
    return torch.randn(*shape, generator=generator("projective", *shape, key), dtype=F64)


def oracle(call, input, theta):
    grid = WARPS["projective"].grid(theta, call.output_size, call.align_corners)
    return reference.sample(input, grid, **call.keywords)


# --- the map --------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("dims", (2, 3))
def test_grid(dims, align_corners, device):
    """Against the reference, with its gradient, and the second ones by finite differences."""
    theta = homographies(3, dims, F64).to(device).requires_grad_()
    grid = Projective(theta).grid(SIZES[dims], align_corners)
    expected = reference.projective_grid(theta, SIZES[dims], align_corners)
    torch.testing.assert_close(grid, expected, rtol=1e-13, atol=1e-13)
    cotangent = randn(*grid.shape).to(device)
    ours, theirs = (torch.autograd.grad(g, theta, cotangent)[0] for g in (grid, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)
    assert Projective(theta.float()).grid(SIZES[dims]).dtype == torch.float32
    small = homographies(2, dims, F64).to(device).requires_grad_()

    def grid_of(theta):
        return Projective(theta).grid((2, 3, 2)[:dims], align_corners)

    torch.autograd.gradcheck(grid_of, small, check_forward_ad=True)
    torch.autograd.gradgradcheck(grid_of, small, check_fwd_over_rev=True)


@pytest.mark.quick
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("dims", (2, 3))
def test_identity_is_exact(dims, align_corners):
    for size in (SIZES[dims], (1, 7, 3)[:dims], (64,) * dims, (33,) * dims):
        x = image((1, 2, *size))
        for theta in (torch.eye(dims + 1), 0.25 * torch.eye(dims + 1)):
            y = sample(x, Projective(theta[None]), align_corners=align_corners)
            assert torch.equal(y, x), size


@pytest.mark.quick
def test_an_affine_map_is_one(device):
    """With (0, 0, 1) below a theta it is the affine map, within rounding."""
    for dims in (2, 3):
        call = Call(image((2, 3, *SIZES[dims]), F64), thetas(2, dims, F64), "affine").on(device)
        affine = Affine(call.warp)
        expected = sample(call.input, affine)
        y = sample(call.input, Projective(affine.homogeneous()))
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


# --- sampled through ------------------------------------------------------------------------


def calls(dtype):
    """Of every mode x padding x align_corners x dims, small; and large enough for every loop."""
    yield from sample_inputs(dtype, maps=("projective",))
    for shape, size in (
        ((2, 1, 60, 70), (50, 40)),  # rows laid end to end, runs
        ((1, 3, 150, 160), (140, 150)),  # windows, padded tiles
        ((2, 20, 40, 50), None),
        ((1, 4, 20, 30, 25), (18, 20, 32)),
    ):
        for padding in ("zeros", "border", "reflection"):
            warp = homographies(shape[0], len(shape) - 2, dtype, key=padding)
            yield Call(image(shape, dtype), warp, "projective", size, padding_mode=padding)
    last = image((2, 20, 40, 50), dtype).contiguous(memory_format=torch.channels_last)
    yield Call(last, homographies(2, 2, dtype), "projective")
    yield Call(image((3, 2, 9, 8), dtype), homographies(1, 2, dtype), "projective")
    yield Call(image((1, 2, 9, 8), dtype), homographies(3, 2, dtype), "projective")


@pytest.mark.quick
def test_against_the_reference(device):
    """Values and both gradients in float64, where rounding leaves 1e-12 of what is summed."""
    for call in (call.on(device) for call in calls(F64)):
        cotangent = call.cotangent().to(device)
        got = call.gradients(cotangent)
        expected = call.expect_gradients(cotangent)
        for name, ours, theirs in zip(
            ("y", "grad_input", "grad_theta"), got, expected, strict=True
        ):
            scale = theirs.abs().max().item() + 1
            torch.testing.assert_close(
                ours.cpu(), theirs, rtol=0, atol=3e-12 * scale, msg=f"{name}: {call}"
            )


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
def test_precision(dtype, device):
    """In float32 a coordinate is right to some ulp of the image's extent over the divisor.

    The homogeneous coordinates are sums of dims + 1 products, and the quotient takes three more
    roundings: 8 units of (extent / 2) * 2.6 / 0.4, the largest sum over the smallest divisor, and
    as much again from the divisor's own error. A value moves by at most 2 (bicubic: 4) times the
    largest pixel per pixel and axis.
    """
    unit = torch.finfo(torch.float64 if dtype == F64 else torch.float32).eps
    for call in (call.on(device) for call in calls(dtype)):
        if call.mode == "nearest":
            continue  # a step moves by as much as there is
        y, expected = call.run().cpu(), call.expect()
        extent = max(call.input.shape[2:])
        off = 2 * 8 * unit * extent / 2 * 2.6 / 0.4
        steep = call.dims * (4 if call.mode == "bicubic" else 2) * call.input.abs().max().item()
        bound = steep * off + 64 * unit * call.input.abs().max().item()
        stored = torch.finfo(dtype).eps * expected.abs()
        assert ((y.double() - expected).abs() <= bound + stored).all(), str(call)


@pytest.mark.quick
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_gradgradcheck(configuration, device):
    dims, *settings = configuration
    shape, size = ((2, 2, 4, 5), (3, 2)) if dims == 2 else ((1, 1, 3, 4, 3), (2, 2, 3))
    warp = homographies(shape[0], dims, F64, key=7)
    call = Call(image(shape, F64), warp, "projective", size, *settings)
    keep = away_from_kinks(call).to(device)
    call = call.on(device)
    leaves = (call.input.requires_grad_(), call.warp.requires_grad_())

    def run(x, w):
        return call.run(x, w) * keep

    torch.autograd.gradcheck(run, leaves, check_forward_ad=True, fast_mode=True)
    torch.autograd.gradgradcheck(run, leaves, fast_mode=True, check_fwd_over_rev=True)


@pytest.mark.quick
def test_second_derivatives_against_the_reference(device):
    for call in (call.on(device) for call in calls(F64)):
        if call.mode == "nearest":
            continue
        a, b = randn(*call.input.shape).to(device), randn(*call.warp.shape).to(device)
        cotangent = call.cotangent().to(device)

        def second(run, call=call, a=a, b=b, cotangent=cotangent):
            leaves = [t.detach().requires_grad_() for t in (cotangent, call.input, call.warp)]
            first = torch.autograd.grad(run(*leaves[1:]), leaves[1:], leaves[0], create_graph=True)
            return torch.autograd.grad(first, leaves, (a, b))

        expected = second(lambda x, theta, call=call: oracle(call, x, theta))
        for ours, theirs in zip(second(call.run), expected, strict=True):
            scale = theirs.abs().max().item() + 1
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11 * scale, msg=str(call))


@pytest.mark.quick
def test_splat_is_the_adjoint(device):
    for call in (call.on(device) for call in calls(F64)):
        if call.input.shape[0] != call.output_shape[0]:
            continue
        y = call.cotangent().to(device)
        size = call.input.shape[2:]
        pushed = stn_cuda.splat(y, Projective(call.warp), size, **call.keywords)
        inner, outer = (call.run() * y).sum(), (call.input * pushed).sum()
        scale = (call.run() * y).abs().sum()
        assert (inner - outer).abs() <= 1e-13 * scale, str(call)


@pytest.mark.quick
def test_values_with_gradients(device):
    """d value / d pixel, against the reference's by a shift of the looks."""
    for call in calls(F64):
        if call.mode == "nearest" or call.padding_mode != "zeros":
            continue
        call = call.on(device)
        value, slope = stn_cuda.sample_with_gradient(
            call.input, Projective(call.warp), call.size, **call.keywords
        )
        torch.testing.assert_close(value, call.run(), rtol=0, atol=1e-12)
        grid = call.grid64().to(device).requires_grad_()
        ones = torch.ones(call.output_shape[0], 1, *call.output_size, dtype=F64, device=device)
        for c in range(call.input.shape[1]):
            plane = reference.sample(call.input[:, c : c + 1], grid, **call.keywords)
            (by_grid,) = torch.autograd.grad(plane, grid, ones)
            if grid.shape[0] != call.output_shape[0]:
                continue  # summed over the images
            extent = torch.tensor(reference.sizes_of(call.input), dtype=F64, device=device)
            half = (extent - 1 if call.align_corners else extent) / 2
            expected = (by_grid / half).movedim(-1, 1)
            torch.testing.assert_close(slope[:, c], expected, rtol=0, atol=1e-10, msg=str(call))


# --- the horizon ----------------------------------------------------------------------------


def crossing(dims=2, dtype=F64):
    """The horizon passes through the output, at x = 0.2."""
    theta = torch.eye(dims + 1, dtype=dtype)
    theta[-1, 0] = -5.0
    return theta[None]


@pytest.mark.quick
@pytest.mark.parametrize("padding", ("zeros", "border", "reflection"))
@pytest.mark.parametrize("mode", ("bilinear", "nearest", "bicubic"))
def test_behind_the_horizon(mode, padding, device):
    """Nothing is seen there, nothing is NaN, and nothing there moves with theta."""
    size = (40, 50)
    call = Call(image((2, 3, 30, 35), F64), crossing(), "projective", size, mode, padding)
    call = call.on(device)
    y, grad_input, grad_theta = call.gradients(call.cotangent().to(device))
    for tensor in (y, grad_input, grad_theta):
        assert tensor.isfinite().all()
    x = (2 * torch.arange(50) + 1) / 50 - 1
    behind = x > 0.2
    if padding == "zeros":
        assert (y[..., behind] == 0).all()
    else:
        assert (y[..., behind] != 0).any()
    # What is behind has no part in theta's gradient.
    front = call.cotangent().to(device)
    front[..., behind] = 0
    assert torch.equal(call.gradients(front)[2], grad_theta)
    expected = call.expect()
    near = (x > 0.12) & ~behind  # looks far away, where rounding moves them by whole pixels
    keep = ~behind & ~near
    if mode != "nearest":
        torch.testing.assert_close(y[..., keep].cpu(), expected[..., keep], rtol=0, atol=1e-9)


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", (2, 3))
def test_any_theta_is_harmless(dtype, dims, device):
    """Singular, negative, huge, NaN: results and gradients without NaN but for a NaN's own."""
    eye = torch.eye(dims + 1)
    cases = {
        "zeros": torch.zeros(dims + 1, dims + 1),
        "negative": -eye,
        "rank 1": torch.ones(dims + 1, dims + 1),
        "flat": eye * torch.tensor([1.0] * (dims - 1) + [0.0, 1.0]),
        "horizon on a point": eye
        + torch.nn.functional.pad(torch.tensor([[1.0]]), (0, dims, dims, 0)),
        "huge": 1e30 * eye if dtype not in (torch.float16,) else 6e4 * eye,
        "small": 2.0**-6 * eye,
        "NaN": torch.full((dims + 1, dims + 1), torch.nan),
        "infinite": torch.full((dims + 1, dims + 1), torch.inf),
    }
    x = image((1, 2, *(6, 7, 5)[:dims]), dtype).to(device)
    for name, theta in cases.items():
        for padding in ("zeros", "border", "reflection"):
            call = Call(
                x, theta[None].to(dtype).to(device), "projective", None, "bilinear", padding
            )
            y, grad_input, grad_theta = call.gradients(call.cotangent().to(device))
            assert y.isfinite().all() and grad_input.isfinite().all(), (name, padding)
            if name != "infinite":
                assert grad_theta.isfinite().all(), (name, padding)
    assert (sample(x, Projective(-eye[None].to(x))) == 0).all()
    assert torch.equal(sample(x, Projective(2.0**-14 * eye[None].to(x.device))), x)


# --- torch's transforms ---------------------------------------------------------------------


@pytest.mark.quick
def test_transforms():
    x, theta = image((1, 2, 9, 8), F64), homographies(4, 2, F64)

    def f(theta):
        return sample(x, Projective(theta[None]), (5, 6))[0]

    def expected(theta):
        grid = reference.projective_grid(theta[None], (5, 6))
        return reference.sample(x, grid)[0]

    close = {"rtol": 0, "atol": 1e-10}
    mapped = torch.func.vmap(f)(theta)
    torch.testing.assert_close(mapped, torch.stack([expected(t) for t in theta]), **close)
    tangent = randn(3, 3)
    ours = torch.func.jvp(f, (theta[0],), (tangent,))
    theirs = torch.func.jvp(expected, (theta[0],), (tangent,))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **close)
    hessian = torch.func.hessian(lambda t: f(t).square().sum())(theta[0])
    oracle = torch.func.jacrev(torch.func.jacrev(lambda t: expected(t).square().sum()))(theta[0])
    torch.testing.assert_close(hessian, oracle, rtol=0, atol=1e-9 * oracle.abs().max().item())
    each = torch.func.vmap(torch.func.jacrev(lambda t: f(t).sum()))(theta)
    one_by_one = [torch.func.jacrev(lambda t: expected(t).sum())(t) for t in theta]
    torch.testing.assert_close(each, torch.stack(one_by_one), rtol=0, atol=1e-9)
    grids = torch.func.vmap(lambda t: Projective(t[None]).grid((5, 6))[0])(theta)
    torch.testing.assert_close(grids, Projective(theta).grid((5, 6)), **close)


@pytest.mark.quick
def test_third_derivatives_are_refused():
    theta = homographies(1, 2, F64).requires_grad_()
    grid = Projective(theta).grid((3, 4))
    for _ in range(2):
        (grid,) = torch.autograd.grad(grid.square().sum(), theta, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives of a warp's grid"):
        torch.autograd.grad(grid.square().sum(), theta)
    # An affine grid is linear in theta: all of its derivatives are there.
    theta = thetas(1, 2, F64).requires_grad_()
    value = Affine(theta).grid((3, 4)).pow(4).sum()
    for _ in range(3):
        (grad,) = torch.autograd.grad(value, theta, create_graph=True)
        value = grad.sum()
    assert grad.abs().max() > 0


@pytest.mark.quick
def test_compiled():
    x, theta = image((2, 2, 9, 8)), homographies(2, 2).requires_grad_()

    def f(x, theta):
        warp = Projective(theta).__matmul__(Affine.rotation(0.1))  # Dynamo does not trace @
        return sample(x, warp, (5, 6)).square().sum()

    ours = torch.compile(f, backend="aot_eager", fullgraph=True)(x, theta)
    assert torch.equal(ours, f(x, theta))
    compiled, eager = (torch.autograd.grad(value, theta)[0] for value in (ours, f(x, theta)))
    torch.testing.assert_close(compiled, eager, rtol=1e-6, atol=1e-6)
