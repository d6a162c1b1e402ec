"""Cluttered MNIST: digits somewhere in a larger image, among pieces of others.

The data of Sønderby et al. 2015 (arXiv 1509.05329) in the form that Lasagne's recipe for spatial
transformers reads (github.com/Lasagne/Recipes, spatial_transformer_network.ipynb), and that
recipe's networks.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn_cuda.data import Dataset, normalise
from stn_cuda.mnist import CorruptDataError, DataUnavailableError, cache_folder
from stn_cuda.nn import SpatialTransformer
from stn_cuda.tutorial import TorchSpatialTransformer, identity_layer

__all__ = ["ClutteredLocalization", "ClutteredNet", "PlainNet", "load_cluttered"]

#: The images' side, for which the networks are laid out.
SIDE = 40
#: How many times smaller the transformer's output is.
DOWNSAMPLE = 3


class ClutteredLocalization(nn.Sequential):
    """The recipe's localisation net: where in a 40x40 image to look.

    Max-pool 2, convolution 1→20 (5x5), ReLU, max-pool 2, convolution 20→20 (5x5), ReLU, fully
    connected 320→50, ReLU, 50→6. The last layer starts at the identity.

    Shape:
        - Input: (N, 1, 40, 40).
        - Output: flat theta, (N, 6).

    Example::

        transformer = SpatialTransformer(ClutteredLocalization(), downsample=3)
    """

    def __init__(self) -> None:
        theta = identity_layer(50)
        super().__init__(
            nn.MaxPool2d(2),
            nn.Conv2d(1, 20, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 20, kernel_size=5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(20 * 4 * 4, 50),
            nn.ReLU(),
            theta,
        )


def _classifier(side: int, hidden: int) -> nn.Sequential:
    """The recipe's: convolutions 32 (3x3), each with a max-pool, fully connected, dropout.

    They are padded: of 13x13 pixels 3x3 are left, as many as the recipe has of its 20x20.
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(32 * (side // 4) ** 2, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, 10),
    )


class ClutteredNet(nn.Module):
    """The recipe's network: a spatial transformer that shrinks, and a classifier of what it sees.

    113 018 parameters.

    Args:
        sampler (str): ``"stn_cuda"``, or ``"torch"``: ``F.affine_grid`` + ``F.grid_sample``.

    Shape:
        - Input: (N, 1, 40, 40).
        - Output: log-probabilities, (N, 10).

    Example::

        net = ClutteredNet()
        loss = F.nll_loss(net(images), labels)
    """

    def __init__(self, sampler: str = "stn_cuda") -> None:
        super().__init__()
        localization = ClutteredLocalization()
        if sampler == "torch":
            size = (SIDE // DOWNSAMPLE,) * 2
            self.transformer = TorchSpatialTransformer(localization, size)
        else:
            self.transformer = SpatialTransformer(localization, downsample=DOWNSAMPLE)
        self.classifier = _classifier(SIDE // DOWNSAMPLE, 256)

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(self.classifier(self.transformer(input)), dim=1)


class PlainNet(nn.Module):
    """The classifier alone, on the whole image, with about as many parameters (112 330).

    To compare with: what the transformer of :class:`ClutteredNet` is good for.

    Shape:
        - Input: (N, 1, 40, 40).
        - Output: log-probabilities, (N, 10).

    Example::

        loss = F.nll_loss(PlainNet()(images), labels)
    """

    def __init__(self) -> None:
        super().__init__()
        self.classifier = _classifier(SIDE, 32)

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(self.classifier(input), dim=1)


def load_cluttered() -> Dataset:
    """Cluttered MNIST, 40x40, from ``*.npz`` in ``$STN_CUDA_DATA/cluttered`` or the cache folder.

    A file holds ``X_train``, ``X_valid``, ``X_test`` (float32 in [0, 1], (N, 1600)) and
    ``y_train``, ``y_valid``, ``y_test``. Tested is on the test set; the validation set is left out.

    Returns:
        Dataset: as many images as the file has.

    Raises:
        DataUnavailableError: there is no such file. Nothing is downloaded.
        CorruptDataError: the file is damaged, or holds something else.

    Example::

        data = load_cluttered()
        print(data.train_images.shape)  # (10000, 1, 40, 40)
    """
    named = os.environ.get("STN_CUDA_DATA")
    folders = [Path(named)] if named else []
    folders = [folder / "cluttered" for folder in (*folders, cache_folder())]
    files = [path for folder in folders for path in sorted(folder.glob("*.npz"))]
    if not files:
        raise DataUnavailableError(
            "cluttered MNIST is in none of the folders "
            f"{', '.join(map(str, folders))}: put mnist_sequence1_sample_5distortions5x5.npz there "
            "(github.com/daviddao/spatial-transformer-tensorflow, data)"
        )
    path = files[0]
    try:
        with path.open("rb") as file, np.load(file) as content:
            parts = [
                (content[f"X_{part}"], content[f"y_{part}"].reshape(-1))
                for part in ("train", "test")
            ]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CorruptDataError(f"{path} is damaged or no cluttered MNIST: {error}") from error
    tensors = []
    for images, labels in parts:
        whole = np.issubdtype(labels.dtype, np.integer)
        if images.shape != (len(labels), SIDE * SIDE) or not whole:
            raise CorruptDataError(
                f"{path} must hold images (N, {SIDE * SIDE}) and as many labels, got "
                f"{images.shape} and {labels.shape}"
            )
        grey = torch.from_numpy(images.astype(np.float32)).view(-1, 1, SIDE, SIDE)
        tensors += [normalise(grey), torch.from_numpy(labels.astype(np.int64))]
    return Dataset("cluttered", *tensors)
