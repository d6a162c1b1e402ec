"""wrap and per-axis padding: against their definition, and what follows from it."""

import enum
import itertools

import pytest
import torch
from accuracy import Checks, check_call
from cases import (
    DTYPES,
    IMAGE_LAYOUTS,
    MIXED,
    NAN,
    Call,
    image,
    modes,
    scattered_grid,
    shapes,
    smooth_grid,
    thetas,
)
from torch.func import vmap
from torch.nn import functional as F

import stn_cuda
from stn_cuda import Affine, Flow, sample

F64 = torch.float64
PADDINGS = {
    2: ("wrap", MIXED[2], ("wrap", "zeros")),
    3: ("wrap", MIXED[3], ("zeros", "wrap", "wrap")),
}


def warps(batch, size, dtype):
    """Maps that leave the image by up to several of its periods."""
    yield scattered_grid(batch, size, dtype, reach=4.0), "grid", None
    yield smooth_grid(batch, size, dtype, spread=1.5), "grid", None
    yield thetas(batch, len(size), dtype, spread=1.5), "affine", size
    yield 30 * scattered_grid(batch, size, dtype), "pixel_grid", None
    yield 20 * scattered_grid(batch, size, dtype), "flow", None


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_reference(dims, dtype, device):
    """Every mode, size and dtype, far beyond the image."""
    wide = F64 if dtype == F64 else torch.float32
    with Checks() as checks:
        for number, (shape, size) in enumerate(shapes(dims)):
            for mode, padding in itertools.product(modes(dims), PADDINGS[dims]):
                for warp, kind, out in warps(shape[0], size, wide):
                    # No grid says where pixels are on an axis of one with its corners aligned.
                    single = 1 in shape[2:] and kind in ("pixel_grid", "flow")
                    align = (number + len(kind)) % 2 == 0 and not single
                    call = Call(image(shape, dtype), warp, kind, out, mode, padding, align)
                    check_call(checks, call.on(device))


@pytest.mark.quick
@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_layouts(layout, device):
    with Checks() as checks:
        for dims, shape, size in ((2, (2, 8, 30, 41), (20, 33)), (3, (2, 3, 6, 7, 20), (5, 6, 17))):
            for mode, padding in itertools.product(modes(dims), PADDINGS[dims]):
                pixels = IMAGE_LAYOUTS[layout](image(shape))
                for warp, kind, out in warps(2, size, torch.float32):
                    check_call(checks, Call(pixels, warp, kind, out, mode, padding).on(device))


@pytest.mark.quick
@pytest.mark.parametrize("mode", ("bilinear", "nearest", "bicubic"))
def test_against_circular_padding(mode, device):
    """What torch pads circularly, and is then looked at inside; values and both gradients."""
    x = image((2, 3, 9, 12), F64).to(device).requires_grad_()
    at = 5 * scattered_grid(2, (20, 30), F64).to(device)
    at = (at + torch.tensor((6.0, 4.0), device=device, dtype=F64)).requires_grad_()
    y = sample(x, at, mode=mode, padding_mode="wrap", coords="pixel")
    padded = F.pad(x, (12, 12, 9, 9), mode="circular")
    moved = at + torch.tensor((12.0, 9.0), device=device, dtype=F64)
    expected = sample(padded, moved, mode=mode, coords="pixel")
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    g = image(y.shape, F64, key="g").to(device)
    ours = torch.autograd.grad(y, (x, at), g)
    theirs = torch.autograd.grad(expected, (x, at), g)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_rolling_is_translating(dims, device):
    """By whole pixels, however many: bit for bit, along each axis, in every mode and dtype."""
    size = (9, 37) if dims == 2 else (5, 6, 37)
    for dtype, mode, axis in itertools.product(DTYPES, modes(dims), range(dims)):
        x = image((1, 2, *size), dtype).to(device)
        padding = ["border"] * dims
        padding[axis] = "wrap"
        for k in (0, 1, -1, 5, size[axis], -3 * size[axis] - 2, 1000):
            shift = torch.zeros(1, dims, *size, device=device)
            shift[:, dims - 1 - axis] = k  # x, y(, z)
            y = sample(x, Flow(shift), mode=mode, padding_mode=padding)
            assert torch.equal(y, x.roll(-k, dims=2 + axis)), f"{dtype} {mode} {axis} {k}"
    theta = torch.eye(2, 3)[None]
    theta[0, 0, 2] = 1.0  # half a turn
    x = image((2, 3, 32, 64)).to(device)
    y = sample(x, Affine(theta.to(device)), padding_mode=("border", "wrap"))
    assert torch.equal(y, x.roll(-32, dims=3))


@pytest.mark.quick
def test_identity(device):
    for dims, size in ((2, (33, 70)), (3, (5, 6, 37))):
        for dtype, mode, padding in itertools.product(DTYPES, modes(dims), PADDINGS[dims]):
            x = image((2, 3, *size), dtype).to(device)
            theta = torch.eye(dims, dims + 1, device=device)[None]
            for align in (False, True):
                settings = dict(mode=mode, padding_mode=padding, align_corners=align)
                assert torch.equal(sample(x, Affine(theta), **settings), x)


