"""Refusals of splat, sample_with_gradient and the ops of derivatives: as in test_errors.py."""

from contextlib import nullcontext

import pytest
import torch
from cases import image, scattered_grid, thetas
from refusals import check_refused
from torch._subclasses import FakeTensorMode

from stn_cuda import Affine, sample_with_gradient, splat

X = image((2, 3, 5, 6))
X3 = image((2, 3, 4, 5, 6))
V = image((2, 3, 4, 7))
GRID = scattered_grid(2, (4, 7))
GRID3 = scattered_grid(2, (2, 4, 7))
THETA = thetas(2, 2)
THETA3 = thetas(2, 3)
HOW = ("bilinear", "zeros", False)
OPS = torch.ops.stn_cuda

# name: (call, error, the beginning of the text)
SPLAT = {
    # values
    "values None": (lambda: splat(None, GRID), TypeError, "values must be a Tensor, got NoneType"),
    "values list": (lambda: splat([[1.0]], GRID), TypeError, "values must be a Tensor, got list"),
    "values int": (
        lambda: splat(V.int(), GRID),
        RuntimeError,
        "values must be float32, float64, float16 or bfloat16, got Int",
    ),
    "values complex": (
        lambda: splat(V.cfloat(), GRID),
        RuntimeError,
        "values must be float32, float64, float16 or bfloat16, got ComplexFloat",
    ),
    "values sparse": (
        lambda: splat(V.to_sparse(), GRID),
        RuntimeError,
        "values must be a dense tensor, got layout Sparse",
    ),
    "values 3-D": (
        lambda: splat(V[0], GRID),
        RuntimeError,
        "values must be (N, C, H, W) or (N, C, D, H, W), got shape (3, 4, 7)",
    ),
    "values a number": (
        lambda: splat(torch.tensor(1.0), GRID),
        RuntimeError,
        "values must be (N, C, H, W) or (N, C, D, H, W), got shape ()",
    ),
    "values of another size": (
        lambda: splat(V, scattered_grid(2, (4, 6))),
        RuntimeError,
        "values must have the grid's spatial size (4, 6), got shape (2, 3, 4, 7)",
    ),
    "values of another size, batch 1": (
        lambda: splat(V[:1], scattered_grid(3, (4, 6))),
        RuntimeError,
        "values must have the grid's spatial size (4, 6), got shape (3, 3, 4, 7)",
    ),
    # warp
    "warp None": (lambda: splat(V, None), TypeError, "grid must be a Tensor, got NoneType"),
    "warp list": (lambda: splat(V, [[0.0]]), TypeError, "grid must be a Tensor, got list"),
    "the class for a warp": (lambda: splat(V, Affine), TypeError, "grid must be a Tensor, got"),
    "grid int": (
        lambda: splat(V, GRID.int()),
        RuntimeError,
        "grid must be float32, float64, float16 or bfloat16, got Int",
    ),
    "grid complex": (
        lambda: splat(V, GRID.cfloat()),
        RuntimeError,
        "grid must be float32, float64, float16 or bfloat16, got ComplexFloat",
    ),
    "grid 3-D": (
        lambda: splat(V, GRID[0]),
        RuntimeError,
        "grid must have 4 dimensions for a 4-D input, got shape (4, 7, 2)",
    ),
    "grid of a volume": (
        lambda: splat(V, GRID3),
        RuntimeError,
        "grid must have 4 dimensions for a 4-D input, got shape (2, 2, 4, 7, 3)",
    ),
    "grid's batch": (
        lambda: splat(V, scattered_grid(3, (4, 7))),
        RuntimeError,
        "warp must have batch size 1 or that of values, 2, got 3",
    ),
    "theta's batch": (
        lambda: splat(V, Affine(thetas(3, 2))),
        RuntimeError,
        "warp must have batch size 1 or that of values, 2, got 3",
    ),
    "theta of a volume": (
        lambda: splat(V, Affine(THETA3)),
        ValueError,
        "theta must have shape (N, 2, 3) for 2 spatial dimensions, got shape (2, 3, 4)",
    ),
    "theta of an image": (
        lambda: splat(X3, Affine(THETA)),
        ValueError,
        "theta must have shape (N, 3, 4) for 3 spatial dimensions, got shape (2, 2, 3)",
    ),
    "values meta": (
        lambda: splat(V.to("meta"), GRID),
        RuntimeError,
        "grid must be on meta, like values, got cpu",
    ),
    "grid meta": (
        lambda: splat(V, GRID.to("meta")),
        RuntimeError,
        "grid must be on cpu, like values, got meta",
    ),
    "theta meta": (
        lambda: splat(V, Affine(THETA.to("meta"))),
        RuntimeError,
        "theta must be on cpu, like values, got meta",
    ),
    # size
    "size short": (
        lambda: splat(V, GRID, (5,)),
        ValueError,
        "size must have 2 positive entries, the image's spatial size, got (5,)",
    ),
    "size long": (
        lambda: splat(V, Affine(THETA), (2, 3, 5, 6)),
        ValueError,
        "size must have 2 positive entries, the image's spatial size, got (2, 3, 5, 6)",
    ),
    "size short, volume": (
        lambda: splat(X3, Affine(THETA3), (5, 6)),
        ValueError,
        "size must have 3 positive entries, the image's spatial size, got (5, 6)",
    ),
    "size 0": (lambda: splat(V, GRID, (0, 6)), ValueError, "size must have 2 positive entries"),
    "size negative": (
        lambda: splat(V, GRID, (5, -1)),
        ValueError,
        "size must have 2 positive entries, the image's spatial size, got (5, -1)",
    ),
    "size by default 0": (
        lambda: splat(V[:, :, :0], GRID[:, :0]),
        ValueError,
        "size must have 2 positive entries, the image's spatial size, got (0, 7)",
    ),
    "size too large": (
        lambda: splat(V, GRID, (2**30, 6)),
        RuntimeError,
        "shape must have at most 536870912 pixels along each dimension",
    ),
    "size a number": (
        lambda: splat(V, GRID, 5),
        TypeError,
        "size must be a sequence of integers, got 5",
    ),
    "size of floats": (
        lambda: splat(V, GRID, (5.5, 6)),
        TypeError,
        "size must be a sequence of integers, got (5.5, 6)",
    ),
    # modes
    "mode": (
        lambda: splat(V, GRID, mode="cubic"),
        ValueError,
        "expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: 'cubic'",
    ),
    "padding_mode": (
        lambda: splat(V, GRID, padding_mode="mirror"),
        ValueError,
        "padding_mode must be 'zeros', 'border', 'reflection' or 'wrap', or one of these for each "
        "spatial axis, got 'mirror'",
    ),
    "bicubic volume": (
        lambda: splat(X3, Affine(THETA3), mode="bicubic"),
        RuntimeError,
        "mode 'bicubic' must be used with a 4-D input, got a 5-D input",
    ),
}

