"""Modules: the spatial transformer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stn_cuda.functional import sample
from stn_cuda.warps import Affine, Warp

__all__ = ["SpatialTransformer"]

# For every warp that a localisation net can steer: how the warp is made from the net's output,
# and the shape of its parameters for an image with `dims` spatial dimensions.
_WARPS: dict[str, tuple[Callable[[Tensor], Warp], Callable[[int], tuple[int, ...]]]] = {
    "affine": (Affine, lambda dims: (dims, dims + 1)),
}


class SpatialTransformer(torch.nn.Module):
    r"""Looks at the input, decides on a warp, and returns the warped input.

    The spatial transformer of Jaderberg et al., "Spatial Transformer Networks" (2015), arXiv
    1506.02025: a localisation net predicts the parameters :math:`\theta` of a warp from the
    input, and the input is sampled through that warp in one pass, without a grid in memory. For
    ``warp="affine"`` an output point :math:`(x^t, y^t)` looks at the input point (eq. 1)

    .. math::
        \begin{pmatrix} x^s \\ y^s \end{pmatrix}
        = \theta \begin{pmatrix} x^t \\ y^t \\ 1 \end{pmatrix},

    both in normalised coordinates: -1 and 1 are the edges of the image (``align_corners=False``)
    or the centres of its outermost pixels (``True``); x runs along W, y along H, z along D.
    Everything is differentiable, so the localisation net learns from the loss of whatever follows.

    Equivalent to::

        theta = localization(input).view(-1, 2, 3)
        grid = F.affine_grid(theta, (N, C, *size), align_corners)
        output = F.grid_sample(input, grid, mode, padding_mode, align_corners)

    Args:
        localization (torch.nn.Module): maps the input to the warp's parameters. ``"affine"``: theta
            as (N, 2, 3) or flat (N, 6) for images, (N, 3, 4) or flat (N, 12) for volumes, of any
            floating dtype. Start it at the identity (last layer: zero weights, bias
            ``[1, 0, 0, 0, 1, 0]``), or the first outputs are noise.
        warp (str): the family of warps; ``"affine"``. Default: ``"affine"``.
        size (Sequence[int], optional): spatial size of the output in pixels, (Ho, Wo) or
            (Do, Ho, Wo). Default: the input's.
        mode (str): ``"bilinear"`` (trilinear for volumes), ``"nearest"`` or ``"bicubic"`` (images
            only). Default: ``"bilinear"``.
        padding_mode (str): what lies outside the input: ``"zeros"``, ``"border"`` or
            ``"reflection"``. Default: ``"zeros"``.
        align_corners (bool): whether -1 and 1 are the centres of the outermost pixels instead of
            the image's edges. Default: ``False``.

    Shape:
        - Input: (N, C, H, W) or (N, C, D, H, W), any floating dtype.
        - Output: (N, C, Ho, Wo) or (N, C, Do, Ho, Wo), in the input's dtype.

    Raises:
        TypeError: ``localization`` is not a module, or returns something else than a tensor.
        ValueError: unknown ``warp``, ``size`` of another length than 2 or 3, an input that is
            neither 4-D nor 5-D, or a localisation net that returns another shape. What
            :func:`stn_cuda.sample` raises for its arguments, it raises here at the first call.

    Example::

        transformer = SpatialTransformer(localization, size=(28, 28))
        digits = transformer(images)  # (N, 1, 60, 60) -> (N, 1, 28, 28)
    """

    def __init__(
        self,
        localization: torch.nn.Module,
        warp: str = "affine",
        size: Sequence[int] | None = None,
        mode: str = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(localization, torch.nn.Module):
            raise TypeError(
                "SpatialTransformer: localization must be a torch.nn.Module, "
                f"got {type(localization).__name__}"
            )
        if warp not in _WARPS:
            known = ", ".join(repr(name) for name in _WARPS)
            raise ValueError(f"SpatialTransformer: warp must be one of {known}, got {warp!r}")
        if size is not None:
            if isinstance(size, int) or len(size) not in (2, 3):
                raise ValueError(
                    "SpatialTransformer: size must be (height, width) or (depth, height, width), "
                    f"got {size!r}"
                )
            size = tuple(int(length) for length in size)
        self.localization = localization
        self.warp = warp
        self.size = size
        self.mode = mode
        self.padding_mode = padding_mode
        self.align_corners = align_corners

    def extra_repr(self) -> str:
        size = "input's" if self.size is None else self.size
        return (
            f"warp={self.warp!r}, size={size}, mode={self.mode!r}, "
            f"padding_mode={self.padding_mode!r}, align_corners={self.align_corners}"
        )

    def theta(self, input: Tensor) -> Tensor:
        """The warp's parameters that the localisation net predicts for ``input``.

        Args:
            input (Tensor[N, C, H, W] or Tensor[N, C, D, H, W]): images or volumes.

        Returns:
            Tensor: ``"affine"``: theta, (N, 2, 3) or (N, 3, 4), in the net's dtype.

        Example::

            theta = transformer.theta(images)
            shift_in_pixels = theta[:, :, 2] * images.new_tensor([width / 2, height / 2])
        """
        dims = input.dim() - 2
        if dims not in (2, 3):
            raise ValueError(
                "SpatialTransformer: input must be (N, C, H, W) or (N, C, D, H, W), "
                f"got shape {tuple(input.shape)}"
            )
        parameters = _WARPS[self.warp][1](dims)
        theta = self.localization(input)
        if not isinstance(theta, Tensor):
            raise TypeError(
                f"SpatialTransformer: localization must return a tensor, got {type(theta).__name__}"
            )
        full = (input.shape[0], *parameters)
        flat = (input.shape[0], torch.Size(parameters).numel())
        if theta.shape != full and theta.shape != flat:
            raise ValueError(
                f"SpatialTransformer: localization must return theta of shape {full} or {flat} "
                f"for a {input.dim()}-D input with batch {input.shape[0]}, "
                f"got {tuple(theta.shape)}"
            )
        return theta.reshape(full)

    def forward(self, input: Tensor) -> Tensor:
        make_warp, _ = _WARPS[self.warp]
        return sample(
            input,
            make_warp(self.theta(input)),
            self.size,
            mode=self.mode,
            padding_mode=self.padding_mode,
            align_corners=self.align_corners,
        )
