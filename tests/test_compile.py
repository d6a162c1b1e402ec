"""torch.compile(fullgraph=True): the same values and derivatives as without, at the same cost."""

import re

import pytest
import torch
import torch._dynamo.testing
from accuracy import Checks
from cases import Call, image, scattered_grid, thetas
from torch._inductor.utils import run_and_get_code
from torch.func import grad, hessian, jacrev, jvp, vmap

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


def through_splat(x, theta):
    return stn_cuda.splat(x * 2, stn_cuda.Affine(theta + 0.01), (9, 10), mode="bicubic").sin()


def through_splat_of_a_grid(x, theta):
    grid = stn_cuda.Affine(theta).grid(x.shape[2:])
    return stn_cuda.splat(x * 2, grid, padding_mode="border").sin()


def through_gradient(x, theta):
    warp = stn_cuda.Affine(theta + 0.01)
    value, gradient = stn_cuda.sample_with_gradient(x * 2, warp, (9, 10), padding_mode="border")
    return value + gradient.sin().sum(2)


FUNCTIONS = (
    through_affine,
    through_grid,
    through_warp_grid,
    through_splat,
    through_splat_of_a_grid,
    through_gradient,
)


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
@pytest.mark.parametrize("function", (through_affine, through_grid, through_gradient))
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


# ---------------------------------------------------------------------------- derivatives

X = image((2, 3, 7, 8))
THETA = thetas(2, 2)


def warped(theta, x=X):
    return stn_cuda.sample(x, stn_cuda.Affine(theta), (5, 6))


def loss(theta):
    return warped(theta).square().sum()


def penalty(theta):
    """A function of a first derivative: what backward makes of it is a second one."""
    return grad(loss)(theta).square().sum()


TRANSFORMED = {
    "grad": grad(loss),
    "jvp": lambda theta: jvp(warped, (theta,), (torch.ones_like(theta),)),
    "vmap": lambda theta: vmap(lambda one: warped(one, X[:1]))(theta.unsqueeze(1)),
    "vmap of grad": lambda theta: vmap(grad(lambda t: warped(t, X[:1]).sum()))(theta.unsqueeze(1)),
    "hessian": hessian(loss),
    "jacrev of jacrev": jacrev(jacrev(loss)),
    "grad of grad": grad(penalty),
    "splat": grad(lambda t: stn_cuda.splat(X, stn_cuda.Affine(t), (5, 6)).square().sum()),
    "sample_with_gradient": grad(
        lambda t: stn_cuda.sample_with_gradient(X, stn_cuda.Affine(t))[1].square().sum()
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_within(name):
    """torch.func inside the compiled function: any derivative that there is, bit for bit."""
    function = TRANSFORMED[name]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    ours, expected = compiled(THETA), function(THETA)
    for mine, wanted in zip(
        *(r if isinstance(r, tuple) else (r,) for r in (ours, expected)), strict=True
    ):
        assert torch.equal(mine, wanted)


def penalty_by_autograd(theta):
    (first,) = torch.autograd.grad(loss(theta), theta, create_graph=True)
    return first.square().sum()


@pytest.mark.quick
@pytest.mark.parametrize("function", (penalty, penalty_by_autograd))
def test_double_backward(function):
    """With the first derivative taken inside the compiled function."""
    if function is penalty_by_autograd and not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        pytest.skip("this torch does not trace torch.autograd.grad")
    theta = THETA.clone().requires_grad_()
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(theta)
    (ours,) = torch.autograd.grad(compiled, theta)
    (expected,) = torch.autograd.grad(function(theta), theta)
    assert torch.equal(ours, expected)


@pytest.mark.quick
def test_double_backward_through_the_compiled_region_is_torchs_limit():
    theta = THETA.clone().requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (first,) = torch.autograd.grad(compiled(theta), theta, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        first.sum().backward()


# ---------------------------------------------------------------------------- warps and cost


@pytest.mark.quick
@pytest.mark.parametrize("function", (stn_cuda.sample, stn_cuda.splat))
def test_warps_as_arguments_and_closures(function):
    """One graph for all warps that are passed; theta's gradient arrives."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for key in range(3):
        theta = thetas(2, 2, key=key).requires_grad_()
        warp = stn_cuda.Affine(theta)
        ours = compiled(X, warp, (5, 6))
        assert torch.equal(ours, function(X, warp, (5, 6)))
        (mine,) = torch.autograd.grad(ours.square().sum(), theta)
        (wanted,) = torch.autograd.grad(function(X, warp, (5, 6)).square().sum(), theta)
        assert torch.equal(mine, wanted)
    assert counter.frame_count == 1

    closed = stn_cuda.Affine(THETA)
    compiled = torch.compile(lambda x: function(x, closed, (5, 6)), fullgraph=True, backend=counter)
    assert torch.equal(compiled(X), function(X, closed, (5, 6)))


def generated(function, x):
    """What inductor writes for the function and for its backward."""
    x, theta = x.clone().requires_grad_(), THETA.clone().requires_grad_()

    def run():
        y = torch.compile(function, fullgraph=True)(x, theta)
        torch.autograd.grad(y, (x, theta), torch.ones_like(y))

    _, codes = run_and_get_code(run)
    return [code[code.index("def call(") : code.index("runner =")] for code in codes]


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", (torch.contiguous_format, torch.channels_last), ids=str)
def test_generated_code_is_the_kernels_alone(memory_format):
    """No copy, no clone and no kernel of the compiler's around ours."""
    x = image((2, 4, 7, 8)).contiguous(memory_format=memory_format)
    for function, ops in (
        (stn_cuda.sample, ["sample", "splat", "sample_grad_warp"]),
        (stn_cuda.splat, ["splat", "sample", "sample_grad_warp"]),
    ):
        codes = generated(lambda x, t, f=function: f(x, stn_cuda.Affine(t), (5, 6)), x)
        assert len(codes) == 2
        called = [re.findall(r"torch\.ops\.stn_cuda\.(\w+)\.default\(", code) for code in codes]
        assert called == [ops[:1], ops[1:]]
        for code in codes:
            assert set(re.findall(r"torch\.ops\.(\w+)", code)) == {"stn_cuda"}
            for other in ("_fused_", "empty_strided", "copy_", "clone", "reinterpret_tensor"):
                assert other not in code, code
