"""A training run: the loop, the test, and what a checkpoint holds."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import stn_cuda
from stn_cuda import artifacts
from stn_cuda.data import Dataset
from stn_cuda.processes import Processes
from stn_cuda.recipes import RECIPES

__all__ = ["Config", "Training", "TrainingError", "evaluate", "train_epoch"]


class TrainingError(RuntimeError):
    """Training went wrong; the message says how."""


@dataclass(frozen=True)
class Config:
    """The settings of a run; the defaults are the tutorial's.

    Attributes:
        dataset (str): ``"mnist"``, ``"digits"``, ``"cluttered"`` or ``"cifar10"``, which decides on
            the network and the optimiser, too (``stn_cuda/recipes.py``).
        epochs (int): how often to go through the training set.
        batch_size (int): images per step.
        lr (float): the optimiser's step size.
        schedule (str): ``"constant"``, as the tutorial, or ``"cosine"``: from ``lr`` towards 0 over
            the epochs (Loshchilov & Hutter 2017, without restarts).
        seed (int): draws the initial weights, the order of the images, the dropout, and the warps
            of the digits.
        sampler (str): ``"stn_cuda"`` or ``"torch"``; ``"none"``: a network without transformer.
        device (str): ``"cpu"`` or ``"cuda"``.
        limit (int, optional): use the first so many training images only. Default: all.
    """

    dataset: str = "mnist"
    epochs: int = 20
    batch_size: int = 64
    lr: float = 0.01
    seed: int = 0
    sampler: str = "stn_cuda"
    device: str = "cpu"
    limit: int | None = None
    schedule: str = "constant"

    def lr_of(self, epoch: int) -> float:
        """The step size in epoch 1, 2, ..."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * (epoch - 1) / self.epochs)) / 2


def train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    generator: torch.Generator,
    on_step: Callable[[Tensor], None] | None = None,
    processes: Processes | None = None,
) -> Tensor:
    """Go through the training set once, in an order that ``generator`` draws.

    Args:
        model (torch.nn.Module): (N, C, H, W) -> log-probabilities (N, 10).
        optimizer (torch.optim.Optimizer): over the model's parameters.
        images (Tensor[N, C, H, W]), labels (Tensor[N]): on the model's device.
        batch_size (int): images per step; the last step takes what is left.
        generator (torch.Generator): on the CPU, so that the order is the same on every device.
        on_step (callable, optional): told every step's loss, of this process's images.
        processes (Processes, optional): share every batch among them; ``model`` averages their
            gradients. Default: this process alone.

    Returns:
        Tensor[steps]: the mean loss of every step's images, on the model's device.

    Example::

        losses = train_epoch(net, optimizer, data.train_images, data.train_labels,
                             batch_size=64, generator=torch.Generator().manual_seed(0))
    """
    processes = processes or Processes()
    model.train()
    losses = []
    order = torch.randperm(len(images), generator=generator).to(images.device)
    for index in order.split(batch_size):
        optimizer.zero_grad()
        loss = processes.loss(model, images, labels, index)
        loss.backward()
        optimizer.step()
        # Kept as tensors: reading a number would wait for the GPU in every step.
        losses.append(loss.detach())
        if on_step is not None:
            on_step(losses[-1])
    return processes.sum(torch.stack(losses)) / processes.count


# Images per call when no gradient is kept: as large as pays on a GPU, a few megabytes on a CPU.
EVALUATION_BATCH = 1000


