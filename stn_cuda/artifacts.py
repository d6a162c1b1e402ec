"""What a training run leaves in its folder: metrics.json, model.pt and transformed.png.

Every file appears whole or not at all, and replaces its predecessor only when it is complete.
"""

from __future__ import annotations

import json
import pickle
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import stn_cuda
from stn_cuda import viz
from stn_cuda._files import replacing

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "PICTURE",
    "CheckpointError",
    "read_checkpoint",
    "versions",
    "write_checkpoint",
    "write_metrics",
    "write_picture",
]

METRICS, CHECKPOINT = "metrics.json", "model.pt"
PICTURE, ANIMATION = "transformed.png", "learning.gif"

# Raised when a change makes older checkpoints unreadable, so that they are refused by name.
CHECKPOINT_FORMAT = 1
CHECKPOINT_KEYS = {"format", "config", "history", "model", "optimizer", "rng"}


class CheckpointError(RuntimeError):
    """A checkpoint cannot be continued from; the message says which and why."""


def versions() -> dict[str, str]:
    """The versions of what takes part in training."""
    return {
        "stn_cuda": stn_cuda.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write ``metrics`` to ``folder``'s metrics.json."""
    # allow_nan: NaN is no JSON, and other languages' readers stumble over it.
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    with replacing(folder / METRICS) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (config, history, model, optimizer, rng) to ``folder``'s model.pt."""
    with replacing(folder / CHECKPOINT) as temporary:
        torch.save({"format": CHECKPOINT_FORMAT, **state}, temporary)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read ``folder``'s model.pt onto the CPU.

    Args:
        folder (Path): where :func:`write_checkpoint` wrote it.

    Returns:
        dict: ``config`` (dict), ``history`` (list of the epochs done), ``model`` and ``optimizer``
        (state_dicts), ``rng`` (the random generators' states).

    Raises:
        CheckpointError: there is none, it is damaged, or of another format.

    Example::

        net = TutorialNet()
        net.load_state_dict(read_checkpoint(Path("out/mnist"))["model"])
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise CheckpointError(f"there is no {path} to resume from")
    try:
        # weights_only: a checkpoint from elsewhere must not be able to run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"{path} is damaged or no checkpoint: {reason}") from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != CHECKPOINT_FORMAT or set(state) != CHECKPOINT_KEYS:
        raise CheckpointError(
            f"{path} must be a training checkpoint of format {CHECKPOINT_FORMAT}, "
            f"got format {found}"
        )
    return state


def write_picture(folder: Path, images: Tensor, transformed: Tensor) -> None:
    """Write the tutorial's picture: images as they are, and as the transformer passes them on.

    Args:
        folder (Path): gets transformed.png.
        images (Tensor[N, C, H, W]): images with values in [0, 1], grey or RGB.
        transformed (Tensor[N, C, H, W]): the same after the spatial transformer.
    """
    halves = (batch.cpu().clamp(0, 1) for batch in (images, transformed))
    figure = viz.before_after(*halves, titles=("Dataset Images", "Transformed Images"))
    with replacing(folder / PICTURE) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
