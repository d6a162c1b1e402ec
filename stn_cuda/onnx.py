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
from stn_cuda._grids import GRIDS

__all__ = ["decomposition_table"]


def decomposition_table() -> dict[torch._ops.OpOverload, Callable]:
    """How to write our ops in torch's own, for ``ExportedProgram.run_decompositions``.

    A decomposed program returns the same up to rounding, and loads and runs without stn_cuda.

    Returns:
        dict: from ``torch.ops.stn_cuda.sample.default``, ``.sample_filled.default``,
        ``.sample_masked.default`` and ``.warp_grid.default`` to functions of the same signature.

    Example::

        program = torch.export.export(model, (x,))
        program = program.run_decompositions(stn_cuda.onnx.decomposition_table())
        torch.onnx.export(program, dynamo=True).save("model.onnx")
    """
    return {
        torch.ops.stn_cuda.sample.default: sample,
        torch.ops.stn_cuda.sample_filled.default: sample_filled,
        torch.ops.stn_cuda.sample_masked.default: sample_masked,
        torch.ops.stn_cuda.warp_grid.default: warp_grid,
    }


def constant(make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` makes, computed while a model is traced and not in the model."""
    with _disable_current_modes():
        made = make()
        values, dtype = made.tolist(), made.dtype
    return torch.tensor(values, dtype=dtype)


def _as_bytes(output: Tensor) -> Tensor:
    return output.clamp(0, 255).round().to(torch.uint8)


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
    _C.check_sample("sample", input, warp, map, size, mode, padding_mode, False)
    if input.dtype == torch.uint8:
        output = sample(input.float(), warp, map, size, mode, padding_mode, align_corners)
        return _as_bytes(output)
    if "wrap" in padding_mode or "," in padding_mode:
        raise ValueError(
            "sample: padding_mode 'wrap', or another one for each axis, is not implemented in ONNX "
            f"exports, whose GridSample has neither, got {padding_mode!r}"
        )
    # The ONNX standard leaves open where GridSample rounds: in low precision nowhere but at the
    # end, if both operands are float32.
    double = torch.float64 in (input.dtype, warp.dtype)
    dtype = torch.float64 if double else torch.float32
    image, parameters = input.to(dtype), warp.to(dtype)
    grid = GRIDS[map](parameters, size, input.shape[2:], align_corners)
    if image.shape[0] != grid.shape[0]:  # GridSample broadcasts no batch
        batch = grid.shape[0] if image.shape[0] == 1 else image.shape[0]
        image = image.expand(batch, *image.shape[1:])
        grid = grid.expand(batch, *grid.shape[1:])
    output = F.grid_sample(image, grid, mode, padding_mode, align_corners).to(input.dtype)
    # No matter to ONNX, but a `view` in the rest of the model may rely on it.
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
    """``stn_cuda::sample_filled``: what lies around by what an image of ones has lost."""
    if input.dtype == torch.uint8:
        settings = (map, size, mode, padding_mode, align_corners)
        return _as_bytes(sample_filled(input.float(), warp, fill, *settings))
    ones = torch.ones_like(input[:1, :1])
    settings = (warp, map, size, mode, padding_mode, align_corners)
    around = fill.reshape(*fill.shape, *[1] * (input.dim() - 2))
    return sample(input, *settings) + (1 - sample(ones, *settings)) * around


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
    """``stn_cuda::sample_masked``: the mask is an image of ones, sampled."""
    settings = (map, size, mode, padding_mode, align_corners)
    if fill is None:
        output = sample(input, warp, *settings)
    else:
        output = sample_filled(input, warp, fill, *settings)
    dtype = torch.float32 if input.dtype == torch.uint8 else input.dtype
    ones = torch.ones_like(input[:1, :1], dtype=dtype)
    mode = "nearest" if mode == "nearest" else "bilinear"
    return output, sample(ones, warp, map, size, mode, "zeros", align_corners)


def warp_grid(warp: Tensor, map: str, size: Sequence[int], align_corners: bool) -> Tensor:
    """``stn_cuda::warp_grid``: a parametric map's grid."""
    _C.check_warp_grid("warp_grid", warp, map, size)
    dtype = torch.float64 if warp.dtype == torch.float64 else torch.float32
    return GRIDS[map](warp.to(dtype), size, size, align_corners).to(warp.dtype)
