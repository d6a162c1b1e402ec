"""The ops of the compiled extension: direct calls and fake (meta) functions.

The schemas stand in ``csrc/ops.cpp``, the derivatives in ``csrc/autograd.cpp``, what torch.vmap
makes of them in ``_vmap.py``, what DTensors do in ``_sharding.py``. The functions here take what
the kernels take; users call :mod:`stn_cuda.functional`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from stn_cuda import onnx
from stn_cuda._extension import _C

#: The maps of a value per output point, and of each whether it also takes the points' positions.
FREE_MAPS: dict[str, bool] = _C.free_maps()

_CHANNELS_LAST = (torch.channels_last, torch.channels_last_3d)


def _format(channels_last: bool, dims: int) -> torch.memory_format:
    return _CHANNELS_LAST[dims - 2] if channels_last else torch.contiguous_format


def real_dtype(image: Tensor) -> torch.dtype:
    """An image's dtype; of bytes float32, which they are computed in."""
    return torch.float32 if image.dtype == torch.uint8 else image.dtype


def is_channels_last(tensor: Tensor) -> bool:
    return suggest_memory_format(tensor) in _CHANNELS_LAST


def extents(op: str, size: Sequence[int]) -> list[int]:
    """``size`` as the kernels take it: integers, or the symbolic ones of a compiler's trace."""
    try:
        return [e if isinstance(e, (int, torch.SymInt)) else operator.index(e) for e in size]
    except TypeError:
        raise TypeError(f"{op}: size must be a sequence of integers, got {size!r}") from None


# --- sample -----------------------------------------------------------------------------------


