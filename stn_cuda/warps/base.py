"""What all warps are: coordinate maps from the points of an output to positions in an input."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from stn_cuda import ops


class Warp:
    """A coordinate map that :func:`stn_cuda.sample` evaluates point by point, without a grid.

    A subclass names the map of the kernels that evaluates it and holds the map's parameters as one
    tensor, whose first dimension is the batch.
    """

    #: The map's name in the kernels.
    map: str

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = parameters

    def grid(self, size: Sequence[int], align_corners: bool = False) -> Tensor:
        """Write the map out as a grid.

        Args:
            size: the output's spatial size, (H, W) or (D, H, W).
            align_corners: whether -1 and 1 are the centres of the corner pixels (True) or their
                outer edges (False, the default).

        Returns:
            Tensor[N, H, W, 2] or Tensor[N, D, H, W, 3]: normalised coordinates in the order
            x, y(, z), in the parameters' dtype. ``sample(x, warp, size)`` equals
            ``sample(x, warp.grid(size))`` within rounding.

        Raises:
            TypeError: if ``size`` is not a sequence of integers.
            ValueError: if ``size`` does not fit the map's number of dimensions.
        """
        size = ops.extents(type(self).__name__ + ".grid", size)
        return ops.warp_grid(self.parameters, self.map, size, align_corners)


class MatrixWarp(Warp):
    """A map whose parameters are one matrix, ``theta``, for each of the batch."""

    #: The rows and columns of theta for images and for volumes.
    shapes: tuple[tuple[int, int], ...]

    def __init__(self, theta: Tensor) -> None:
        name = type(self).__name__
        if not isinstance(theta, Tensor):
            raise TypeError(f"{name}: theta must be a Tensor, got {type(theta).__name__}")
        if not theta.is_floating_point():
            raise TypeError(f"{name}: theta must have a floating dtype, got {theta.dtype}")
        if theta.dim() != 3 or tuple(theta.shape[1:]) not in self.shapes:
            known = " or ".join(f"(N, {rows}, {columns})" for rows, columns in self.shapes)
            raise ValueError(f"{name}: theta must have shape {known}, got {tuple(theta.shape)}")
        super().__init__(theta)

    @property
    def theta(self) -> Tensor:
        """Tensor[N, rows, columns]: the matrices."""
        return self.parameters

    def __repr__(self) -> str:
        theta = self.theta
        name = type(self).__name__
        return f"{name}(theta={tuple(theta.shape)}, dtype={theta.dtype}, device={theta.device})"