SPLAT_DERIVATIVE = {
    "no direction": (
        lambda: OPS.splat_derivative(V, GRID, None, -1, "grid", [2, 3, 5, 6], False, *HOW),
        ValueError,
        "axis must be between 0 and 1 where there is no tangent, got -1",
    ),
    "axis": (
        lambda: OPS.splat_derivative(V, GRID, None, 2, "grid", [2, 3, 5, 6], False, *HOW),
        ValueError,
        "axis must be between 0 and 1 where there is no tangent, got 2",
    ),
    "tangent int": (
        lambda: OPS.splat_derivative(V, GRID, GRID.int(), -1, "grid", [2, 3, 5, 6], False, *HOW),
        RuntimeError,
        "tangent must have the warp's shape (2, 4, 7, 2) and dtype Float, got shape (2, 4, 7, 2) "
        "and dtype Int",
    ),
    "values 1-D": (
        lambda: OPS.splat_derivative(V[0, 0, 0], GRID, None, 0, "grid", [2, 3, 5, 6], False, *HOW),
        RuntimeError,
        "values must be (N, C, H, W) or (N, C, D, H, W), got shape (7,)",
    ),
    "values' device": (
        lambda: OPS.splat_derivative(
            V, GRID.to("meta"), None, 0, "grid", [2, 3, 5, 6], False, *HOW
        ),
        RuntimeError,
        "grid must be on cpu, like values, got meta",
    ),
}

