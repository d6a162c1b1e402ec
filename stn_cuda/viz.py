"""Pictures: images before and after a warp, a warp's lattice over its image, and animations.

Needs matplotlib (``pip install stn_cuda[viz]``). Those that draw return a
:class:`matplotlib.figure.Figure`, which a notebook shows and whose ``savefig`` writes it; none
touches pyplot, so that none opens a window or stays in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stn_cuda._files import replacing
from stn_cuda.warps import Compose, Flow, Warp

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["animation", "before_after", "lattice", "tiled"]


def tiled(images: Tensor, columns: int = 8, gap: int = 2, background: float = 0.0) -> Tensor:
    """A batch of images side by side in one.

    Args:
        images (Tensor[N, C, H, W]): images.
        columns: images in a row. Default: 8, or as many as there are.
        gap: pixels between them and around.
        background: what lies there.

    Returns:
        Tensor[C, height, width]: on the CPU.

    Example::

        sheet = stn_cuda.viz.tiled(digits, columns=10)
    """
    if images.dim() != 4 or len(images) == 0:
        raise ValueError(f"tiled: images must be (N, C, H, W), N > 0, got {tuple(images.shape)}")
    images = images.detach().cpu()
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    shape = (channels, rows * (height + gap) + gap, columns * (width + gap) + gap)
    sheet = images.new_full(shape, background)
    for k, image in enumerate(images):
        top, left = gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def before_after(
    images: Tensor,
    warped: Tensor,
    columns: int = 8,
    titles: Sequence[str] = ("before", "after"),
) -> Figure:
    """Images as they are, and beside them what a warp has made of them.

    Args:
        images, warped (Tensor[N, C, H, W]): grey (C = 1) or RGB (C = 3), in [0, 1]. Their sizes
            may differ.
        columns: images in a row.
        titles: of the two halves.

    Returns:
        matplotlib.figure.Figure

    Example::

        figure = stn_cuda.viz.before_after(x, stn_cuda.sample(x, warp))
        figure.savefig("warped.png")
    """
    figure = _figure(10, 5.4)
    for axes, title, batch in zip(figure.subplots(1, 2), titles, (images, warped), strict=True):
        _show(axes, tiled(batch, columns))
        axes.set_title(title)
    return figure


def lattice(
    image: Tensor,
    warp: Warp | Tensor,
    size: Sequence[int] | None = None,
    lines: int = 12,
    align_corners: bool = False,
) -> Figure:
    """The image, and over it where a warp's regular lattice of output points looks.

    Args:
        image (Tensor[C, H, W]): grey (C = 1) or RGB (C = 3), in [0, 1].
        warp (Warp or Tensor[1, Ho, Wo, 2]): one warp of images.
        size: the output's, (Ho, Wo). Default: the image's; with a grid or a flow, None.
        lines: lines of the lattice along the longer side.
        align_corners: as in :func:`stn_cuda.sample`.

    Returns:
        matplotlib.figure.Figure

    Example::

        figure = stn_cuda.viz.lattice(x[0], stn_cuda.Affine.rotation(0.3, size=x.shape[-2:]))
    """
    if image.dim() != 3:
        raise ValueError(f"lattice: image must be (C, H, W), got {tuple(image.shape)}")
    height, width = image.shape[1:]
    if isinstance(warp, Flow):
        warp = warp.grid(size, align_corners, in_size=(height, width))
    elif isinstance(warp, Compose):
        size = warp.output_size("lattice", size, (height, width))
        warp = warp.grid(size, align_corners, in_size=(height, width))
    elif isinstance(warp, Warp):
        warp = warp.grid(tuple(size or (height, width)), align_corners)
    elif size is not None:
        raise ValueError(f"lattice: size must be None with a grid, got {size!r}")
    if warp.dim() != 4 or len(warp) != 1 or warp.shape[3] != 2:
        raise ValueError(f"lattice: warp must be one of images, got a grid {tuple(warp.shape)}")
    lengths = torch.tensor([width, height], dtype=torch.float64)
    half = (lengths - 1 if align_corners else lengths) / 2
    pixels = warp[0].detach().cpu().double() * half + (lengths - 1) / 2
    # Beyond the horizon of a homography there is nothing to be drawn.
    pixels = torch.where(pixels.abs() < 10 * lengths.max(), pixels, torch.nan).numpy()
    step = max(pixels.shape[:2]) / lines
    rows, columns = (_evenly(length, step) for length in pixels.shape[:2])
    figure = _figure(6, 6 * height / width)
    axes = figure.subplots()
    _show(axes, image.detach().cpu())
    for line in (*pixels[rows], *pixels[:, columns].swapaxes(0, 1)):
        axes.plot(line[:, 0], line[:, 1], color="tab:orange", linewidth=1)
    return figure


def animation(
    path: str | Path, frames: Iterable[Tensor], fps: float = 8.0, columns: int = 8, scale: int = 2
) -> None:
    """Write an animated GIF, such as of what a transformer makes of some images as it learns.

    Args:
        path: of the file, which is there whole or not at all.
        frames (iterable of Tensor[N, C, H, W]): a batch for every frame, grey or RGB, in [0, 1], of
            one shape.
        fps: frames per second.
        columns: images in a row.
        scale: how many pixels of the GIF a pixel is wide and high.

    Raises:
        ValueError: if there are no frames.

    Example::

        seen = []                               # in the training loop:
        seen.append(model.transformer(examples).cpu())
        stn_cuda.viz.animation("learning.gif", seen)
    """
    from PIL import Image

    pictures = []
    for frame in frames:
        values = _values(tiled(frame, columns)) * 255
        picture = Image.fromarray(values.round().astype("uint8"))
        size = (picture.width * scale, picture.height * scale)
        pictures.append(picture.resize(size, Image.Resampling.NEAREST))
    if not pictures:
        raise ValueError("animation: frames must hold at least one batch of images, got none")
    options = {"save_all": True, "append_images": pictures[1:], "duration": 1e3 / fps, "loop": 0}
    with replacing(Path(path)) as temporary:
        pictures[0].save(temporary, format="GIF", **options)


def _evenly(length: int, step: float) -> list[int]:
    """Whole numbers from 0 to length - 1, about ``step`` apart."""
    count = max(1, round((length - 1) / step))
    return sorted({round(k * (length - 1) / count) for k in range(count + 1)})


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _values(image: Tensor):
    """An image (C, H, W) as matplotlib and Pillow want it: (H, W) or (H, W, 3), in [0, 1]."""
    channels = image.shape[0]
    if channels not in (1, 3):
        raise ValueError(
            f"viz: images must be grey (C = 1) or RGB (C = 3), got {channels} channels"
        )
    values = image.float().clamp(0, 1).numpy()
    return values[0] if channels == 1 else values.transpose(1, 2, 0)


def _show(axes, image: Tensor) -> None:
    axes.set_axis_off()
    axes.imshow(_values(image), cmap="gray", vmin=0, vmax=1)
