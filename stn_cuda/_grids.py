"""Warps as grids, in torch's operations: for exporters, and for what needs no kernel of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Beyond any image, and whole pixels are still exact.
_FAR = float(2**20)


def _steps(extent: int, align_corners: bool):
    """Pixels from -1 to 1. (An axis of one pixel has none with align_corners: 1 avoids a 0 / 0.)"""
    return torch.sym_max(extent - 1, 1) if align_corners else extent


def _positions(axis: int, extent: int, align_corners: bool, like: Tensor) -> Tensor:
    """The normalised positions of an axis' points, shaped for (..., *size); axis 0 is x."""
    # Twice the distances from the middle, which are whole numbers: one rounding each.
    centres = torch.arange(1 - extent, extent, 2, dtype=like.dtype, device=like.device)
    return (centres / _steps(extent, align_corners)).reshape(-1, *[1] * axis)


def affine_grid(theta: Tensor, size: Sequence[int], in_size, align_corners: bool) -> Tensor:
    """theta (N, rows, dims + 1) at every point of an output of ``size``: (N, *size, rows).

    Out of one vector per axis. F.affine_grid is exported with a constant of the output's size, and
    ONNX' AffineGrid places the points of an axis of extent 1 elsewhere (align_corners), is absent
    before opset 20, and in onnxruntime 1.31 fails for two-dimensional float16.
    """
    dims = len(size)
    columns = theta[(slice(None),) + (None,) * dims].unbind(-1)  # each (N, 1, 1(, 1), dims)
    grid = columns[dims]
    for axis, extent in enumerate(reversed(size)):  # x first, which is the last of `size`
        position = _positions(axis, extent, align_corners, theta)
        grid = grid + columns[axis] * position[..., None]
    return grid


def projective_grid(theta: Tensor, size: Sequence[int], in_size, align_corners: bool) -> Tensor:
    """theta (N, dims + 1, dims + 1): the affine map of homogeneous coordinates, divided."""
    homogeneous = affine_grid(theta, size, in_size, align_corners)
    positions, last = homogeneous[..., :-1], homogeneous[..., -1:]
    far = torch.where(positions < 0, -_FAR, _FAR)
    return torch.where(last > 0, positions / torch.where(last > 0, last, 1.0), far)


def spline_grid(parameters: Tensor, size: Sequence[int], in_size, align_corners: bool) -> Tensor:
    """parameters (N, 2 K + 3 or 4, 2): weights of r^2 log r^2, theta, control points."""
    count = (parameters.shape[1] - 3) // 2
    weights, theta, places = parameters[:, : 2 * count + 3].split((count, 3, count), 1)
    identity = torch.eye(2, 3, dtype=theta.dtype, device=theta.device)[None]
    positions = affine_grid(identity, size, in_size, align_corners)[..., None, :]  # (1, H, W, 1, 2)
    squared = (positions - places[:, None, None]).square().sum(-1)
    apart = squared > 0
    bending = squared * torch.where(apart, squared, 1.0).log()
    moved = (bending.flatten(1, 2) @ weights).unflatten(1, tuple(size))
    return affine_grid(theta.reshape(-1, 2, 3), size, in_size, align_corners) + moved


def normalized_flow_grid(values: Tensor, size, in_size, align_corners: bool) -> Tensor:
    """values (N, *size, dims): normalised distances from the points' own positions."""
    extents = reversed(values.shape[1:-1])
    axes = [
        moved + _positions(axis, extent, align_corners, values)
        for axis, (moved, extent) in enumerate(zip(values.unbind(-1), extents, strict=True))
    ]
    return torch.stack(axes, -1)


def flow_grid(values: Tensor, size, in_size: Sequence[int], align_corners: bool) -> Tensor:
    """The same of distances in pixels of an input of ``in_size``."""
    axes = zip(values.unbind(-1), reversed(in_size), strict=True)
    moved = [2 * one / _steps(extent, align_corners) for one, extent in axes]
    return normalized_flow_grid(torch.stack(moved, -1), size, in_size, align_corners)


def pixel_grid(values: Tensor, size, in_size: Sequence[int], align_corners: bool) -> Tensor:
    """values (N, *size, dims): positions in pixels of an input of ``in_size``."""
    axes = zip(values.unbind(-1), reversed(in_size), strict=True)
    return torch.stack(
        [(2 * one - (extent - 1)) / _steps(extent, align_corners) for one, extent in axes], -1
    )


#: Map -> (its tensor, the output's size, the input's, align_corners) -> normalised positions
#: (N, *size, dims), in the tensor's dtype. The free maps have the output's size themselves.
GRIDS: dict[str, Callable[[Tensor, Sequence[int], Sequence[int], bool], Tensor]] = {
    "grid": lambda values, size, in_size, align_corners: values,
    "pixel_grid": pixel_grid,
    "flow": flow_grid,
    "normalized_flow": normalized_flow_grid,
    "affine": affine_grid,
    "projective": projective_grid,
    "thin_plate_spline": spline_grid,
}