GRADIENT = {
    "input None": (
        lambda: sample_with_gradient(None, GRID),
        TypeError,
        "input must be a Tensor, got NoneType",
    ),
    "warp None": (
        lambda: sample_with_gradient(X, None),
        TypeError,
        "grid must be a Tensor, got NoneType",
    ),
    "size with a grid": (
        lambda: sample_with_gradient(X, GRID, (4, 7)),
        ValueError,
        "size must be None with a grid, whose own size it is, got (4, 7)",
    ),
    "size a number": (
        lambda: sample_with_gradient(X, Affine(THETA), 4),
        TypeError,
        "size must be a sequence of integers, got 4",
    ),
    "input int": (
        lambda: sample_with_gradient(X.int(), GRID),
        RuntimeError,
        "input must be float32, float64, float16 or bfloat16, got Int",
    ),
    "input complex": (
        lambda: sample_with_gradient(X.cfloat(), GRID),
        RuntimeError,
        "input must be float32, float64, float16 or bfloat16, got ComplexFloat",
    ),
    "input 3-D": (
        lambda: sample_with_gradient(X[0], GRID),
        RuntimeError,
        "input must be (N, C, H, W) or (N, C, D, H, W), got shape (3, 5, 6)",
    ),
    "input without rows": (
        lambda: sample_with_gradient(X[:, :, :0], GRID),
        RuntimeError,
        "input must have no empty spatial dimension, got shape (2, 3, 0, 6)",
    ),
    "grid meta": (
        lambda: sample_with_gradient(X, GRID.to("meta")),
        RuntimeError,
        "grid must be on cpu, like input, got meta",
    ),
    "batches": (
        lambda: sample_with_gradient(X, scattered_grid(3, (4, 7))),
        RuntimeError,
        "input and warp must have the same batch size, or 1 on either side, got 2 and 3",
    ),
    "theta of a volume": (
        lambda: sample_with_gradient(X, Affine(THETA3)),
        ValueError,
        "theta must have shape (N, 2, 3) for 2 spatial dimensions, got shape (2, 3, 4)",
    ),
    "size short": (
        lambda: sample_with_gradient(X, Affine(THETA), (4,)),
        ValueError,
        "size must have 2 entries, the output's spatial size, got (4,)",
    ),
    "size negative": (
        lambda: sample_with_gradient(X, Affine(THETA), (-1, 4)),
        ValueError,
        "size must be between 0 and 536870912 in each dimension, got (-1, 4)",
    ),
    "mode": (
        lambda: sample_with_gradient(X, GRID, mode="cubic"),
        ValueError,
        "expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: 'cubic'",
    ),
    "bicubic volume": (
        lambda: sample_with_gradient(X3, GRID3, mode="bicubic"),
        RuntimeError,
        "mode 'bicubic' must be used with a 4-D input, got a 5-D input",
    ),
}


def derivative(warp, tangent, axis):
    return OPS.sample_derivative(X, warp, tangent, axis, "grid", [], *HOW)


SAMPLE_DERIVATIVE = {
    "tangent's batch": (
        lambda: derivative(GRID, GRID[:1], -1),
        RuntimeError,
        "tangent must have the warp's shape (2, 4, 7, 2) and dtype Float, got shape (1, 4, 7, 2)",
    ),
    "tangent's dtype": (
        lambda: derivative(GRID, GRID.double(), -1),
        RuntimeError,
        "tangent must have the warp's shape (2, 4, 7, 2) and dtype Float, got shape (2, 4, 7, 2) "
        "and dtype Double",
    ),
    "tangent's device": (
        lambda: derivative(GRID, GRID.to("meta"), -1),
        RuntimeError,
        "tangent must be on cpu, like warp, got meta",
    ),
    "tangent sparse": (
        lambda: derivative(GRID, GRID.to_sparse(), -1),
        RuntimeError,
        "tangent must be a dense tensor, got layout Sparse",
    ),
    "tangent and axis": (
        lambda: derivative(GRID, GRID, 0),
        ValueError,
        "axis must be -1 where there is a tangent, got 0",
    ),
    "axis": (
        lambda: derivative(GRID, None, 2),
        ValueError,
        "axis must be between 0 and 1 where there is no tangent, got 2",
    ),
}

