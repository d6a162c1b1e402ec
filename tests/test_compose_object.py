"""Compose as an object: how it is printed, who is asked, what it refuses."""

import pytest
import torch
from refusals import check_refused

import stn_cuda
from stn_cuda import Affine, Compose, Flow, Projective, sample

# --- the object -----------------------------------------------------------------------------


@pytest.mark.quick
def test_printed():
    warp = Compose(Affine.identity(), Compose(Flow(torch.zeros(1, 2, 3, 4))))
    assert repr(warp) == (
        "Compose(Affine(theta=(1, 2, 3), dtype=torch.float32, device=cpu), "
        "Flow(displacement=(1, 2, 3, 4), normalized=False, dtype=torch.float32, device=cpu))"
    )


class Watched(torch.Tensor):
    """One that answers calls itself."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (sample, stn_cuda.splat, stn_cuda.sample_with_gradient):
            return function.__name__
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.quick
def test_subclasses_are_asked():
    watched = torch.zeros(1, 2, 5, 6).as_subclass(Watched)
    warp = Compose(Affine.identity(), Flow(watched))
    for function in (sample, stn_cuda.splat, stn_cuda.sample_with_gradient):
        assert function(X[:1], warp) == function.__name__


X, A, D = torch.rand(2, 3, 5, 6), torch.eye(2, 3)[None], torch.zeros(2, 2, 5, 6)
AF = Compose(Affine(A), Flow(D))
ERRORS = {
    "nothing": (lambda: Compose(), ValueError, "Compose: warps must be one or more, got none"),
    "a tensor": (
        lambda: Compose(Affine(A), D),
        TypeError,
        "Compose: warps must be Affine, Projective, ThinPlateSpline, Flow or Compose, "
        "got Tensor for warps[1]",
    ),
    "dimensions": (
        lambda: Compose(Affine(A), Flow(torch.zeros(1, 3, 4, 5, 6))),
        ValueError,
        "Compose: warps[1] (Flow) must have 2 dimensions, like warps[0] (Affine), got 3",
    ),
    "batches": (
        lambda: Compose(Affine(A), Flow(D), Projective(torch.eye(3).expand(3, 3, 3))),
        ValueError,
        "Compose: warps[2] (Projective) must have batch size 1 or 2, like warps[1] (Flow), got 3",
    ),
    "devices": (
        lambda: Compose(Affine(A), Flow(D.to("meta"))),
        RuntimeError,
        "Compose: warps[1] (Flow) must be on cpu, like warps[0] (Affine), got meta",
    ),
    "input": (lambda: sample(1, AF), TypeError, "sample: input must be a Tensor, got int"),
    "values": (lambda: stn_cuda.splat(1, AF), TypeError, "splat: values must be a Tensor, got int"),
    "of volumes": (
        lambda: sample(torch.rand(1, 1, 4, 5, 6), AF),
        ValueError,
        "sample: input must be 4-D for a Compose of 2 dimensions, got shape (1, 1, 4, 5, 6)",
    ),
    "batch of the input": (
        lambda: sample(torch.rand(3, 1, 5, 6), AF),
        RuntimeError,
        "sample: input and warp must have the same batch size, or 1 on either side, got 3 and 2",
    ),
    "size": (
        lambda: sample(X, AF, (4, 5, 6)),
        ValueError,
        "sample: size must have 2 entries, none negative, for a Compose of 2 dimensions, "
        "got (4, 5, 6)",
    ),
    "negative size": (
        lambda: sample(X, AF, (4, -1)),
        ValueError,
        "sample: size must have 2 entries, none negative",
    ),
    "size of splat": (
        lambda: stn_cuda.splat(X, AF, (4, 0)),
        ValueError,
        "splat: size must have 2 positive entries, the image's spatial size, got (4, 0)",
    ),
    "mode": (lambda: sample(X, AF, mode="cubic"), ValueError, "sample: "),
    "coords": (
        lambda: stn_cuda.sample_with_gradient(X, AF, coords="pixel"),
        ValueError,
        "sample_with_gradient: coords must be 'normalized' with a warp object",
    ),
    "grid without a size": (
        lambda: Compose(Flow(D), Affine(A)).grid(),
        ValueError,
        "Compose.grid: size must be given where the last warp is no Flow, got None",
    ),
    "in_size": (
        lambda: AF.grid(in_size=(4,)),
        ValueError,
        "Compose.grid: in_size must have 2 entries",
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, kind, text = ERRORS[name]
    check_refused(call, kind, text)