@pytest.mark.quick
@pytest.mark.parametrize("mode", ("bilinear", "bicubic"))
def test_nothing_happens_at_the_seam(mode, device):
    """Values and slopes of a smooth periodic image are those of its function, on both sides."""
    n = 256
    phase = 2 * torch.pi * torch.arange(n, device=device, dtype=F64) / n
    x = phase.sin().expand(1, 1, 4, n)
    at = torch.linspace(-1.5 * n, 1.5 * n, 3001, device=device, dtype=F64)
    grid = torch.stack((at, torch.ones_like(at)), -1)[None, None]
    for padding in ("wrap", ("border", "wrap")):
        settings = dict(mode=mode, padding_mode=padding, coords="pixel")
        value, slope = stn_cuda.sample_with_gradient(x, grid, **settings)
        angle = 2 * torch.pi * at / n
        torch.testing.assert_close(value[0, 0, 0], angle.sin(), rtol=0, atol=2e-3)
        wanted = angle.cos() * 2 * torch.pi / n
        close = {"bilinear": 5e-4, "bicubic": wanted.max() * 0.51}[mode]  # a = -0.75 bends a ramp
        torch.testing.assert_close(slope[0, 0, 0, 0], wanted, rtol=0, atol=float(close))
        assert slope[0, 0, 1].abs().max() < 1e-12
        again = sample(x, grid + torch.tensor((float(n), 0.0), device=device), **settings)
        torch.testing.assert_close(value, again, rtol=0, atol=1e-12)


@pytest.mark.quick
def test_axes_are_the_tensor_s(device):
    """(H, W) and (D, H, W): each axis by its own rule."""
    x = torch.arange(1.0, 13, device=device).view(1, 1, 3, 4)
    down = torch.zeros(1, 2, 3, 4, device=device)
    down[:, 1] = 1
    y = sample(x, Flow(down), padding_mode=("zeros", "wrap"))
    assert torch.equal(y[0, 0], torch.cat((x[0, 0, 1:], torch.zeros(1, 4, device=device))))
    assert torch.equal(sample(x, Flow(down), padding_mode=("wrap", "zeros")), x.roll(-1, 2))
    v = torch.arange(24.0, device=device).view(1, 1, 2, 3, 4)
    deep = torch.zeros(1, 3, 2, 3, 4, device=device)
    deep[:, 2] = 1
    assert torch.equal(
        sample(v, Flow(deep), padding_mode=("wrap", "border", "zeros")), v.roll(1, 2)
    )


@pytest.mark.quick
def test_sequences(device):
    """Equal entries, lists and string enums are what the names are."""
    x, grid = image((1, 2, 8, 9)).to(device), scattered_grid(1, (7, 6), reach=3.0).to(device)
    for name in ("zeros", "border", "reflection", "wrap"):
        y = sample(x, grid, padding_mode=name)
        assert torch.equal(sample(x, grid, padding_mode=[name, name]), y)
        assert torch.equal(stn_cuda.grid_sample(x, grid, "bilinear", name, False), y)
    kind = enum.Enum("kind", {"B": "border", "W": "wrap"}, type=str)
    mixed = sample(x, grid, padding_mode=("border", "wrap"))
    assert torch.equal(sample(x, grid, padding_mode=(kind.B, kind.W)), mixed)


@pytest.mark.quick
@pytest.mark.parametrize("function", (sample, stn_cuda.splat, stn_cuda.sample_with_gradient))
def test_refused(function):
    x, grid = image((1, 2, 8, 9)), scattered_grid(1, (8, 9))
    op = function.__name__
    for padding in (("wrap",), ("wrap", "wrap", "wrap"), ()):
        with pytest.raises(ValueError, match=f"^{op}: padding_mode must have 2 entries, one for"):
            function(x, grid, padding_mode=padding)
    with pytest.raises(ValueError, match=f"^{op}: padding_mode must be 'zeros', .*got 'wrap,fog'"):
        function(x, grid, padding_mode=("wrap", "fog"))
    with pytest.raises(ValueError, match=f"^{op}: padding_mode must be a name, or a sequence"):
        function(x, grid, padding_mode="border,wrap")
    with pytest.raises(ValueError, match=r"got '\(wrap'"):
        function(x, grid, padding_mode=("(wrap", "(wrap"))
    with pytest.raises(
        ValueError, match="one for each of the 2 spatial axes, got 'wrap,zeros,wrap'"
    ):
        torch.ops.stn_cuda.sample(x, grid, "grid", [], "bilinear", "wrap,zeros,wrap", False)


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hostile_coordinates(dtype, device):
    """Nothing outside is read, and what does not move has no gradient."""
    for dims, shape in ((2, (1, 2, 6, 37)), (3, (1, 2, 3, 4, 20))):
        x = image(shape, dtype).to(device)
        grid = scattered_grid(1, shape[2:]).to(device)
        grid.view(-1)[::3] = torch.tensor(
            (NAN, torch.inf, -torch.inf, 1e30, -1e30, 2.0**24, -(2.0**23) - 1, 1e9), device=device
        ).repeat(grid.numel())[: grid.view(-1)[::3].numel()]
        for mode, padding in itertools.product(modes(dims), PADDINGS[dims]):
            call = Call(x, grid, "grid", None, mode, padding)
            y, grad_input, grad_warp = call.gradients(call.cotangent().to(device))
            assert y.isfinite().all() and grad_input.isfinite().all() and grad_warp.isfinite().all()
            assert y.abs().max() <= 1.9 * x.abs().max()
            assert (grad_warp[grid.isnan()] == 0).all()


