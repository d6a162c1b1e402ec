"""torch.library.opcheck over every op that the extension registers."""

import pytest
import torch
from cases import FREE, WARPS, Call, image, sample_inputs, scattered_grid, thetas

import stn_cuda

NAMESPACE = "stn_cuda::"
MAPS = (*FREE, *WARPS)
REGULAR = len(list(sample_inputs(maps=MAPS)))  # calls of the regular kinds, which come first
CHEAP = ("test_schema", "test_autograd_registration", "test_faketensor")


def registered_ops():
    """Names of all ops in torch.ops.stn_cuda, from the dispatcher's own list."""
    names = torch._C._dispatch_get_all_op_names()
    ours = [name.removeprefix(NAMESPACE) for name in names if name.startswith(NAMESPACE)]
    return sorted({name.split(".")[0] for name in ours})  # without the overloads


def calls(dtype=torch.float64):
    """Small calls of every kind, and those whose shapes are special."""
    yield from sample_inputs(dtype, maps=MAPS)
    for warp, kind in ((scattered_grid(1, (3, 4), dtype), "grid"), (thetas(1, 2, dtype), "affine")):
        yield Call(image((3, 2, 4, 5), dtype), warp, kind, (3, 4))  # batches broadcast
        yield Call(image((1, 2, 4, 5), dtype), warp.expand(3, *warp.shape[1:]), kind, (3, 4))
        last = image((1, 2, 4, 5), dtype).contiguous(memory_format=torch.channels_last)
        yield Call(last, warp, kind, (3, 4))
        yield Call(image((1, 0, 4, 5), dtype), warp, kind, (3, 4))
    yield Call(image((1, 2, 4, 5), dtype), scattered_grid(1, (3, 4), torch.float32))
    yield Call(image((1, 2, 4, 5), dtype), thetas(1, 2, torch.float32), "affine", (0, 4))


def how(call):
    return call.op_settings


def size_of(call):
    return [] if call.map in FREE else list(call.output_size)


def is_channels_last(x):
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def detached(*tensors):
    return [t.detach().clone() for t in tensors]


# For each op: a call of `sample` -> the op's arguments (None: the op has no part in such a call),
# and which of the tensors among them are differentiable.
def sample_arguments(call):
    input, warp = detached(call.input, call.warp)
    return (input.requires_grad_(), warp.requires_grad_(), call.map, size_of(call), *how(call))


def sample_filled_arguments(call):
    if "zeros" not in call.op_settings[1].split(","):
        return None
    input, warp, *rest = sample_arguments(call)
    fill = image((1, call.input.shape[1]), call.input.dtype, key="fill")
    return (input, warp, fill.requires_grad_(), *rest)


def sample_masked_arguments(call):
    filled = sample_filled_arguments(call)
    if filled is not None:
        return filled
    input, warp, *rest = sample_arguments(call)
    return (input, warp, None, *rest)


def splat_arguments(call):
    values, warp = detached(call.cotangent(), call.warp)
    last = is_channels_last(call.input)
    shape = list(call.input.shape)
    return (values.requires_grad_(), warp.requires_grad_(), call.map, shape, last, *how(call))


def sample_grad_warp_arguments(call):
    tensors = detached(call.cotangent(), call.input, call.warp)
    return (*(t.requires_grad_() for t in tensors), call.map, *how(call))


def sample_with_gradient_arguments(call):
    return sample_arguments(call)


# The derivatives along a tangent of the warp. By the warp itself they are not differentiable, since
# that would be a third derivative, or for two in one a second one in forward mode.
def sample_derivative_arguments(call):
    input, warp, tangent = detached(call.input, call.warp, call.warp)
    input, tangent = input.requires_grad_(), tangent.requires_grad_()
    return (input, warp, tangent, -1, call.map, size_of(call), *how(call))


def sample_with_derivative_arguments(call):
    input, warp, tangent = detached(call.input, call.warp, call.warp)
    input, tangent = input.requires_grad_(), tangent.requires_grad_()
    return (input, warp, tangent, call.map, size_of(call), *how(call))


def splat_derivative_arguments(call):
    values, warp, map, shape, *rest = splat_arguments(call)
    (tangent,) = detached(call.warp)
    return (values, warp.detach(), tangent.requires_grad_(), -1, map, shape, *rest)


def sample_grad_warp_derivative_arguments(call):
    grad, input, warp, tangent = detached(call.cotangent(), call.input, call.warp, call.warp)
    return (grad, input, warp, tangent.requires_grad_(), -1, call.map, *how(call))


