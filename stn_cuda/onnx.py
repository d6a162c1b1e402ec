"""ONNX: our ops, written in operators that torch's exporter knows.

``torch.onnx.export(model, args, dynamo=True)`` needs nothing from here: while it traces a model,
:mod:`stn_cuda.ops` calls the functions below in the place of the kernels. A program that
``torch.export.export`` has traced before holds our ops; :func:`decomposition_table` replaces them.

Nothing of this needs the ``onnx`` package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from stn_cuda._extension import _C

__all__ = ["decomposition_table"]


def decomposition_table() -> dict[torch._ops.OpOverload, Callable]:
    """How to write our ops in torch's own, for ``ExportedProgram.run_decompositions``.

    A decomposed program returns the same up to rounding, and loads and runs without stn_cuda.

    Returns:
        dict: from ``torch.ops.stn_cuda.sample.default`` and ``.warp_grid.default`` to functions of
        the same signature.

    Example::

        program = torch.export.export(model, (x,))
        program = program.run_decompositions(stn_cuda.onnx.decomposition_table())
        torch.onnx.export(program, dynamo=True).save("model.onnx")
    """
    return {
        torch.ops.stn_cuda.sample.default: sample,
        torch.ops.stn_cuda.warp_grid.default: warp_grid,
    }


def constant(make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` makes, computed while a model is traced and not in the model."""
    with _disable_current_modes():
        made = make()
        values, dtype = made.tolist(), made.dtype
    return torch.tensor(values, dtype=dtype)


def sample(
    input: Tensor,
    warp: Tensor,
    map: str,
    size: Sequence[int],
    mode: str,
    padding_mode: str,
    align_corners: bool,
) -> Tensor:
    """``stn_cuda::sample``: the grid is written out, then sampled by F.grid_sample."""
    _C.check_sample("sample", input, warp, map, size, mode, padding_mode)
    # The ONNX standard leaves open where GridSample rounds: in low precision nowhere but at the
    # end, if both operands are float32.
    double = torch.float64 in (input.dtype, warp.dtype)
    dtype = torch.float64 if double else torch.float32
    image, parameters = input.to(dtype), warp.to(dtype)
    grid = parameters if map == "grid" else _GRIDS[map](parameters, size, align_corners)
    if image.shape[0] != grid.shape[0]:  # GridSample broadcasts no batch
        batch = grid.shape[0] if image.shape[0] == 1 else image.shape[0]
        image = image.expand(batch, *image.shape[1:])
        grid = grid.expand(batch, *grid.shape[1:])
    output = F.grid_sample(image, grid, mode, padding_mode, align_corners).to(input.dtype)
    # No matter to ONNX, but a `view` in the rest of the model may rely on it.
    return output.contiguous(memory_format=suggest_memory_format(input))


def warp_grid(warp: Tensor, map: str, size: Sequence[int], align_corners: bool) -> Tensor:
    """``stn_cuda::warp_grid``: a parametric map's grid."""
    _C.check_warp_grid("warp_grid", warp, map, size)
    dtype = torch.float64 if warp.dtype == torch.float64 else torch.float32
    return _GRIDS[map](warp.to(dtype), size, align_corners).to(warp.dtype)


def _affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """theta (N, rows, dims + 1) at every point of an output of ``size``: (N, *size, rows).

    Out of one vector per axis. F.affine_grid is exported with a constant of the output's size, and
    ONNX' AffineGrid places the points of an axis of extent 1 elsewhere (align_corners), is absent
    before opset 20, and in onnxruntime 1.31 fails for two-dimensional float16.
    """
    dims = len(size)
    columns = theta[(slice(None),) + (None,) * dims].unbind(-1)  # each (N, 1, 1(, 1), dims)
    grid = columns[dims]
    for axis, extent in enumerate(reversed(size)):  # x first, which is the last of `size`
        span = torch.sym_max(extent - 1, 1) if align_corners else extent
        # Twice the distances from the middle, which are whole numbers: one rounding each.
        centres = torch.arange(1 - extent, extent, 2, dtype=theta.dtype, device=theta.device)
        position = (centres / span).reshape(-1, *[1] * (axis + 1))
        grid = grid + columns[axis] * position
    return grid


def _projective_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """theta (N, dims + 1, dims + 1): the affine map of homogeneous coordinates, divided."""
    homogeneous = _affine_grid(theta, size, align_corners)
    positions, last = homogeneous[..., :-1], homogeneous[..., -1:]
    far = torch.where(positions < 0, -_FAR, _FAR)
    return torch.where(last > 0, positions / torch.where(last > 0, last, 1.0), far)


def _spline_grid(parameters: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """parameters (N, 2 K + 3, 2): weights of r^2 log r^2, theta, control points."""
    count = (parameters.shape[1] - 3) // 2
    weights, theta, places = parameters.split((count, 3, count), 1)
    identity = torch.eye(2, 3, dtype=theta.dtype, device=theta.device)[None]
    positions = _affine_grid(identity, size, align_corners)[..., None, :]  # (1, H, W, 1, 2)
    squared = (positions - places[:, None, None]).square().sum(-1)
    apart = squared > 0
    bending = squared * torch.where(apart, squared, 1.0).log()
    moved = (bending.flatten(1, 2) @ weights).unflatten(1, tuple(size))
    return _affine_grid(theta.reshape(-1, 2, 3), size, align_corners) + moved


# Beyond any image, and whole pixels are still exact.
_FAR = float(2**20)

_GRIDS: dict[str, Callable[[Tensor, Sequence[int], bool], Tensor]] = {
    "affine": _affine_grid,
    "projective": _projective_grid,
    "thin_plate_spline": _spline_grid,
}
