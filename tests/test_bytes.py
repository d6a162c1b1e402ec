"""uint8 images: sampled in float32, rounded to the nearest, saturated; no derivatives."""

import pytest
import torch
from cases import MIXED, channels_last, generator, modes, scattered_grid, thetas
from torch.func import vmap

import stn_cuda
from stn_cuda import Affine, Flow, sample


def pixels(shape):
    return torch.randint(0, 256, shape, generator=generator("bytes", shape), dtype=torch.uint8)


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
                    assert torch.equal(y, exact.round().clamp(0, 255).to(torch.uint8))


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


@pytest.mark.quick
def test_transforms():
    x, theta = pixels((3, 2, 6, 7)), thetas(3, 2)

    def run(x, theta):
        return sample(x[None], Affine(theta[None]))[0]

    each = torch.stack([run(*both) for both in zip(x, theta, strict=True)])
    assert torch.equal(vmap(run)(x, theta), each)
    whole = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(whole(x[0], theta[0]), each[0])


@pytest.mark.quick
def test_no_derivatives():
    x, grid = pixels((1, 2, 5, 6)), scattered_grid(1, (5, 6))
    with pytest.raises(RuntimeError, match="^sample: uint8 images must be used with a warp and"):
        sample(x, grid.requires_grad_())
    with torch.no_grad():
        assert sample(x, grid).dtype == torch.uint8
    fill = torch.zeros(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="do not require grad"):
        sample(x, grid.detach(), fill=fill)
    for function in (stn_cuda.splat, stn_cuda.sample_with_gradient):
        with pytest.raises(RuntimeError, match="must be float32, float64, float16 or bfloat16"):
            function(x, grid.detach())
    with pytest.raises(RuntimeError, match="must be float32, float64, float16 or bfloat16"):
        stn_cuda.grid_sample(x, grid.detach(), align_corners=False)
    with pytest.raises(RuntimeError, match="must be float32, float64, float16 or bfloat16"):
        sample(x.int(), grid.detach())
