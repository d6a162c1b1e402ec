"""accelerate(): torch's functions give torch's results by our kernels, kornia's calls included."""

import pytest
import torch
import torch.nn.functional as F
from accelerated import (
    GRID,
    SIZE,
    THETA,
    X,
    called_ops,
    exchange_undone,
    is_ours,
    nothing_for_torch,
    sampled,
)
from accuracy import UNIT_ROUNDOFF, Checks, check_call
from cases import (
    CONFIGURATIONS,
    LOW_PRECISION,
    Call,
    channels_last,
    configuration_id,
    image,
    scattered_grid,
    shapes,
    smooth_grid,
    thetas,
    torch_sample,
)

# As a module that was imported long before anything is accelerated knows them.
from torch.nn.functional import affine_grid as early_affine_grid
from torch.nn.functional import grid_sample as early_grid_sample

import stn_cuda


@pytest.fixture(autouse=True)
def _undone():
    with exchange_undone():
        yield


class AcceleratedCall(Call):
    """A call of F.grid_sample, accelerated."""

    def run(self, input=None, warp=None):
        input = self.input if input is None else input
        warp = self.warp if warp is None else warp
        with nothing_for_torch(), stn_cuda.accelerate():
            return F.grid_sample(input, warp, **self.keywords)


@pytest.mark.quick
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_grid_sample(configuration, device):
    """Forward and both gradients, of every mode, against torch's float64 kernels."""
    dims, *settings = configuration
    with Checks() as checks:
        for shape, size in shapes(dims)[::2]:
            for dtype in (torch.float32, torch.float64):
                for make in (scattered_grid, smooth_grid):
                    warp = make(shape[0], size, dtype)
                    call = AcceleratedCall(image(shape, dtype), warp, "grid", None, *settings)
                    check_call(checks, call.on(device), torch_sample)


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_affine_grid(dims, device):
    """Forward and gradient; the bounds are those of test_affine.py."""
    size = (4, 7) if dims == 2 else (3, 4, 5)
    with Checks() as checks:
        for dtype in (torch.float32, torch.float64, *LOW_PRECISION):
            u = UNIT_ROUNDOFF[torch.float64 if dtype == torch.float64 else torch.float32]
            for align in (False, True):
                theta = thetas(3, dims, dtype).to(device).requires_grad_()
                exact = theta.detach().cpu().double().requires_grad_()
                wanted = F.affine_grid(exact, (3, 1, *size), align_corners=align)
                with nothing_for_torch(), stn_cuda.accelerate():
                    grid = F.affine_grid(theta, (3, 1, *size), align_corners=align)
                g = torch.ones_like(grid)
                (grad,) = torch.autograd.grad(grid, theta, g)
                (wanted_grad,) = torch.autograd.grad(wanted, exact, g.cpu().double())
                terms = exact.detach().abs().sum(-1).reshape(3, *[1] * dims, dims)
                bound = 16 * u * terms + UNIT_ROUNDOFF[dtype] * wanted.detach().abs()
                points = wanted[0, ..., 0].numel()
                grad_bound = (32 + 4 * points**0.5) * u * points
                grad_bound = grad_bound + UNIT_ROUNDOFF[dtype] * wanted_grad.abs()
                what = f"{dims}-D {dtype} align {align}"
                checks.true(grid.dtype == grad.dtype == dtype, f"dtypes, {what}")
                checks.close(grid, wanted.detach(), bound, f"grid, {what}")
                checks.close(grad, wanted_grad, grad_bound, f"gradient, {what}")


@pytest.mark.quick
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_half_precision_of_large_images(dtype):
    """Where torch's CPU kernels return garbage."""
    call = Call(image((1, 1, 200, 200), dtype), smooth_grid(1, (50, 50), dtype))
    with Checks() as checks:
        check_call(checks, AcceleratedCall(call.input, call.warp), torch_sample)


@pytest.mark.quick
def test_our_kernels_run():
    def resample():
        sampled(grid=F.affine_grid(THETA, SIZE, align_corners=False))

    torchs = {"aten::affine_grid_generator", "aten::grid_sampler", "aten::grid_sampler_2d"}
    assert called_ops(resample) == torchs
    with nothing_for_torch(), stn_cuda.accelerate():
        assert called_ops(resample) == {"stn_cuda::warp_grid", "stn_cuda::sample"}
    assert called_ops(resample) == torchs


