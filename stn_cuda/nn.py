"""Modules: the spatial transformer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stn_cuda.functional import sample
from stn_cuda.warps import Affine, Projective, Warp

__all__ = ["SpatialTransformer"]


@dataclass(frozen=True)
class _Family:
    """A family of warps that a localisation net can steer.

    Attributes:
        make: the warp, from the net's output of the shape below.
        identity (dims -> Tensor): the output, for images of so many dimensions, that is no warp.
    """

    make: Callable[[Tensor], Warp]
    identity: Callable[[int], Tensor]


_WARPS = {
    "affine": _Family(Affine, lambda dims: torch.eye(dims, dims + 1)),
    "attention": _Family(
        lambda theta: Affine.attention(theta[:, 0], theta[:, 1:]),
        lambda dims: torch.eye(1, dims + 1)[0],
    ),
    "projective": _Family(Projective, lambda dims: torch.eye(dims + 1)),
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
        localization (torch.nn.Module): maps the input to the warp's parameters, in their shape or
            flat, of any floating dtype. If its last layer is a :class:`torch.nn.Linear` with as
            many outputs as there are parameters, that is set to start at the identity, zero
            weights and a bias that is no warp, unless ``identity=False``. (Else do it yourself, or
            the first outputs are noise.)
        warp (str or callable): the family of warps, and its parameters for images (volumes):
            ``"affine"``: theta, (N, 2, 3) or flat (N, 6) ((N, 3, 4), (N, 12));
            ``"attention"``: a scale and a translation, (N, 3) ((N, 4)), equation (2);
            ``"projective"``: a homography, (N, 3, 3) or flat (N, 9) ((N, 4, 4), (N, 16)).
            A callable makes a :class:`stn_cuda.Warp` or a grid of what the net returns.
            Default: ``"affine"``.
        size (Sequence[int], optional): spatial size of the output in pixels, (Ho, Wo) or
            (Do, Ho, Wo). Default: the input's.
        downsample (float, optional): in the place of ``size``: the output is so many times smaller
            than the input along each axis, rounded down.
        identity (bool): whether the localisation net is made to start at the identity. Default:
            ``True``.
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
        ValueError: unknown ``warp``, ``size`` of another length than 2 or 3, ``size`` and
            ``downsample`` both, an input that is neither 4-D nor 5-D, or a localisation net that
            returns another shape. What
            :func:`stn_cuda.sample` raises for its arguments, it raises here at the first call.

    Example::

        transformer = SpatialTransformer(localization, size=(28, 28))
        digits = transformer(images)  # (N, 1, 60, 60) -> (N, 1, 28, 28)
    """

    def __init__(
        self,
        localization: torch.nn.Module,
        warp: str | Callable[[Tensor], Warp | Tensor] = "affine",
        size: Sequence[int] | None = None,
        mode: str = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool = False,
        downsample: float | None = None,
        identity: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(localization, torch.nn.Module):
            raise TypeError(
                "SpatialTransformer: localization must be a torch.nn.Module, "
                f"got {type(localization).__name__}"
            )
        if not callable(warp) and warp not in _WARPS:
            known = ", ".join(repr(name) for name in _WARPS)
            raise ValueError(
                f"SpatialTransformer: warp must be one of {known} or a callable, got {warp!r}"
            )
        if downsample is not None and (size is not None or not downsample > 0):
            raise ValueError(
                "SpatialTransformer: downsample must be a positive number, without a size, got "
                f"{downsample!r} and size {size!r}"
            )
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
        self.downsample = downsample
        if identity and not callable(warp):
            _start_at(_WARPS[warp].identity, localization)

    def extra_repr(self) -> str:
        size = "input's" if self.size is None else self.size
        if self.downsample is not None:
            size = f"input's / {self.downsample}"
        warp = getattr(self.warp, "__name__", self.warp) if callable(self.warp) else self.warp
        return (
            f"warp={warp!r}, size={size}, mode={self.mode!r}, "
            f"padding_mode={self.padding_mode!r}, align_corners={self.align_corners}"
        )

    def theta(self, input: Tensor) -> Tensor:
        """The warp's parameters that the localisation net predicts for ``input``.

        Args:
            input (Tensor[N, C, H, W] or Tensor[N, C, D, H, W]): images or volumes.

        Returns:
            Tensor: in the net's dtype and the shape that the warp takes: ``"affine"``: (N, 2, 3) or
            (N, 3, 4); of a callable warp, whatever the net returns.

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
        theta = self.localization(input)
        if callable(self.warp):
            return theta
        parameters = _WARPS[self.warp].identity(dims).shape
        if not isinstance(theta, Tensor):
            raise TypeError(
                f"SpatialTransformer: localization must return a tensor, got {type(theta).__name__}"
            )
        full = (input.shape[0], *parameters)
        flat = (input.shape[0], parameters.numel())
        if theta.shape != full and theta.shape != flat:
            raise ValueError(
                f"SpatialTransformer: localization must return theta of shape {full} or {flat} "
                f"for a {input.dim()}-D input with batch {input.shape[0]}, "
                f"got {tuple(theta.shape)}"
            )
        return theta.reshape(full)

    def forward(self, input: Tensor) -> Tensor:
        make = self.warp if callable(self.warp) else _WARPS[self.warp].make
        warp = make(self.theta(input))
        size = self.size
        if self.downsample is not None:
            size = [max(1, int(extent / self.downsample)) for extent in input.shape[2:]]
        return sample(
            input,
            warp,
            size if isinstance(warp, Warp) else None,
            mode=self.mode,
            padding_mode=self.padding_mode,
            align_corners=self.align_corners,
        )


def _start_at(identity: Callable[[int], Tensor], localization: torch.nn.Module) -> None:
    """Have the net's last layer, if it is linear, return the parameters of no warp."""
    layers = [layer for layer in localization.modules() if not list(layer.children())]
    last = layers[-1] if layers else None
    if not isinstance(last, torch.nn.Linear) or last.bias is None:
        return
    for dims in (2, 3):
        values = identity(dims).flatten()
        if len(values) == last.out_features:
            torch.nn.init.zeros_(last.weight)
            with torch.no_grad():
                last.bias.copy_(values)
