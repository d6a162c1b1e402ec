"""grid_sample and affine_grid in torch's place: all that code around torch's does with them."""

import enum
import inspect
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from accuracy import Checks
from cases import image, scattered_grid, thetas
from torch.overrides import TorchFunctionMode

import stn_cuda
from stn_cuda import Affine, affine_grid, grid_sample, sample

X = image((2, 3, 5, 6))
GRID = scattered_grid(2, (4, 7))
THETA = thetas(2, 2)
SIZE = (2, 3, 4, 7)


@pytest.mark.quick
@pytest.mark.parametrize("name", ("grid_sample", "affine_grid"))
def test_signature(name):
    """Parameter names, order, kinds and defaults are torch's."""
    ours = inspect.signature(getattr(stn_cuda, name)).parameters
    theirs = inspect.signature(getattr(F, name)).parameters
    assert list(ours) == list(theirs)
    for key, parameter in theirs.items():
        assert ours[key].default == parameter.default, key
        assert ours[key].kind == parameter.kind, key


@pytest.mark.quick
def test_signature_of_sample():
    parameters = inspect.signature(sample).parameters
    names = ["input", "warp", "size", "mode", "padding_mode", "align_corners", "coords"]
    assert list(parameters) == [*names, "fill", "return_mask"]
    defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
    assert defaults == {
        "size": None,
        "mode": "bilinear",
        "padding_mode": "zeros",
        "align_corners": False,
        "coords": "normalized",
        "fill": None,
        "return_mask": False,
    }
    assert all(parameters[k].kind == inspect.Parameter.KEYWORD_ONLY for k in list(defaults)[1:])


