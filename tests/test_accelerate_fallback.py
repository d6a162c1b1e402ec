"""accelerate() leaves to torch what is torch's: errors, modes, other devices, compiled code."""

import contextlib
import functools
import warnings

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
from cases import LOW_PRECISION, image, scattered_grid, thetas

import stn_cuda
from stn_cuda import acceleration


@pytest.fixture(autouse=True)
def _undone():
    with exchange_undone():
        yield


def outcome(function):
    """(result, None), or (None, the error's type and text), and the warnings with their places."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, error = function(), None
        except Exception as e:
            result, error = None, (type(e), str(e))
    return result, error, [(w.category, str(w.message), w.filename) for w in caught]


REFUSED = {
    "dtypes": lambda: sampled(grid=GRID.double()),
    "half image": lambda: sampled(X.half()),
    "integers": lambda: sampled(X.int(), GRID.int()),
    "complex": lambda: sampled(X.cfloat(), GRID.cfloat()),
    "bool": lambda: sampled(X.bool(), GRID.bool()),
    "batch of 1": lambda: sampled(X[:1]),
    "grid's batch of 1": lambda: sampled(grid=GRID[:1]),
    "batches": lambda: sampled(grid=torch.cat([GRID, GRID])),
    "dimensions": lambda: sampled(X[0]),
    "grid's dimensions": lambda: sampled(grid=GRID[0]),
    "last dimension": lambda: sampled(grid=torch.zeros(2, 4, 7, 3)),
    "empty image": lambda: sampled(X[:, :, :0]),
    "mode": lambda: sampled(mode="cubic"),
    "padding": lambda: sampled(padding_mode="wrap"),
    "bicubic volume": lambda: sampled(
        torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 1, 1, 1, 3), mode="bicubic"
    ),
    "align_corners": lambda: sampled(align_corners=1),
    "devices": lambda: sampled(grid=GRID.to("meta")),
    "sparse": lambda: sampled(X.to_sparse()),
    "mkldnn": lambda: sampled(X.to_mkldnn()),
    "nested": lambda: sampled(torch.nested.nested_tensor(list(X))),
    "no tensor": lambda: F.grid_sample(X, None, align_corners=False),
    "numbers for a tensor": lambda: F.grid_sample(X.tolist(), GRID, align_corners=False),
    "theta's batch": lambda: F.affine_grid(THETA[:1], SIZE, align_corners=False),
    "theta's shape": lambda: F.affine_grid(THETA.mT, SIZE, align_corners=False),
    "integer theta": lambda: F.affine_grid(THETA.int(), SIZE, align_corners=False),
    "empty size": lambda: F.affine_grid(THETA, (2, 3, 0, 7), align_corners=False),
    "size": lambda: F.affine_grid(THETA, (2, 3, 4), align_corners=False),
    "fractions": lambda: F.affine_grid(THETA, (2, 3, 4.0, 7), align_corners=False),
    "size for another theta": lambda: torch.affine_grid_generator(THETA, (2, 3, 4, 5, 6), False),
    "align_corners of a grid": lambda: F.affine_grid(THETA, SIZE, align_corners=1),
}


@pytest.mark.quick
@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_errors_are_torchs(what):
    """What torch refuses is refused with torch's words, though our kernels take some of it."""
    _, wanted, _ = outcome(REFUSED[what])
    with stn_cuda.accelerate():
        _, error, _ = outcome(REFUSED[what])
    assert error == wanted
    # Torch 2.15 takes cubic volumes.
    assert wanted is not None or what == "bicubic volume"


@pytest.mark.quick
def test_warnings_are_torchs():
    """The default of align_corners, and a single point with align_corners=True: at our line."""
    for call in (
        lambda: F.grid_sample(X, GRID),
        lambda: F.affine_grid(THETA, SIZE),
        lambda: F.affine_grid(THETA, (2, 3, 1, 7), align_corners=True),
    ):
        expected, _, wanted = outcome(call)
        with stn_cuda.accelerate():
            result, _, given = outcome(call)
        assert given == wanted and len(given) == 1
        torch.testing.assert_close(result, expected)


@pytest.mark.quick
def test_other_devices_are_torchs():
    """As any device that there are no kernels of ours for; here one that our ops would take."""
    x, grid, theta = (t.to("meta") for t in (X, GRID, THETA))
    with stn_cuda.accelerate():
        assert sampled(x, grid).shape == SIZE
        assert F.affine_grid(theta, SIZE, align_corners=False).shape == GRID.shape
        ops = called_ops(lambda: sampled(x, F.affine_grid(theta, SIZE, align_corners=False)))
    assert ops == {"aten::affine_grid_generator", "aten::grid_sampler", "aten::grid_sampler_2d"}


