"""autocast: images keep their dtype, coordinates stay in float32, nothing is cast silently.

What accelerate() makes of torch's own functions under autocast, as torch casts: in
test_accelerate_fallback.py.
"""

import pytest
import torch
from cases import DTYPES, thetas

import stn_cuda
from stn_cuda import Affine, sample
from stn_cuda.nn import SpatialTransformer

LOW = {"cpu": (torch.bfloat16, torch.float16), "cuda": (torch.float16, torch.bfloat16)}


@pytest.fixture(params=(0, 1), ids=("first", "second"))
def autocast(request, device):
    """autocast to the device's usual half type, then to its other one."""
    torch.manual_seed(0)
    with torch.autocast(device, LOW[device][request.param]):
        yield LOW[device][request.param]


def call(function, x, warp):
    out = function(x, warp)
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.quick
@pytest.mark.parametrize("function", [sample, stn_cuda.sample_with_gradient, stn_cuda.splat])
@pytest.mark.parametrize("map", ["affine", "grid"])
def test_nothing_is_cast(function, map, autocast, device):
    """Under autocast every function gives, bit for bit, what it gives without."""
    theta = thetas(2, 2).to(device)
    values = torch.randn(2, 3, 9, 8, device=device)
    for kind in DTYPES:
        for of_warp in DTYPES:
            warp = theta.to(of_warp)
            warp = Affine(warp) if map == "affine" else Affine(warp).grid((9, 8))
            x = values.to(kind).requires_grad_()
            inside = call(function, x, warp)
            inside_grads = torch.autograd.grad(inside, x, [torch.ones_like(t) for t in inside])
            with torch.autocast(device, enabled=False):
                outside = call(function, x, warp)
                grads = torch.autograd.grad(outside, x, [torch.ones_like(t) for t in outside])
            for ours, expected in zip((*inside, *inside_grads), (*outside, *grads), strict=True):
                assert ours.dtype == kind
                if device == "cpu":
                    assert torch.equal(ours, expected)


@pytest.mark.quick
def test_coordinates_are_float32(autocast, device):
    """A half-precision image looked at through float32 coordinates: as in float32, rounded once."""
    x = torch.randn(2, 4, 300, 300, device=device).to(autocast)
    theta = thetas(2, 2).float().to(device).requires_grad_()
    assert Affine(theta).grid((300, 300)).dtype == torch.float32
    y = sample(x, Affine(theta))
    expected = sample(x.float(), Affine(theta))
    assert y.dtype == autocast
    # A rounding of the type, and where the sums of the two paths differ, one of theirs.
    unit = torch.finfo(autocast).eps / 2
    torch.testing.assert_close(y.float(), expected, rtol=1.01 * unit, atol=2e-6)
    y.float().square().sum().backward()
    assert theta.grad.dtype == torch.float32 and theta.grad.isfinite().all()


@pytest.mark.quick
def test_a_network(autocast, device):
    """Convolutions in half precision before and after, weights and their gradients in float32."""
    localization = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(16, 6),
    )  # fmt: skip
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 1, 3, padding=1),
        SpatialTransformer(localization),
        torch.nn.Conv2d(1, 2, 3),
    ).to(device)
    with torch.no_grad():  # away from where the net starts, so that all layers get a gradient
        localization[-1].weight.normal_(std=0.01)
    seen = {}
    for layer in net:
        layer.register_forward_hook(lambda module, _, output: seen.update({module: output.dtype}))
    y = net(torch.randn(3, 1, 12, 12, device=device))
    assert set(seen.values()) == {autocast}
    y.float().square().sum().backward()
    for parameter in net.parameters():
        assert parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0


@pytest.mark.quick
def test_compiled(autocast, device):
    function = torch.compile(
        lambda x, theta: sample(x.relu(), Affine(theta)), backend="aot_eager", fullgraph=True
    )
    x = torch.randn(2, 2, 8, 8, device=device).to(autocast)
    theta = thetas(2, 2).float().to(device)
    assert torch.equal(function(x, theta), sample(x.relu(), Affine(theta)))
