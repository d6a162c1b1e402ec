"""The warps of the matrix: ours, and the same maps in torch's operations, as grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import torch
import torch.nn.functional as F

from .cases import Case

GridOf = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Family:
    """A kind of warp.

    ours         (stn_cuda, parameters) -> our warp of it
    parameters   (case, theta, generator) -> the parameters for that theta, (N, dims, dims + 1)
    grid         (case, like) -> function parameters -> grid, in the dtype and on the device of
                 `like`; what does not depend on the parameters is made once
    """

    ours: Callable[[ModuleType, torch.Tensor], object]
    parameters: Callable[[Case, torch.Tensor, torch.Generator], torch.Tensor]
    grid: Callable[[Case, torch.Tensor], GridOf]

    def make(self, parameters: torch.Tensor):
        """Our warp of them."""
        import stn_cuda  # imported late: --list and --render need no built extension

        return self.ours(stn_cuda, parameters)


def _affine_grid(case: Case, like: torch.Tensor) -> GridOf:
    shape = case.output_shape[1:]
    return lambda theta: F.affine_grid(theta, (theta.shape[0], *shape), case.align_corners)


def _base(case: Case, like: torch.Tensor) -> torch.Tensor:
    """The outputs' own positions."""
    size = case.output_shape[2:]
    dims = len(size)
    identity = torch.eye(dims, dims + 1, dtype=like.dtype, device=like.device)[None]
    return F.affine_grid(identity, (1, 1, *size), case.align_corners)


def _half(case: Case, like: torch.Tensor) -> torch.Tensor:
    """Pixels per normalised unit, x first."""
    lengths = torch.tensor(case.shape[2:], dtype=like.dtype, device=like.device).flip(0)
    return (lengths - 1 if case.align_corners else lengths) / 2


def _homographies(case: Case, theta: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The affine maps, tilted: the last coordinate is 1 give or take a few tenths."""
    count, dims, _ = theta.shape
    tilt = 0.2 * torch.rand(count, 1, dims, generator=generator) - 0.1
    return torch.cat((theta, torch.cat((tilt, torch.ones(count, 1, 1)), 2)), 1)


def _projective_grid(case: Case, like: torch.Tensor) -> GridOf:
    size = case.output_shape[2:]
    dims = len(size)
    base = F.pad(_base(case, like).reshape(1, -1, dims), (0, 1), value=1.0)

    def grid(theta: torch.Tensor) -> torch.Tensor:
        homogeneous = base @ theta.mT
        positions = homogeneous[..., :dims] / homogeneous[..., dims:]
        return positions.view(theta.shape[0], *size, dims)

    return grid


_SPLINE = (4, 4)  # control points, as the paper has them


def _targets(case: Case, theta: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Where the affine maps take a grid of control points, give or take a tenth."""
    grid = F.affine_grid(theta, (theta.shape[0], 1, *_SPLINE), align_corners=True).flatten(1, 2)
    return grid + 0.2 * torch.rand(grid.shape, generator=generator) - 0.1


def _spline_grid(case: Case, like: torch.Tensor) -> GridOf:
    def radial(points: torch.Tensor) -> torch.Tensor:
        squared = (points[:, None] - control).square().sum(-1)
        return torch.where(squared > 0, squared * squared.log() / 2, 0.0)

    size = case.output_shape[2:]
    identity = torch.eye(2, 3, dtype=torch.float64)[None]
    base = F.affine_grid(identity, (1, 1, *size), case.align_corners).view(-1, 2)
    control = F.affine_grid(identity, (1, 1, *_SPLINE), align_corners=True).view(-1, 2)
    affine = F.pad(control, (0, 1), value=1.0)
    above = torch.cat((radial(control), affine), 1)
    system = torch.cat((above, F.pad(affine.mT, (0, 3))))
    inverse = torch.linalg.inv(system)[:, : len(control)].to(like)
    basis = torch.cat((radial(base), F.pad(base, (0, 1), value=1.0)), 1).to(like)
    return lambda targets: (basis @ (inverse @ targets)).view(targets.shape[0], *size, 2)


def _displacements(case: Case, theta: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What the affine maps move each point by, in pixels, and half a pixel of noise."""
    grid = _affine_grid(case, theta)(theta)
    moved = (grid - _base(case, theta)) * _half(case, theta)
    moved += 0.5 * torch.randn(moved.shape, generator=generator)
    return moved.movedim(-1, 1).contiguous()


def _flow_grid(case: Case, like: torch.Tensor) -> GridOf:
    base, unit = _base(case, like), 1 / _half(case, like)
    return lambda displacement: base + displacement.movedim(1, -1) * unit


def _behind_noise(case: Case, theta: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half a pixel of noise before the affine maps: displacements, and one row more with theta."""
    size = case.output_shape[2:]
    dims = len(size)
    moved = 0.5 * torch.randn((theta.shape[0], dims, *size), generator=generator)
    row = torch.zeros(theta.shape[0], dims, 1, *size[1:])
    row.flatten(2)[..., : dims + 1] = theta
    return torch.cat((moved, row), 2)


def _parts(parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Theta and the displacements."""
    moved, row = parameters.split((parameters.shape[2] - 1, 1), 2)
    return row.flatten(2)[..., : parameters.shape[1] + 1], moved


def _compose(ours: ModuleType, parameters: torch.Tensor):
    theta, moved = _parts(parameters)
    return ours.Compose(ours.Affine(theta), ours.Flow(moved))


def _composed_grid(case: Case, like: torch.Tensor) -> GridOf:
    """As `_flow_grid`, and through the matrix: in the pixels of an image of the output's size."""
    base = _base(case, like)
    unit = 1 / _half(replace(case, shape=case.output_shape), like)

    def grid(parameters: torch.Tensor) -> torch.Tensor:
        theta, moved = _parts(parameters)
        positions = (base + moved.movedim(1, -1) * unit).flatten(1, -2)
        dims = theta.shape[1]
        looks = torch.baddbmm(theta[:, None, :, dims], positions, theta[..., :dims].mT)
        return looks.view(-1, *case.output_shape[2:], dims)

    return grid


FAMILIES = {
    "affine": Family(
        lambda ours, theta: ours.Affine(theta), lambda case, theta, generator: theta, _affine_grid
    ),
    "compose": Family(_compose, _behind_noise, _composed_grid),
    "flow": Family(lambda ours, moved: ours.Flow(moved), _displacements, _flow_grid),
    "projective": Family(
        lambda ours, theta: ours.Projective(theta), _homographies, _projective_grid
    ),
    "tps": Family(lambda ours, targets: ours.ThinPlateSpline(targets), _targets, _spline_grid),
}
