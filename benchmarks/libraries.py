"""Other libraries that sample images: peers of `--libraries`, as far as they are installed.

They are asked only for what they do alike: float32 (OpenCV: bytes, too) forward on the CPU, linear,
zeros outside. None of them takes a theta or a normalised grid, so each is given positions in pixels
of the input that were computed beforehand, and images in the layout that its users have. That work
is not timed, which favours them; none of them counts for the headline.
"""

from __future__ import annotations

import importlib
import math

import torch

from .peers import Peer
from .problem import Forward, Problem, grid_of, pixels_of

# Where OpenCV's value outside the image, a scalar of four, ends.
OPENCV_CHANNELS = 4
# scipy takes some 100 ns per element: with more of them, one cell would take minutes.
SCIPY_ELEMENTS = 2**22


def opencv(problem: Problem) -> Forward:
    """`cv2.warpAffine`, or `cv2.remap` for a grid, image by image, on (H, W, C) arrays.

    The thetas are given as matrices of pixels, the grid as two maps of float32.
    """
    import cv2
    import numpy

    case = problem.case
    # For the whole process; other peers do not use OpenCV.
    cv2.setNumThreads(torch.get_num_threads())
    batch, channels, *size = case.output_shape
    images = problem.input.movedim(1, -1).contiguous().numpy()
    shape = (batch, *size, channels)
    if channels == 1:  # OpenCV's users have (H, W)
        images, shape = images[..., 0], shape[:-1]
    constant = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": 0}

    if case.op == "affine":  # a homography is given as maps, as OpenCV itself makes them
        warps = [matrix.numpy() for matrix in _pixel_matrices(problem)]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

        def one(image, warp, output):
            cv2.warpAffine(image, warp, size[::-1], dst=output, flags=flags, **constant)
    else:
        maps = pixels_of(grid_of(problem), case).float().movedim(-1, 1).contiguous()
        warps = [(x, y) for x, y in maps.numpy()]

        def one(image, warp, output):
            cv2.remap(image, *warp, cv2.INTER_LINEAR, dst=output, **constant)

    def forward(_: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
        output = numpy.empty(shape, images.dtype)
        for index in range(batch):
            one(images[index % len(images)], warps[index % len(warps)], output[index])
        return torch.from_numpy(output).view(batch, *size, channels).movedim(-1, 1)

    return forward


def scipy_ndimage(problem: Problem) -> Forward:
    """`scipy.ndimage.map_coordinates`, order 1, plane by plane; it uses one thread."""
    import numpy
    from scipy import ndimage

    case = problem.case
    images = problem.input.numpy()
    # (z, y, x) first. "grid-constant" fades out into the zeros, as torch does; "constant" stops.
    positions = pixels_of(grid_of(problem), case).flip(-1).movedim(-1, 1).contiguous().numpy()

    def forward(_: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
        output = numpy.empty(case.output_shape, numpy.float32)
        for index, image in enumerate(output):
            where = positions[index % len(positions)]
            for plane, result in zip(images[index % len(images)], image, strict=True):
                ndimage.map_coordinates(plane, where, result, order=1, mode="grid-constant")
        return torch.from_numpy(output)

    return forward


def torch_interpol(problem: Problem) -> Forward:
    """`interpol.grid_pull` on float32 positions."""
    import interpol

    positions = pixels_of(grid_of(problem), problem.case).flip(-1).float().contiguous()
    # Without extrapolation, what lies past the outer pixels' centres would be cut off.
    options = {"interpolation": "linear", "bound": "zero", "extrapolate": True}
    return lambda image, _: interpol.grid_pull(image, positions, **options)


def _pixel_matrices(problem: Problem) -> torch.Tensor:
    """theta between pixels in the place of normalised units: (N, 2, 3) in float64."""
    case = problem.case
    from_pixels = torch.linalg.inv(_to_pixels(case.output_shape[2:], case.align_corners))
    to_pixels = _to_pixels(case.shape[2:], case.align_corners)
    last = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(len(problem.warp), 1, 3)
    theta = torch.cat([problem.warp.double(), last], 1)
    return (to_pixels @ theta @ from_pixels)[:, :2].contiguous()


def _to_pixels(size: tuple[int, ...], align_corners: bool) -> torch.Tensor:
    height, width = size
    x, y = ((width - 1) / 2, (height - 1) / 2) if align_corners else (width / 2, height / 2)
    rows = [[x, 0, (width - 1) / 2], [0, y, (height - 1) / 2], [0, 0, 1]]
    return torch.tensor(rows, dtype=torch.float64)


def _alike(problem: Problem, dtypes: tuple[str, ...] = ("float32",)) -> bool:
    case = problem.case
    kind = (case.warp_dtype, case.mode, case.padding, case.direction)
    alike = kind == ("float32", "bilinear", "zeros", "forward") and case.dtype in dtypes
    return alike and not problem.input.is_cuda


def _opencv_can(problem: Problem) -> bool:
    shape = problem.case.shape
    dtypes = ("float32", "uint8")
    return _alike(problem, dtypes) and len(shape) == 4 and shape[1] <= OPENCV_CHANNELS


def _scipy_can(problem: Problem) -> bool:
    return _alike(problem) and math.prod(problem.case.output_shape) <= SCIPY_ELEMENTS


def _interpol_can(problem: Problem) -> bool:
    return _alike(problem) and len(problem.case.shape) == 5


# module -> (what pip calls it, peer)
LIBRARIES: dict[str, tuple[str, Peer]] = {
    "cv2": ("opencv-python-headless", Peer("opencv", opencv, _opencv_can, headline=False)),
    "scipy.ndimage": ("scipy", Peer("scipy", scipy_ndimage, _scipy_can, headline=False)),
    "interpol": (
        "torch-interpol",
        Peer("torch-interpol", torch_interpol, _interpol_can, headline=False),
    ),
}


def installed() -> tuple[list[Peer], list[str]]:
    """The peers that can be run here, and a sentence for each that cannot."""
    peers, remarks = [], []
    for module, (package, peer) in LIBRARIES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            remarks.append(f"without {peer.name}: {error} (pip install {package})")
        else:
            peers.append(peer)
    return peers, remarks
