"""Thin-plate splines: maps that move a few control points and bend as little as they can."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stn_cuda import onnx
from stn_cuda.warps.base import Warp

#: How many control points the kernels take (csrc/math/spline.h).
LEAST_POINTS, MOST_POINTS = 3, 256


class ThinPlateSpline(Warp):
    r"""A thin-plate spline: control points of the output look at their targets in the input.

    Between them the map bends as little as it can (Bookstein 1989). With ``regularization`` it
    bends less and misses the targets by as much as that takes. An output position p looks at

    .. math::
        \theta \begin{pmatrix} p \\ 1 \end{pmatrix} + \sum_k w_k U(|p - c_k|), \quad
        U(r) = r^2 \log r,

    with theta and w from one small linear system for each warp, which is solved in float64. Images
    only, 2-D. Positions are normalised: -1 and 1 are the borders of the image, x first.

    The targets come first here, so that the control points, a grid as in the spatial transformer
    paper, can be left out.

    Args:
        targets (Tensor[N, K, 2]): where the control points look in the input, in float32, float64,
            float16 or bfloat16. K is 3 to 256. A batch of 1 serves every image.
        control_points (Tensor[K, 2] or Tensor[N, K, 2], optional): positions in the output, not all
            on one line, and no two the same unless there is a regularization. Default: a square
            grid of K points over the whole output, row by row, :meth:`control_grid`, to which no
            gradient is computed (which is quicker).
        regularization (float): lambda, which is added to the diagonal of the system. Default: 0, by
            which every control point looks at its target.

    Raises:
        TypeError: if the points are not tensors of a floating dtype, or ``regularization`` is not a
            number.
        ValueError: if shapes do not fit, K is no square where there are no control points,
            ``regularization`` is negative, or there is no such spline: control points that coincide
            or lie on one line. (Under torch.compile and torch.func nobody looks at their values.)

    Example::

        points = stn_cuda.ThinPlateSpline.control_grid((4, 4))
        targets = points + 0.1 * torch.randn(8, 16, 2)
        y = stn_cuda.sample(x, stn_cuda.ThinPlateSpline(targets))

    Jaderberg et al., *Spatial Transformer Networks*, 2015 (arXiv 1506.02025), sections 3.2 and 4.
    Differentiable with respect to the targets and the control points.
    """

    map = "thin_plate_spline"

    def __init__(
        self,
        targets: Tensor,
        control_points: Tensor | None = None,
        regularization: float = 0.0,
    ) -> None:
        _check_points("targets", targets, (3,))
        if isinstance(regularization, bool) or not isinstance(regularization, (int, float)):
            raise TypeError(
                f"ThinPlateSpline: regularization must be a number, got {regularization!r}"
            )
        if not 0 <= regularization < math.inf:
            raise ValueError(
                "ThinPlateSpline: regularization must be finite and not negative, "
                f"got {regularization!r}"
            )
        self._on_grid = control_points is None
        if self._on_grid:
            places, parameters = _spline_on_grid(targets, regularization)
        else:
            places = control_points
            _check_points("control_points", places, (2, 3))
            _check_fit(targets, places)
            if _has_values(places):
                _check_places(places, regularization)
            dtype = torch.promote_types(targets.dtype, places.dtype)
            solved = _laid_out(_solve(targets, places, regularization))
            parameters = _packed(solved + _at_rest(places), places.double(), dtype)
        super().__init__(parameters)
        self.targets = targets
        self.control_points = places
        self.regularization = regularization

    @classmethod
    def control_grid(
        cls, shape: Sequence[int] = (4, 4), *, dtype: torch.dtype | None = None, device=None
    ) -> Tensor:
        """A regular grid of control points over the whole output, its outermost ones at -1 and 1.

        Args:
            shape: points along y and x, two or more each.
            dtype, device: of the points. Default: torch's.

        Returns:
            Tensor[K, 2]: normalised positions, row by row.

        Example::

            points = stn_cuda.ThinPlateSpline.control_grid((3, 5))
        """
        if len(shape) != 2 or any(not isinstance(n, int) or n < 2 for n in shape):
            raise ValueError(
                "ThinPlateSpline.control_grid: shape must be two numbers of points, "
                f"2 or more along y and x, got {shape!r}"
            )
        dtype = torch.get_default_dtype() if dtype is None else dtype
        wide = dtype if dtype == torch.float64 else torch.float32
        y, x = (torch.linspace(-1, 1, n, dtype=wide, device=device) for n in shape)
        y, x = torch.meshgrid(y, x, indexing="ij")
        return torch.stack((x, y), -1).flatten(0, 1).to(dtype)

    @classmethod
    def identity(
        cls, batch: int = 1, shape: Sequence[int] = (4, 4), *, dtype=None, device=None
    ) -> ThinPlateSpline:
        """The spline of a grid of control points that all stay where they are.

        Args:
            batch: the number of splines.
            shape: of the grid, as in :meth:`control_grid`.
            dtype, device: of the points. Default: torch's.

        Example::

            y = stn_cuda.sample(x, stn_cuda.ThinPlateSpline.identity(), size=(28, 28))  # resized
        """
        places = cls.control_grid(shape, dtype=dtype, device=device)
        return cls(places.repeat(batch, 1, 1), places)

    def __reduce__(self):
        # Solved anew, so that the parameters depend on the copy's own points.
        given = None if self._on_grid else self.control_points
        return type(self), (self.targets, given, self.regularization)

    def __repr__(self) -> str:
        targets, places = tuple(self.targets.shape), tuple(self.control_points.shape)
        return (
            f"ThinPlateSpline(targets={targets}, control_points={places}, "
            f"regularization={self.regularization}, dtype={self.targets.dtype}, "
            f"device={self.targets.device})"
        )


def _check_points(name: str, points: Tensor, dims: tuple[int, ...]) -> None:
    if not isinstance(points, Tensor):
        raise TypeError(f"ThinPlateSpline: {name} must be a Tensor, got {type(points).__name__}")
    if not points.is_floating_point():
        raise TypeError(f"ThinPlateSpline: {name} must have a floating dtype, got {points.dtype}")
    fits = points.dim() in dims and points.shape[-1] == 2
    if not fits or not LEAST_POINTS <= points.shape[-2] <= MOST_POINTS:
        shape = "(N, K, 2)" if dims == (3,) else "(K, 2) or (N, K, 2)"
        raise ValueError(
            f"ThinPlateSpline: {name} must have shape {shape} with K from {LEAST_POINTS} to "
            f"{MOST_POINTS}, got {tuple(points.shape)}"
        )


def _check_fit(targets: Tensor, places: Tensor) -> None:
    same = places.shape[-2] == targets.shape[1]
    if not same or (places.dim() == 3 and len({len(places), len(targets)} - {1}) > 1):
        raise ValueError(
            "ThinPlateSpline: targets and control_points must be as many, in batches that are "
            f"equal or 1, got {tuple(targets.shape)} and {tuple(places.shape)}"
        )
    if places.device != targets.device:
        raise RuntimeError(
            "ThinPlateSpline: targets and control_points must be on one device, got "
            f"{targets.device} and {places.device}"
        )


def _has_values(tensor: Tensor) -> bool:
    """Whether the tensor's numbers can be looked at: not while something is traced or mapped."""
    return not (
        torch.compiler.is_compiling()
        or isinstance(tensor, torch._subclasses.FakeTensor)
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        or tensor.is_meta
        or (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def _check_places(places: Tensor, regularization: float) -> None:
    """Refuse control points whose linear system is singular."""
    sets = places.detach().double().reshape(-1, *places.shape[-2:])
    alike = (_squared_distances(sets) == 0).triu(1) & (regularization == 0)
    # Of the second moments: relative to their length narrower than what rounding makes of a line.
    about = sets - sets.mean(1, keepdim=True)
    moments = about.mT @ about
    narrow = max(64 * torch.finfo(places.dtype).eps ** 2, 4 * torch.finfo(torch.float64).eps)
    trace = moments.diagonal(dim1=1, dim2=2).sum(1)
    on_a_line = torch.linalg.det(moments) <= narrow * trace.square()
    if not (alike.any() | on_a_line.any()):
        return
    if alike.any():
        spline, one, other = alike.nonzero()[0].tolist()
        of = f" of spline {spline}" if places.dim() == 3 else ""
        raise ValueError(
            f"ThinPlateSpline: control_points must be distinct, got {one} and {other}{of} both at "
            f"{tuple(sets[spline, one].tolist())}"
        )
    spline = int(on_a_line.nonzero()[0])
    of = f" (spline {spline})" if places.dim() == 3 else ""
    raise ValueError(
        f"ThinPlateSpline: control_points must not all lie on one line, got {sets.shape[1]} that "
        f"do{of}, from {tuple(sets[spline, 0].tolist())} to {tuple(sets[spline, -1].tolist())}"
    )


def _squared_distances(points: Tensor) -> Tensor:
    return (points.unsqueeze(-2) - points.unsqueeze(-3)).square().sum(-1)


def _spline_on_grid(targets: Tensor, regularization: float) -> tuple[Tensor, Tensor]:
    """The square grid of as many control points, and the parameters of the spline of it."""
    count = targets.shape[1]
    if math.isqrt(count) ** 2 != count:
        raise ValueError(
            f"ThinPlateSpline: control_points must be given with {count} targets, which are no "
            "square grid's"
        )
    if type(targets) in (Tensor, torch.nn.Parameter) and _has_values(targets):
        grid = _kept_grid(count, regularization, targets.dtype, targets.device)
        moved = (targets.double() - grid.last[:-1]).flatten(1)
        solved = torch.addmm(grid.at_rest, moved, grid.change).unflatten(1, (-1, 2))
        return grid.places.clone(), _packed(solved, grid.last, targets.dtype)
    places = _grid_of(count, targets.dtype, targets.device)
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():
        # ONNX has no operator that solves systems.
        inverse = onnx.constant(lambda: _inverse_of_grid(count, regularization))
        solution = inverse @ _wanted(targets.double() - places.double())
    else:
        solution = _solve(targets, places, regularization)
    solved = _laid_out(solution) + _at_rest(places)
    return places, _packed(solved, _last_of_grid(places), targets.dtype)


def _packed(solved: Tensor, last: Tensor, dtype: torch.dtype) -> Tensor:
    """What the kernels read (csrc/math/spline.h), (N, 2 K + 3, 2): weights, theta and, last, the
    control points; of a grid, which has no gradient, a row more."""
    parts = (solved, last.expand(solved.shape[0], -1, -1))
    return torch.cat(parts, 1).to(torch.promote_types(dtype, torch.float32))


def _laid_out(solution: Tensor) -> Tensor:
    """(N, K + 3, 2): weights and theta of a solution, but for what they are at rest."""
    weights, linear = solution[:, :-3], solution[:, -3:]
    return torch.cat((weights / 2, linear.mT.reshape(-1, 3, 2)), 1)


def _at_rest(places: Tensor) -> Tensor:
    """(K + 3, 2): those of the spline that moves nothing. Its theta is the identity."""
    theta = torch.eye(2, 3, dtype=torch.float64, device=places.device).reshape(3, 2)
    return torch.nn.functional.pad(theta, (0, 0, places.shape[-2], 0))


def _last_of_grid(places: Tensor) -> Tensor:
    return torch.nn.functional.pad(places.double(), (0, 0, 0, 1))


def _wanted(moved: Tensor) -> Tensor:
    """What the system's solution is to make: solved for where the targets are from the control
    points, float64, so that a spline that moves nothing is exact."""
    return torch.nn.functional.pad(moved, (0, 0, 0, 3))


def _solve(targets: Tensor, places: Tensor, regularization: float) -> Tensor:
    """(N, K + 3, 2), float64."""
    places = places.double()
    wanted, system = _wanted(targets.double() - places), _system(places, regularization)
    # (Without a look at the outcome, for which the host would wait for the device.)
    if places.dim() == 3:
        return torch.linalg.solve_ex(system, wanted)[0]
    together = wanted.movedim(0, 1).flatten(1)  # one factorisation for all
    solution = torch.linalg.solve_ex(system, together)[0]
    return solution.unflatten(1, (-1, 2)).movedim(0, 1)


class _Grid(NamedTuple):
    """A square grid of control points, and what parameters of a spline of it are, in float64."""

    places: Tensor  # (K, 2)
    last: Tensor  # (K + 1, 2)
    at_rest: Tensor  # (2 K + 6)
    change: Tensor  # (2 K, 2 K + 6): of those, with each coordinate of a target


@functools.lru_cache(maxsize=16)
def _kept_grid(
    count: int, regularization: float, dtype: torch.dtype, device: torch.device
) -> _Grid:
    """For the next call, too."""
    with torch.inference_mode(False), torch.no_grad():
        places = _grid_of(count, dtype, device)
        moved = torch.eye(2 * count, dtype=torch.float64, device=device).unflatten(1, (count, 2))
        inverse = _inverse_of_grid(count, regularization, dtype, device)
        change = _laid_out(inverse @ _wanted(moved))
        at_rest = _at_rest(places).flatten()
        return _Grid(places, _last_of_grid(places), at_rest, change.flatten(1))


def _grid_of(count: int, dtype: torch.dtype, device: torch.device | None) -> Tensor:
    return ThinPlateSpline.control_grid([math.isqrt(count)] * 2, dtype=dtype, device=device)


def _inverse_of_grid(
    count: int,
    regularization: float,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Tensor:
    """Of the system of a square grid of control points of that dtype, float64."""
    return torch.linalg.inv(_system(_grid_of(count, dtype, device).double(), regularization))


def _system(places: Tensor, regularization: float) -> Tensor:
    """The matrix [[U + lambda I, P], [P^T, 0]], (..., K + 3, K + 3), of U(r) = r^2 log r."""
    squared = _squared_distances(places)
    apart = squared > 0
    # r^2 log r = r^2 log(r^2) / 2, with slope 0 where r is 0.
    bending = squared * torch.where(apart, squared, 1).log() / 2
    if regularization:
        bending = bending + regularization * torch.eye(
            places.shape[-2], dtype=places.dtype, device=places.device
        )
    affine = torch.nn.functional.pad(places, (0, 1), value=1.0)
    above = torch.cat((bending, affine), -1)
    return torch.cat((above, torch.nn.functional.pad(affine.mT, (0, 3))), -2)
