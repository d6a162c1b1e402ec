"""Where chains of maps look, in torch's operations, and ours for fields and splines.

A chain is evaluated from its last map, at the output's points, to its first. Between two of them a
position is one in the pixels of an image: a field's, if the map that takes it is one. It is kept
about that image's centre, and planar, (N, dims, *size): so the identity is exact between images of
one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stn_cuda import ops

# Beyond any image, in pixels (csrc/math/boundary.h: coordinate_limit).
_FAR = float(2**30)


class Stage(NamedTuple):
    """A map of a chain: its name in the kernels and its parameters, a flow's (N, dims, *size)."""

    map: str
    parameters: Tensor

    @property
    def field_size(self) -> Sequence[int] | None:
        """The spatial size of a flow's field; None of another map."""
        flow = self.map in ("flow", "normalized_flow")
        return tuple(self.parameters.shape[2:]) if flow else None


class _Step(NamedTuple):
    """A stage in its place: between positions in the pixels of `space` and of `target`, x first."""

    stage: Stage
    parameters: Tensor
    space: Sequence[int]
    target: Sequence[int]
    align_corners: bool
    size: Sequence[int] | None  # the output's, at whose points it is evaluated; None: elsewhere
    first: bool

    def extent(self, image: Sequence[int]) -> list:
        """Pixels from -1 to 1, x first."""
        return [n - 1 if self.align_corners else n for n in reversed(image)]

    def per_unit(self) -> list:
        """Pixels of the target for a normalised unit."""
        return [extent / 2 for extent in self.extent(self.target)]

    def units(self) -> list:
        """Normalised units for a pixel of the space."""
        return [2 / extent for extent in self.extent(self.space)]

    def ratio(self, row: int, column: int):
        """Pixels of the target along the one axis for a pixel of the space along the other."""
        return self.extent(self.target)[row] / self.extent(self.space)[column]

    def ratios(self) -> list:
        """The same, axis by axis."""
        return [self.ratio(axis, axis) for axis in range(len(self.space))]


def positions(
    stages: Sequence[Stage], in_size: Sequence[int], size: Sequence[int], align_corners: bool
) -> Tensor:
    """Where an output of ``size`` looks in an input of ``in_size``: (N, *size, dims), in pixels.

    Differentiable to all orders by all parameters.
    """
    looks = _looks(stages, in_size, size, align_corners)
    return _from_corner(looks, in_size).movedim(1, -1)


def grid(
    stages: Sequence[Stage], in_size: Sequence[int], size: Sequence[int], align_corners: bool
) -> Tensor:
    """The same, normalised."""
    looks = _looks(stages, in_size, size, align_corners)
    pixels = [torch.sym_max(n - 1, 1) if align_corners else n for n in reversed(in_size)]
    return _by_axis(looks, [2 / n for n in pixels]).movedim(1, -1)


def _looks(stages, in_size, size, align_corners: bool) -> Tensor:
    dtype = torch.float32
    for stage in stages:
        dtype = torch.promote_types(dtype, stage.parameters.dtype)
    # With align_corners an image of one pixel has no extent: all positions would meet there.
    least = 2 if align_corners else 1
    spaces, space = [], size
    for stage in reversed(stages):
        space = stage.field_size or space
        spaces.insert(0, [torch.sym_max(n, least) for n in space])
    looks = _points(size, spaces[-1], align_corners, dtype, stages[0].parameters.device)
    for k in reversed(range(len(stages))):
        step = _Step(
            stage=stages[k],
            parameters=stages[k].parameters.to(dtype),
            space=spaces[k],
            target=spaces[k - 1] if k else in_size,
            align_corners=align_corners,
            size=size if k == len(stages) - 1 else None,
            first=k == 0,
        )
        looks = _MAPS[step.stage.map](step, looks)
    return looks


