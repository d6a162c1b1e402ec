"""What ``python -m stn_cuda.train`` can train: for every dataset its network and its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from stn_cuda.cifar10 import Cifar10Net, load_cifar10
from stn_cuda.cluttered import ClutteredNet, PlainNet, load_cluttered
from stn_cuda.data import Dataset, load_digits, load_mnist
from stn_cuda.tutorial import TutorialNet

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a dataset.

    Attributes:
        load (seed -> Dataset): reads, or makes, the data.
        networks (dict): by ``--sampler``, what makes the network; those with a spatial transformer
            have it as ``transformer``.
        optimizer: torch's class.
        epochs, batch_size, lr: of the original.
    """

    load: Callable[[int], Dataset]
    networks: Mapping[str, Callable[[], torch.nn.Module]]
    optimizer: type[torch.optim.Optimizer]
    epochs: int
    batch_size: int
    lr: float


_TUTORIAL = {
    "networks": {"stn_cuda": TutorialNet, "torch": lambda: TutorialNet("torch")},
    "optimizer": torch.optim.SGD,
    "epochs": 20,
    "batch_size": 64,
    "lr": 0.01,
}

RECIPES = {
    "mnist": Recipe(lambda seed: load_mnist(), **_TUTORIAL),
    "digits": Recipe(load_digits, **_TUTORIAL),
    "cluttered": Recipe(
        lambda seed: load_cluttered(),
        {"stn_cuda": ClutteredNet, "torch": lambda: ClutteredNet("torch"), "none": PlainNet},
        torch.optim.Adam,
        epochs=50,
        batch_size=256,
        lr=0.001,
    ),
    "cifar10": Recipe(
        lambda seed: load_cifar10(),
        {
            "stn_cuda": Cifar10Net,
            "torch": lambda: Cifar10Net("torch"),
            "none": lambda: Cifar10Net("none"),
        },
        torch.optim.Adam,
        epochs=20,
        batch_size=64,
        lr=0.001,
    ),
}
