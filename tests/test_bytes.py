"""uint8 images: sampled in float32, rounded to the nearest, saturated; no derivatives."""

import warnings

import pytest
import torch
from accuracy import Checks
from cases import MIXED, channels_last, generator, modes, scattered_grid, smooth_grid, thetas
from machine import all_paths, paths_of
from torch.autograd import forward_ad
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode
from ways import diagonal, turn

import stn_cuda
from stn_cuda import Affine, Compose, Flow, onnx, sample


def pixels(shape):
    return torch.randint(0, 256, shape, generator=generator("bytes", shape), dtype=torch.uint8)


def rounded(exact):
    """What bytes make of float32."""
    return exact.nan_to_num(0, float("inf"), -float("inf")).round().clamp(0, 255).to(torch.uint8)


def beside_others(x, step, before):
    """x in the first of `step` columns of a larger storage."""
    room = torch.full((*x.shape[:-1], step * x.shape[-1] + before), 77, dtype=x.dtype)
    return room[..., before::step][..., : x.shape[-1]].copy_(x)


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=channels_last(x)),
    "rows in others": lambda x: beside_others(x, 1, 3),
    "every second column": lambda x: beside_others(x, 2, 1),
    "channels in others": lambda x: beside_others(x.movedim(1, -1), 1, 1).movedim(-1, 1),
    "expanded": lambda x: x[..., :1, :1].expand_as(x),
}


# Of windows, which AVX-512 alone has of four vectors, and the baseline not at all.
SOME = {"sample_wide", "sample_narrow", "sample_windows"}
# Numbers of 16 bits and more only.
WIDE = {"sample_streams", "sample_staged"}


def calls():
    """(image, warp, size, the way that it goes on the CPU): those of all kinds of kernels."""
    wide, near = pixels((1, 5, 40, 70)), diagonal(0.9, 0.9)
    yield wide, Affine(near), (40, 70), None
    yield wide, Affine(turn(30, 0.4)), (40, 64), None
    yield wide, Affine(turn(80, 3.0)), (33, 64), None
    yield wide, Affine(turn(80, 9.0)), (33, 64), "sample_runs"
    yield wide, Affine(near + 30), (40, 64), "sample_nothing"
    yield pixels((2, 3, 20, 13)), Affine(near), (24, 40), None
    yield pixels((1, 2, 9, 1)), Affine(near), (9, 9), "sample_strided"
    yield pixels((1, 2, 1, 9)), Affine(near), (9, 9), None
    yield wide, smooth_grid(1, (18, 40), spread=0.1), None, None
    yield wide[:, :2], scattered_grid(3, (18, 40)), None, "sample_runs"
    yield pixels((2, 2, 5, 6, 20)), Affine(thetas(1, 3)), (4, 5, 19), None
    for channels in (2, 3, 4, 5):
        few = pixels((2, channels, 17, 21))
        few = few.contiguous(memory_format=torch.channels_last)
        pairs = "sample_pairs" if channels < 5 else "sample_channels"
        yield few, Affine(thetas(1, 2, torch.float64)), (15, 19), pairs
        yield few, scattered_grid(2, (3, 50)), None, pairs
        yield few[:, :-1], Affine(near), (17, 21), pairs if channels > 2 else None
    yield few[..., :1], Affine(near), (9, 9), "sample_channels"


@pytest.mark.quick
@pytest.mark.parametrize("fill", (None, 3.5, -7.0, 260.25, float("nan"), float("inf")))
def test_ways(fill):
    """Each way through the CPU kernels, with what lies around and without."""
    found = set()
    with Checks() as checks:
        for x, warp, size, way in calls():
            for mode in modes(x.dim() - 2):
                for padding in ("zeros", "border", "wrap")[: 3 if fill is None else 1]:
                    settings = dict(mode=mode, padding_mode=padding, fill=fill)
                    what = f"{tuple(x.shape)} {x.stride()} {warp} {size} {settings}"
                    y, ways = paths_of(lambda: sample(x, warp, size, **settings))  # noqa: B023
                    exact = sample(x.float(), warp, size, **settings)
                    checks.same(y, rounded(exact), what)
                    checks.true(y.stride() == exact.stride(), f"{y.stride()} of {what}")
                    if way and mode == "bilinear" and padding == "zeros" and fill is None:
                        checks.true(way in ways, f"{ways} of {what}")
                    found |= ways
    if fill is None:
        assert found >= {way for way in all_paths() if way.startswith("sample_")} - SOME - WIDE


