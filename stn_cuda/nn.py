"""Modules: the spatial transformer, and several side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stn_cuda.functional import sample
from stn_cuda.warps import Affine, Projective, ThinPlateSpline, Warp

__all__ = ["ParallelTransformers", "SpatialTransformer"]


@dataclass(frozen=True)
class _Family:
    """A family of warps that a localisation net can steer.

    Attributes:
        make: the warp, from the net's output of the shape below.
        shape (dims, numbers -> tuple): of one warp's parameters, for images of so many dimensions
            and a net that says so many numbers.
        dims: of the images that it can warp.
        identity (parameters' shape -> Tensor): those that are no warp.
    """

    make: Callable[[Tensor], Warp]
    shape: Callable[[int, int], tuple[int, ...]]
    dims: tuple[int, ...] = (2, 3)
    identity: Callable[[tuple[int, ...]], Tensor] = lambda shape: torch.eye(*(1, *shape)[-2:])


def _square_grid(shape: tuple[int, ...]) -> Tensor:
    """So many control points as they are; another number, if that is no square."""
    return ThinPlateSpline.control_grid([max(2, math.isqrt(shape[0]))] * 2)


_WARPS = {
    "affine": _Family(Affine, lambda dims, numbers: (dims, dims + 1)),
    "attention": _Family(
        lambda theta: Affine.attention(theta[:, 0], theta[:, 1:]),
        lambda dims, numbers: (dims + 1,),
    ),
    "projective": _Family(Projective, lambda dims, numbers: (dims + 1, dims + 1)),
    "tps": _Family(
        ThinPlateSpline,
        lambda dims, numbers: (numbers // 2, 2),
        dims=(2,),
        identity=_square_grid,
    ),
}


class _Transformer(torch.nn.Module):
    """How a warp is made of what a localisation net says, and how the input is looked at."""

    def __init__(self, warp, size, mode, padding_mode, align_corners, downsample) -> None:
        super().__init__()
        name = type(self).__name__
        if not callable(warp) and warp not in _WARPS:
            known = ", ".join(repr(name) for name in _WARPS)
            raise ValueError(f"{name}: warp must be one of {known} or a callable, got {warp!r}")
        if downsample is not None and (size is not None or not downsample > 0):
            raise ValueError(
                f"{name}: downsample must be a positive number, without a size, got "
                f"{downsample!r} and size {size!r}"
            )
        if size is not None:
            if isinstance(size, int) or len(size) not in (2, 3):
                raise ValueError(
                    f"{name}: size must be (height, width) or (depth, height, width), got {size!r}"
                )
            size = tuple(int(length) for length in size)
        self.warp = warp
        self.size = size
        self.mode = mode
        self.padding_mode = padding_mode
        self.align_corners = align_corners
        self.downsample = downsample

    def extra_repr(self) -> str:
        size = "input's" if self.size is None else self.size
        if self.downsample is not None:
            size = f"input's / {self.downsample}"
        warp = getattr(self.warp, "__name__", self.warp) if callable(self.warp) else self.warp
        return (
            f"warp={warp!r}, size={size}, mode={self.mode!r}, "
            f"padding_mode={self.padding_mode!r}, align_corners={self.align_corners}"
        )

    def _start_at_identity(self, localization: torch.nn.Module, count: int = 1) -> None:
        """Have the net's last layer, if it is linear, say ``count`` times that there is no warp."""
        layers = [layer for layer in localization.modules() if not list(layer.children())]
        last = layers[-1] if layers else None
        if callable(self.warp) or not isinstance(last, torch.nn.Linear) or last.bias is None:
            return
        family = _WARPS[self.warp]
        for dims in family.dims:
            shape = family.shape(dims, last.out_features // count)
            values = family.identity(shape).flatten().repeat(count)
            if len(values) == last.out_features:
                torch.nn.init.zeros_(last.weight)
                with torch.no_grad():
                    last.bias.copy_(values)

    def _check_input(self, input: Tensor) -> None:
        known = (2, 3) if callable(self.warp) else _WARPS[self.warp].dims
        if input.dim() - 2 not in known:
            shapes = " or ".join(("(N, C, H, W)", "(N, C, D, H, W)")[dims - 2] for dims in known)
            raise ValueError(
                f"{type(self).__name__}: input must be {shapes}, got shape {tuple(input.shape)}"
            )

    def _parameters_of(self, said: Tensor, input: Tensor, count: int = 1) -> Tensor:
        """What a localisation net said of the input as the parameters of ``count`` warps."""
        name = type(self).__name__
        if not isinstance(said, Tensor):
            raise TypeError(f"{name}: localization must return a tensor, got {type(said).__name__}")
        if callable(self.warp):
            return said if count == 1 else said.reshape(len(said), count, -1)
        several = () if count == 1 else (count,)
        self._check_input(input)
        numbers = math.prod(said.shape[1:]) // count
        shape = _WARPS[self.warp].shape(input.dim() - 2, numbers)
        full = (input.shape[0], *several, *shape)
        flat = (input.shape[0], count * math.prod(shape))
        if said.shape != full and said.shape != flat:
            raise ValueError(
                f"{name}: localization must return theta of shape {full} or {flat} "
                f"for a {input.dim()}-D input with batch {input.shape[0]}, "
                f"got {tuple(said.shape)}"
            )
        return said.reshape(full)

    def _look(self, input: Tensor, parameters: Tensor) -> Tensor:
        make = self.warp if callable(self.warp) else _WARPS[self.warp].make
        warp = make(parameters)
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


class SpatialTransformer(_Transformer):
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
            ``"projective"``: a homography, (N, 3, 3) or flat (N, 9) ((N, 4, 4), (N, 16));
            ``"tps"``: the targets of a square grid of K control points, (N, K, 2) or flat
            (N, 2 K), of images only: :class:`stn_cuda.ThinPlateSpline`.
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
        padding_mode (str or Sequence[str]): what lies outside the input: ``"zeros"``, ``"border"``,
            ``"reflection"`` or ``"wrap"``, or one of these for each spatial axis. Default:
            ``"zeros"``.
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
        padding_mode: str | Sequence[str] = "zeros",
        align_corners: bool = False,
        downsample: float | None = None,
        identity: bool = True,
    ) -> None:
        super().__init__(warp, size, mode, padding_mode, align_corners, downsample)
        if not isinstance(localization, torch.nn.Module):
            raise TypeError(
                "SpatialTransformer: localization must be a torch.nn.Module, "
                f"got {type(localization).__name__}"
            )
        self.localization = localization
        if identity:
            self._start_at_identity(localization)

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
        if not callable(self.warp):
            self._check_input(input)  # before the net meets what it does not know
        return self._parameters_of(self.localization(input), input)

    def forward(self, input: Tensor) -> Tensor:
        return self._look(input, self.theta(input))


class ParallelTransformers(_Transformer):
    r"""Several spatial transformers that look at the same input, side by side.

    As in Jaderberg et al. 2015 (arXiv 1506.02025), where two of them share the digits to be added
    (appendix A.2), and two or four a bird to be named (section 4.3). What they see is concatenated
    along the channels.

    Args:
        localization (Sequence[torch.nn.Module] or torch.nn.Module): a localisation net for each of
            the transformers; or one for all of them, which says ``count`` times the parameters of
            one, one transformer's after the other's.
        warp, size, mode, padding_mode, align_corners, downsample, identity: as in
            :class:`SpatialTransformer`, for each of them.
        count (int, optional): the number of transformers that one localisation net steers.

    Shape:
        - Input: (N, C, H, W) or (N, C, D, H, W), any floating dtype.
        - Output: (N, count * C, Ho, Wo) or (N, count * C, Do, Ho, Wo), in the input's dtype.

    Raises:
        TypeError: ``localization`` is neither a module nor modules.
        ValueError: ``count`` does not belong to what is given, or a localisation net returns
            another number of parameters; and what :class:`SpatialTransformer` raises.

    Example::

        glimpses = ParallelTransformers(localization, "attention", size=(24, 24), count=2)
        left, right = glimpses(images).chunk(2, dim=1)
    """

    def __init__(
        self,
        localization: torch.nn.Module | Sequence[torch.nn.Module],
        warp: str | Callable[[Tensor], Warp | Tensor] = "affine",
        size: Sequence[int] | None = None,
        mode: str = "bilinear",
        padding_mode: str | Sequence[str] = "zeros",
        align_corners: bool = False,
        downsample: float | None = None,
        identity: bool = True,
        count: int | None = None,
    ) -> None:
        super().__init__(warp, size, mode, padding_mode, align_corners, downsample)
        several = not isinstance(localization, torch.nn.Module) or isinstance(
            localization, torch.nn.ModuleList
        )
        nets = list(localization) if several and isinstance(localization, Iterable) else []
        if several and not (nets and all(isinstance(net, torch.nn.Module) for net in nets)):
            raise TypeError(
                "ParallelTransformers: localization must be a module or a sequence of modules, "
                f"got {localization!r}"
            )
        if several and count not in (None, len(nets)):
            raise ValueError(
                f"ParallelTransformers: count must be None or {len(nets)} with as many "
                f"localisation nets, got {count!r}"
            )
        if not several and (not isinstance(count, int) or count < 1):
            raise ValueError(
                "ParallelTransformers: count must be a positive integer with one localisation "
                f"net, got {count!r}"
            )
        self.count = len(nets) if several else count
        self.localization = torch.nn.ModuleList(nets) if several else localization
        if identity:
            for net in nets:
                self._start_at_identity(net)
            if not several:
                self._start_at_identity(localization, count)

    def extra_repr(self) -> str:
        return f"count={self.count}, {super().extra_repr()}"

    def forward(self, input: Tensor) -> Tensor:
        if not callable(self.warp):
            self._check_input(input)
        if isinstance(self.localization, torch.nn.ModuleList):
            each = [self._parameters_of(net(input), input) for net in self.localization]
        else:
            said = self._parameters_of(self.localization(input), input, self.count)
            each = [said] if self.count == 1 else said.unbind(1)
        return torch.cat([self._look(input, parameters) for parameters in each], 1)