def warned(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    return result, [(w.category, str(w.message), w.filename) for w in caught]


@pytest.mark.quick
def test_align_corners_none_warns_as_torch():
    """The same category and text, at the caller's line; and the result of False."""
    for ours, theirs in (
        (lambda: grid_sample(X, GRID), lambda: F.grid_sample(X, GRID)),
        (lambda: affine_grid(THETA, SIZE), lambda: F.affine_grid(THETA, SIZE)),
        (lambda: grid_sample(X, GRID, align_corners=None), lambda: F.grid_sample(X, GRID)),
    ):
        result, messages = warned(ours)
        expected, their_messages = warned(theirs)
        assert messages == their_messages
        assert messages[0][2] == __file__
        torch.testing.assert_close(result, expected)
    assert not warned(lambda: sample(X, GRID))[1]
    assert not warned(lambda: grid_sample(X, GRID, align_corners=False))[1]
    assert not warned(lambda: affine_grid(THETA, SIZE, False))[1]


@pytest.mark.quick
def test_modes_as_string_enums():
    """As MONAI and kornia pass them: members of a string enum, whatever str() makes of them."""

    class Mode(str, enum.Enum):
        BILINEAR = "bilinear"
        NEAREST = "nearest"
        BICUBIC = "bicubic"

    class Padding(str, enum.Enum):
        ZEROS = "zeros"
        BORDER = "border"
        REFLECTION = "reflection"

    members = [(m, p) for m in Mode for p in Padding]
    if sys.version_info >= (3, 11):
        modes = enum.StrEnum("modes", [(m.name, m.value) for m in Mode])
        paddings = enum.StrEnum("paddings", [(p.name, p.value) for p in Padding])
        members += [(m, p) for m in modes for p in paddings]
    for mode, padding in members:
        plain = grid_sample(X, GRID, mode.value, padding.value, False)
        assert torch.equal(grid_sample(X, GRID, mode, padding, False), plain)
        assert torch.equal(sample(X, GRID, mode=mode, padding_mode=padding), plain)


@pytest.mark.quick
def test_sizes_of_every_kind():
    expected = affine_grid(THETA, SIZE, align_corners=False)
    for size in (list(SIZE), torch.Size(SIZE), torch.empty(SIZE).shape):
        assert torch.equal(affine_grid(THETA, size, align_corners=False), expected)
    volume = (2, 3, 2, 4, 7)
    assert affine_grid(thetas(2, 3), list(volume), align_corners=True).shape == (2, 2, 4, 7, 3)


class Tagged(torch.Tensor):
    """As MONAI's MetaTensor: a subclass with an attribute that operations pass on."""

    tag = None

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(result, Tagged):
            tags = [a.tag for a in args if isinstance(a, Tagged)]
            result.tag = tags[0] if tags else None
            result.seen = function
        return result


def tagged(tensor, tag):
    result = tensor.as_subclass(Tagged)
    result.tag = tag
    return result


@pytest.mark.quick
def test_subclasses_keep_their_type():
    """Through __torch_function__, which is given our function, as torch gives its own."""
    plain = grid_sample(X, GRID, align_corners=False)
    for x, grid in ((tagged(X, "scan"), GRID), (X, tagged(GRID, "scan"))):
        y = grid_sample(x, grid, align_corners=False)
        assert type(y) is Tagged and y.tag == "scan" and y.seen is grid_sample
        assert torch.equal(y.as_subclass(torch.Tensor), plain)
        assert type(sample(x, grid)) is Tagged
    grid = affine_grid(tagged(THETA, "map"), SIZE, align_corners=False)
    assert type(grid) is Tagged and grid.tag == "map" and grid.seen is affine_grid
    settings = dict(mode="nearest", align_corners=True)
    y = sample(tagged(X, "scan"), Affine(THETA), (4, 7), **settings)
    assert type(y) is Tagged and y.tag == "scan"
    plain = sample(X, Affine(THETA), (4, 7), **settings)
    assert torch.equal(y.as_subclass(torch.Tensor), plain)
    y = sample(X, Affine(tagged(THETA, "map")), (4, 7))
    assert type(y) is Tagged


@pytest.mark.quick
def test_gradients_through_subclasses():
    x = tagged(X.clone(), "scan").requires_grad_()
    grid_sample(x, GRID, align_corners=False).sum().backward()
    plain = X.clone().requires_grad_()
    grid_sample(plain, GRID, align_corners=False).sum().backward()
    assert torch.equal(x.grad.as_subclass(torch.Tensor), plain.grad)


@pytest.mark.quick
def test_parameters_as_arguments():
    """nn.Parameter is a Tensor subclass without a __torch_function__ of its own."""
    theta = torch.nn.Parameter(THETA.clone())
    y = sample(torch.nn.Parameter(X.clone()), Affine(theta), (4, 7))
    assert type(y) is torch.Tensor
    y.sum().backward()
    assert theta.grad is not None


@pytest.mark.quick
def test_function_modes_see_the_calls():
    class Recorder(TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.functions = []

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.functions.append(function)
            return function(*args, **(kwargs or {}))

    with Recorder() as recorder:
        grid = affine_grid(THETA, SIZE, align_corners=False)
        grid_sample(X, grid, align_corners=False)
        sample(X, Affine(THETA), (4, 7))
    for function in (affine_grid, grid_sample, sample):
        assert function in recorder.functions


@pytest.mark.quick
def test_default_device_mode():
    """torch.device as a context is a function mode, too."""
    with torch.device("cpu"):
        assert grid_sample(X, GRID, align_corners=False).shape == (2, 3, 4, 7)


def scripted_functions():
    def resample(x: torch.Tensor, theta: torch.Tensor, mode: str) -> torch.Tensor:
        grid = stn_cuda.affine_grid(theta, [2, 3, 4, 7], align_corners=False)
        return stn_cuda.grid_sample(x, grid, mode=mode, padding_mode="border", align_corners=False)

    return torch.jit.script(resample), resample


@pytest.mark.quick
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_jit_script():
    """Scripted code resolves grid_sample and affine_grid, and differentiates them."""
    scripted, plain = scripted_functions()
    for mode in ("bilinear", "nearest", "bicubic"):
        results = []
        for function in (scripted, plain):
            x, theta = X.clone().requires_grad_(), THETA.clone().requires_grad_()
            y = function(x, theta, mode)
            results.append((y, *torch.autograd.grad(y.sum(), (x, theta))))
        for ours, expected in zip(*results, strict=True):
            assert torch.equal(ours, expected)
    with pytest.raises(Exception, match="got: 'cubic'"):
        scripted(X, THETA, "cubic")


@pytest.mark.quick
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_jit_script_refuses_what_torch_refuses():
    """Sizes that do not fit are refused in scripted code as well."""

    def generate(theta: torch.Tensor, size: list[int]) -> torch.Tensor:
        return stn_cuda.affine_grid(theta, size, align_corners=False)

    scripted = torch.jit.script(generate)
    assert scripted(THETA, list(SIZE)).shape == (2, 4, 7, 2)
    for size in ([2, 3], [2, 3, 4], [3, 1, 4, 4], [2, 1, 3, 4, 4], [2, 1, -3, 4]):
        with pytest.raises(Exception):  # noqa: B017, PT011
            scripted(THETA, size)


@pytest.mark.quick
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torch_jit_trace():
    def resample(x, theta):
        return stn_cuda.sample(x, Affine(theta), (4, 7), mode="bilinear", align_corners=True)

    def with_grid(x, grid):
        return stn_cuda.grid_sample(x, grid, mode="nearest", align_corners=False)

    for function, warp in ((resample, THETA), (with_grid, GRID)):
        traced = torch.jit.trace(function, (X, warp), check_trace=False)
        other = image(X.shape, key="other")
        assert torch.equal(traced(other, warp), function(other, warp))


@pytest.mark.quick
def test_torch_export():
    class Transformer(torch.nn.Module):
        def forward(self, x, theta):
            grid = stn_cuda.affine_grid(theta, x.shape, align_corners=False)
            return stn_cuda.grid_sample(x, grid, align_corners=False)

    program = torch.export.export(Transformer(), (X, THETA))
    torch.testing.assert_close(program.module()(X, THETA), Transformer()(X, THETA))


@pytest.mark.quick
def test_empty():
    """Empty batches, channels and outputs: empty results, and gradients of the right shape."""
    with Checks() as checks:
        for batch, channels, size in (
            (0, 3, (4, 7)),
            (2, 0, (4, 7)),
            (2, 3, (0, 7)),
            (2, 3, (4, 0)),
            (0, 0, (0, 0)),
        ):
            for mode in ("bilinear", "nearest", "bicubic"):
                for kind in ("grid", "affine"):
                    x = torch.rand(batch, channels, 5, 6, requires_grad=True)
                    shape = (batch, *size, 2) if kind == "grid" else (batch, 2, 3)
                    warp = torch.rand(shape, requires_grad=True)
                    argument = warp if kind == "grid" else Affine(warp)
                    y = sample(x, argument, None if kind == "grid" else size, mode=mode)
                    what = f"{batch, channels, size} {mode} {kind}"
                    checks.true(y.shape == (batch, channels, *size), what)
                    grads = torch.autograd.grad(y.sum(), (x, warp))
                    checks.same(grads[0], torch.zeros_like(x), f"grad_input, {what}")
                    checks.same(grads[1], torch.zeros_like(warp), f"grad_warp, {what}")
    x = torch.rand(2, 3, 4, 5, 6)
    assert sample(x, torch.rand(2, 0, 3, 3, 3)).shape == (2, 3, 0, 3, 3)
    assert sample(x[:0], torch.rand(0, 2, 3, 3, 3)).shape == (0, 3, 2, 3, 3)
    assert sample(x[:0], Affine(thetas(0, 3))).shape == (0, 3, 4, 5, 6)
    assert Affine(thetas(0, 2)).grid((4, 5)).shape == (0, 4, 5, 2)
    assert sample(x[:0], torch.rand(1, 2, 3, 3, 3)).shape == (0, 3, 2, 3, 3)


@pytest.mark.quick
def test_inputs_are_not_changed():
    x, grid, theta = X.clone(), GRID.clone(), THETA.clone()
    for warp in (grid, Affine(theta)):
        leaf = x.clone().requires_grad_()
        sample(leaf, warp).sum().backward()
        assert torch.equal(leaf, x)
    assert torch.equal(x, X) and torch.equal(grid, GRID) and torch.equal(theta, THETA)
    y = sample(x, grid)
    assert y.data_ptr() not in (x.data_ptr(), grid.data_ptr())


@pytest.mark.quick
def test_inplace_changes_are_detected():
    """Autograd notices when a tensor that the backward needs was changed meanwhile."""
    x, grid = X.clone().requires_grad_(), GRID.clone().requires_grad_()
    y = sample(x * 1, grid)
    with torch.no_grad():
        grid.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.quick
def test_deepcopy_and_pickle_of_an_affine():
    import copy
    import pickle

    for clone in (copy.deepcopy(Affine(THETA)), pickle.loads(pickle.dumps(Affine(THETA)))):
        assert torch.equal(sample(X, clone), sample(X, Affine(THETA)))
    assert "2, 2, 3" in repr(Affine(THETA))


def test_in_a_forked_worker():
    """DataLoader workers are forked after the parent has used its threads."""
    script = """
import torch, stn_cuda
class Data(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, i):
        x = torch.full((1, 3, 200, 200), float(i))
        return stn_cuda.sample(x, stn_cuda.Affine(torch.eye(2, 3)[None]))[0]
Data()[0]
loader = torch.utils.data.DataLoader(Data(), batch_size=2, num_workers=2)
total = sum(batch.sum().item() for batch in loader)
assert total == 6 * 3 * 200 * 200, total
print("done")
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == "done", result.stderr[-2000:]
