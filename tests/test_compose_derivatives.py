"""Compose: the adjoint, derivatives and transforms of chains."""

import pytest
import torch
from cases import (
    PADDINGS,
    image,
)
from chains import (
    EVERY,
    F64,
    FEW,
    SIZES,
    compose,
    expected,
    looks,
    randn,
    tensors_of,
)

import stn_cuda
from stn_cuda import sample


@pytest.mark.quick
@pytest.mark.parametrize("dims, chain", EVERY)
def test_splat_is_the_adjoint(dims, chain, device):
    size, in_size = SIZES[dims], (11, 30, 8)[:dims]
    x, y = image((2, 2, *in_size), F64).to(device), randn(2, 2, *size).to(device)
    warp = compose(chain, [t.to(device) for t in tensors_of(chain, size)])
    for padding in PADDINGS:
        seen = sample(x, warp, size, padding_mode=padding)
        pushed = stn_cuda.splat(y, warp, in_size, padding_mode=padding)
        inner, outer = (seen * y).sum(), (x * pushed).sum()
        assert (inner - outer).abs() <= 1e-13 * (seen * y).abs().sum(), padding


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_values_with_gradients(dims, device):
    """d value / d pixel of the input, at the position that the chain looks at."""
    size = SIZES[dims]
    x = image((2, 2, *size), F64).to(device)
    for chain in FEW[dims]:
        warp = compose(chain, [t.to(device) for t in tensors_of(chain, size)])
        value, slope = stn_cuda.sample_with_gradient(x, warp, size)
        torch.testing.assert_close(value, sample(x, warp, size), rtol=0, atol=1e-12)
        pixels = looks(warp, size, size, False)
        exact = stn_cuda.sample_with_gradient(x, pixels, coords="pixel")[1]
        torch.testing.assert_close(slope, exact, rtol=0, atol=1e-10)


# --- derivatives ----------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
@pytest.mark.parametrize("dims, chain", [(d, c) for d, chains in FEW.items() for c in chains])
def test_gradgradcheck(dims, chain, align):
    size = (4, 5) if dims == 2 else (3, 2, 4)
    x = image((2, 1, *size), F64)
    tensors = tensors_of(chain, size)
    leaves = [t.clone().requires_grad_() for t in (x, *tensors)]
    mode = "bicubic" if dims == 2 else "bilinear"

    def run(x, *tensors):
        warp = compose(chain, tensors)
        return sample(x, warp, size, mode=mode, padding_mode="border", align_corners=align)

    torch.autograd.gradcheck(run, leaves, check_forward_ad=True)
    torch.autograd.gradgradcheck(run, leaves, fast_mode=True, check_fwd_over_rev=True)


@pytest.mark.quick
@pytest.mark.parametrize("chain", ("AF", "FA", "AfP"))
def test_second_derivatives_against_the_reference(chain, device):
    size = SIZES[2]
    x, tensors = image((2, 2, *size), F64), tensors_of(chain, size)
    directions = [randn(*t.shape, key="direction") for t in (x, *tensors)]
    g = randn(2, 2, *size)

    def second(function, on):
        leaves = [t.to(on).requires_grad_() for t in (x, *tensors)]
        y = function(leaves[0], compose(chain, leaves[1:]), size)
        first = torch.autograd.grad(y, leaves, g.to(on), create_graph=True)
        product = sum((a * d.to(on)).sum() for a, d in zip(first, directions, strict=True))
        return [t.cpu() for t in torch.autograd.grad(product, leaves)]

    for one, exact in zip(second(sample, device), second(expected, "cpu"), strict=True):
        scale = exact.abs().max().item() + 1
        torch.testing.assert_close(one, exact, rtol=0, atol=1e-11 * scale)


@pytest.mark.quick
@pytest.mark.parametrize("chain", ("AF", "FA"))
def test_transforms(chain):
    size = (4, 5)
    x, many = image((1, 2, 6, 5), F64), tensors_of(chain, size, 3)

    def of(function):
        return lambda *ts: function(x, compose(chain, [t[None] for t in ts]), size)[0]

    ours, exact = of(sample), of(expected)
    close = {"rtol": 0, "atol": 1e-11}
    each = list(zip(*many, strict=True))
    mapped = torch.func.vmap(ours)(*many)
    torch.testing.assert_close(mapped, torch.stack([exact(*ts) for ts in each]), **close)
    primals, tangents = each[0], tuple(randn(*t.shape, key="t") for t in each[0])
    for one, other_one in zip(
        torch.func.jvp(ours, primals, tangents),
        torch.func.jvp(exact, primals, tangents),
        strict=True,
    ):
        torch.testing.assert_close(one, other_one, **close)
    for k in range(2):
        hessian = torch.func.hessian(lambda *ts: ours(*ts).square().sum(), argnums=k)(*primals)
        inner = torch.func.jacrev(lambda *ts: exact(*ts).square().sum(), argnums=k)
        oracle = torch.func.jacrev(inner, argnums=k)(*primals)
        torch.testing.assert_close(hessian, oracle, rtol=0, atol=1e-9)
    gradient = torch.func.grad(lambda *ts: ours(*ts).square().sum(), argnums=(0, 1))
    alone = torch.func.grad(lambda *ts: exact(*ts).square().sum(), argnums=(0, 1))
    for one, other_one in zip(
        torch.func.vmap(gradient)(*many),
        zip(*(alone(*ts) for ts in each), strict=True),
        strict=True,
    ):
        torch.testing.assert_close(one, torch.stack(other_one), rtol=0, atol=1e-10)


@pytest.mark.quick
@pytest.mark.parametrize("dynamic", (False, True))
@pytest.mark.parametrize("chain", ("AF", "PFA", "Af", "AP", "SF"))
def test_compiled(chain, dynamic):
    if dynamic and "S" in chain:
        pytest.skip("Dynamo has no square root of a symbol, which a spline's grid is made of")
    torch._dynamo.reset()
    size = (5, 6)
    x, tensors = image((2, 2, 9, 8)), tensors_of(chain, size, dtype=torch.float32)

    def f(x, *tensors):
        warp = compose(chain, tensors)
        pushed = stn_cuda.splat(sample(x, warp, size), warp, size, padding_mode="border")
        return pushed.square().sum() + warp.grid(size).sum()

    compiled = torch.compile(f, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    leaves = [t.requires_grad_() for t in (x, *tensors)]
    for one, eager in zip(
        torch.autograd.grad(compiled(*leaves), leaves),
        torch.autograd.grad(f(*leaves), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, eager, rtol=1e-4, atol=1e-4 * eager.abs().max().item())


@pytest.mark.quick
def test_autocast_rounds_no_position(device):
    size = (30, 40)
    x, tensors = image((1, 1, *size)).to(device), tensors_of("AFPA", size, 1, torch.float32)
    warp = compose("AFPA", [t.to(device) for t in tensors])
    y = sample(x, warp, size)
    with torch.autocast(y.device.type, dtype=torch.bfloat16):
        assert torch.equal(sample(x, warp, size), y)
