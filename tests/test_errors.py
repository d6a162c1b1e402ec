"""Refusals: the type, a text that names the argument, what was expected and what came; in time.

The errors that torch raises too stand in test_opinfo.py; here are those of `sample`, `Affine` and
the warps, on real and on fake tensors.
"""

import pytest
import torch
from cases import image, scattered_grid, thetas

import stn_cuda
from stn_cuda import Affine, sample

X = image((2, 3, 5, 6))
X3 = image((2, 3, 4, 5, 6))
GRID = scattered_grid(2, (4, 7))
GRID3 = scattered_grid(2, (2, 4, 7))
THETA = thetas(2, 2)
THETA3 = thetas(2, 3)

# name: (call, error, patterns that the text must contain)
ERRORS = {
    # input
    "input 3-D": (lambda: sample(X[0], GRID), RuntimeError, ["input must be", r"\(3, 5, 6\)"]),
    "input 6-D": (
        lambda: sample(X3[None], GRID3),
        RuntimeError,
        ["input must be", r"\(1, 2, 3, 4, 5, 6\)"],
    ),
    "input None": (lambda: sample(None, GRID), TypeError, ["input must be a Tensor", "NoneType"]),
    "input list": (lambda: sample([[1.0]], GRID), TypeError, ["input must be a Tensor", "list"]),
    "input int": (
        lambda: sample(X.int(), GRID),
        (RuntimeError, TypeError),
        ["input must be float32", "(?i)int"],
    ),
    "input bool": (
        lambda: sample(X > 0, GRID),
        (RuntimeError, TypeError),
        ["input must be float32", "(?i)bool"],
    ),
    "input complex": (
        lambda: sample(X.cfloat(), GRID),
        (RuntimeError, TypeError),
        ["input must be float32", "(?i)complex"],
    ),
    "input float8": (
        lambda: sample(X.to(torch.float8_e5m2), GRID),
        (RuntimeError, TypeError),
        ["input must be float32", "(?i)float8"],
    ),
    "input sparse": (
        lambda: sample(X.to_sparse(), GRID),
        RuntimeError,
        ["(?i)sparse"],
    ),
    "input without rows": (
        lambda: sample(X[:, :, :0], GRID),
        RuntimeError,
        ["non-empty spatial dimensions", r"\(2, 3, 0, 6\)"],
    ),
    "volume without depth": (
        lambda: sample(X3[:, :, :0], GRID3),
        RuntimeError,
        ["non-empty spatial dimensions", r"\(2, 3, 0, 5, 6\)"],
    ),
    "without rows, affine": (
        lambda: sample(X[:, :, :0], Affine(THETA), (2, 2)),
        RuntimeError,
        ["non-empty spatial dimensions"],
    ),
    # grid
    "grid's last dimension": (
        lambda: sample(X, torch.rand(2, 5, 5, 3)),
        RuntimeError,
        ["sample: grid must have last dimension 2 for a 4-D input, got shape \\(2, 5, 5, 3\\)"],
    ),
    "grid's last dimension, volume": (
        lambda: sample(X3, torch.rand(2, 2, 5, 5, 2)),
        RuntimeError,
        ["grid must have last dimension 3 for a 5-D input, got shape \\(2, 2, 5, 5, 2\\)"],
    ),
    "grid 3-D": (
        lambda: sample(X, GRID[0]),
        RuntimeError,
        ["grid must have 4 dimensions", r"\(4, 7, 2\)"],
    ),
    "grid 5-D": (lambda: sample(X, GRID3), RuntimeError, ["grid must have", r"\(2, 2, 4, 7, 3\)"]),
    "grid 4-D, volume": (
        lambda: sample(X3, GRID),
        RuntimeError,
        ["grid must have", r"\(2, 4, 7, 2\)"],
    ),
    "grid's batch": (
        lambda: sample(X, torch.rand(3, 5, 5, 2)),
        RuntimeError,
        ["same batch size", "2", "3"],
    ),
    "grid int": (
        lambda: sample(X, GRID.int()),
        (RuntimeError, TypeError),
        ["grid must be float32", "(?i)int"],
    ),
    "grid None": (lambda: sample(X, None), TypeError, ["must be a", "NoneType"]),
    "grid list": (lambda: sample(X, [[0.0, 0.0]]), TypeError, ["must be a", "list"]),
    "grid meta": (lambda: sample(X, GRID.to("meta")), RuntimeError, ["device", "meta", "cpu"]),
    "input meta": (lambda: sample(X.to("meta"), GRID), RuntimeError, ["device", "meta", "cpu"]),
    "grid sparse": (lambda: sample(X, GRID.to_sparse()), RuntimeError, ["(?i)sparse"]),
    "the class for a warp": (lambda: sample(X, Affine), TypeError, ["must be a"]),
    # modes
    "mode": (
        lambda: sample(X, GRID, mode="cubic"),
        ValueError,
        ["'bilinear', 'nearest' or 'bicubic'", "got: 'cubic'"],
    ),
    "mode's case": (lambda: sample(X, GRID, mode="Bilinear"), ValueError, ["got: 'Bilinear'"]),
    "mode empty": (lambda: sample(X, GRID, mode=""), ValueError, ["got: ''"]),
    "padding_mode": (
        lambda: sample(X, GRID, padding_mode="mirror"),
        ValueError,
        ["'zeros', 'border', 'reflection' or 'wrap'", "got 'mirror'"],
    ),
    "bicubic volume": (
        lambda: sample(X3, GRID3, mode="bicubic"),
        RuntimeError,
        ["bicubic interpolation only supports 4D input"],
    ),
    "bicubic volume, affine": (
        lambda: sample(X3, Affine(THETA3), mode="bicubic"),
        RuntimeError,
        ["bicubic interpolation only supports 4D input"],
    ),
    # size
    "size with a grid": (
        lambda: sample(X, GRID, (4, 7)),
        ValueError,
        ["size must be None", r"\(4, 7\)"],
    ),
    "size short": (
        lambda: sample(X, Affine(THETA), (4,)),
        ValueError,
        ["size must have 2 entries", r"\(4,\)"],
    ),
    "size long": (
        lambda: sample(X, Affine(THETA), (2, 3, 5, 6)),
        ValueError,
        ["size must have 2", r"\(2, 3, 5, 6\)"],
    ),
    "size short, volume": (
        lambda: sample(X3, Affine(THETA3), (4, 5)),
        ValueError,
        ["size must have 3", r"\(4, 5\)"],
    ),
    "size negative": (
        lambda: sample(X, Affine(THETA), (4, -1)),
        ValueError,
        ["size must", r"\(4, -1\)"],
    ),
    "size a number": (lambda: sample(X, Affine(THETA), 4), TypeError, ["size must"]),
    "size of floats": (lambda: sample(X, Affine(THETA), (4.5, 2.0)), TypeError, ["size must"]),
    # theta
    "theta None": (lambda: Affine(None), TypeError, ["theta must be a Tensor", "NoneType"]),
    "theta list": (
        lambda: Affine([[1.0, 0, 0], [0, 1, 0]]),
        TypeError,
        ["theta must be a Tensor", "list"],
    ),
    "theta int": (lambda: Affine(THETA.int()), TypeError, ["theta must", "int32"]),
    "theta without batch": (
        lambda: Affine(THETA[0]),
        ValueError,
        [r"\(N, 2, 3\) or \(N, 3, 4\)", r"got \(2, 3\)"],
    ),
    "theta square": (lambda: Affine(torch.rand(2, 3, 3)), ValueError, [r"got \(2, 3, 3\)"]),
    "theta (N, 2, 4)": (lambda: Affine(torch.rand(2, 2, 4)), ValueError, [r"got \(2, 2, 4\)"]),
    "theta of a volume for an image": (
        lambda: sample(X, Affine(THETA3)),
        ValueError,
        [r"theta must have shape \(N, 2, 3\)", r"got shape \(2, 3, 4\)"],
    ),
    "theta of an image for a volume": (
        lambda: sample(X3, Affine(THETA)),
        ValueError,
        [r"theta must have shape \(N, 3, 4\)", r"got shape \(2, 2, 3\)"],
    ),
    "theta's batch": (
        lambda: sample(X, Affine(thetas(3, 2))),
        RuntimeError,
        ["same batch size", "2", "3"],
    ),
    "theta meta": (
        lambda: sample(X, Affine(THETA.to("meta"))),
        RuntimeError,
        ["device", "meta", "cpu"],
    ),
    "grid() of 1 size": (lambda: Affine(THETA).grid((4,)), ValueError, ["size must", r"\(4,\)"]),
    "grid() of 3 sizes": (
        lambda: Affine(THETA).grid((4, 5, 6)),
        ValueError,
        ["theta|size", r"2, 3"],
    ),
    "grid() negative": (
        lambda: Affine(THETA).grid((4, -2)),
        ValueError,
        ["size must", r"\(4, -2\)"],
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, kind, patterns = ERRORS[name]
    with pytest.raises(kind) as error:
        call()
    text = str(error.value)
    for pattern in patterns:
        error.match(pattern)
    # An error from C++ must not drag a C++ stack trace or file names along.
    assert "csrc" not in text and ".cpp" not in text and "Exception raised from" not in text
    assert len(text) < 700


@pytest.mark.quick
def test_errors_come_before_any_work():
    """Refused calls leave nothing behind: a wrong size of 2^40 points allocates nothing."""
    huge = (2**20, 2**20)
    with pytest.raises(ValueError, match="got: 'cubic'"):
        sample(X, Affine(THETA), huge, mode="cubic")
    with pytest.raises(RuntimeError, match="same batch size"):
        sample(X, Affine(thetas(3, 2)), huge)


@pytest.mark.quick
@pytest.mark.parametrize("where", ("meta", "fake"))
def test_fake_tensors_are_refused_alike(where):
    """The checks hold under torch.compile's fake tensors and on the meta device as well."""
    from contextlib import nullcontext

    from torch._subclasses import FakeTensorMode

    mode = FakeTensorMode() if where == "fake" else None
    convert = mode.from_tensor if mode else (lambda t: t.to("meta"))
    x, grid, theta = convert(X), convert(GRID), convert(THETA)
    with mode or nullcontext():
        with pytest.raises((RuntimeError, ValueError)):
            sample(x, grid[..., :1])
        with pytest.raises((RuntimeError, ValueError)):
            sample(x, grid, mode="cubic")
        with pytest.raises((RuntimeError, ValueError)):
            sample(x, Affine(theta), (1, 2, 3))
        with pytest.raises((RuntimeError, ValueError)):
            sample(x.expand(2, 3, 5, 6)[:1].expand(3, 3, 5, 6), grid)


@pytest.mark.quick
def test_ops_check_their_arguments_too():
    """torch.ops.stn_cuda is public enough to be called with nonsense: refused, no crash."""
    ops = torch.ops.stn_cuda
    how = ("bilinear", "zeros", False)
    y = torch.rand(2, 3, 4, 7)
    nonsense = [
        lambda: ops.sample(X, GRID, "spline", [], *how),
        lambda: ops.sample(X, GRID, "grid", [4, 8], *how),
        lambda: ops.sample(X, THETA, "affine", [], *how),
        lambda: ops.splat(y, GRID, "grid", [2, 3, 5], False, *how),
        lambda: ops.splat(y, GRID, "grid", [2, 4, 5, 6], False, *how),
        lambda: ops.splat(y, GRID, "grid", [3, 3, 5, 6], False, *how),
        lambda: ops.splat(y, GRID, "grid", [2, 3, 0, 6], False, *how),
        lambda: ops.splat(y, GRID, "grid", [2, 3, -5, 6], False, *how),
        lambda: ops.splat(y[..., :3], GRID, "grid", [2, 3, 5, 6], False, *how),
        lambda: ops.splat(y, GRID[:, :, :3], "grid", [2, 3, 5, 6], False, *how),
        lambda: ops.splat(y, scattered_grid(3, (4, 7)), "grid", [2, 3, 5, 6], False, *how),
        lambda: ops.sample_grad_warp(y[:1], X, GRID, "grid", *how),
        lambda: ops.sample_grad_warp(y[:, :1], X, GRID, "grid", *how),
        lambda: ops.sample_grad_warp(y[..., :3], X, GRID, "grid", *how),
        lambda: ops.sample_grad_warp(y.double(), X, GRID, "grid", *how),
        lambda: ops.sample_grad_warp(y[0], X, GRID, "grid", *how),
        lambda: ops.warp_grid(GRID, "grid", [4, 7], False),
        lambda: ops.warp_grid(THETA, "affine", [4], False),
        lambda: ops.warp_grid(THETA, "affine", [4, 5, 6, 7], False),
        lambda: ops.warp_grid_backward(GRID[..., :1], THETA, "affine", False),
        lambda: ops.warp_grid_backward(GRID[:1], THETA, "affine", False),
        lambda: ops.warp_grid_backward(GRID[0], THETA, "affine", False),
        lambda: ops.warp_grid_backward(GRID.double(), THETA, "affine", False),
        lambda: ops.warp_grid_derivative(THETA, THETA[:1], "affine", [4, 5], False),
        lambda: ops.warp_grid_derivative(THETA, THETA.double(), "affine", [4, 5], False),
        lambda: ops.warp_grid_derivative(THETA, THETA, "projective", [4, 5], False),
        lambda: ops.warp_grid_backward_derivative(GRID, THETA, THETA[:1], "affine", False),
    ]
    for number, call in enumerate(nonsense):
        with pytest.raises((RuntimeError, ValueError)):
            call()
            pytest.fail(f"nonsense number {number} was accepted")


@pytest.mark.quick
def test_second_argument_names():
    """Keyword calls work by the documented names."""
    assert torch.equal(sample(input=X, warp=GRID), sample(X, GRID))
    with pytest.raises(TypeError):
        sample(X, GRID, None, "bilinear")  # modes are keyword only
    assert torch.equal(
        stn_cuda.grid_sample(
            input=X, grid=GRID, mode="nearest", padding_mode="border", align_corners=True
        ),
        stn_cuda.grid_sample(X, GRID, "nearest", "border", True),
    )
    assert torch.equal(
        stn_cuda.affine_grid(theta=THETA, size=[2, 3, 4, 5], align_corners=True),
        stn_cuda.affine_grid(THETA, (2, 3, 4, 5), True),
    )
