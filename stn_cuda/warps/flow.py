"""Displacement fields: optical flow, and the deformations of registration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn_cuda import ops
from stn_cuda._grids import GRIDS
from stn_cuda.warps.base import Warp


class Flow(Warp):
    r"""A displacement of every point: ``input position = output position + displacement``.

    An output point's own position is where the identity map would look, -1 and 1 being the borders
    of the input and of the output alike, so that a displacement of zero returns an equally large
    image bit for bit, and resizes it otherwise. Base positions are computed in float32 even where
    the displacement is float16 or bfloat16 (in float64 where it is float64), and no grid is ever in
    memory. The displacement's gradient lies in memory as the displacement does.

    Args:
        displacement (Tensor[N, 2, H, W] or Tensor[N, 3, D, H, W]): along x, y(, z), for each point
            of the output, whose spatial size it has; in float32, float64, float16 or bfloat16, of
            any strides. A batch of 1 serves every image of the input's batch.
        normalized: whether displacements are in normalised units, of which an image is 2 long, or
            in pixels of the input (False, the default).

    Raises:
        TypeError: if ``displacement`` is not a tensor of a floating dtype.
        ValueError: if ``displacement`` has another shape.

    Example::

        flow = network(frame1, frame2)                   # (N, 2, H, W): where frame1 is in frame2
        warped = stn_cuda.sample(frame2, stn_cuda.Flow(flow), padding_mode="border")

    Jaderberg et al., *Spatial Transformer Networks*, 2015 (arXiv 1506.02025), equation (5), at
    x_s = x_t + u(x_t): Horn and Schunck, *Determining Optical Flow*, 1981.
    """

    def __init__(self, displacement: Tensor, normalized: bool = False) -> None:
        if not isinstance(displacement, Tensor):
            raise TypeError(
                f"Flow: displacement must be a Tensor, got {type(displacement).__name__}"
            )
        if not displacement.is_floating_point():
            raise TypeError(
                f"Flow: displacement must have a floating dtype, got {displacement.dtype}"
            )
        dims = displacement.dim() - 2
        if dims not in (2, 3) or displacement.shape[1] != dims:
            raise ValueError(
                "Flow: displacement must have shape (N, 2, H, W) or (N, 3, D, H, W), got "
                f"{tuple(displacement.shape)}"
            )
        self.displacement = displacement
        self.normalized = bool(normalized)

    @property
    def map(self) -> str:
        """The map's name in the kernels."""
        return "normalized_flow" if self.normalized else "flow"

    @property
    def parameters(self) -> Tensor:
        """Tensor[N, *size, dims]: the displacement, seen as the kernels read it."""
        return self.displacement.movedim(1, -1)

    def grid(
        self,
        size: Sequence[int] | None = None,
        align_corners: bool = False,
        *,
        in_size: Sequence[int] | None = None,
    ) -> Tensor:
        """Write the map out as a grid.

        Args:
            size: the output's spatial size, which is the displacement's: None, or equal to it.
            align_corners: whether -1 and 1 are the centres of the corner pixels (True) or their
                outer edges (False, the default).
            in_size: the input's spatial size, (H, W) or (D, H, W), to whose pixels a displacement
                in pixels belongs. Default: the displacement's.

        Returns:
            Tensor[N, H, W, 2] or Tensor[N, D, H, W, 3]: normalised coordinates in the order
            x, y(, z), in float32, in float64 where the displacement is float64: in 16 bits they
            would be whole pixels off. ``sample(x, warp)`` equals
            ``sample(x, warp.grid(in_size=x.shape[2:]))`` within rounding.

        Raises:
            TypeError: if a size is not a sequence of integers.
            ValueError: if ``size`` is not the displacement's, or ``in_size`` does not fit.
        """
        own = self.displacement.shape[2:]
        if size is not None and tuple(ops.extents("Flow.grid", size)) != tuple(own):
            raise ValueError(
                f"Flow.grid: size must be None or the displacement's, {tuple(own)}, got {size!r}"
            )
        in_size = own if in_size is None else ops.extents("Flow.grid", in_size)
        if len(in_size) != len(own):
            raise ValueError(
                f"Flow.grid: in_size must have {len(own)} entries, the input's spatial size, "
                f"got {tuple(in_size)}"
            )
        dtype = torch.promote_types(self.displacement.dtype, torch.float32)
        return GRIDS[self.map](self.parameters.to(dtype), own, in_size, align_corners)

    def __repr__(self) -> str:
        tensor = self.displacement
        return (
            f"Flow(displacement={tuple(tensor.shape)}, normalized={self.normalized}, "
            f"dtype={tensor.dtype}, device={tensor.device})"
        )