@pytest.mark.quick
def test_what_our_checks_refuse_is_left_to_torch(monkeypatch):
    """Whatever it is; but not what interrupts."""
    expected = sampled()

    def refuse(*arguments):
        raise kind("no")

    monkeypatch.setattr(stn_cuda.acceleration, "_sample_kernel", refuse)
    for kind in (RuntimeError, NotImplementedError, ValueError, TypeError):  # noqa: B007
        with stn_cuda.accelerate():
            assert torch.equal(sampled(), expected)
    kind = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), stn_cuda.accelerate():
        sampled()


@pytest.mark.quick
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_autocast(dtype, unwalked_device):
    """The dtypes of torch's results, and its errors; grid_sample by our kernels."""
    kinds = (torch.float32, torch.float64, *LOW_PRECISION)
    x, grid, theta = (t.to(unwalked_device) for t in (X, GRID, THETA))

    def call(of_image, of_grid):
        with torch.autocast(unwalked_device, dtype):
            return sampled(x.to(of_image), grid.to(of_grid))

    for of_image in kinds:
        for of_grid in kinds:
            same = functools.partial(call, of_image, of_grid)
            expected, wanted, _ = outcome(same)
            with stn_cuda.accelerate():
                result, error, _ = outcome(same)
            assert error == wanted
            assert (result is None) == (expected is None)
            if result is not None:
                assert result.dtype == expected.dtype
            # torch computes the coordinates of lower precision in just that.
            if result is not None and result.dtype in (torch.float32, torch.float64):
                torch.testing.assert_close(result, expected)
        with torch.autocast(unwalked_device, dtype):
            expected = F.affine_grid(theta.to(of_image), SIZE, align_corners=False)
            with stn_cuda.accelerate():
                result = F.affine_grid(theta.to(of_image), SIZE, align_corners=False)
        assert result.dtype == expected.dtype and torch.equal(result, expected)
    with torch.autocast(unwalked_device, dtype), stn_cuda.accelerate():
        for of_image in (torch.float32, dtype):
            assert is_ours(F.grid_sample, x.to(of_image), grid)


@pytest.mark.quick
def test_autocast_on_cuda_without_one():
    """What is told of the tensors alone: the widest dtype, or torch's answer."""
    x, grid = X.to("meta"), GRID.to("meta")
    low = torch.get_autocast_dtype("cuda")
    other = (set(LOW_PRECISION) - {low}).pop()
    for kinds, wanted in (
        ((torch.float32, torch.float32), torch.float32),
        ((torch.float32, low), torch.float32),
        ((low, torch.float32), torch.float32),
        ((low, low), low),
        ((other, other), None),
        ((low, other), None),
        ((torch.float64, torch.float64), None),
    ):
        cast = acceleration._autocast(x.to(kinds[0]), grid.to(kinds[1]))
        assert [t.dtype for t in cast or ()] == [wanted] * 2 * (wanted is not None)


class Tagged(torch.Tensor):
    """As MONAI's MetaTensor: a subclass with an attribute that operations pass on."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(result, Tagged):
            result.seen = function
        return result


@pytest.mark.quick
def test_subclasses():
    """They see torch's functions, as ever, and our kernels serve them."""
    with nothing_for_torch(), stn_cuda.accelerate():
        y = sampled(X.as_subclass(Tagged))
        grid = F.affine_grid(THETA.as_subclass(Tagged), SIZE, align_corners=False)
        plain = sampled()
    assert type(y) is type(grid) is Tagged
    assert y.seen is F.grid_sample and grid.seen is F.affine_grid
    assert torch.equal(y.as_subclass(torch.Tensor), plain)


@pytest.mark.quick
def test_subclasses_as_arguments_of_the_exchanged_functions():
    """Which hand them to torch's own, that calls __torch_function__."""
    for device in (contextlib.nullcontext(), torch.device("cpu")):
        with stn_cuda.accelerate(), device:
            y = torch.grid_sampler(X.as_subclass(Tagged), GRID, 0, 0, False)
            grid = torch.affine_grid_generator(THETA.as_subclass(Tagged), SIZE, False)
        assert type(y) is type(grid) is Tagged


@pytest.mark.quick
def test_subclasses_that_see_the_ops_see_torchs():
    class Logged(torch.Tensor):
        ops = []

        __torch_function__ = torch._C._disabled_torch_function_impl

        @classmethod
        def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
            cls.ops.append(op)
            return op(*[a.inner if type(a) is cls else a for a in args], **(kwargs or {}))

    logged = torch.Tensor._make_subclass(Logged, X)
    logged.inner = X
    expected = sampled()
    with stn_cuda.accelerate():
        assert torch.equal(sampled(logged), expected)
    assert Logged.ops == [torch.ops.aten.grid_sampler_2d.default]


