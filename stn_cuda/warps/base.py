"""Warps: coordinate maps from the points of an output to positions in an input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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


class Affine(Warp):
    r"""An affine map: ``input position = theta @ (output position, 1)``.

    Positions are normalised: -1 and 1 are the borders of the image along each axis, x first. This
    is equation (1) of Jaderberg et al., *Spatial Transformer Networks*, 2015 (arXiv 1506.02025),
    and the convention of :func:`torch.nn.functional.affine_grid`.

    Args:
        theta (Tensor[N, 2, 3] or Tensor[N, 3, 4]): the matrices, in float32, float64, float16 or
            bfloat16. A batch of 1 serves every image of the input's batch.

    Raises:
        TypeError: if ``theta`` is not a tensor of a floating dtype.
        ValueError: if ``theta`` has another shape.

    Example::

        theta = torch.eye(2, 3).expand(8, 2, 3)
        y = stn_cuda.sample(x, stn_cuda.Affine(theta), size=(28, 28))
    """

    map = "affine"

    def __init__(self, theta: Tensor) -> None:
        if not isinstance(theta, Tensor):
            raise TypeError(f"Affine: theta must be a Tensor, got {type(theta).__name__}")
        if not theta.is_floating_point():
            raise TypeError(f"Affine: theta must have a floating dtype, got {theta.dtype}")
        if theta.dim() != 3 or tuple(theta.shape[1:]) not in ((2, 3), (3, 4)):
            raise ValueError(
                f"Affine: theta must have shape (N, 2, 3) or (N, 3, 4), got {tuple(theta.shape)}"
            )
        super().__init__(theta)

    @property
    def theta(self) -> Tensor:
        """Tensor[N, 2, 3] or Tensor[N, 3, 4]: the matrices."""
        return self.parameters

    def __repr__(self) -> str:
        theta = self.theta
        return f"Affine(theta={tuple(theta.shape)}, dtype={theta.dtype}, device={theta.device})"


# A warp is a tensor and a class of ours: nothing that torch.load need not trust.
torch.serialization.add_safe_globals([Affine])