@pytest.mark.quick
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dims", (2, 3))
def test_layouts(dims, layout, device):
    """Of 16 channels the CUDA kernels move several at once."""
    for channels in (3, 16):
        x = pixels((2, channels, *((9, 20) if dims == 2 else (4, 5, 20)))).to(device)
        laid = LAYOUTS[layout](x)
        for mode in modes(dims):
            for fill in (None, 100.0):
                y, exact = (
                    sample(of, Affine(thetas(2, dims).to(device)), mode=mode, fill=fill)
                    for of in (laid, laid.float())
                )
                assert torch.equal(y, rounded(exact))


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_is_the_rounded_float(dims, device):
    """In every mode and padding, by every kind of map."""
    x = pixels((2, 3, 7, 20) if dims == 2 else (2, 3, 4, 5, 20)).to(device)
    size = (6, 19) if dims == 2 else (3, 4, 17)
    grid = scattered_grid(2, size).to(device)
    warps = ((grid, None), (Affine(thetas(2, dims).to(device)), size))
    warps += ((Flow(grid.movedim(-1, 1)), None),)
    for mode in modes(dims):
        for padding in ("zeros", "border", "reflection", "wrap", MIXED[dims]):
            for memory_format in (torch.contiguous_format, channels_last(x)):
                laid = x.contiguous(memory_format=memory_format)
                for warp, out in warps:
                    settings = dict(mode=mode, padding_mode=padding)
                    y = sample(laid, warp, out, **settings)
                    exact = sample(laid.float(), warp, out, **settings)
                    assert y.dtype == torch.uint8
                    assert y.is_contiguous(memory_format=memory_format)
                    assert torch.equal(y, rounded(exact))


@pytest.mark.quick
def test_rounding(device):
    """Halves to even; what cubic convolution overshoots is cut off; the identity is exact."""
    x = torch.tensor([0, 1, 2, 3, 255, 255, 0, 0], dtype=torch.uint8, device=device)
    x = x.view(1, 1, 1, 8)
    at = torch.tensor([[0.5, 0], [1.5, 0], [2.5, 0]], device=device).view(1, 1, 3, 2)
    halves = sample(x, at, coords="pixel")
    assert halves.flatten().tolist() == [0, 2, 2]
    at = torch.tensor([[4.5, 0], [6.5, 0]], device=device).view(1, 1, 2, 2)
    cut = sample(x, at, mode="bicubic", padding_mode="border", coords="pixel")
    assert cut.flatten().tolist() == [255, 0]
    assert torch.equal(sample(x, Affine(torch.eye(2, 3, device=device)[None])), x)


@pytest.mark.quick
def test_fill_and_mask(device):
    x, far = pixels((1, 3, 5, 6)).to(device), torch.full((1, 2, 2, 2), 9.0, device=device)
    y, mask = sample(x, far, fill=300.0, return_mask=True)
    assert (y == 255).all() and (mask == 0).all() and mask.dtype == torch.float32
    y = sample(x, far, fill=torch.tensor([1.0, 2.0, 2.5], device=device))
    assert y[0, :, 0, 0].tolist() == [1, 2, 2]


class Ops(TorchDispatchMode):
    """The ops that are called."""

    def __init__(self):
        super().__init__()
        self.called = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.quick
def test_nothing_is_converted():
    """The kernels read and write bytes: no other pass over an image."""
    x, theta = pixels((1, 3, 9, 9)), torch.eye(2, 3)[None]
    with Ops() as ops:
        sample(x, Affine(theta))
    assert ops.called == ["stn_cuda::sample"]