@pytest.mark.quick
def test_modes():
    """Function modes see torch's functions and are served; dispatch modes see torch's ops."""
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    class Ops(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append(op)
            return op(*args, **(kwargs or {}))

    with stn_cuda.accelerate():
        seen = []
        with Functions():
            assert is_ours()
        assert F.grid_sample in seen
        with torch.device("cpu"):
            assert is_ours()
        seen = []
        with Ops():
            sampled()
        assert seen == [torch.ops.aten.grid_sampler_2d.default]


@pytest.mark.quick
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_function_transforms():
    """vmap and derivatives of derivatives: torch's values; and torch's refusal of forward mode."""
    from torch.func import grad, hessian, jacrev, jvp, vmap

    x, grid = image((3, 2, 2, 4, 5), torch.float64), scattered_grid(6, (3, 2), torch.float64)
    grid = grid.reshape(3, 2, 3, 2, 2)
    theta = thetas(2, 2, torch.float64)

    def power(*arguments):
        return sampled(*arguments).square().sum()

    def generate(theta):
        return F.affine_grid(theta, SIZE, align_corners=False)

    for function in (
        lambda: vmap(sampled)(x, grid),
        lambda: vmap(sampled, (0, None))(x, grid[0]),
        lambda: vmap(grad(power))(x, grid),
        lambda: vmap(grad(power, 1))(x, grid),
        lambda: jacrev(sampled, 1)(x[0], grid[0]),
        lambda: jvp(generate, (theta,), (theta,))[1],
        lambda: hessian(lambda t: generate(t).pow(3).sum())(theta),
    ):
        expected = function()
        with stn_cuda.accelerate():
            torch.testing.assert_close(function(), expected)


# --- compilers and recorders ------------------------------------------------------------------


def resample(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    grid = F.affine_grid(theta, [2, 3, 4, 7], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False) * 2


def directly(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    return torch.grid_sampler(
        x, torch.affine_grid_generator(theta, [2, 3, 4, 7], False), 0, 0, False
    )


def on_and_off(first):
    """Accelerated, not, and again; or the other way round."""
    for on in (first, not first, first):
        with stn_cuda.accelerate() if on else contextlib.nullcontext():
            yield on


@pytest.mark.parametrize("first", (True, False), ids=("accelerated first", "plain first"))
@pytest.mark.parametrize("function", (resample, directly))
def test_compiled_code_is_torchs(function, first):
    """In one graph, whenever it is compiled; F.grid_sample's code serves both."""
    expected = function(X, THETA)
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    for _ in on_and_off(first):
        torch.testing.assert_close(compiled(X, THETA), expected)
        ops = called_ops(lambda: compiled(X, THETA))
        assert ops == {"aten::affine_grid_generator", "aten::grid_sampler_2d"}
    if function is resample:
        with torch.compiler.set_stance("fail_on_recompile"):
            for _ in on_and_off(first):
                compiled(X, THETA)
    torch._dynamo.reset()


def test_compiled_gradients():
    torch._dynamo.reset()
    compiled = torch.compile(resample, backend="aot_eager", fullgraph=True)
    grads = []
    for function in (resample, compiled):
        x, theta = X.clone().requires_grad_(), THETA.clone().requires_grad_()
        with stn_cuda.accelerate() if function is compiled else contextlib.nullcontext():
            y = function(x, theta)
            grads.append(torch.autograd.grad(y.square().sum(), (x, theta)))
    torch.testing.assert_close(*grads)
    torch._dynamo.reset()


def test_a_block_within_compiled_code():
    """Breaks the graph, and accelerates what runs eagerly."""

    def block(x, theta):
        with stn_cuda.accelerate():
            return resample(x, theta)

    torch._dynamo.reset()
    compiled = torch.compile(block, backend="eager")
    torch.testing.assert_close(compiled(X, THETA), resample(X, THETA))
    assert not is_ours()
    torch._dynamo.reset()


@pytest.mark.quick
@pytest.mark.parametrize("first", (True, False), ids=("accelerated first", "plain first"))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_code_is_torchs(first, monkeypatch):
    """Whenever it is scripted, and whenever torch.jit made its table of ops."""
    for empty in (False, True):
        for number, _ in enumerate(on_and_off(first)):
            if empty and number == 0:
                monkeypatch.setattr(torch.jit._builtins, "_builtin_table", None)
            for function in (resample, directly):
                torch.jit._state._clear_class_state()
                graph = torch.jit.script(function).inlined_graph
                kinds = {node.kind() for node in graph.nodes() if "grid" in node.kind()}
                assert kinds == {"aten::affine_grid_generator", "aten::grid_sampler"}


@pytest.mark.quick
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traces_are_torchs():
    """They can be saved, exported and loaded where there is no stn_cuda."""
    from torch.fx.experimental.proxy_tensor import make_fx

    class Resample(torch.nn.Module):
        def forward(self, x, theta):
            return resample(x, theta)

    with stn_cuda.accelerate():
        traced = torch.jit.trace(resample, (X, THETA), check_trace=False)
        recorded = make_fx(resample)(X, THETA)
        exported = torch.export.export(Resample(), (X, THETA))
        symbolic = torch.fx.symbolic_trace(resample)
    assert "stn_cuda" not in str({node.kind() for node in traced.inlined_graph.nodes()})
    for graph in (recorded.graph, exported.graph, symbolic.graph):
        assert "grid_sample" in str(graph) and "stn_cuda" not in str(graph)
