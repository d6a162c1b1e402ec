"""Projective maps: homographies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stn_cuda.warps import pixels
from stn_cuda.warps.affine import Affine
from stn_cuda.warps.base import MatrixWarp


class Projective(MatrixWarp):
    r"""A homography: ``(input position, 1) ~ theta @ (output position, 1)``.

    The three (four) numbers of the product are divided by the last of them. Positions are
    normalised: -1 and 1 are the borders of the image along each axis, x first. Points where the
    last number is not positive, at the horizon and behind it, look outside of the image and have
    no gradient: a theta and its negative are different maps here, of which the one whose last
    number is positive where the image is to be seen is meant.

    Args:
        theta (Tensor[N, 3, 3] or Tensor[N, 4, 4]): the matrices, in float32, float64, float16 or
            bfloat16. A batch of 1 serves every image of the input's batch.

    Raises:
        TypeError: if ``theta`` is not a tensor of a floating dtype.
        ValueError: if ``theta`` has another shape.

    Example::

        theta = torch.eye(3).expand(8, 3, 3)
        y = stn_cuda.sample(x, stn_cuda.Projective(theta), size=(28, 28))

    Hartley and Zisserman, *Multiple View Geometry in Computer Vision*, 2004, section 2.3.
    """

    map = "projective"
    shapes = ((3, 3), (4, 4))

    @classmethod
    def identity(cls, batch: int = 1, dims: int = 2, *, dtype=None, device=None) -> Projective:
        """The map that leaves every position where it is.

        Args:
            batch, dims: the number of maps, and of spatial dimensions (2 or 3).
            dtype, device: of theta. Default: torch's.

        Example::

            y = stn_cuda.sample(x, stn_cuda.Projective.identity(), size=(28, 28))  # resized
        """
        if dims not in (2, 3):
            raise ValueError(f"Projective.identity: dims must be 2 or 3, got {dims!r}")
        return cls(torch.eye(dims + 1, dtype=dtype, device=device).repeat(batch, 1, 1))

    @classmethod
    def from_pixels(
        cls,
        matrix: Tensor,
        in_size: Sequence[int],
        out_size: Sequence[int] | None = None,
        align_corners: bool = False,
    ) -> Projective:
        """The map of a homography between pixels, such as OpenCV's under ``WARP_INVERSE_MAP``.

        Args:
            matrix (Tensor[N, 3, 3] or Tensor[N, 4, 4]): takes pixels of the output (x, y(, z); the
                first one's centre is 0) to pixels of the input. Of any sign: the middle of the
                output is taken to be in front of the horizon.
            in_size, out_size: the spatial sizes of input and output. Default of the latter: the
                former.
            align_corners: as in the call of :func:`stn_cuda.sample` that the warp is for.

        Example::

            H = torch.from_numpy(np.linalg.inv(cv2.getPerspectiveTransform(a, b)))[None]
            y = stn_cuda.sample(x, stn_cuda.Projective.from_pixels(H, x.shape[-2:]))
        """
        dims = cls(matrix).theta.shape[1] - 1
        in_size = pixels.spatial("Projective.from_pixels", "in_size", in_size, dims)
        if out_size is None:
            out_size = in_size
        out_size = pixels.spatial("Projective.from_pixels", "out_size", out_size, dims)
        theta = pixels.from_pixels(matrix, in_size, out_size, align_corners)
        behind = theta[:, -1:, -1:] < 0
        return cls(torch.where(behind, -theta, theta))

    @classmethod
    def from_points(
        cls,
        src: Tensor,
        dst: Tensor,
        *,
        in_size: Sequence[int] | None = None,
        out_size: Sequence[int] | None = None,
        align_corners: bool = False,
    ) -> Projective:
        """The homography that takes points to points: exactly for four, by least squares for more.

        Differentiable with respect to both. Computed in float64, with the points brought to the
        origin and to unit distance first (Hartley 1997, *In Defense of the Eight-Point Algorithm*);
        the squares are those of the linear system.

        Args:
            src (Tensor[N, K, 2]): K >= 4 points of the output, no three of any four on a line.
            dst (Tensor[N, K, 2]): where they look in the input.
            in_size, out_size: with ``in_size``, (H, W), the points are in pixels of images of these
                sizes (``out_size``: ``in_size`` by default), otherwise normalised.
            align_corners: what the sizes are worth, as in :func:`stn_cuda.sample`.

        Raises:
            TypeError, ValueError: if the points are not floating tensors of one such shape.
            torch.linalg.LinAlgError: if four points determine no homography.

        Example::

            corners = torch.tensor([[[-1.0, -1], [1, -1], [1, 1], [-1, 1]]])
            y = stn_cuda.sample(x, stn_cuda.Projective.from_points(corners, found), (200, 300))
        """
        op = "Projective.from_points"
        for name, points in (("src", src), ("dst", dst)):
            if not isinstance(points, Tensor) or not points.is_floating_point():
                got = points.dtype if isinstance(points, Tensor) else type(points).__name__
                raise TypeError(f"{op}: {name} must be a floating Tensor, got {got}")
            if points.dim() != 3 or points.shape[1] < 4 or points.shape[2] != 2:
                raise ValueError(
                    f"{op}: {name} must have shape (N, K, 2) with K >= 4, got {tuple(points.shape)}"
                )
        if src.shape[1] != dst.shape[1] or len({len(src), len(dst)} - {1}) > 1:
            raise ValueError(
                f"{op}: src and dst must have the same shape, or batch 1 on either side, got "
                f"{tuple(src.shape)} and {tuple(dst.shape)}"
            )
        dtype = torch.promote_types(src.dtype, dst.dtype)
        src, dst = torch.broadcast_tensors(src.double(), dst.double())
        (src, into), (dst, out_of) = _normalised(src), _normalised(dst)
        (x, y), (u, v) = src.unbind(-1), dst.unbind(-1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        # The last entry is 1: the points' middle is in front of the horizon.
        rows = (
            torch.stack((x, y, one, zero, zero, zero, -u * x, -u * y), -1),
            torch.stack((zero, zero, zero, x, y, one, -v * x, -v * y), -1),
        )
        system, wanted = torch.cat(rows, 1), torch.cat((u, v), 1)[..., None]
        if src.shape[1] == 4:
            entries = torch.linalg.solve(system, wanted)
        else:
            entries = torch.linalg.lstsq(system, wanted).solution
        matrix = torch.cat((entries[..., 0], torch.ones_like(entries[:, :1, 0])), 1).view(-1, 3, 3)
        matrix = torch.linalg.solve(out_of, matrix @ into)
        if in_size is None:
            return cls(matrix.to(dtype))
        return cls(cls.from_pixels(matrix, in_size, out_size, align_corners).theta.to(dtype))

    def __matmul__(self, other: Projective | Affine) -> Projective:
        """First ``other``, then this: ``sample(x, A @ B)`` is ``sample(sample(x, A), B)`` at once.

        A batch of 1 on either side serves the other's batch; affine maps are welcome on either.
        """
        other = _projective(other)
        return NotImplemented if other is None else _product(self, other)

    def __rmatmul__(self, other: Affine) -> Projective:
        other = _projective(other)
        return NotImplemented if other is None else _product(other, self)

    def inverse(self) -> Projective:
        """The map back: what is in front of the one's horizon is in front of the other's.

        Raises:
            torch.linalg.LinAlgError: if a matrix has no inverse.
        """
        return Projective(torch.linalg.inv(self.theta))


def _projective(warp) -> Projective | None:
    if isinstance(warp, Affine):
        return Projective(warp.homogeneous())
    return warp if isinstance(warp, Projective) else None


def _product(first: Projective, second: Projective) -> Projective:
    if first.theta.shape[1] != second.theta.shape[1]:
        raise ValueError(
            "Projective: maps that are composed must have as many dimensions, got theta of shapes "
            f"{tuple(first.theta.shape)} and {tuple(second.theta.shape)}"
        )
    return Projective(first.theta @ second.theta)


def _normalised(points: Tensor) -> tuple[Tensor, Tensor]:
    """The points about their middle, at a mean distance of 1, and the matrix that does that."""
    middle = points.mean(1, keepdim=True)
    distance = (points - middle).norm(dim=-1).mean(1)
    scale = 1 / torch.where(distance > 0, distance, torch.ones_like(distance))
    matrix = torch.diag_embed(torch.stack((scale, scale, torch.ones_like(scale)), 1))
    shift = torch.cat((-scale[:, None] * middle[:, 0], torch.zeros_like(scale)[:, None]), 1)
    matrix = matrix + torch.nn.functional.pad(shift[..., None], (2, 0))
    return (points - middle) * scale[:, None, None], matrix
