"""Flow as an object: its grid, how it is printed, what it refuses."""

import pytest
import torch
from refusals import check_refused
from test_flow import SIZES, randn

import stn_cuda
from stn_cuda import Flow, reference, sample


@pytest.mark.quick
@pytest.mark.parametrize("normalized", (False, True))
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("dims", (2, 3))
def test_grid(dims, align_corners, normalized):
    in_size, size = SIZES[dims], (5, 6, 7)[:dims]
    displacement = randn(2, dims, *size).requires_grad_()
    flow = Flow(displacement, normalized)
    grid = flow.grid(size, align_corners, in_size=in_size)
    sizes = tuple(reversed(in_size))
    looks = reference.pixel_coordinates(grid, sizes, align_corners)
    expected = reference.flow_coordinates(displacement, in_size, align_corners, normalized)
    torch.testing.assert_close(looks, expected, rtol=1e-12, atol=1e-12)
    cotangent = randn(*grid.shape)
    ours, theirs = (torch.autograd.grad(t, displacement, cotangent)[0] for t in (looks, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    # The sizes that stand when none is given.
    assert torch.equal(flow.grid(), flow.grid(size, False, in_size=size))
    assert Flow(displacement.half(), normalized).grid().dtype == torch.float32


@pytest.mark.quick
def test_pickled_and_printed(tmp_path):
    flow = Flow(torch.zeros(1, 2, 3, 4, dtype=torch.float16), normalized=True)
    torch.save(flow, tmp_path / "flow.pt")
    loaded = torch.load(tmp_path / "flow.pt", weights_only=True)
    assert torch.equal(loaded.displacement, flow.displacement) and loaded.normalized
    expected = "Flow(displacement=(1, 2, 3, 4), normalized=True, dtype=torch.float16, device=cpu)"
    assert repr(flow) == repr(loaded) == expected


X, D = torch.rand(2, 3, 5, 6), torch.zeros(2, 2, 4, 7)
GRID = D.movedim(1, -1)
ERRORS = {
    "list": (lambda: Flow([[1.0]]), TypeError, "Flow: displacement must be a Tensor, got list"),
    "int": (
        lambda: Flow(D.int()),
        TypeError,
        "Flow: displacement must have a floating dtype, got torch.int32",
    ),
    "channels": (
        lambda: Flow(torch.zeros(1, 3, 4, 5)),
        ValueError,
        "Flow: displacement must have shape (N, 2, H, W) or (N, 3, D, H, W), got (1, 3, 4, 5)",
    ),
    "components last": (
        lambda: Flow(torch.zeros(1, 4, 5, 2)),
        ValueError,
        "Flow: displacement must have shape (N, 2, H, W) or (N, 3, D, H, W), got (1, 4, 5, 2)",
    ),
    "grid size": (
        lambda: Flow(D).grid((4, 6)),
        ValueError,
        "Flow.grid: size must be None or the displacement's, (4, 7), got (4, 6)",
    ),
    "grid in_size": (
        lambda: Flow(D).grid(in_size=(4, 6, 7)),
        ValueError,
        "Flow.grid: in_size must have 2 entries, the input's spatial size, got (4, 6, 7)",
    ),
    "size": (
        lambda: sample(X, Flow(D), (4, 6)),
        ValueError,
        "sample: size must be None with a displacement, whose own size it is, got (4, 6)",
    ),
    "of volumes": (
        lambda: sample(X, Flow(torch.zeros(2, 3, 4, 5, 6))),
        RuntimeError,
        "sample: displacement must be (N, 2, H, W) for a 4-D input, got shape (2, 3, 4, 5, 6)",
    ),
    "batch": (
        lambda: sample(X, Flow(D.repeat(2, 1, 1, 1))),
        RuntimeError,
        "sample: input and warp must have the same batch size, or 1 on either side, got 2 and 4",
    ),
    "values": (
        lambda: stn_cuda.splat(X, Flow(D)),
        RuntimeError,
        "splat: values must have the displacement's spatial size (4, 7), got shape (2, 3, 5, 6)",
    ),
    "dtype": (
        lambda: sample(X, Flow(D.to(torch.float8_e5m2))),
        RuntimeError,
        "sample: displacement must be float32, float64, float16 or bfloat16, got Float8_e5m2",
    ),
    "coords": (
        lambda: sample(X, GRID, coords="pixels"),
        ValueError,
        "sample: expected coords to be 'normalized' or 'pixel', but got: 'pixels'",
    ),
    "coords None": (
        lambda: stn_cuda.splat(X, GRID, coords=None),
        ValueError,
        "splat: expected coords to be 'normalized' or 'pixel', but got: None",
    ),
    "coords of a warp": (
        lambda: stn_cuda.sample_with_gradient(X, Flow(D), coords="pixel"),
        ValueError,
        "sample_with_gradient: coords must be 'normalized' with a warp object, which knows its own",
    ),
    "size with pixels": (
        lambda: sample(X, GRID, (4, 7), coords="pixel"),
        ValueError,
        "sample: size must be None with a grid, whose own size it is, got (4, 7)",
    ),
    "the op of grids": (
        lambda: torch.ops.stn_cuda.warp_grid(GRID, "flow", [4, 7], False),
        ValueError,
        "warp_grid: map must be a parametric one, got 'flow'",
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, kind, text = ERRORS[name]
    check_refused(call, kind, text)


@pytest.mark.quick
def test_a_size_that_is_the_displacements():
    assert torch.equal(sample(X, Flow(D), (4, 7)), sample(X, Flow(D)))
