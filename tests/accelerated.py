"""What the tests of accelerate() share: whose kernels run, and a call that is left to none."""

import contextlib
from unittest import mock

import torch
import torch.nn.functional as F
from cases import image, scattered_grid, thetas

from stn_cuda import acceleration

X = image((2, 3, 5, 6))
GRID = scattered_grid(2, (4, 7))
THETA = thetas(2, 2)
SIZE = (2, 3, 4, 7)


def sampled(x=X, grid=GRID, **settings):
    return F.grid_sample(x, grid, **{"align_corners": False, **settings})


def called_ops(function):
    """Names of the ops that function() runs, as the profiler sees them: ours, and torch's two."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    names = {event.name for event in profile.events() or ()}
    return {n for n in names if n.startswith(("stn_cuda::", "aten::grid_s", "aten::affine_grid"))}


def is_ours(function=F.grid_sample, x=X, grid=GRID):
    """Whose kernel a call runs, told by the node of its gradient: in this thread, at once."""
    name = function(x.clone().requires_grad_(), grid, align_corners=False).grad_fn.name()
    assert name == "SampleBackward" or "GridSampler" in name, name
    return name == "SampleBackward"


@contextlib.contextmanager
def nothing_for_torch():
    """Meanwhile an accelerated call that is left to torch fails."""

    def fail(*arguments):
        raise AssertionError("the call was left to torch")

    names = ("_torch_grid_sampler", "_torch_affine_grid_generator")
    with mock.patch.multiple(acceleration, **dict.fromkeys(names, fail)):
        yield


@contextlib.contextmanager
def exchange_undone():
    """Afterwards nobody is accelerated any more, and torch has its own functions."""
    torchs = (torch.grid_sampler, torch.affine_grid_generator)
    yield
    assert (torch.grid_sampler, torch.affine_grid_generator) == torchs
    assert acceleration._handles == acceleration._for_the_process == 0