@torch.inference_mode()
def evaluate(
    model: torch.nn.Module, images: Tensor, labels: Tensor, processes: Processes | None = None
) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) of ``model`` on images (N, C, H, W), labels (N,).

    Of several ``processes`` each takes its part of the images; all get the same result.
    """
    processes = processes or Processes()
    model.eval()
    count = len(images)
    images, labels = processes.part(images), processes.part(labels)
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    for batch, target in zip(
        images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True
    ):
        output = model(batch)
        loss += F.nll_loss(output, target, reduction="sum")
        correct += (output.argmax(dim=1) == target).sum()
    return processes.sum(loss).item() / count, processes.sum(correct).item() / count


class Training:
    """A run between two epochs: everything the next epoch depends on.

    Args:
        config (Config): the run's settings.
        data (Dataset): on the config's device.
        state (dict, optional): continue from what :meth:`state` returned. Default: start afresh,
            which seeds torch's generators.
        processes (Processes, optional): those that train together; every one has all the data.
            The weights are those that one process would get from the same batches, up to rounding
            and dropout, which draws its own in each. Default: this process alone.

    Attributes:
        model (torch.nn.Module): the network of the config's recipe.
        history (list[dict]): for every epoch done: ``epoch``, ``train_loss``, ``test_loss``,
            ``test_accuracy``, ``seconds``.

    Example::

        training = Training(Config(epochs=1), load_mnist())
        print(training.epoch()["test_accuracy"])
    """

    def __init__(
        self,
        config: Config,
        data: Dataset,
        state: dict[str, Any] | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.processes = processes or Processes()
        torch.manual_seed(config.seed)
        self._order = torch.Generator().manual_seed(config.seed)
        # Made on the CPU: the same seed then gives the same weights on every device.
        recipe = RECIPES[config.dataset]
        self.model = recipe.networks[config.sampler]().to(config.device)
        self.optimizer = recipe.optimizer(self.model.parameters(), lr=config.lr)
        self.history: list[dict[str, Any]] = []
        if state is not None:
            self._restore(state)
        self._parallel = self.processes.wrapped(self.model)

    def epoch(self) -> dict[str, Any]:
        """Train for one epoch and test; the epoch's entry of :attr:`history`.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        number = len(self.history) + 1
        data, batch_size = self.data, self.config.batch_size
        start = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_of(number)
        self.processes.seed(self.config.seed, number)
        shown = self.processes.is_first
        with _progress_bar(number, self.config, len(data.train_images), shown) as on_step:
            losses = train_epoch(
                self._parallel,
                self.optimizer,
                data.train_images,
                data.train_labels,
                batch_size=batch_size,
                generator=self._order,
                on_step=on_step,
                processes=self.processes,
            )
        # The last step may have fewer images than the others and counts for less.
        images = torch.full(losses.shape, float(batch_size), dtype=torch.float64)
        images[-1] = len(data.train_images) - batch_size * (len(losses) - 1)
        train_loss = torch.dot(losses.cpu().double(), images).item() / len(data.train_images)
        test_loss, accuracy = evaluate(
            self.model, data.test_images, data.test_labels, self.processes
        )
        if not (math.isfinite(train_loss) and math.isfinite(test_loss)):
            raise TrainingError(
                f"the loss is no longer finite in epoch {number}: train {train_loss}, test "
                f"{test_loss}; a smaller --lr than {self.config.lr} may help"
            )
        self.history.append(
            {
                "epoch": number,
                "train_loss": train_loss,
                "test_loss": test_loss,
                "test_accuracy": accuracy,
                "seconds": time.perf_counter() - start,
            }
        )
        return self.history[-1]

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        on_cuda = self.config.device == "cuda"
        return {
            "config": asdict(self.config),
            "history": self.history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": {
                "order": self._order.get_state(),
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state() if on_cuda else None,
            },
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.history = list(state["history"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._order.set_state(state["rng"]["order"])
        torch.set_rng_state(state["rng"]["cpu"])
        if state["rng"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["rng"]["cuda"])

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: where the run took place, and how it went so far."""
        on_cuda = self.config.device == "cuda"
        return {
            "config": asdict(self.config),
            "versions": artifacts.versions(),
            "build": stn_cuda.build_info(),
            "device": torch.cuda.get_device_name() if on_cuda else "cpu",
            "threads": torch.get_num_threads(),
            "processes": self.processes.count,
            "sampler": self.config.sampler,
            "seed": self.config.seed,
            "train_images": len(self.data.train_images),
            "test_images": len(self.data.test_images),
            "epochs": self.history,
            "test_accuracy": self.history[-1]["test_accuracy"],
            "total_seconds": sum(entry["seconds"] for entry in self.history),
        }

    @torch.inference_mode()
    def transformed(self, count: int) -> Tensor:
        """What the transformer makes of the first test images, in [0, 1]."""
        self.model.eval()
        images = self.model.transformer(self.data.test_images[:count])
        return self.data.denormalised(images).clamp(0, 1).cpu()

    @torch.inference_mode()
    def write_picture(self, folder: Path) -> bool:
        """Write the first 64 test images, before and after the transformer, as a picture.

        Whether there is a transformer.
        """
        if not hasattr(self.model, "transformer"):
            return False
        self.model.eval()
        images = self.data.test_images[:64]
        shown = (self.data.denormalised(x) for x in (images, self.model.transformer(images)))
        artifacts.write_picture(folder, *shown)
        return True


@contextmanager
def _progress_bar(
    epoch: int, config: Config, images: int, shown: bool
) -> Iterator[Callable[[Tensor], None] | None]:
    """A progress bar on stderr; gives the function that is told every step's loss."""
    if not shown:
        yield None
        return
    from tqdm import tqdm

    # A log file gets a line now and then instead of ten a second.
    interval = 0.1 if sys.stderr.isatty() else 10
    steps = math.ceil(images / config.batch_size)
    with tqdm(
        total=steps, desc=f"epoch {epoch}/{config.epochs}", unit="step", mininterval=interval
    ) as bar:

        def on_step(loss: Tensor) -> None:
            if bar.n % 50 == 0:  # Reading the loss waits for the GPU.
                bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
            bar.update()

        yield on_step
