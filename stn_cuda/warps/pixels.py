"""From pixels to normalised coordinates: matrices, and the numbers from which warps are made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def spatial(op: str, name: str, size: Sequence[int], dims: int | None = None) -> tuple[int, ...]:
    """A spatial size, (H, W) or (D, H, W), checked."""
    fits = isinstance(size, Sequence) and len(size) in ((2, 3) if dims is None else (dims,))
    if not fits or any(not isinstance(extent, int) or extent < 1 for extent in size):
        shape = {None: "(H, W) or (D, H, W)", 2: "(H, W)", 3: "(D, H, W)"}[dims]
        raise ValueError(f"{op}: {name} must be {shape}, positive integers, got {size!r}")
    return tuple(size)


def to_pixels(size: Sequence[int], align_corners: bool, like: Tensor) -> Tensor:
    """The matrix (D + 1, D + 1) that takes normalised positions (x first) to pixels.

    -1 and 1 are the centres of the outermost pixels (``align_corners``) or their outer edges; the
    first pixel's centre is 0. An image of one pixel with ``align_corners`` is all at its centre.
    """
    extents = list(reversed(size))
    half = [(extent - 1 if align_corners else extent) / 2 for extent in extents]
    centre = [(extent - 1) / 2 for extent in extents]
    matrix = torch.diag(like.new_tensor([*half, 1.0]))
    matrix[:-1, -1] = like.new_tensor(centre)
    return matrix


def from_pixels(matrix: Tensor, in_size, out_size, align_corners: bool) -> Tensor:
    """A matrix (N, D + 1, D + 1) between pixels as one between normalised positions.

    It takes output pixels to input pixels, and the result output positions to input positions.
    """
    into = to_pixels(in_size, align_corners, matrix)
    # An input axis of one pixel has no extent with align_corners: whatever is there is at 0.
    scale = into.diagonal()
    inverse = torch.diag(torch.where(scale == 0, scale, 1 / scale))
    inverse[:-1, -1] = -inverse.diagonal()[:-1] * into[:-1, -1]
    return inverse @ matrix @ to_pixels(out_size, align_corners, matrix)


def numbers(op: str, **values) -> dict[str, Tensor]:
    """What was given for each name as tensors of one floating dtype, on one device.

    Numbers and lists become tensors beside those that are tensors already.
    """
    tensors = [value for value in values.values() if isinstance(value, Tensor)]
    for name, value in values.items():
        if isinstance(value, Tensor) and not value.is_floating_point():
            raise TypeError(f"{op}: {name} must have a floating dtype, got {value.dtype}")
    dtype = torch.get_default_dtype()
    if tensors:
        dtype = tensors[0].dtype
        for tensor in tensors[1:]:
            dtype = torch.promote_types(dtype, tensor.dtype)
    device = tensors[0].device if tensors else None
    made = {}
    for name, value in values.items():
        try:
            made[name] = torch.as_tensor(value, dtype=dtype, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{op}: {name} must be numbers or a Tensor, got {value!r}") from error
    return made
