"""Chains of warps: an image is looked at through several of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn_cuda import _positions, ops
from stn_cuda._chains import Chain
from stn_cuda.warps.affine import Affine
from stn_cuda.warps.base import MatrixWarp, Warp
from stn_cuda.warps.flow import Flow
from stn_cuda.warps.projective import Projective
from stn_cuda.warps.spline import ThinPlateSpline

_KINDS = (Affine, Projective, ThinPlateSpline, Flow)


class Compose(Warp):
    r"""A chain of warps: ``sample(x, Compose(A, B))`` is ``sample(sample(x, A), B)`` at once.

    The image is resampled once, at the position A(B(p)) for an output point p: nothing is blurred
    twice, nothing is lost between the two, and there is no intermediate image. The order is that of
    ``A @ B``: the first warp looks at the input, the last one is evaluated at the output's points.

    Matrices (:class:`Affine`, :class:`Projective`) next to each other become one, by ``@``. A
    :class:`Flow` in the last place whose field is as large as the output is read point by point,
    so that a displacement of zero changes nothing, bit for bit. Any other field is sampled
    bilinearly where the warps after it look, as an image of its size under the call's
    ``align_corners``; outside, its border goes on. Positions are computed in float32, in float64
    where a warp is float64.

    Args:
        *warps (Affine, Projective, ThinPlateSpline, Flow or Compose): one or more, of as many
            dimensions, on one device, of any dtypes, in batches of N or 1. The pixels of a
            displacement in pixels are those of the input for the first warp, those of an image as
            large as its own field for a later one.

    Raises:
        TypeError: if one of ``warps`` is no such warp.
        ValueError: if there are none, or dimensions or batches do not fit.
        RuntimeError: if they are on different devices.

    Example::

        warp = stn_cuda.Compose(stn_cuda.Affine(theta), stn_cuda.Flow(displacement))
        moved = stn_cuda.sample(moving, warp)            # of the displacement's size

    Differentiable with respect to every warp's parameters. One flow with matrices before it, after
    it or both is evaluated inside the kernels, forward and backward, as matrices alone are. Any
    other chain, and all in second derivatives, in forward mode, under torch.compile and torch.func,
    with a ``fill`` or a mask, in :func:`stn_cuda.splat` and :func:`stn_cuda.sample_with_gradient`,
    has its positions in the input, (N, \*size, dims), in memory.
    """

    def __init__(self, *warps: Warp) -> None:
        flat: list[Warp] = []
        for k, warp in enumerate(warps):
            if isinstance(warp, Compose):
                flat.extend(warp.warps)
            elif isinstance(warp, _KINDS):
                flat.append(warp)
            else:
                raise TypeError(
                    "Compose: warps must be Affine, Projective, ThinPlateSpline, Flow or Compose, "
                    f"got {type(warp).__name__} for warps[{k}]"
                )
        if not flat:
            raise ValueError("Compose: warps must be one or more, got none")
        _check(flat)
        self.warps = tuple(flat)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Each warp's parameters as the kernels read them."""
        return tuple(warp.parameters for warp in self.warps)

    @property
    def dims(self) -> int:
        """The number of spatial dimensions."""
        return _dims(self.warps[0])

    def grid(
        self,
        size: Sequence[int] | None = None,
        align_corners: bool = False,
        *,
        in_size: Sequence[int] | None = None,
    ) -> Tensor:
        """Write the map out as a grid.

        Args:
            size: the output's spatial size, (H, W) or (D, H, W). Default: that of the last warp's
                field, if that is a :class:`Flow`.
            align_corners: whether -1 and 1 are the centres of the corner pixels (True) or their
                outer edges (False, the default).
            in_size: the input's spatial size, to whose pixels the first warp's displacements belong
                if that is a :class:`Flow` in pixels. Default: that of its field.

        Returns:
            Tensor[N, H, W, 2] or Tensor[N, D, H, W, 3]: normalised coordinates in the order
            x, y(, z), in float32, in float64 where a warp is float64. ``sample(x, warp, size)``
            equals ``sample(x, warp.grid(size, in_size=x.shape[2:]))`` within rounding.

        Raises:
            TypeError: if a size is not a sequence of integers.
            ValueError: if there is no ``size``, or one does not fit the number of dimensions.
        """
        op = "Compose.grid"
        size = self.output_size(op, size, None)
        first = self.warps[0]
        if in_size is None:
            in_size = first.displacement.shape[2:] if isinstance(first, Flow) else size
        in_size = self._spatial(op, "in_size", in_size)
        return _positions.grid(self._stages(), in_size, size, bool(align_corners))

    def looks(
        self, in_size: Sequence[int], size: Sequence[int], align_corners: bool
    ) -> tuple[Tensor | Warp, str]:
        """What looks at an input of ``in_size`` as the chain does, and the coordinates it has.

        A single warp, where that is all there is to it; or a grid in the input's pixels.
        """
        warps = _collapsed(self.warps)
        if len(warps) == 1:
            (warp,) = warps
            if not isinstance(warp, Flow) or tuple(size) == tuple(warp.displacement.shape[2:]):
                return warp, "normalized"
        return _positions.positions(self._stages(), in_size, size, align_corners), "pixel"

    def fused(self, size: Sequence[int]) -> Chain | None:
        """What kernels know as a chain, for an output of ``size``; None of any other chain."""
        warps = _collapsed(self.warps)
        flows = [k for k, warp in enumerate(warps) if isinstance(warp, Flow)]
        if len(flows) != 1 or any(isinstance(warp, ThinPlateSpline) for warp in warps):
            return None
        (k,) = flows
        flow = warps[k]
        outer, inner = (
            _homogeneous(warp[0]) if warp else None for warp in (warps[:k], warps[k + 1 :])
        )
        if inner is None and tuple(flow.displacement.shape[2:]) != tuple(size):
            inner = torch.eye(self.dims + 1, device=flow.displacement.device)[None]
        if outer is None and inner is None:
            return None  # a flow is a map of its own
        return Chain(outer, _positions.Stage(flow.map, flow.displacement), inner)

    def output_size(self, op: str, size: Sequence[int] | None, default) -> Sequence[int]:
        """The output's size: that given, else the last field's, else the default."""
        last = self.warps[-1]
        if size is None:
            size = last.displacement.shape[2:] if isinstance(last, Flow) else default
        if size is None:
            raise ValueError(f"{op}: size must be given where the last warp is no Flow, got None")
        return self._spatial(op, "size", size)

    def _spatial(self, op: str, name: str, size: Sequence[int]) -> Sequence[int]:
        size = ops.extents(op, size)
        # What a compiler does not know yet, the op checks.
        if len(size) != self.dims or any(isinstance(n, int) and n < 0 for n in size):
            raise ValueError(
                f"{op}: {name} must have {self.dims} entries, none negative, for a Compose of "
                f"{self.dims} dimensions, got {tuple(size)}"
            )
        return size

    def _stages(self) -> list[_positions.Stage]:
        return [
            _positions.Stage(
                warp.map, warp.displacement if isinstance(warp, Flow) else warp.parameters
            )
            for warp in _collapsed(self.warps)
        ]

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.warps))})"


