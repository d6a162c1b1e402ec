"""CIFAR-10: its files as their authors publish them, and a network with a spatial transformer.

Krizhevsky 2009, *Learning Multiple Layers of Features from Tiny Images*;
www.cs.toronto.edu/~kriz/cifar.html, in the Python or the binary version, unpacked.
"""

from __future__ import annotations

import codecs
import os
import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn_cuda.data import Dataset
from stn_cuda.mnist import CorruptDataError, DataUnavailableError, cache_folder
from stn_cuda.nn import SpatialTransformer
from stn_cuda.tutorial import TorchSpatialTransformer, identity_layer

__all__ = ["Cifar10Localization", "Cifar10Net", "load_cifar10"]

PYTHON, BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"
#: Mean and standard deviation of the training pixels in [0, 1], over all channels.
PIXEL_MEAN, PIXEL_STD = 0.4734, 0.2516
#: Bytes of an image: red, green and blue, 32x32 each.
IMAGE = 3 * 32 * 32


class Cifar10Localization(nn.Sequential):
    """Where and how to look at a 32x32 photograph.

    Convolution 3→64 (7x7), max-pool 2, ReLU, convolution 64→128 (5x5), max-pool 2, ReLU, fully
    connected 2048→256, ReLU, 256→6. The last layer starts at the identity.

    Shape:
        - Input: (N, 3, 32, 32).
        - Output: flat theta, (N, 6).

    Example::

        transformer = SpatialTransformer(Cifar10Localization())
    """

    def __init__(self) -> None:
        theta = identity_layer(256)
        super().__init__(
            nn.Conv2d(3, 64, kernel_size=7),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(64, 128, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128 * 4 * 4, 256),
            nn.ReLU(),
            theta,
        )


class Cifar10Net(nn.Module):
    """A classifier of photographs behind a spatial transformer.

    Spatial transformer, convolution 3→16 (5x5), max-pool 2, ReLU, convolution 16→32 (5x5),
    max-pool 2, ReLU, fully connected 800→1024, ReLU, dropout, 1024→10, log-softmax.

    Args:
        sampler (str): ``"stn_cuda"``; ``"torch"``: ``F.affine_grid`` + ``F.grid_sample``; or
            ``"none"``: the classifier alone.

    Shape:
        - Input: (N, 3, 32, 32).
        - Output: log-probabilities, (N, 10).

    Example::

        net = Cifar10Net()
        loss = F.nll_loss(net(images), labels)
    """

    def __init__(self, sampler: str = "stn_cuda") -> None:
        super().__init__()
        if sampler != "none":
            make = SpatialTransformer if sampler == "stn_cuda" else TorchSpatialTransformer
            self.transformer = make(Cifar10Localization())
        self.classifier = nn.Sequential(
            nn.Conv2d(3, 16, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 5 * 5, 1024),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(1024, 10),
        )

    def forward(self, input: Tensor) -> Tensor:
        if hasattr(self, "transformer"):
            input = self.transformer(input)
        return F.log_softmax(self.classifier(input), dim=1)


def load_cifar10() -> Dataset:
    """CIFAR-10: 50000 training and 10000 test photographs.

    Read from ``cifar-10-batches-py`` or ``cifar-10-batches-bin``, as the archives unpack, in
    ``$STN_CUDA_DATA`` or the cache folder. The Python version's pickles are read without running
    any code that they may hold.

    Returns:
        Dataset: float32 images (N, 3, 32, 32), ``(value - 0.4734) / 0.2516`` with values in [0, 1].

    Raises:
        DataUnavailableError: there is no such folder. Nothing is downloaded.
        CorruptDataError: a file is missing, damaged, or something else.

    Example::

        data = load_cifar10()
        print(data.train_images.shape)  # (50000, 3, 32, 32)
    """
    named = os.environ.get("STN_CUDA_DATA")
    folders = [*([Path(named)] if named else []), cache_folder()]
    found = [folder / name for folder in folders for name in (PYTHON, BINARY)]
    folder = next((folder for folder in found if folder.is_dir()), None)
    if folder is None:
        raise DataUnavailableError(
            f"CIFAR-10 is in none of {', '.join(map(str, found))}: unpack the Python or the binary "
            "version there (www.cs.toronto.edu/~kriz/cifar.html)"
        )
    read, end = (_read_pickle, "") if folder.name == PYTHON else (_read_binary, ".bin")
    train = [read(folder / f"data_batch_{k}{end}") for k in range(1, 6)]
    test = [read(folder / f"test_batch{end}")]
    tensors = []
    for batches in (train, test):
        images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        values = torch.from_numpy(images).view(-1, 3, 32, 32).float().div_(255)
        tensors += [(values - PIXEL_MEAN) / PIXEL_STD, torch.from_numpy(labels.astype(np.int64))]
    return Dataset("cifar10", *tensors, pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD)


class _Unpickler(pickle.Unpickler):
    """Knows arrays and bytes, and no other class or function."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("_codecs", "encode"):  # of bytes, where Python 3 wrote the file
            return codecs.encode
        if module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return getattr(np, name, None) or np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
        images, labels = content[b"data"], np.asarray(content[b"labels"])
        shape, kind = images.shape, (images.dtype, labels.dtype.kind)
    except Exception as error:  # a damaged pickle may raise anything
        raise CorruptDataError(f"{path} is missing, damaged or no CIFAR-10: {error}") from error
    if shape != (len(labels), IMAGE) or kind != (np.uint8, "i"):
        raise CorruptDataError(
            f"{path} must hold uint8 images (N, {IMAGE}) and as many labels, got {shape} and "
            f"{labels.shape}"
        )
    return images, labels


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise CorruptDataError(f"{path} is missing or cannot be read: {error}") from error
    if len(content) == 0 or len(content) % (1 + IMAGE):
        raise CorruptDataError(
            f"{path} must hold records of {1 + IMAGE} bytes, got {len(content)} bytes"
        )
    records = content.reshape(-1, 1 + IMAGE)
    return records[:, 1:].copy(), records[:, 0].copy()