def warp_grid_arguments(call):
    if call.map in FREE:
        return None
    (warp,) = detached(call.warp)
    return warp.requires_grad_(), call.map, size_of(call), call.align_corners


def warp_grid_backward_arguments(call):
    if call.map in FREE:
        return None
    grad, warp = detached(call.grid64().to(call.warp.dtype), call.warp)
    return grad.requires_grad_(), warp, call.map, call.align_corners


def warp_grid_derivative_arguments(call):
    if call.map in FREE:
        return None
    warp, tangent = detached(call.warp, call.warp)
    return warp, tangent.requires_grad_(), call.map, size_of(call), call.align_corners


def warp_grid_backward_derivative_arguments(call):
    if call.map in FREE:
        return None
    grad, warp, tangent = detached(call.grid64().to(call.warp.dtype), call.warp, call.warp)
    return grad, warp, tangent.requires_grad_(), call.map, call.align_corners


ARGUMENTS = {
    "sample": sample_arguments,
    "sample_filled": sample_filled_arguments,
    "sample_masked": sample_masked_arguments,
    "splat": splat_arguments,
    "sample_grad_warp": sample_grad_warp_arguments,
    "sample_derivative": sample_derivative_arguments,
    "sample_with_derivative": sample_with_derivative_arguments,
    "sample_with_gradient": sample_with_gradient_arguments,
    "splat_derivative": splat_derivative_arguments,
    "sample_grad_warp_derivative": sample_grad_warp_derivative_arguments,
    "warp_grid": warp_grid_arguments,
    "warp_grid_backward": warp_grid_backward_arguments,
    "warp_grid_derivative": warp_grid_derivative_arguments,
    "warp_grid_backward_derivative": warp_grid_backward_derivative_arguments,
}


@pytest.mark.quick
def test_every_op_has_samples():
    assert registered_ops() == sorted(ARGUMENTS), "an op without samples is not checked"


def check(name, call, **keywords):
    arguments = ARGUMENTS[name](call)
    if arguments is not None:
        op = getattr(torch.ops.stn_cuda, name).default
        try:
            torch.library.opcheck(op, arguments, **keywords)
        except Exception as error:
            raise AssertionError(f"opcheck of {name} failed for {call}") from error


# opcheck of torch 2.15 looks at the gradient of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_opcheck(name):
    """Schema, autograd registration, fake tensors, and AOT dispatch with dynamic shapes."""
    traced = set()
    for number, call in enumerate(calls()):
        # AOT dispatch traces and compiles. Of the regular samples one of each kind: what else there
        # is to a call are numbers, which the trace hands on.
        kind = (call.map, call.mode, call.dims) if number < REGULAR else number
        cheap = kind in traced
        traced.add(kind)
        check(name, call, test_utils=CHEAP if cheap else (*CHEAP, "test_aot_dispatch_dynamic"))


@pytest.mark.quick
@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_opcheck_quick(name):
    for call in (*list(calls())[:REGULAR:13], *list(calls())[REGULAR:]):
        check(name, call, test_utils=CHEAP)


@pytest.mark.quick
def test_fake_results_match_real_ones():
    """Shapes, strides, dtypes and devices under FakeTensorMode, low precision included."""
    from torch._subclasses import FakeTensorMode

    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for call in calls(dtype):
            real = call.run()
            with FakeTensorMode() as mode:
                input, warp = mode.from_tensor(call.input), mode.from_tensor(call.warp)
                fake = call.run(input, warp)
            told = (fake.shape, fake.stride(), fake.dtype, fake.device)
            assert told == (real.shape, real.stride(), real.dtype, real.device), str(call)


@pytest.mark.quick
def test_meta_tensors():
    """On the meta device a call tells its result's shape and does nothing."""
    x, theta = torch.empty(4, 3, 1000, 1000, device="meta"), torch.empty(4, 2, 3, device="meta")
    y = stn_cuda.sample(x, stn_cuda.Affine(theta), (500, 600))
    assert y.device.type == "meta" and y.shape == (4, 3, 500, 600)
    grid = stn_cuda.affine_grid(theta, (4, 3, 500, 600), align_corners=False)
    assert grid.device.type == "meta" and grid.shape == (4, 500, 600, 2)
    assert stn_cuda.grid_sample(x, grid, align_corners=False).shape == (4, 3, 500, 600)
