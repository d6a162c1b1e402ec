"""The example's data: MNIST, and scikit-learn's digits, warped, for offline use."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stn_cuda.functional import sample
from stn_cuda.mnist import DataUnavailableError, mnist_files, read_images_and_labels
from stn_cuda.warps import Affine

__all__ = ["Dataset", "denormalise", "digits_theta", "load_digits", "load_mnist", "normalise"]


# Mean and standard deviation of MNIST's training pixels in [0, 1], as the tutorial rounds them.
# The digits are normalised likewise: what matters is that both reach the net on the same scale.
PIXEL_MEAN, PIXEL_STD = 0.1307, 0.3081


@dataclass(frozen=True)
class Dataset:
    """Images and labels of a training and a test set.

    Attributes:
        name (str): ``"mnist"``, ``"digits"``, ``"cluttered"`` or ``"cifar10"``.
        train_images, test_images (Tensor[N, 1, H, W]): float32, ``(grey - 0.1307) / 0.3081``
            with grey values in [0, 1].
        train_labels, test_labels (Tensor[N]): int64, 0 to 9.
        pixel_mean, pixel_std (float): by which the images are normalised; MNIST's.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    pixel_mean: float = PIXEL_MEAN
    pixel_std: float = PIXEL_STD

    def denormalised(self, images: Tensor) -> Tensor:
        """Images of the net's scale with values in [0, 1]."""
        return images * self.pixel_std + self.pixel_mean

    def limited(self, count: int | None) -> Dataset:
        """This data with the first ``count`` training images only (``None``: all)."""
        return replace(
            self,
            train_images=self.train_images[:count],
            train_labels=self.train_labels[:count],
        )

    def to(self, device: torch.device) -> Dataset:
        """This data on ``device``."""
        names = ("train_images", "train_labels", "test_images", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def normalise(grey: Tensor) -> Tensor:
    """Grey values in [0, 1] to the net's scale."""
    return (grey - PIXEL_MEAN) / PIXEL_STD


def denormalise(images: Tensor) -> Tensor:
    """The inverse of :func:`normalise`."""
    return images * PIXEL_STD + PIXEL_MEAN


def load_mnist(show_progress: bool = True) -> Dataset:
    """MNIST: 60000 training and 10000 test images, read, or downloaded and then read.

    Args:
        show_progress (bool): whether downloads show a progress bar. Default: ``True``.

    Raises:
        DataUnavailableError: not found and not to be downloaded.
        CorruptDataError: a file is damaged, or images and labels do not belong together.

    Example::

        data = load_mnist()
        print(data.train_images.shape)  # (60000, 1, 28, 28)
    """
    train_images, train_labels, test_images, test_labels = mnist_files(show_progress)
    return Dataset(
        "mnist",
        *_mnist_tensors(*read_images_and_labels(train_images, train_labels)),
        *_mnist_tensors(*read_images_and_labels(test_images, test_labels)),
    )


def _mnist_tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    grey = torch.from_numpy(images.astype(np.float32)).div_(255).unsqueeze_(1)
    return normalise(grey), torch.from_numpy(labels.astype(np.int64))


# The last fifth of the 1797 digits is for testing. They stand one writer after the other, so a
# shuffled split would test on hands that were trained on.
DIGITS_TEST = 360
# Warped copies of every digit: enough that an epoch is some 450 steps of 64, and few enough that it
# takes seconds.
DIGITS_TRAIN_COPIES, DIGITS_TEST_COPIES = 20, 5
# The test set is the same for every seed, so that accuracies can be compared.
DIGITS_TEST_SEED = 1506_02025

# The ranges of the distorted MNIST "RTS" in Jaderberg et al. 2015, for a digit that would otherwise
# fill 20 of the canvas's 28 pixels as MNIST's do.
DIGITS_MAX_ANGLE = math.radians(45)
DIGITS_SCALES = (0.7 * 20 / 28, 1.2 * 20 / 28)


def digits_theta(angle: Tensor, scale: Tensor, centre: Tensor) -> Tensor:
    r"""The affine maps that put images onto a canvas, rotated, scaled and shifted.

    An image's point q shall appear at the canvas's point :math:`p = s R q + c`, both in normalised
    coordinates with y pointing down. `sample` asks the other way round, where in the image a point
    of the canvas looks: :math:`q = R^T (p - c) / s`, so

    .. math::
        \theta = \frac{1}{s} \begin{pmatrix}
            \cos a & \sin a & -(c_x \cos a + c_y \sin a) \\
            -\sin a & \cos a & c_x \sin a - c_y \cos a
        \end{pmatrix}.

    Args:
        angle (Tensor[N]): a in radians; positive turns clockwise.
        scale (Tensor[N]): s, the image's share of the canvas's side; 1 fills it.
        centre (Tensor[N, 2]): c, where the image's centre goes, (x, y) from -1 to 1.

    Returns:
        Tensor[N, 2, 3]: theta for :class:`stn_cuda.Affine`.

    Example::

        theta = digits_theta(torch.zeros(1), torch.full((1,), 0.5), torch.zeros(1, 2))
        small = sample(image, Affine(theta), size=(28, 28))  # fills the middle 14x14 pixels
    """
    cos, sin = angle.cos(), angle.sin()
    x, y = centre.unbind(1)
    rows = (cos, sin, -(x * cos + y * sin), -sin, cos, x * sin - y * cos)
    return (torch.stack(rows, dim=1) / scale[:, None]).view(-1, 2, 3)


def _random_digits_theta(count: int, generator: torch.Generator) -> Tensor:
    random = torch.rand(count, 4, generator=generator)
    angle = (random[:, 0] * 2 - 1) * DIGITS_MAX_ANGLE
    scale = DIGITS_SCALES[0] + random[:, 1] * (DIGITS_SCALES[1] - DIGITS_SCALES[0])
    # How far the rotated square reaches from its centre; what is left to the canvas's edge is the
    # room to shift it in. The largest have none: their corners, which are empty, are cut off.
    reach = scale * (angle.cos().abs() + angle.sin().abs())
    room = (1 - reach).clamp(min=0)
    centre = (random[:, 2:] * 2 - 1) * room[:, None]
    return digits_theta(angle, scale, centre)


def _warped(images: Tensor, labels: Tensor, copies: int, seed: int) -> tuple[Tensor, Tensor]:
    # repeat, not repeat_interleave: the first N then are N different digits.
    images, labels = images.repeat(copies, 1, 1, 1), labels.repeat(copies)
    theta = _random_digits_theta(len(images), torch.Generator().manual_seed(seed))
    return normalise(sample(images, Affine(theta), (28, 28))), labels


def load_digits(seed: int = 0) -> Dataset:
    """scikit-learn's handwritten digits, each rotated, scaled and shifted on a 28x28 canvas.

    The 8x8 digits (UCI's optical recognition test set) that scikit-learn carries; nothing is
    downloaded. The first 1437 are for training, the last 360, by other writers, for testing. Every
    training digit appears 20 times, every test digit 5 times, rotated by up to 45 degrees either
    way, drawn 14 to 24 pixels large, and shifted as far as it stays on the canvas: the warps of
    :func:`digits_theta`, evaluated by :func:`stn_cuda.sample`, bilinear.

    Args:
        seed (int): draws the training set's warps; the test set is the same for all. Default: 0.

    Returns:
        Dataset: 28740 training and 1800 test images.

    Raises:
        DataUnavailableError: scikit-learn is not installed.

    Example::

        data = load_digits(seed=0)
        print(data.train_images.shape)  # (28740, 1, 28, 28)
    """
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as error:
        raise DataUnavailableError(
            "the digits come with scikit-learn, which cannot be imported "
            f"({error}): pip install scikit-learn"
        ) from error
    bundled = sklearn_digits()
    # Grey values are 0 to 16 in these files.
    images = torch.from_numpy(bundled.images.astype(np.float32)).div_(16).unsqueeze_(1)
    labels = torch.from_numpy(bundled.target.astype(np.int64))
    return Dataset(
        "digits",
        *_warped(images[:-DIGITS_TEST], labels[:-DIGITS_TEST], DIGITS_TRAIN_COPIES, seed),
        *_warped(
            images[-DIGITS_TEST:], labels[-DIGITS_TEST:], DIGITS_TEST_COPIES, DIGITS_TEST_SEED
        ),
    )
