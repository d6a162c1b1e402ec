"""MNIST's files: found on this machine or downloaded, and read.

They are looked for in ``$STN_CUDA_DATA/mnist``, then in the user's cache folder
(``$XDG_CACHE_HOME/stn_cuda/mnist`` or ``~/.cache/stn_cuda/mnist``); what neither holds is
downloaded into the latter.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import math
import os
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stn_cuda._files import replacing

__all__ = [
    "CorruptDataError",
    "DataError",
    "DataUnavailableError",
    "mnist_files",
    "read_idx",
    "read_images_and_labels",
]


class DataError(RuntimeError):
    """The data cannot be used; the message says which file and why."""


class CorruptDataError(DataError):
    """A data file is there, but is not what it should be."""


class DataUnavailableError(DataError):
    """The data is not on this machine and could not be fetched or made."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the mirrors hold it: its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


# The gzip files that Y. LeCun, C. Cortes and C. Burges published. Their MD5 sums are the ones that
# torchvision checks.
MNIST_FILES = (
    RemoteFile(
        "train-images-idx3-ubyte.gz",
        9912422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte.gz",
        28881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte.gz",
        1648877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte.gz",
        4542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

# Seconds without a byte before a mirror is given up: patient with a slow line, and short enough
# that a machine without a network does not seem to hang.
NETWORK_TIMEOUT = 10.0


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/stn_cuda`` or ``~/.cache/stn_cuda``."""
    # The XDG specification asks to ignore an empty or relative value.
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "stn_cuda"


def mnist_folders() -> list[Path]:
    """The folders that are searched for MNIST, in this order; the last one is downloaded to."""
    named = os.environ.get("STN_CUDA_DATA")
    return ([Path(named) / "mnist"] if named else []) + [cache_folder() / "mnist"]


def mnist_files(show_progress: bool = True) -> list[Path]:
    """Find MNIST's four files, and download what is missing.

    Args:
        show_progress (bool): whether downloads show a progress bar. Default: ``True``.

    Returns:
        list[Path]: training images, training labels, test images, test labels; gzip or raw.

    Raises:
        DataUnavailableError: a file is in none of the folders and no mirror delivered it.

    Example::

        train_images, *_ = mnist_files()
        pixels = read_idx(train_images, dims=3)  # (60000, 28, 28), uint8
    """
    return [_find(file) or _download(file, show_progress) for file in MNIST_FILES]


def _find(file: RemoteFile) -> Path | None:
    names = (file.name, file.name.removesuffix(".gz"))
    candidates = (folder / name for folder in mnist_folders() for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _download(file: RemoteFile, show_progress: bool) -> Path:
    *_, cache = folders = mnist_folders()
    target = cache / file.name
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataUnavailableError(f"cannot make the cache folder {cache}: {error}") from error
    failures = []
    for mirror in MNIST_MIRRORS:
        try:
            with replacing(target) as temporary:
                _fetch(mirror + file.name, temporary, file, show_progress)
            return target
        except (OSError, http.client.HTTPException, CorruptDataError) as error:
            failures.append(f"  {mirror + file.name}: {error}")
    raise DataUnavailableError(
        f"MNIST's {file.name} is not in {' or '.join(str(folder) for folder in folders)} "
        "and could not be downloaded:\n" + "\n".join(failures) + "\n"
        "Put the four files there, or set STN_CUDA_DATA to the folder that holds mnist/, "
        "or use --dataset digits, which needs no download."
    )


def _fetch(url: str, path: Path, file: RemoteFile, show_progress: bool) -> None:
    """Write what ``url`` answers to ``path``; refuse anything but ``file``."""
    from tqdm import tqdm

    digest = hashlib.sha256()
    size = 0
    request = urllib.request.Request(url, headers={"User-Agent": "stn_cuda"})
    with (
        urllib.request.urlopen(request, timeout=NETWORK_TIMEOUT) as response,
        open(path, "wb") as output,
        tqdm(
            desc=file.name,
            total=file.size,
            unit="B",
            unit_scale=True,
            disable=not show_progress,
        ) as progress,
    ):
        # One byte too many is enough to know that it is another file, however long it goes on.
        while size <= file.size and (block := response.read(1 << 16)):
            size += len(block)
            digest.update(block)
            output.write(block)
            progress.update(len(block))
    if size != file.size:
        count = f"more than {file.size}" if size > file.size else size
        raise CorruptDataError(f"must have {file.size} bytes, got {count}")
    if digest.hexdigest() != file.sha256:
        raise CorruptDataError(f"SHA-256 must be {file.sha256}, got {digest.hexdigest()}")


def read_idx(path: str | os.PathLike[str], dims: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzip or raw.

    The format: two zero bytes, the element type (8: unsigned byte), the number of dimensions, every
    dimension as a big-endian 32-bit integer, then the elements
    (http://yann.lecun.com/exdb/mnist/).

    Args:
        path (path): the file. Whether it is compressed is seen from its content.
        dims (int): the number of dimensions it must have: 3 for images, 1 for labels.

    Returns:
        numpy.ndarray: uint8, read-only, of the shape that the file states.

    Raises:
        CorruptDataError: the file is cut short or too long, not gzip where it says so, or of
            another kind; the message names the file and what is wrong.
        FileNotFoundError: there is no such file.

    Example::

        labels = read_idx("train-labels-idx1-ubyte.gz", dims=1)
        print(labels.shape)  # (60000,)
    """
    path = Path(path)
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise CorruptDataError(f"{path}: damaged gzip file: {error}") from error
    elif path.suffix == ".gz" and not content.startswith(b"\x00\x00"):
        raise CorruptDataError(f"{path}: must be a gzip file, got {content[:4]!r} at its start")
    header = 4 + 4 * dims
    if len(content) < header:
        raise CorruptDataError(
            f"{path}: header must have {header} bytes, got {len(content)} bytes in all"
        )
    magic, expected = int.from_bytes(content[:4], "big"), 0x0800 | dims
    if magic != expected:
        raise CorruptDataError(
            f"{path}: magic number must be {expected} (unsigned bytes, {dims}-D), got {magic}"
        )
    shape = tuple(
        int.from_bytes(content[start : start + 4], "big") for start in range(4, header, 4)
    )
    # math.prod: Python's integers do not overflow, whatever a damaged header says.
    if len(content) - header != math.prod(shape):
        raise CorruptDataError(
            f"{path}: must hold {math.prod(shape)} bytes for shape {shape}, "
            f"got {len(content) - header}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_images_and_labels(image_path: Path, label_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image file and the label file that belongs to it.

    Args:
        image_path (Path): IDX file of N images of 28x28 pixels.
        label_path (Path): IDX file of N labels, 0 to 9.

    Returns:
        tuple[numpy.ndarray, numpy.ndarray]: (N, 28, 28) and (N,), both uint8.

    Raises:
        CorruptDataError: either file is damaged, or they do not belong together.

    Example::

        train_images, train_labels, test_images, test_labels = mnist_files()
        pixels, labels = read_images_and_labels(test_images, test_labels)
    """
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if images.shape[1:] != (28, 28) or len(images) == 0:
        raise CorruptDataError(
            f"{image_path}: must hold images of 28x28 pixels, got shape {images.shape}"
        )
    if len(labels) != len(images):
        raise CorruptDataError(
            f"{label_path}: must hold {len(images)} labels, as many as {image_path.name} "
            f"holds images, got {len(labels)}"
        )
    if labels.max() > 9:
        raise CorruptDataError(f"{label_path}: labels must be 0 to 9, got {labels.max()}")
    return images, labels