@pytest.mark.quick
def test_just_beside_the_seam(device):
    """Coordinates that rounding brings onto the seam look at the first pixel."""
    n = 37
    x = image((1, 1, 1, n)).to(device)
    below = torch.tensor([-1e-30, -1e-9, -0.0, n, 3 * n, -5 * n, n * 2.0**18], device=device)
    grid = torch.stack((below, torch.zeros_like(below)), -1)[None, None]
    for mode in modes(2):
        y = sample(x, grid, mode=mode, padding_mode="wrap", coords="pixel")
        torch.testing.assert_close(y, x[..., :1].expand_as(y), rtol=0, atol=1e-6)
    edge = torch.nextafter(torch.tensor(float(n)), torch.tensor(0.0))
    grid = torch.stack((edge, torch.tensor(0.0)))[None, None, None].to(device)
    y = sample(x, grid, padding_mode="wrap", coords="pixel")
    torch.testing.assert_close(y, x[..., :1], rtol=0, atol=1e-4)


@pytest.mark.quick
def test_pixels_that_are_not_finite(device):
    """A NaN reaches what sees it across the seam, and nothing else."""
    x = image((1, 1, 4, 40)).to(device)
    x[..., 0] = NAN
    at = torch.arange(-45.0, 90.0, 0.25, device=device)
    grid = torch.stack((at, torch.ones_like(at)), -1)[None, None]
    y = sample(x, grid, padding_mode="wrap", coords="pixel")[0, 0, 0]
    seen = (at + 1).remainder(40) < 2
    seen &= (at + 1).remainder(40) > 0
    assert torch.equal(y.isnan(), seen)


@pytest.mark.quick
def test_threads(threads):
    """One and two: the same bits."""
    with Checks() as checks:
        for padding, mode in itertools.product(PADDINGS[2], modes(2)):
            for warp, kind, size in warps(1, (150, 170), torch.float32):
                call = Call(image((1, 5, 140, 160)), warp, kind, size, mode, padding)
                results = []
                for count in (1, 2):
                    threads(count)
                    results.append(call.gradients(call.cotangent()))
                for one, two in zip(*results, strict=True):
                    checks.same(one, two, str(call))


@pytest.mark.quick
def test_vmap_and_compile():
    x, theta = image((3, 2, 8, 9)), thetas(3, 2, spread=1.5)

    def run(x, theta):
        return sample(x[None], Affine(theta[None]), (7, 6), padding_mode=("border", "wrap"))[0]

    each = torch.stack([run(*both) for both in zip(x, theta, strict=True)])
    assert torch.equal(vmap(run)(x, theta), each)
    whole = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(whole(x[0], theta[0]), each[0])


class Panorama(torch.nn.Module):
    def __init__(self, padding_mode):
        super().__init__()
        self.padding_mode = padding_mode

    def forward(self, x, theta):
        return sample(x, Affine(theta), padding_mode=self.padding_mode)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("padding", ("wrap", ("border", "wrap"), ("zeros", "reflection")))
def test_onnx_has_none(padding):
    """The exporter says so of the op, and what would decompose it in a sentence."""
    pytest.importorskip("onnxscript")
    module, operands = Panorama(padding).eval(), (image((1, 1, 4, 5)), thetas(1, 2))
    with pytest.raises(Exception, match="No ONNX function found for .*stn_cuda"):
        torch.onnx.export(module, operands, dynamo=True, verbose=False)
    program = torch.export.export(module, operands)
    assert torch.equal(program.module()(*operands), module(*operands))
    with pytest.raises(Exception, match="not implemented in ONNX exports"):
        program.run_decompositions(stn_cuda.onnx.decomposition_table())


@pytest.mark.quick
def test_in_a_module():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 6))
    module = stn_cuda.nn.SpatialTransformer(net, padding_mode=("border", "wrap"))
    x = image((2, 1, 8, 9))
    assert torch.equal(module(x), x) and "('border', 'wrap')" in repr(module)