def sample(
    input: Tensor,
    warp: Tensor,
    map: str,
    size: Sequence[int],
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> Tensor:
    """``input`` at the positions that ``warp`` says; see ``csrc/ops.cpp`` for the arguments."""
    # torch.compile cannot look into the compiled module, and needs the op itself.
    if torch.compiler.is_compiling():
        if torch.onnx.is_in_onnx_export():
            return onnx.sample(input, warp, map, size, mode, padding_mode, align_corners)
        if map in FREE_MAPS:
            size = warp.shape[1:-1]  # an empty list does not survive in AOTInductor's packages
        return torch.ops.stn_cuda.sample.default(
            input, warp, map, size, mode, padding_mode, align_corners
        )
    return _C.sample(input, warp, map, size, mode, padding_mode, align_corners)


@torch.library.register_fake("stn_cuda::sample")
def _sample_fake(input, warp, map, size, mode, padding_mode, align_corners, op="sample"):
    derives = op not in ("sample", "sample_filled")
    _C.check_sample(op, input, warp, map, size, mode, padding_mode, derives)
    spatial = warp.shape[1:-1] if map in FREE_MAPS else size
    batch = warp.shape[0] if input.shape[0] == 1 else input.shape[0]
    output = input.new_empty((batch, input.shape[1], *spatial))
    return output.contiguous(memory_format=suggest_memory_format(input))


def sample_filled(
    input: Tensor,
    warp: Tensor,
    fill: Tensor,
    map: str,
    size: Sequence[int],
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> Tensor:
    """What :func:`sample` returns, with ``fill`` (1 or N, C) in the place of the zeros around."""
    if torch.compiler.is_compiling():
        if torch.onnx.is_in_onnx_export():
            return onnx.sample_filled(
                input, warp, fill, map, size, mode, padding_mode, align_corners
            )
        if map in FREE_MAPS:
            size = warp.shape[1:-1]
        return torch.ops.stn_cuda.sample_filled.default(
            input, warp, fill, map, size, mode, padding_mode, align_corners
        )
    return _C.sample_filled(input, warp, fill, map, size, mode, padding_mode, align_corners)


@torch.library.register_fake("stn_cuda::sample_filled")
def _sample_filled_fake(input, warp, fill, map, size, mode, padding_mode, align_corners):
    op = "sample_filled"
    output = _sample_fake(input, warp, map, size, mode, padding_mode, align_corners, op)
    _C.check_fill(op, input, warp, fill, padding_mode)
    return output


def sample_masked(
    input: Tensor,
    warp: Tensor,
    fill: Tensor | None,
    map: str,
    size: Sequence[int],
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """What the two above return, and how much of each point's look lies inside the image."""
    if torch.compiler.is_compiling():
        if torch.onnx.is_in_onnx_export():
            return onnx.sample_masked(
                input, warp, fill, map, size, mode, padding_mode, align_corners
            )
        if map in FREE_MAPS:
            size = warp.shape[1:-1]
        return torch.ops.stn_cuda.sample_masked.default(
            input, warp, fill, map, size, mode, padding_mode, align_corners
        )
    return _C.sample_masked(input, warp, fill, map, size, mode, padding_mode, align_corners)


@torch.library.register_fake("stn_cuda::sample_masked")
def _sample_masked_fake(input, warp, fill, map, size, mode, padding_mode, align_corners):
    settings = (map, size, mode, padding_mode, align_corners)
    if fill is None:
        output = _sample_fake(input, warp, *settings)
    else:
        output = _sample_filled_fake(input, warp, fill, *settings)
    shape = (warp.shape[0], 1, *output.shape[2:])
    return output, input.new_empty(shape, dtype=real_dtype(input))


# --- splat, the adjoint of sample in its first argument ---------------------------------------


def splat(
    values: Tensor,
    warp: Tensor,
    map: str,
    shape: Sequence[int],
    channels_last: bool,
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> Tensor:
    """An image of ``shape`` into which each value is added where sample would have looked."""
    if torch.compiler.is_compiling():
        return torch.ops.stn_cuda.splat.default(
            values, warp, map, shape, channels_last, mode, padding_mode, align_corners
        )
    return _C.splat(values, warp, map, shape, channels_last, mode, padding_mode, align_corners)


@torch.library.register_fake("stn_cuda::splat")
def _splat_fake(
    values, warp, map, shape, channels_last, mode, padding_mode, align_corners, op="splat"
):
    _C.check_splat(op, values, warp, map, shape, mode, padding_mode)
    image = values.new_empty(shape)
    return image.contiguous(memory_format=_format(channels_last, values.dim() - 2))


# --- the warp's gradient ----------------------------------------------------------------------


def sample_grad_warp(
    grad: Tensor,
    input: Tensor,
    warp: Tensor,
    map: str,
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> Tensor:
    """The gradient of sample's output with respect to ``warp``, in the warp's shape and dtype."""
    if torch.compiler.is_compiling():
        return torch.ops.stn_cuda.sample_grad_warp.default(
            grad, input, warp, map, mode, padding_mode, align_corners
        )
    return _C.sample_grad_warp(grad, input, warp, map, mode, padding_mode, align_corners)


@torch.library.register_fake("stn_cuda::sample_grad_warp")
def _sample_grad_warp_fake(
    grad, input, warp, map, mode, padding_mode, align_corners, op="sample_grad_warp"
):
    _C.check_sample_grad_warp(op, grad, input, warp, map, mode, padding_mode)
    return torch.empty_like(warp) if map in FREE_MAPS else warp.new_empty(warp.shape)


# --- derivatives ------------------------------------------------------------------------------


def sample_with_gradient(
    input: Tensor,
    warp: Tensor,
    map: str,
    size: Sequence[int],
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """What :func:`sample` returns, and its derivatives along the axes of the image."""
    if torch.compiler.is_compiling():
        return torch.ops.stn_cuda.sample_with_gradient.default(
            input, warp, map, size, mode, padding_mode, align_corners
        )
    return _C.sample_with_gradient(input, warp, map, size, mode, padding_mode, align_corners)


@torch.library.register_fake("stn_cuda::sample_with_gradient")
def _sample_with_gradient_fake(input, warp, map, size, mode, padding_mode, align_corners):
    op = "sample_with_gradient"
    value = _sample_fake(input, warp, map, size, mode, padding_mode, align_corners, op)
    batch, channels, *spatial = value.shape
    dims = len(spatial)
    if suggest_memory_format(input) == torch.contiguous_format:
        return value, value.new_empty((batch, channels, dims, *spatial))
    return value, value.new_empty((batch, dims, *spatial, channels)).movedim(-1, 1)


@torch.library.register_fake("stn_cuda::sample_with_derivative")
def _sample_with_derivative_fake(
    input, warp, tangent, map, size, mode, padding_mode, align_corners
):
    op = "sample_with_derivative"
    value = _sample_fake(input, warp, map, size, mode, padding_mode, align_corners, op)
    _C.check_direction(op, warp, tangent, -1, input.dim() - 2)
    return value, torch.empty_like(value)


@torch.library.register_fake("stn_cuda::sample_derivative")
def _sample_derivative_fake(
    input, warp, tangent, axis, map, size, mode, padding_mode, align_corners
):
    op = "sample_derivative"
    value = _sample_fake(input, warp, map, size, mode, padding_mode, align_corners, op)
    _C.check_direction(op, warp, tangent, axis, input.dim() - 2)
    return value


@torch.library.register_fake("stn_cuda::splat_derivative")
def _splat_derivative_fake(
    values, warp, tangent, axis, map, shape, channels_last, mode, padding_mode, align_corners
):
    op = "splat_derivative"
    settings = (mode, padding_mode, align_corners)
    image = _splat_fake(values, warp, map, shape, channels_last, *settings, op)
    _C.check_direction(op, warp, tangent, axis, values.dim() - 2)
    return image


@torch.library.register_fake("stn_cuda::sample_grad_warp_derivative")
def _sample_grad_warp_derivative_fake(
    grad, input, warp, tangent, axis, map, mode, padding_mode, align_corners
):
    op = "sample_grad_warp_derivative"
    grad_warp = _sample_grad_warp_fake(
        grad, input, warp, map, mode, padding_mode, align_corners, op
    )
    _C.check_direction(op, warp, tangent, axis, input.dim() - 2)
    return grad_warp


# --- a warp as a grid -------------------------------------------------------------------------


def warp_grid(warp: Tensor, map: str, size: Sequence[int], align_corners: bool) -> Tensor:
    """The normalised coordinates of a parametric map at every output point."""
    if torch.compiler.is_compiling():
        if torch.onnx.is_in_onnx_export():
            return onnx.warp_grid(warp, map, size, align_corners)
        return torch.ops.stn_cuda.warp_grid.default(warp, map, size, align_corners)
    return _C.warp_grid(warp, map, size, align_corners)


@torch.library.register_fake("stn_cuda::warp_grid")
def _warp_grid_fake(warp, map, size, align_corners):
    _C.check_warp_grid("warp_grid", warp, map, size)
    return warp.new_empty((warp.shape[0], *size, len(size)))


@torch.library.register_fake("stn_cuda::warp_grid_backward")
def _warp_grid_backward_fake(grad, warp, map, align_corners):
    _C.check_warp_grid_backward("warp_grid_backward", grad, warp, map)
    return warp.new_empty(warp.shape)


@torch.library.register_fake("stn_cuda::warp_grid_derivative")
def _warp_grid_derivative_fake(warp, tangent, map, size, align_corners):
    op = "warp_grid_derivative"
    _C.check_warp_grid(op, warp, map, size)
    _C.check_direction(op, warp, tangent, -1, len(size))
    return warp.new_empty((warp.shape[0], *size, len(size)))


@torch.library.register_fake("stn_cuda::warp_grid_backward_derivative")
def _warp_grid_backward_derivative_fake(grad, warp, tangent, map, align_corners):
    op = "warp_grid_backward_derivative"
    _C.check_warp_grid_backward(op, grad, warp, map)
    _C.check_direction(op, warp, tangent, -1, grad.dim() - 2)
    return warp.new_empty(warp.shape)