SAMPLE_WITH_DERIVATIVE = {
    "tangent": (
        lambda: OPS.sample_with_derivative(X, GRID, GRID[0], "grid", [], *HOW),
        RuntimeError,
        "tangent must have the warp's shape (2, 4, 7, 2) and dtype Float, got shape (4, 7, 2)",
    ),
}

SAMPLE_GRAD_WARP_DERIVATIVE = {
    "tangent": (
        lambda: OPS.sample_grad_warp_derivative(V, X, GRID, GRID[..., :1], -1, "grid", *HOW),
        RuntimeError,
        "tangent must have the warp's shape (2, 4, 7, 2) and dtype Float, got shape (2, 4, 7, 1)",
    ),
    "axis": (
        lambda: OPS.sample_grad_warp_derivative(V, X, GRID, None, 3, "grid", *HOW),
        ValueError,
        "axis must be between 0 and 1 where there is no tangent, got 3",
    ),
}

ERRORS = {
    (op, name): case
    for op, cases in (
        ("splat", SPLAT),
        ("splat_derivative", SPLAT_DERIVATIVE),
        ("sample_with_gradient", GRADIENT),
        ("sample_derivative", SAMPLE_DERIVATIVE),
        ("sample_with_derivative", SAMPLE_WITH_DERIVATIVE),
        ("sample_grad_warp_derivative", SAMPLE_GRAD_WARP_DERIVATIVE),
    )
    for name, case in cases.items()
}


@pytest.mark.quick
@pytest.mark.parametrize("case", ERRORS, ids=": ".join)
def test_error(case):
    call, kind, beginning = ERRORS[case]
    check_refused(call, kind, f"{case[0]}: {beginning}")


@pytest.mark.quick
def test_errors_come_before_any_work():
    """An image of 2^40 pixels is not made for a call that is refused."""
    with pytest.raises(ValueError, match="got: 'cubic'"):
        splat(V, GRID, (2**20, 2**20), mode="cubic")
    with pytest.raises(RuntimeError, match="batch size"):
        splat(V, Affine(thetas(3, 2)), (2**20, 2**20))
    with pytest.raises(ValueError, match="got: 'mirror'"):
        sample_with_gradient(X, Affine(THETA), (2**20, 2**20), padding_mode="mirror")


@pytest.mark.quick
@pytest.mark.parametrize("where", ("meta", "fake"))
def test_fake_tensors_are_refused_alike(where):
    mode = FakeTensorMode() if where == "fake" else None
    convert = mode.from_tensor if mode else (lambda t: t.to("meta"))
    x, v, grid, theta = convert(X), convert(V), convert(GRID), convert(THETA)
    with mode or nullcontext():
        for call, text in (
            (lambda: splat(v, grid, (5,)), "size must have 2 positive entries"),
            (lambda: splat(v[..., :3], grid), "values must have the grid's spatial size"),
            (lambda: splat(v, grid, mode="cubic"), "got: 'cubic'"),
            (lambda: sample_with_gradient(x, grid[..., :1]), "grid must have last dimension 2"),
            (lambda: sample_with_gradient(x, Affine(theta), (1, 2, 3)), "size must have 2"),
            (lambda: derivative_of(x, grid, grid[:1]), "tangent must have the warp's shape"),
        ):
            with pytest.raises((RuntimeError, ValueError), match=text):
                call()


def derivative_of(x, warp, tangent):
    return OPS.sample_derivative(x, warp, tangent, -1, "grid", [], *HOW)
