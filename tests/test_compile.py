"""torch.compile(fullgraph=True): the same values and first derivatives as without."""

import pytest
import torch
import torch._dynamo.testing
from accuracy import Checks
from cases import Call, image, scattered_grid, thetas

import stn_cuda

# Inductor's own code reads deprecated modules and warns about the machine's compiler.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def through_affine(x, theta):
    return stn_cuda.sample(x * 2, stn_cuda.Affine(theta + 0.01), (9, 10), mode="bilinear").sin()


def through_grid(x, theta):
    grid = stn_cuda.affine_grid(theta + 0.01, (*x.shape[:2], 9, 10), align_corners=True)
    return stn_cuda.grid_sample(x * 2, grid, "bicubic", "reflection", align_corners=True).sin()


def through_warp_grid(x, theta):
    grid = stn_cuda.Affine(theta).grid((9, 10))
    return stn_cuda.sample(x, grid, mode="nearest", padding_mode="border") + grid.sum()


FUNCTIONS = (through_affine, through_grid, through_warp_grid)


def value_and_gradients(function, x, theta):
    x, theta = x.clone().requires_grad_(), theta.clone().requires_grad_()
    y = function(x, theta)
    return y.detach(), *torch.autograd.grad(y.square().sum(), (x, theta))


def assert_same(compiled, function, batch, dtype=torch.float32):
    x, theta = image((batch, 3, 7, 8), dtype), thetas(batch, 2)
    ours, expected = (value_and_gradients(f, x, theta) for f in (compiled, function))
    for name, mine, wanted in zip(("value", "x", "theta"), ours, expected, strict=True):
        # The compiler may fuse x * 2 and sin differently: a few roundings of the dtype.
        tolerance = 16 * torch.finfo(dtype).eps
        scale = wanted.abs().max().item()
        torch.testing.assert_close(
            mine, wanted, rtol=tolerance, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.quick
@pytest.mark.parametrize("function", FUNCTIONS)
def test_full_graph(function):
    """One graph without breaks, forward and backward, at a fixed size."""
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=False)
    assert_same(compiled, function, 4)
    assert_same(compiled, function, 1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_dynamic_batch(function):
    """Compiled once for any batch size of 2 and more."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=True)
    for batch in (4, 2, 7):
        assert_same(compiled, function, batch)
    assert counter.frame_count == 1, f"{counter.frame_count} graphs for three batch sizes"


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS[:2])
def test_inductor(function):
    """The default compiler, which generates code around our ops."""
    compiled = torch.compile(function, fullgraph=True)
    assert_same(compiled, function, 4)
    assert_same(compiled, function, 3)  # a second size: the compiler turns to dynamic shapes


@pytest.mark.quick
def test_low_precision_and_channels_last():
    def function(x, theta):
        return stn_cuda.sample(x, stn_cuda.Affine(theta), (5, 6))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for dtype in (torch.bfloat16, torch.float16):
        x = image((2, 4, 7, 8), dtype).contiguous(memory_format=torch.channels_last)
        ours, expected = (value_and_gradients(f, x, thetas(2, 2)) for f in (compiled, function))
        for mine, wanted in zip(ours, expected, strict=True):
            assert mine.stride() == wanted.stride() and mine.dtype == wanted.dtype
            assert torch.equal(mine, wanted)


@pytest.mark.quick
def test_every_mode():
    """Compiled calls of every mode, padding and map agree with eager ones, bit for bit."""
    calls = []
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            pixels = image((2, 3, 6, 7))
            calls.append(Call(pixels, scattered_grid(2, (4, 5)), "grid", None, mode, padding, True))
            calls.append(Call(pixels, thetas(2, 2), "affine", (4, 5), mode, padding, False))
    volume = image((2, 3, 4, 5, 6))
    calls.append(Call(volume, thetas(2, 3), "affine", (3, 4, 5)))
    calls.append(Call(volume, scattered_grid(2, (3, 4, 5)), mode="nearest"))

    def function(operands):
        results = []
        for call, (x, warp) in zip(calls, operands, strict=True):
            warp = stn_cuda.Affine(warp) if call.map == "affine" else warp
            size = call.size if call.map == "affine" else None
            results.append(
                stn_cuda.sample(
                    x,
                    warp,
                    size,
                    mode=call.mode,
                    padding_mode=call.padding_mode,
                    align_corners=call.align_corners,
                )
            )
        return results

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    operands = [(call.input, call.warp) for call in calls]
    with Checks() as checks:
        for call, ours, expected in zip(calls, compiled(operands), function(operands), strict=True):
            checks.same(ours, expected, str(call))


@pytest.mark.quick
def test_errors_surface_while_compiling():
    """A wrong call is refused when it is traced, in the words of the eager call."""

    def function(x, grid):
        return stn_cuda.sample(x, grid)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="last dimension"):
        compiled(image((2, 3, 5, 6)), torch.rand(2, 4, 4, 3))


@pytest.mark.quick
def test_module():
    """A module around sample, as users compile it, trains."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = torch.nn.Parameter(thetas(1, 2))

        def forward(self, x):
            warp = stn_cuda.Affine(self.theta.expand(x.shape[0], 2, 3))
            return stn_cuda.sample(x, warp, padding_mode="border")

    plain, net = Net(), Net()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = image((3, 2, 6, 7))
    for each in (plain, compiled):
        each(x).square().sum().backward()
    assert torch.equal(net.theta.grad, plain.theta.grad)