def _dims(warp: Warp) -> int:
    if isinstance(warp, Flow):
        return warp.displacement.dim() - 2
    return 2 if isinstance(warp, ThinPlateSpline) else warp.parameters.shape[2] - 1


def _check(warps: Sequence[Warp]) -> None:
    """Raise what does not fit the first of the warps, or the first batch that is not 1."""
    names = [f"warps[{k}] ({type(warp).__name__})" for k, warp in enumerate(warps)]
    dims, device = _dims(warps[0]), warps[0].parameters.device
    batch, whose = 1, names[0]
    for name, warp in zip(names, warps, strict=True):
        if _dims(warp) != dims:
            raise ValueError(
                f"Compose: {name} must have {dims} dimensions, like {names[0]}, got {_dims(warp)}"
            )
        if warp.parameters.device != device:
            raise RuntimeError(
                f"Compose: {name} must be on {device}, like {names[0]}, got "
                f"{warp.parameters.device}"
            )
        count = warp.parameters.shape[0]
        if batch == 1:
            batch, whose = count, name
        elif count != 1 and count != batch:  # (not `in`, of a compiler's symbols)
            raise ValueError(
                f"Compose: {name} must have batch size 1 or {batch}, like {whose}, got {count}"
            )


def _collapsed(warps: Sequence[Warp]) -> list[Warp]:
    """The same chain with one matrix where there were several next to each other."""
    result: list[Warp] = []
    for warp in warps:
        if isinstance(warp, MatrixWarp) and result and isinstance(result[-1], MatrixWarp):
            result[-1] = _product(result[-1], warp)
        else:
            result.append(warp)
    return result


def _product(first: MatrixWarp, second: MatrixWarp) -> MatrixWarp:
    """``first @ second``: in float64, which autocast leaves alone, and in their common dtype."""
    dtype = torch.promote_types(first.theta.dtype, second.theta.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    affine = isinstance(first, Affine) and isinstance(second, Affine)
    kind = Affine if affine else Projective
    one, other = (
        kind((warp.theta if affine else _homogeneous(warp)).double()) for warp in (first, second)
    )
    return kind(one.__matmul__(other).theta.to(dtype))  # Dynamo does not know `@` of objects


def _homogeneous(warp: MatrixWarp) -> Tensor:
    """As a homography's matrix."""
    return warp.homogeneous() if isinstance(warp, Affine) else warp.theta