def _points(size, space, align_corners: bool, dtype, device) -> Tensor:
    """The output's points, (1, dims, *size)."""
    axes = []
    for n, pixels in zip(reversed(size), reversed(space), strict=True):
        steps = torch.sym_max(n - 1, 1) if align_corners else torch.sym_max(n, 1)
        extent = pixels - 1 if align_corners else pixels
        own = torch.arange(n, dtype=dtype, device=device) - (n - 1) / 2
        axes.append(own * (extent / steps))
    mesh = torch.meshgrid(*reversed(axes), indexing="ij")
    return torch.stack(mesh[::-1])[None]


def _by_axis(looks: Tensor, factors: Sequence[float]) -> Tensor:
    """Each axis times its factor."""
    if all(isinstance(factor, float) and factor == 1 for factor in factors):
        return looks
    return torch.stack([x * f for x, f in zip(looks.unbind(1), factors, strict=True)], 1)


def _from_corner(looks: Tensor, space) -> Tensor:
    """Positions about the first pixel of those about the centre."""
    centres = [(n - 1) / 2 for n in reversed(space)]
    return torch.stack([x + c for x, c in zip(looks.unbind(1), centres, strict=True)], 1)


def _flow(step: _Step, looks: Tensor) -> Tensor:
    moved = step.parameters
    if step.size is None or step.stage.field_size != tuple(step.size):
        pixels = _from_corner(looks, step.space).movedim(1, -1)
        settings = ("bilinear", "border", step.align_corners)
        moved = ops.sample(moved, pixels, "pixel_grid", (), *settings)
    if step.stage.map == "normalized_flow":
        units = step.per_unit()
    else:  # pixels of the input, or of an image as large as the field
        units = [1.0] * len(step.space) if step.first else step.ratios()
    return _by_axis(looks, step.ratios()) + _by_axis(moved, units)


def _rows(step: _Step, looks: Tensor, rows: int) -> list[Tensor]:
    """Products of a matrix' rows with (position, 1). (A matmul is what autocast would round.)"""
    dims = looks.shape[1]
    entries = step.parameters[(...,) + (None,) * dims].unbind(1)
    products = []
    for r in range(rows):
        row = entries[r].unbind(1)  # each (N, 1, 1(, 1))
        homogeneous = r == dims
        total = row[dims] if homogeneous else row[dims] * step.per_unit()[r]
        for c, x in enumerate(looks.unbind(1)):
            factor = step.units()[c] if homogeneous else step.ratio(r, c)
            total = torch.addcmul(total, row[c] * factor, x)
        products.append(total)
    return products


def _affine(step: _Step, looks: Tensor) -> Tensor:
    return torch.stack(_rows(step, looks, looks.shape[1]), 1)


def _projective(step: _Step, looks: Tensor) -> Tensor:
    *h, last = _rows(step, looks, looks.shape[1] + 1)
    front = last > 0
    divisor = torch.where(front, last, 1.0)
    behind = torch.where(last == last, _FAR, last)  # NaN stays NaN
    return torch.stack(
        [torch.where(front, x / divisor, torch.where(x < 0, -behind, behind)) for x in h], 1
    )


def _spline(step: _Step, looks: Tensor) -> Tensor:
    if step.size is not None:
        moved = ops.warp_grid(step.parameters, step.stage.map, step.size, step.align_corners)
        return _by_axis(moved.movedim(-1, 1), step.per_unit())
    count = (step.parameters.shape[1] - 3) // 2
    weights, theta, places = step.parameters[:, : 2 * count + 3].split((count, 3, count), 1)
    affine = step._replace(parameters=theta.reshape(-1, 2, 3))
    place = _by_axis(looks, step.units()).movedim(1, -1).unsqueeze(-2)  # (N, H, W, 1, 2)
    squared = (place - places[:, None, None]).square().sum(-1)
    apart = squared > 0
    bending = squared * torch.where(apart, squared, 1.0).log()
    moved = (bending[..., None] * weights[:, None, None]).sum(-2).movedim(-1, 1)
    return _affine(affine, looks) + _by_axis(moved, step.per_unit())


_MAPS = {
    "flow": _flow,
    "normalized_flow": _flow,
    "affine": _affine,
    "projective": _projective,
    "thin_plate_spline": _spline,
}
