"""Chains that one kernel evaluates: a field of displacements before, after or between matrices.

Their first derivatives are the kernels', too (``csrc/ops_chain.cpp``). Whatever else looks on, such
as a second derivative, goes by way of positions in torch's operations (``_positions.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from stn_cuda import ops
from stn_cuda._extension import _C
from stn_cuda._positions import Stage, positions


class Chain(NamedTuple):
    """A flow between two homographies: the outer one looks at the input, None stands for none."""

    outer: Tensor | None
    flow: Stage
    inner: Tensor | None

    def stages(self) -> list[Stage]:
        """The same as ``_positions`` takes it."""
        outer, inner = (
            [] if m is None else [Stage("projective", m)] for m in (self.outer, self.inner)
        )
        return [*outer, self.flow, *inner]


def can_fuse(input: Tensor, chain: Chain) -> bool:
    """Whether nobody but autograd looks on: the kernels are no ops of torch's dispatcher."""
    tensors = [t for t in (input, chain.outer, chain.flow.parameters, chain.inner) if t is not None]
    return (
        not torch.compiler.is_compiling()
        and all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
        and input.device.type in ("cpu", "cuda")
        and (input.is_floating_point() or _is_still(input, tensors))  # others are refused
    )


def _is_still(input: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Whether no derivative is asked of an image of bytes, which the op would refuse."""
    recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return input.dtype == torch.uint8 and not recorded


def sample(
    input: Tensor,
    chain: Chain,
    size: Sequence[int],
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> Tensor:
    """``input`` through the chain, of an output of ``size``."""
    dtype = torch.float32
    for tensor in (chain.outer, chain.flow.parameters, chain.inner):
        if tensor is not None:
            dtype = torch.promote_types(dtype, tensor.dtype)
    outer, field, inner = (
        None if tensor is None else tensor.to(dtype)
        for tensor in (chain.outer, chain.flow.parameters, chain.inner)
    )
    settings = (chain.flow.map, tuple(size), mode, padding_mode, align_corners)
    parts = [t for t in (outer, field, inner) if t is not None]
    moves = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parts)
    return _Sample.apply(input, outer, field, inner, settings, moves)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, outer, field, inner, settings, moves):
        map, size, *modes = settings
        ctx.settings = settings
        ctx.save_for_backward(input, outer, field, inner)
        normalized = map == "normalized_flow"
        # Slopes are ours alone, and not saved: going back, their memory becomes a gradient's.
        output, ctx.slopes = _C.sample_chain(
            input, outer, field, inner, normalized, size, *modes, moves
        )
        return output

    @staticmethod
    def backward(ctx, grad):
        # A gradient that is to be differentiated itself; or of many at once, or a dual number.
        if torch.is_grad_enabled() or not _C.is_plain(grad):
            return *_differentiable(ctx, grad), None, None
        # Once: a checkpoint makes them anew each time.
        input, outer, field, inner = tensors = ctx.saved_tensors
        map, size, mode, padding_mode, align_corners = ctx.settings
        chain = (outer, field, inner, map == "normalized_flow")
        modes = (mode, padding_mode, align_corners)
        grad_input = grad_outer = grad_field = grad_inner = None
        if ctx.needs_input_grad[0]:
            last = ops.is_channels_last(input)
            grad_input = _C.splat_chain(grad, *chain, list(input.shape), last, *modes)
        if any(ctx.needs_input_grad[1:4]):
            slopes, keep = ctx.slopes, _C.graph_is_kept()
            if not keep:
                ctx.slopes = None
            made = _C.sample_grad_chain(grad, input, *chain, *modes, slopes, not keep)
            grad_outer, grad_field, grad_inner = made
            if inner is not None and ctx.needs_input_grad[2]:
                # Each point's part goes to the pixels of the field that it saw.
                shape = [1 if len(field) == 1 else len(grad_field), *field.shape[1:]]
                modes = ("bilinear", "border", align_corners)
                grad_field = ops.splat(grad_field, inner, "projective", shape, False, *modes)
        grads = (grad_input, grad_outer, grad_field, grad_inner)
        needed = zip(grads, tensors, ctx.needs_input_grad, strict=False)
        return (
            *(one.sum_to_size(of.shape) if want else None for one, of, want in needed),
            None,
            None,
        )


def _differentiable(ctx, grad: Tensor) -> list[Tensor | None]:
    """The gradients by operations that autograd differentiates."""
    input, outer, field, inner = tensors = ctx.saved_tensors
    map, size, mode, padding_mode, align_corners = ctx.settings
    stages = Chain(outer, Stage(map, field), inner).stages()
    with torch.enable_grad():
        looks = positions(stages, input.shape[2:], size, align_corners)
        output = ops.sample(input, looks, "pixel_grid", (), mode, padding_mode, align_corners)
    wanted = [t for t, needed in zip(tensors, ctx.needs_input_grad, strict=False) if needed]
    again = torch.is_grad_enabled()
    made = iter(torch.autograd.grad(output, wanted, grad, create_graph=again))
    return [next(made) if needed else None for needed in ctx.needs_input_grad[:4]]
