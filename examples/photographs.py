"""Two photographs rotated, scaled, sheared and shifted, by the kernels and by a NumPy sampler.

    python examples/photographs.py cat.png dog.png --out photographs.png --lattice lattice.png

The classic way into spatial transformers in NumPy (K. Zakka, *Deep Learning Paper Implementations:
Spatial Transformer Networks*, 2017): a batch of two photographs, a matrix each, a sampling grid,
bilinear interpolation. Here that is `sample` with an `Affine`; a NumPy sampler of a few lines says
the same, and a picture shows it.

Where positions are, the two differ from the tutorial, whose code maps -1 and 1 to 0 and the image's
*width*, past the last pixel, and clips the corners before it takes the weights: there even the
identity moves the image. `align_corners=True`, used here, maps them to the first and the last
pixel's centre, 0 and width - 1.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
import numpy as np
import torch
from torch import Tensor

import stn_cuda
from stn_cuda._files import replacing

#: Both photographs are shown this large.
SIZE = (150, 200)


def warps() -> dict[str, Tensor]:
    """theta (1, 2, 3) of every transformation, by its name."""
    Affine = stn_cuda.Affine
    options = {"size": SIZE, "align_corners": True}  # angles and lengths in pixels
    return {
        "as it is": Affine.identity().theta,
        "rotated by 30 degrees": Affine.rotation(math.radians(30), **options).theta,
        "twice as large": Affine.scaling(0.5, **options).theta,
        "sheared": Affine.shear((0.4, 0.0), **options).theta,
        "shifted by 40 and 20 pixels": Affine.translation((-40.0, -20.0), **options).theta,
    }


def numpy_grid(theta: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the output looks, normalised: x and y, each (N, H, W)."""
    height, width = size
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    homogeneous = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])  # (3, H * W)
    positions = theta @ homogeneous  # (N, 2, H * W)
    return tuple(positions.reshape(len(theta), 2, height, width).swapaxes(0, 1))


def numpy_sample(images: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear, zeros outside: images (N, H, W, C) at normalised positions -> (N, Ho, Wo, C)."""
    batch, height, width, _ = images.shape
    x, y = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    n = np.arange(batch)[:, None, None]
    total = np.zeros((*x.shape, images.shape[-1]))
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = images[n, row.clip(0, height - 1), column.clip(0, width - 1)]
        total += (weight * inside)[..., None] * pixel
    return total


def load(path: Path) -> Tensor:
    """A photograph as (3, *SIZE), float64 in [0, 1]: RGB, scaled to fill the frame."""
    pixels = np.asarray(matplotlib.image.imread(path), dtype=np.float64)
    if pixels.max() > 1:
        pixels = pixels / 255
    pixels = pixels[..., None].repeat(3, -1) if pixels.ndim == 2 else pixels[..., :3]
    image = torch.from_numpy(pixels.copy()).movedim(-1, 0)[None]
    height, width = image.shape[2:]
    # As much of it as has the frame's proportions, from the middle.
    scale = min(height / SIZE[0], width / SIZE[1])
    part = torch.tensor([SIZE[1] * scale / width, SIZE[0] * scale / height])
    return stn_cuda.sample(image, stn_cuda.Affine.scaling(part[None]), SIZE)[0]


def compare(images: Tensor) -> dict[str, tuple[Tensor, float]]:
    """By transformation: the photographs warped, and how far NumPy's are from them at most."""
    results = {}
    for name, theta in warps().items():
        theta = theta.double().repeat(len(images), 1, 1)
        ours = stn_cuda.sample(images, stn_cuda.Affine(theta), align_corners=True)
        x, y = numpy_grid(theta.numpy(), SIZE)
        theirs = numpy_sample(images.movedim(1, -1).numpy(), x, y)
        off = np.abs(ours.movedim(1, -1).numpy() - theirs).max()
        results[name] = ours, float(off)
    return results


def lattice(image: Tensor):
    """The figure of where a homography looks, out of four corners and the points they go to."""
    corners = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]])
    points = torch.tensor([[[-0.5, -0.8], [0.9, -0.95], [0.7, 0.9], [-0.8, 0.6]]])
    warp = stn_cuda.Projective.from_points(corners, points)
    return stn_cuda.viz.lattice(image.float(), warp)


def main(arguments: Sequence[str] | None = None) -> int:
    """Warp, compare, write the picture. Returns the exit status, 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", nargs=2, type=Path, help="PNG files, grey or RGB")
    parser.add_argument("--out", type=Path, default=Path("photographs.png"))
    parser.add_argument("--lattice", type=Path, help="a homography's lattice over the first, too")
    options = parser.parse_args(arguments)
    images = torch.stack([load(path) for path in options.photographs])
    results = compare(images)
    for name, (_, off) in results.items():
        print(f"{name}: NumPy's differ by at most {off:.1e}")
    sheet = torch.stack([warped for warped, _ in results.values()], 1).flatten(0, 1)
    picture = stn_cuda.viz.tiled(sheet, columns=len(results), gap=4, background=1.0).movedim(0, -1)
    with replacing(options.out) as temporary:
        matplotlib.image.imsave(temporary, picture.clamp(0, 1).numpy(), format="png")
    print(options.out)
    if options.lattice:
        with replacing(options.lattice) as temporary:
            lattice(images[0]).savefig(temporary, format="png", dpi=90)
        print(options.lattice)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