@pytest.mark.quick
def test_whatever_name_they_go_by():
    """Those imported before, and the functions that are exchanged themselves."""
    expected = stn_cuda.grid_sample(X, GRID, "nearest", "border", True)
    with nothing_for_torch(), stn_cuda.accelerate():
        assert is_ours(early_grid_sample)
        assert torch.equal(early_grid_sample(X, GRID, "nearest", "border", True), expected)
        early_affine_grid(THETA, list(SIZE), align_corners=True)
        assert torch.equal(torch.grid_sampler(X, GRID, 1, 1, True), expected)
        by_name = dict(interpolation_mode=1, padding_mode=1, align_corners=True)
        assert torch.equal(torch.grid_sampler(input=X, grid=GRID, **by_name), expected)


@pytest.mark.quick
def test_memory_format_is_torchs():
    """Contiguous, so that .view() works as it does behind torch's."""
    for x, grid in ((X, GRID), (image((2, 3, 4, 5, 6)), scattered_grid(2, (3, 2, 4)))):
        x = x.contiguous(memory_format=channels_last(x)).requires_grad_()
        with nothing_for_torch(), stn_cuda.accelerate():
            y = sampled(x, grid)
        assert y.is_contiguous() and y.view(-1).shape == (y.numel(),)
        assert torch.equal(y, stn_cuda.sample(x, grid))
        g = torch.rand_like(y)
        wanted = torch.autograd.grad(stn_cuda.sample(x, grid), x, g)
        assert torch.equal(torch.autograd.grad(y, x, g)[0], wanted[0])


@pytest.mark.quick
def test_empty_batches_and_channels():
    with nothing_for_torch(), stn_cuda.accelerate():
        assert sampled(X[:0], GRID[:0]).shape == (0, 3, 4, 7)
        assert sampled(X[:, :0]).shape == (2, 0, 4, 7)
        assert sampled(grid=GRID[:, :0]).shape == (2, 3, 0, 7)


# --- kornia -----------------------------------------------------------------------------------


def kornia_calls():
    """Calls by name, as functions of images (2, 3, 20, 24)."""
    import kornia.geometry.transform as K

    angles = torch.tensor([12.0, -31.0])
    matrix = torch.tensor([[0.9, -0.2, 3.0], [0.1, 1.1, -2.0], [1e-3, 2e-3, 1.0]]).expand(2, 3, 3)
    map_x, map_y = (24 * scattered_grid(2, (9, 15), reach=0.7).abs()).unbind(-1)
    noise = image((2, 2, 20, 24), key="noise")

    def converted(function, *parameters, **settings):
        return lambda x: function(x, *(p.to(x.dtype) for p in parameters), **settings)

    border = dict(dsize=(18, 30), padding_mode="border")
    return {
        "warp_affine": converted(K.warp_affine, matrix[:, :2], dsize=(18, 30)),
        "warp_affine, border": converted(K.warp_affine, matrix[:, :2], **border),
        "warp_perspective": converted(K.warp_perspective, matrix, dsize=(18, 30)),
        "remap": converted(K.remap, map_x, map_y, padding_mode="reflection"),
        "rotate": converted(K.rotate, angles),
        "elastic_transform2d": converted(K.elastic_transform2d, noise),
    }


@pytest.mark.quick
@pytest.mark.parametrize("name", kornia_calls())
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_kornia(name, dtype):
    """By our kernels, the values and gradients that it has by torch's.

    Both look at one and the same map, up to the rounding of a pixel coordinate: at most delta =
    32 u times the image's extent and the coordinates' reach of 3, in each of the two, per axis. A
    value moves by 2 M of that per axis and is a sum of roundings of 16 u M; see accuracy.py. The
    gradient of a pixel is such a sum over the points that look at it: fewer than 64 in these.
    """
    call = kornia_calls()[name]
    x = image((2, 3, 20, 24), dtype).requires_grad_()
    expected = call(x)
    g = image(expected.shape, dtype, key="cotangent")
    (expected_grad,) = torch.autograd.grad(expected, x, g)
    with nothing_for_torch(), stn_cuda.accelerate():
        y = call(x)
        (grad,) = torch.autograd.grad(y, x, g)
    u = UNIT_ROUNDOFF[dtype]
    relative = 2 * (2 * 2 * 32 * u * 3 * 24 + 16 * u)
    assert not torch.equal(expected, torch.zeros_like(expected))
    torch.testing.assert_close(y, expected, rtol=0, atol=relative * x.abs().max().item())
    bound = 64 * relative * g.abs().max().item()
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=bound)
    with stn_cuda.accelerate():
        ops = called_ops(lambda: call(x))
    assert "stn_cuda::sample" in ops and not any(op.startswith("aten") for op in ops)
