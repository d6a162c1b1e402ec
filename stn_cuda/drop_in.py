"""torch's functions by their own names: :func:`grid_sample` and :func:`affine_grid`."""

# No `from __future__ import annotations`, and typing's spellings: torch.jit.script reads them.
import warnings
from typing import List, Optional, Sequence

import torch
from torch import Tensor
from torch.overrides import (
    handle_torch_function,
    has_torch_function_unary,
    has_torch_function_variadic,
)

from stn_cuda import ops
from stn_cuda.functional import _check_tensors, _settings

_ALIGN_CORNERS_WARNING = (
    "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. "
    "Please specify align_corners=True if the old behavior is desired. See the documentation of "
    "grid_sample for details."
)


def _refuse_bytes(input: Tensor):
    """torch's grid_sample takes none, where our op does."""
    if input.dtype == torch.uint8:
        raise RuntimeError(
            "grid_sample: input must be float32, float64, float16 or bfloat16, got uint8, which "
            "stn_cuda.sample takes (not implemented for 'Byte')"
        )


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: Optional[bool] = None,
) -> Tensor:
    """In the place of :func:`torch.nn.functional.grid_sample`: its signature, defaults and errors.

    Beyond torch's: the grid may have another dtype than the input, a batch of 1 on either side is
    broadcast, NaN coordinates are read as -1 everywhere, and half precision is computed in float32.

    Args:
        input (Tensor[N, C, H, W] or Tensor[N, C, D, H, W]): images or volumes.
        grid (Tensor[N, Ho, Wo, 2] or Tensor[N, Do, Ho, Wo, 3]): normalised coordinates.
        mode: ``"bilinear"``, ``"nearest"`` or ``"bicubic"``.
        padding_mode: ``"zeros"``, ``"border"`` or ``"reflection"``; or what torch does not have,
            as in :func:`sample`.
        align_corners: as in :func:`sample`; None (the default) means False, with torch's warning.

    Returns:
        Tensor[N, C, Ho, Wo] or Tensor[N, C, Do, Ho, Wo], in the input's dtype and memory format.

    Raises:
        ValueError: for an unknown ``mode`` or ``padding_mode``.
        RuntimeError: if shapes, devices or dtypes do not fit.

    Example::

        grid = stn_cuda.affine_grid(theta, x.shape, align_corners=False)
        y = stn_cuda.grid_sample(x, grid, align_corners=False)
    """
    if torch.jit.is_scripting():
        _refuse_bytes(input)
        no_size: List[int] = []
        aligned = align_corners is not None and align_corners
        return torch.ops.stn_cuda.sample(input, grid, "grid", no_size, mode, padding_mode, aligned)
    else:
        if has_torch_function_variadic(input, grid):
            return handle_torch_function(
                grid_sample,
                (input, grid),
                input,
                grid,
                mode=mode,
                padding_mode=padding_mode,
                align_corners=align_corners,
            )
        if align_corners is None:
            warnings.warn(_ALIGN_CORNERS_WARNING, stacklevel=2)
        _check_tensors("grid_sample", input=input, grid=grid)
        _refuse_bytes(input)
        settings = _settings("grid_sample", input.dim() - 2, mode, padding_mode, align_corners)
        return ops.sample(input, grid, "grid", (), *settings)


def affine_grid(theta: Tensor, size: List[int], align_corners: Optional[bool] = None) -> Tensor:
    """In the place of :func:`torch.nn.functional.affine_grid`: its signature, defaults and errors.

    Args:
        theta (Tensor[N, 2, 3] or Tensor[N, 3, 4]): affine matrices, in float32, float64, float16 or
            bfloat16; the last is computed in float32 and rounded once. A batch of 1 is broadcast.
        size: the output image's size, (N, C, H, W) or (N, C, D, H, W).
        align_corners: as in :func:`sample`; None (the default) means False, with torch's warning.

    Returns:
        Tensor[N, H, W, 2] or Tensor[N, D, H, W, 3]: normalised coordinates, in theta's dtype.

    Raises:
        ValueError: if theta's dtype or shape does not fit, or a size is not positive.
        NotImplementedError: if ``size`` has neither 4 nor 5 entries.

    Example::

        grid = stn_cuda.affine_grid(theta, x.shape, align_corners=False)
        y = stn_cuda.grid_sample(x, grid, align_corners=False)
    """
    if torch.jit.is_scripting():
        aligned = align_corners is not None and align_corners
        return torch.ops.stn_cuda.warp_grid(
            theta.expand(size[0], -1, -1), "affine", size[2:], aligned
        )
    else:
        if has_torch_function_unary(theta):
            return handle_torch_function(
                affine_grid, (theta,), theta, size, align_corners=align_corners
            )
        if not isinstance(theta, Tensor):
            raise TypeError(f"affine_grid: theta must be a Tensor, got {type(theta).__name__}")
        if align_corners is None:
            warnings.warn(_ALIGN_CORNERS_WARNING, stacklevel=2)
        _check_affine_grid(theta, size, bool(align_corners))
        if theta.shape[0] != size[0]:
            theta = theta.expand(size[0], -1, -1)
        return ops.warp_grid(theta, "affine", size[2:], bool(align_corners))


def _check_affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> None:
    """Raise what torch.nn.functional.affine_grid would, in its words."""
    if not theta.is_floating_point():
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    if len(size) not in (4, 5):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, "
            f"respectively. Got size {size}."
        )
    dims = len(size) - 2
    if theta.dim() != 3 or theta.shape[1] != dims or theta.shape[2] != dims + 1:
        raise ValueError(
            f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} "
            f"for size {size}. Got {theta.shape}."
        )
    if align_corners and min(size[2:]) == 1:
        warnings.warn(
            "Since version 1.3.0, affine_grid behavior has changed for unit-size grids when "
            "align_corners=True. This is not an intended use case of affine_grid. See the "
            "documentation of affine_grid for details.",
            stacklevel=3,
        )
    elif min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {size}")
    if theta.shape[0] not in (1, size[0]):
        raise RuntimeError(
            f"affine_grid: theta must have batch size {size[0]} or 1 for size {tuple(size)}, "
            f"got shape {tuple(theta.shape)}"
        )
