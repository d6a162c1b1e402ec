"""Affine maps, from matrices and from what people mean by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn_cuda.warps import pixels
from stn_cuda.warps.base import MatrixWarp

Numbers = float | Sequence[float] | Tensor


class Affine(MatrixWarp):
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
    shapes = ((2, 3), (3, 4))

    # --- from what people mean ---------------------------------------------------------------
    #
    # Every one of these takes positions in the output to positions in the input, as theta does: a
    # scale of 2 looks at twice as much, and the picture comes out half as large.

    @classmethod
    def identity(cls, batch: int = 1, dims: int = 2, *, dtype=None, device=None) -> Affine:
        """The map that leaves every position where it is.

        Args:
            batch, dims: the number of maps, and of spatial dimensions (2 or 3).
            dtype, device: of theta. Default: torch's.

        Example::

            y = stn_cuda.sample(x, stn_cuda.Affine.identity(dims=2), size=(28, 28))  # resized
        """
        if dims not in (2, 3):
            raise ValueError(f"Affine.identity: dims must be 2 or 3, got {dims!r}")
        return cls(torch.eye(dims, dims + 1, dtype=dtype, device=device).repeat(batch, 1, 1))

    @classmethod
    def rotation(
        cls,
        angle: Numbers,
        centre: Numbers | None = None,
        *,
        size: Sequence[int] | None = None,
        align_corners: bool = False,
    ) -> Affine:
        """A rotation.

        Args:
            angle: in radians: (N,) or a number for images, from the x to the y axis, by which the
                picture comes out turned the other way, anticlockwise; (N, 3) for volumes: the axis
                of the rotation (x, y, z), as long as the angle.
            centre: the point (x, y(, z)) that stays, (N, dims) or (dims,). Default: the middle.
            size: the images' spatial size, (H, W) or (D, H, W): then angles are those of pixels,
                and the centre is in pixels. Default (None): everything is normalised, where a
                rotation of an image that is not square distorts it.
            align_corners: what ``size`` is worth, as in :func:`stn_cuda.sample`.

        Example::

            warp = stn_cuda.Affine.rotation(math.pi / 6, size=x.shape[-2:])
            y = stn_cuda.sample(x, warp)
        """
        values = pixels.numbers("Affine.rotation", angle=angle, **_given(centre=centre))
        matrix = _rotation("Affine.rotation", values["angle"])
        return cls._about("Affine.rotation", matrix, None, values, size, align_corners)

    @classmethod
    def scaling(
        cls,
        scale: Numbers,
        centre: Numbers | None = None,
        *,
        dims: int = 2,
        size: Sequence[int] | None = None,
        align_corners: bool = False,
    ) -> Affine:
        """A magnification about a centre.

        Args:
            scale: (N,) or a number: the same along all of ``dims`` axes; (N, 2) or (N, 3): along
                x, y(, z).
            dims: the number of spatial dimensions where ``scale`` does not tell. Default: 2.
            centre, size, align_corners: as in :meth:`rotation`.

        Example::

            y = stn_cuda.sample(x, stn_cuda.Affine.scaling(0.5))  # the middle, twice as large
        """
        op = "Affine.scaling"
        values = pixels.numbers(op, scale=scale, **_given(centre=centre))
        matrix = _scaling(op, values["scale"], dims)
        return cls._about(op, matrix, None, values, size, align_corners)

    @classmethod
    def translation(
        cls, shift: Numbers, *, size: Sequence[int] | None = None, align_corners: bool = False
    ) -> Affine:
        """A shift: every point of the output looks that far away from its own position.

        Args:
            shift: (N, 2) or (N, 3), or one of them without N: along x, y(, z).
            size, align_corners: as in :meth:`rotation`; with a ``size`` the shift is in pixels.

        Example::

            y = stn_cuda.sample(x, stn_cuda.Affine.translation((3, 0), size=x.shape[-2:]))
        """
        op = "Affine.translation"
        values = pixels.numbers(op, shift=shift)
        shift = _vectors(op, "shift", values["shift"])
        matrix = torch.eye(shift.shape[1], dtype=shift.dtype, device=shift.device)[None]
        return cls._about(op, matrix, shift, values, size, align_corners)

    @classmethod
    def shear(
        cls,
        shear: Numbers,
        centre: Numbers | None = None,
        *,
        size: Sequence[int] | None = None,
        align_corners: bool = False,
    ) -> Affine:
        """A shear: each axis moves in proportion to the others.

        Args:
            shear: (N, 2) for images: what x gains per y, and y per x; (N, 6) for volumes: what x
                gains per y and per z, y per x and z, z per x and y. Or one of them without N.
            centre, size, align_corners: as in :meth:`rotation`.

        Example::

            y = stn_cuda.sample(x, stn_cuda.Affine.shear((0.3, 0.0)))
        """
        op = "Affine.shear"
        values = pixels.numbers(op, shear=shear, **_given(centre=centre))
        matrix = _shear(op, values["shear"])
        return cls._about(op, matrix, None, values, size, align_corners)

    @classmethod
    def similarity(
        cls,
        angle: Numbers,
        scale: Numbers,
        translation: Numbers,
        centre: Numbers | None = None,
        *,
        size: Sequence[int] | None = None,
        align_corners: bool = False,
    ) -> Affine:
        """A rotation, a magnification that is the same along all axes, and then a shift.

        Args:
            angle, centre, size, align_corners: as in :meth:`rotation`.
            scale: (N,) or a number.
            translation: as :meth:`translation`'s shift.

        Example::

            warp = stn_cuda.Affine.similarity(0.3, 1.2, (5, -2), size=x.shape[-2:])
        """
        op = "Affine.similarity"
        values = pixels.numbers(
            op, angle=angle, scale=scale, translation=translation, **_given(centre=centre)
        )
        matrix = _rotation(op, values["angle"])
        matrix = _scaling(op, _batched(op, "scale", values["scale"]), matrix.shape[1]) @ matrix
        shift = _vectors(op, "translation", values["translation"])
        return cls._about(op, matrix, shift, values, size, align_corners)

    @classmethod
    def attention(cls, scale: Numbers, translation: Numbers) -> Affine:
        """Where to look and how closely: equation (2) of the spatial transformer paper.

        Args:
            scale: (N,) or a number: half the side of the part that is seen, in normalised units.
            translation: (N, 2) or (N, 3), or one of them without N: its middle, normalised.

        Returns:
            Affine: whose gradients reach ``scale`` and ``translation`` alone.

        Example::

            y = stn_cuda.sample(x, stn_cuda.Affine.attention(0.5, (0.2, -0.1)), size=(28, 28))
        """
        op = "Affine.attention"
        values = pixels.numbers(op, scale=scale, translation=translation)
        shift = _vectors(op, "translation", values["translation"])
        matrix = _scaling(op, _batched(op, "scale", values["scale"]), shift.shape[1])
        return cls._about(op, matrix, shift, values, None, False)

    @classmethod
    def from_pixels(
        cls,
        matrix: Tensor,
        in_size: Sequence[int],
        out_size: Sequence[int] | None = None,
        align_corners: bool = False,
    ) -> Affine:
        """The map of a matrix between pixels, such as OpenCV's under ``WARP_INVERSE_MAP``.

        Args:
            matrix (Tensor[N, 2, 3] or Tensor[N, 3, 4]): takes pixels of the output (x, y(, z); the
                first one's centre is 0) to pixels of the input.
            in_size, out_size: the spatial sizes of input and output. Default of the latter: the
                former.
            align_corners: as in the call of :func:`stn_cuda.sample` that the warp is for.

        Example::

            M = torch.from_numpy(cv2.invertAffineTransform(forward))[None]
            y = stn_cuda.sample(x, stn_cuda.Affine.from_pixels(M, x.shape[-2:]))
        """
        warp = cls(matrix)  # checks
        dims = matrix.shape[1]
        in_size = pixels.spatial("Affine.from_pixels", "in_size", in_size, dims)
        if out_size is None:
            out_size = in_size
        out_size = pixels.spatial("Affine.from_pixels", "out_size", out_size, dims)
        whole = pixels.from_pixels(warp.homogeneous(), in_size, out_size, align_corners)
        return cls(whole[:, :-1])

    @classmethod
    def _about(cls, op, matrix, shift, values, size, align_corners) -> Affine:
        """``matrix`` about values["centre"], then ``shift``; in pixels where there is a size."""
        dims = matrix.shape[1]
        if size is not None:
            size = pixels.spatial(op, "size", size, dims)
        centre = None  # the middle: 0
        if "centre" in values:
            centre = _vectors(op, "centre", values["centre"])
        elif size is not None:
            centre = matrix.new_tensor([[(extent - 1) / 2 for extent in reversed(size)]])
        shift = matrix.new_zeros(1, dims) if shift is None else shift
        vectors = (shift,) if centre is None else (centre, shift)
        if any(vector.shape[1] != dims for vector in vectors):
            given = " and ".join(str(vector.shape[1]) for vector in vectors)
            raise ValueError(
                f"{op}: centre and translation must have {dims} components, got {given}"
            )
        sizes = {len(tensor) for tensor in (matrix, *vectors)} - {1}
        if len(sizes) > 1:
            raise ValueError(
                f"{op}: batches must be equal or 1, got {', '.join(map(str, sorted(sizes)))}"
            )
        if centre is None:
            offset = shift.expand(len(matrix), -1) if len(shift) == 1 else shift
        else:
            offset = centre + shift - (matrix @ centre[..., None])[..., 0]
        matrix = matrix.expand(len(offset), -1, -1)
        warp = cls(torch.cat((matrix, offset[..., None]), 2))
        return warp if size is None else cls.from_pixels(warp.theta, size, None, align_corners)

    # --- of maps ------------------------------------------------------------------------------

    def homogeneous(self) -> Tensor:
        """Tensor[N, dims + 1, dims + 1]: theta with the row (0, ..., 0, 1) below it."""
        dims = self.theta.shape[1]
        last = self.theta.new_zeros(1, 1, dims + 1)
        last[..., -1] = 1
        return torch.cat((self.theta, last.expand(len(self.theta), -1, -1)), 1)

    def __matmul__(self, other: Affine) -> Affine:
        """First ``other``, then this: ``sample(x, A @ B)`` is ``sample(sample(x, A), B)`` at once.

        A batch of 1 on either side serves the other's batch. In a function that torch.compile
        traces whole, ``A.__matmul__(B)``: Dynamo does not know ``@`` of objects.
        """
        if not isinstance(other, Affine):
            return NotImplemented
        if self.theta.shape[1] != other.theta.shape[1]:
            raise ValueError(
                "Affine: maps that are composed must have as many dimensions, got theta of shapes "
                f"{tuple(self.theta.shape)} and {tuple(other.theta.shape)}"
            )
        return Affine((self.homogeneous() @ other.homogeneous())[:, :-1])

    def inverse(self) -> Affine:
        """The map back: ``A @ A.inverse()`` is the identity within rounding.

        Raises:
            torch.linalg.LinAlgError: if a matrix has no inverse.
        """
        return Affine(torch.linalg.inv(self.homogeneous())[:, :-1])


def _given(**values):
    return {name: value for name, value in values.items() if value is not None}


def _batched(op: str, name: str, value: Tensor) -> Tensor:
    """(N,) of a number or (N,)."""
    if value.dim() > 1:
        raise ValueError(f"{op}: {name} must be a number or (N,), got {tuple(value.shape)}")
    return value.reshape(-1)


def _vectors(op: str, name: str, value: Tensor) -> Tensor:
    """(N, dims) of (N, dims) or (dims,)."""
    if value.dim() not in (1, 2) or value.shape[-1] not in (2, 3):
        raise ValueError(
            f"{op}: {name} must be (N, 2), (N, 3), (2,) or (3,), got {tuple(value.shape)}"
        )
    return value.reshape(-1, value.shape[-1])


def _rotation(op: str, angle: Tensor) -> Tensor:
    """(N, 2, 2) of an angle each, (N, 3, 3) of an axis as long as the angle."""
    if angle.dim() == 2 and angle.shape[1] == 3:
        x, y, z = angle.unbind(1)
        zero = torch.zeros_like(x)
        cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), 1).view(-1, 3, 3)
        # Rodrigues' formula, and smooth at 0.
        return torch.linalg.matrix_exp(cross)
    angle = _batched(op, "angle", angle) if angle.dim() < 2 else angle
    if angle.dim() != 1:
        raise ValueError(
            f"{op}: angle must be a number or (N,) for images, (N, 3) for volumes, "
            f"got {tuple(angle.shape)}"
        )
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack((cos, -sin, sin, cos), 1).view(-1, 2, 2)


def _scaling(op: str, scale: Tensor, dims: int) -> Tensor:
    """(N, dims, dims) of (N,) or (N, dims)."""
    if scale.dim() == 2 and scale.shape[1] in (2, 3):
        return torch.diag_embed(scale)
    if dims not in (2, 3):
        raise ValueError(f"{op}: dims must be 2 or 3, got {dims!r}")
    if scale.dim() > 1:
        raise ValueError(
            f"{op}: scale must be a number, (N,), (N, 2) or (N, 3), got {tuple(scale.shape)}"
        )
    return torch.diag_embed(scale.reshape(-1, 1).expand(-1, dims))


def _shear(op: str, shear: Tensor) -> Tensor:
    """(N, dims, dims): ones, and beside them, row by row, what is given."""
    if shear.dim() not in (1, 2) or shear.shape[-1] not in (2, 6):
        raise ValueError(
            f"{op}: shear must be (N, 2) for images, (N, 6) for volumes, or one of them without N, "
            f"got {tuple(shear.shape)}"
        )
    shear = shear.reshape(-1, shear.shape[-1])
    one = torch.ones_like(shear[:, 0])
    if shear.shape[1] == 2:
        rows = (one, shear[:, 0], shear[:, 1], one)
        return torch.stack(rows, 1).view(-1, 2, 2)
    xy, xz, yx, yz, zx, zy = shear.unbind(1)
    return torch.stack((one, xy, xz, yx, one, yz, zx, zy, one), 1).view(-1, 3, 3)