@pytest.mark.quick
def test_transforms():
    x, theta = pixels((3, 2, 6, 7)), thetas(3, 2)

    def run(x, theta, fill=None):
        return sample(x[None], Affine(theta[None]), fill=fill)[0]

    each = torch.stack([run(*both) for both in zip(x, theta, strict=True)])
    assert torch.equal(vmap(run)(x, theta), each)
    filled = torch.stack([run(*both, 7.5) for both in zip(x, theta, strict=True)])
    assert torch.equal(vmap(lambda x, theta: run(x, theta, 7.5))(x, theta), filled)
    for fill, of in ((None, each), (7.5, filled)):
        whole = torch.compile(run, fullgraph=True, backend="aot_eager")
        assert torch.equal(whole(x[0], theta[0], fill), of[0])
        meta = run(x[0].to("meta"), theta[0].to("meta"), fill)
        assert meta.dtype == torch.uint8 and meta.shape == of[0].shape


@pytest.mark.quick
def test_opcheck():
    x, theta = pixels((2, 3, 5, 6)), thetas(2, 2)
    settings = ("affine", [4, 7], "bilinear", "zeros", False)
    ops = torch.ops.stn_cuda
    torch.library.opcheck(ops.sample.default, (x, theta, *settings))
    fill = torch.tensor([[1.5, -3, 300]])
    torch.library.opcheck(ops.sample_filled.default, (x, theta, fill, *settings))
    with pytest.raises(ValueError, match="fill must be .* of dtype Float"):
        ops.sample_filled(x, theta, fill.double(), *settings)


@pytest.mark.quick
@pytest.mark.parametrize("fill", (None, 7.5))
def test_exported_as_torch_operators(fill):
    x, theta = pixels((2, 3, 5, 6)), thetas(2, 2)

    class Model(torch.nn.Module):
        def forward(self, x, theta):
            return sample(x, Affine(theta), fill=fill)

    program = torch.export.export(Model(), (x, theta))
    decomposed = program.run_decompositions(onnx.decomposition_table())
    assert "stn_cuda" not in str(decomposed.graph)
    y, other = Model()(x, theta), decomposed.module()(x, theta)
    assert other.dtype == torch.uint8
    assert (y.int() - other.int()).abs().max() <= 1  # where a tie is rounded otherwise


@pytest.mark.quick
def test_chains():
    """One kernel evaluates them, as of float32."""
    x, theta = pixels((1, 3, 12, 14)), thetas(1, 2)
    warp = Compose(Affine(theta), Flow(torch.rand(1, 2, 12, 14)))
    y = sample(x, warp)
    assert torch.equal(y, rounded(sample(x.float(), warp)))
    looks = Compose(Affine(theta.requires_grad_()), Flow(torch.rand(1, 2, 12, 14)))
    with pytest.raises(RuntimeError, match="do not require grad"):
        sample(x, looks)
    with torch.no_grad():
        assert sample(x, looks).dtype == torch.uint8


@pytest.mark.quick
def test_no_derivatives():
    x, grid = pixels((1, 2, 5, 6)), scattered_grid(1, (5, 6))
    with forward_ad.dual_level():
        moving = forward_ad.make_dual(grid, torch.ones_like(grid))
        with pytest.raises(RuntimeError, match="do not require grad"):
            sample(x, moving)
        with pytest.raises(RuntimeError, match="do not require grad"):
            sample(x, moving, fill=1.0)
    with pytest.raises(RuntimeError, match="^sample: uint8 images must be used with a warp and"):
        sample(x, grid.requires_grad_())
    with torch.no_grad():
        assert sample(x, grid).dtype == torch.uint8
    fill = torch.zeros(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="do not require grad"):
        sample(x, grid.detach(), fill=fill)
    refused = "must be float32, float64, float16 or bfloat16, got"
    for function in (stn_cuda.splat, stn_cuda.sample_with_gradient):
        for on in ("cpu", "meta"):
            with pytest.raises(RuntimeError, match=refused):
                function(x.to(on), grid.detach().to(on))
    with pytest.raises(RuntimeError, match=refused):
        stn_cuda.grid_sample(x, grid.detach(), align_corners=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(stn_cuda.grid_sample)
    with pytest.raises(Exception, match="must be float32"):
        scripted(x, grid.detach(), align_corners=False)
    with pytest.raises(RuntimeError, match="must be float32, float64, float16 or bfloat16"):
        sample(x.int(), grid.detach())
    with pytest.raises(RuntimeError, match=refused):
        sample(x.float(), grid.detach().byte())
