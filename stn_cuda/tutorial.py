"""The network of PyTorch's spatial transformer tutorial, as an example of `SpatialTransformer`.

https://docs.pytorch.org/tutorials/intermediate/spatial_transformer_tutorial.html
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn_cuda.nn import SpatialTransformer

__all__ = ["SAMPLERS", "TorchSpatialTransformer", "TutorialLocalization", "TutorialNet"]


def identity_layer(features: int) -> nn.Linear:
    """The last layer of a localisation net of images: whatever it is given, it says no warp."""
    theta = nn.Linear(features, 6)
    nn.init.zeros_(theta.weight)
    with torch.no_grad():
        theta.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))
    return theta


class TutorialLocalization(nn.Sequential):
    """The tutorial's localisation net: where and how to look at a 28x28 image.

    Convolution 1→8 (7x7), max-pool 2, ReLU, convolution 8→10 (5x5), max-pool 2, ReLU, fully
    connected 90→32, ReLU, 32→6. The last layer starts with zero weights and the identity as its
    bias, so training starts from the unwarped image.

    Shape:
        - Input: (N, 1, 28, 28).
        - Output: flat theta, (N, 6).

    Example::

        transformer = SpatialTransformer(TutorialLocalization())
        straightened = transformer(images)
    """

    def __init__(self) -> None:
        theta = identity_layer(32)
        super().__init__(
            nn.Conv2d(1, 8, kernel_size=7),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(8, 10, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(10 * 3 * 3, 32),
            nn.ReLU(),
            theta,
        )


class TorchSpatialTransformer(nn.Module):
    """What a spatial transformer is without this package: `F.affine_grid` + `F.grid_sample`.

    The same function, state_dict and defaults as ``SpatialTransformer(localization)`` for images,
    to compare with.

    Args:
        localization (torch.nn.Module): maps (N, C, H, W) to theta, (N, 2, 3) or (N, 6).
        size (tuple[int, int], optional): of the output. Default: the input's.

    Example::

        reference = TorchSpatialTransformer(TutorialLocalization())
        straightened = reference(images)
    """

    def __init__(self, localization: nn.Module, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.localization = localization
        self.size = size

    def forward(self, input: Tensor) -> Tensor:
        theta = self.localization(input).view(-1, 2, 3)
        size = self.size or input.shape[2:]
        grid = F.affine_grid(theta, [*input.shape[:2], *size], align_corners=False)
        return F.grid_sample(input, grid, align_corners=False)


SAMPLERS = {"stn_cuda": SpatialTransformer, "torch": TorchSpatialTransformer}


class TutorialNet(nn.Module):
    """The tutorial's classifier of 28x28 digits behind a spatial transformer.

    Spatial transformer, convolution 1→10 (5x5), max-pool 2, ReLU, convolution 10→20 (5x5),
    channel dropout, max-pool 2, ReLU, fully connected 320→50, ReLU, dropout, 50→10, log-softmax.
    The layers are made in the tutorial's order: the same seed gives the tutorial's weights.

    Args:
        sampler (str): ``"stn_cuda"`` or ``"torch"`` (`F.affine_grid` + `F.grid_sample`). The
            state_dict is the same for both. Default: ``"stn_cuda"``.

    Shape:
        - Input: (N, 1, 28, 28), normalised grey values.
        - Output: log-probabilities, (N, 10).

    Raises:
        ValueError: unknown ``sampler``.

    Example::

        net = TutorialNet()
        loss = F.nll_loss(net(images), labels)
    """

    def __init__(self, sampler: str = "stn_cuda") -> None:
        super().__init__()
        if sampler not in SAMPLERS:
            known = ", ".join(repr(name) for name in SAMPLERS)
            raise ValueError(f"TutorialNet: sampler must be one of {known}, got {sampler!r}")
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.drop = nn.Dropout()
        self.fc2 = nn.Linear(50, 10)
        self.transformer = SAMPLERS[sampler](TutorialLocalization())

    def forward(self, input: Tensor) -> Tensor:
        x = self.transformer(input)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = self.drop(F.relu(self.fc1(x.flatten(1))))
        return F.log_softmax(self.fc2(x), dim=1)
