"""Train the spatial transformer network of PyTorch's tutorial: ``python -m stn_cuda.train``.

https://docs.pytorch.org/tutorials/intermediate/spatial_transformer_tutorial.html, with this
package's sampler in the place of `F.affine_grid` + `F.grid_sample`; ``--sampler torch`` puts those
back. Network, loss, optimiser, batch size and normalisation are the tutorial's.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

import stn_cuda
from stn_cuda import artifacts
from stn_cuda.data import Dataset, load_digits, load_mnist
from stn_cuda.mnist import DataError, DataUnavailableError, mnist_files
from stn_cuda.tutorial import SAMPLERS, TutorialNet

__all__ = ["Config", "Training", "evaluate", "main", "train_epoch"]


class OptionError(ValueError):
    """The options cannot be carried out; the message says which and why."""


class TrainingError(RuntimeError):
    """Training went wrong; the message says how."""


@dataclass(frozen=True)
class Config:
    """The settings of a run; the defaults are the tutorial's.

    Attributes:
        dataset (str): ``"mnist"`` or ``"digits"``.
        epochs (int): how often to go through the training set.
        batch_size (int): images per step.
        lr (float): step size of plain gradient descent.
        seed (int): draws the initial weights, the order of the images, the dropout, and the warps
            of the digits.
        sampler (str): ``"stn_cuda"`` or ``"torch"``.
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


def train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    generator: torch.Generator,
    on_step: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Go through the training set once, in an order that ``generator`` draws.

    Args:
        model (torch.nn.Module): (N, 1, 28, 28) -> log-probabilities (N, 10).
        optimizer (torch.optim.Optimizer): over the model's parameters.
        images (Tensor[N, 1, 28, 28]), labels (Tensor[N]): on the model's device.
        batch_size (int): images per step; the last step takes what is left.
        generator (torch.Generator): on the CPU, so that the order is the same on every device.
        on_step (callable, optional): told every step's loss.

    Returns:
        Tensor[steps]: the mean loss of every step's images, on the model's device.

    Example::

        losses = train_epoch(net, optimizer, data.train_images, data.train_labels,
                             batch_size=64, generator=torch.Generator().manual_seed(0))
    """
    model.train()
    losses = []
    order = torch.randperm(len(images), generator=generator).to(images.device)
    for index in order.split(batch_size):
        optimizer.zero_grad()
        loss = F.nll_loss(model(images.index_select(0, index)), labels.index_select(0, index))
        loss.backward()
        optimizer.step()
        # Kept as tensors: reading a number would wait for the GPU in every step.
        losses.append(loss.detach())
        if on_step is not None:
            on_step(losses[-1])
    return torch.stack(losses)


# Images per call when no gradient is kept: as large as pays on a GPU, a few megabytes on a CPU.
EVALUATION_BATCH = 1000


@torch.inference_mode()
def evaluate(model: torch.nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) of ``model`` on images (N, 1, 28, 28), labels (N,)."""
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    for batch, target in zip(
        images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True
    ):
        output = model(batch)
        loss += F.nll_loss(output, target, reduction="sum")
        correct += (output.argmax(dim=1) == target).sum()
    return loss.item() / len(images), correct.item() / len(images)


class Training:
    """A run between two epochs: everything the next epoch depends on.

    Args:
        config (Config): the run's settings.
        data (Dataset): on the config's device.
        state (dict, optional): continue from what :meth:`state` returned. Default: start afresh,
            which seeds torch's generators.

    Attributes:
        model (TutorialNet): the network.
        history (list[dict]): for every epoch done: ``epoch``, ``train_loss``, ``test_loss``,
            ``test_accuracy``, ``seconds``.

    Example::

        training = Training(Config(epochs=1), load_mnist())
        print(training.epoch()["test_accuracy"])
    """

    def __init__(self, config: Config, data: Dataset, state: dict[str, Any] | None = None) -> None:
        self.config = config
        self.data = data
        torch.manual_seed(config.seed)
        self._order = torch.Generator().manual_seed(config.seed)
        # Made on the CPU: the same seed then gives the same weights on every device.
        self.model = TutorialNet(config.sampler).to(config.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config.lr)
        self.history: list[dict[str, Any]] = []
        if state is not None:
            self._restore(state)

    def epoch(self) -> dict[str, Any]:
        """Train for one epoch and test; the epoch's entry of :attr:`history`.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        number = len(self.history) + 1
        data, batch_size = self.data, self.config.batch_size
        start = time.perf_counter()
        with _progress_bar(number, self.config, len(data.train_images)) as on_step:
            losses = train_epoch(
                self.model,
                self.optimizer,
                data.train_images,
                data.train_labels,
                batch_size=batch_size,
                generator=self._order,
                on_step=on_step,
            )
        # The last step may have fewer images than the others and counts for less.
        images = torch.full(losses.shape, float(batch_size), dtype=torch.float64)
        images[-1] = len(data.train_images) - batch_size * (len(losses) - 1)
        train_loss = torch.dot(losses.cpu().double(), images).item() / len(data.train_images)
        test_loss, accuracy = evaluate(self.model, data.test_images, data.test_labels)
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
            "sampler": self.config.sampler,
            "seed": self.config.seed,
            "train_images": len(self.data.train_images),
            "test_images": len(self.data.test_images),
            "epochs": self.history,
            "test_accuracy": self.history[-1]["test_accuracy"],
            "total_seconds": sum(entry["seconds"] for entry in self.history),
        }

    @torch.inference_mode()
    def write_picture(self, folder: Path) -> None:
        """Write the first 64 test images, before and after the transformer, as a picture."""
        self.model.eval()
        images = self.data.test_images[:64]
        artifacts.write_picture(folder, images, self.model.transformer(images))


@contextmanager
def _progress_bar(epoch: int, config: Config, images: int) -> Iterator[Callable[[Tensor], None]]:
    """A progress bar on stderr; gives the function that is told every step's loss."""
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


# Command line -----------------------------------------------------------------------------------

Number = TypeVar("Number", int, float)


def _number(kind: type[Number], low: Number, wanted: str) -> Callable[[str], Number]:
    """An argparse type: a finite number of ``kind`` that is at least (a float: above) ``low``."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
            good = math.isfinite(value) and (value >= low if kind is int else value > low)
        except ValueError:
            good = False
        if not good:
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
        return value

    return parse


_positive = _number(int, 1, "a positive integer")


def _parser() -> argparse.ArgumentParser:
    default = Config()
    parser = argparse.ArgumentParser(
        prog="python -m stn_cuda.train",
        description="Train the spatial transformer network of PyTorch's tutorial.",
        epilog="OUT gets metrics.json, model.pt (the checkpoint that --resume continues from; both "
        "after every epoch) and transformed.png. Files of an earlier run there are replaced.",
    )
    option = parser.add_argument
    option(
        "--dataset",
        choices=("mnist", "digits", "auto"),
        default="auto",
        help="mnist: found or downloaded; digits: scikit-learn's, warped, needs no download; "
        "auto: mnist if it can be had, else digits (default)",
    )
    option("--out", type=Path, help="folder for the results (default: out/DATASET)")
    for name, kind, value, text in (
        ("--epochs", _positive, default.epochs, "how often to go through the training set"),
        ("--batch-size", _positive, default.batch_size, "images per step"),
        ("--lr", _number(float, 0.0, "a positive number"), default.lr, "learning rate"),
        ("--seed", _number(int, 0, "a non-negative integer"), default.seed, "random seed"),
    ):
        option(name, type=kind, default=value, help=f"{text} (default: {value})")
    option(
        "--sampler",
        choices=tuple(SAMPLERS),
        default=default.sampler,
        help="this package, or torch's affine_grid + grid_sample (default: stn_cuda)",
    )
    option("--device", choices=("cpu", "cuda"), help="default: cuda if there is one, else cpu")
    option("--limit", type=_positive, metavar="N", help="first N training images only")
    option("--threads", type=_positive, metavar="N", help="CPU threads (default: torch's)")
    option(
        "--resume",
        action="store_true",
        help="continue the run in OUT up to --epochs, as if it had not been interrupted",
    )
    return parser


def _require_packages() -> None:
    missing = [name for name in ("tqdm", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        raise OptionError(f"training needs {' and '.join(missing)}: pip install {names}")


def _resolved_dataset(name: str) -> str:
    """``name``, with ``"auto"`` decided; MNIST's files are there afterwards."""
    if name == "digits":
        return name
    try:
        mnist_files()
    except DataUnavailableError as error:
        if name == "mnist":
            raise
        print(f"{error}\nMNIST cannot be had: training on scikit-learn's digits instead.")
        return "digits"
    return "mnist"


def _resolved_device(name: str | None, sampler: str) -> str:
    """``name``, or the default device; both only if the sampler can run there."""
    if name == "cpu" or (name is None and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise OptionError("--device cuda: torch finds no CUDA device; use --device cpu")
    if sampler == "torch" or stn_cuda.build_info()["cuda"] is not None:
        return "cuda"
    if name is None:
        return "cpu"
    raise OptionError(
        "--device cuda: this stn_cuda was built without CUDA; "
        "use --device cpu or rebuild with STN_CUDA_BUILD=cuda"
    )


def _resumable(folder: Path, config: Config) -> dict[str, Any]:
    """The checkpoint in ``folder``, if ``config`` continues its run."""
    state = artifacts.read_checkpoint(folder)
    path = folder / artifacts.CHECKPOINT
    wanted = asdict(config)
    # More epochs are what resuming is for; anything else would make it another run.
    different = [
        f"{name} must be {state['config'].get(name)}, got {value}"
        for name, value in wanted.items()
        if name != "epochs" and value != state["config"].get(name)
    ]
    if different:
        raise OptionError(f"--resume: to continue {path}, {'; '.join(different)}")
    done = len(state["history"])
    if config.epochs < done:
        raise OptionError(
            f"--resume: --epochs must be at least the {done} that {path} has done, "
            f"got {config.epochs}"
        )
    return state


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--out: cannot make the folder {folder}: {error}") from error
    if not os.access(folder, os.W_OK):
        raise OptionError(f"--out: the folder {folder} must be writable")


@contextmanager
def _torch_settings(threads: int | None) -> Iterator[None]:
    """Set torch's threads, and leave them and its random generators as they were afterwards."""
    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.set_num_threads(threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def run(options: argparse.Namespace) -> None:
    """Carry out the parsed command line."""
    _require_packages()
    device = _resolved_device(options.device, options.sampler)
    config = Config(
        _resolved_dataset(options.dataset),
        options.epochs,
        options.batch_size,
        options.lr,
        options.seed,
        options.sampler,
        device,
        options.limit,
    )
    folder = options.out or Path("out") / config.dataset
    state = _resumable(folder, config) if options.resume else None
    _make_folder(folder)
    with _torch_settings(options.threads):
        data = load_mnist() if config.dataset == "mnist" else load_digits(config.seed)
        training = Training(config, data.limited(config.limit).to(torch.device(device)), state)
        print(
            f"{config.dataset}: {len(training.data.train_images)} training and "
            f"{len(training.data.test_images)} test images; sampler {config.sampler}, "
            f"device {device}, {torch.get_num_threads()} threads, seed {config.seed}",
            flush=True,
        )
        while len(training.history) < config.epochs:
            entry = training.epoch()
            artifacts.write_checkpoint(folder, training.state())
            artifacts.write_metrics(folder, training.metrics())
            print(
                f"epoch {entry['epoch']}/{config.epochs}: train loss {entry['train_loss']:.4f}, "
                f"test loss {entry['test_loss']:.4f}, "
                f"test accuracy {entry['test_accuracy']:.4f}, {entry['seconds']:.1f} s",
                flush=True,
            )
        training.write_picture(folder)
        print(f"dataset and transformed images: {folder / artifacts.PICTURE}")
        print(f"test accuracy {training.history[-1]['test_accuracy']:.4f}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's); the exit status.

    0: done; 1: the data, the checkpoint or the training failed; 2: wrong options; 130: interrupted.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        run(options)
    except (OptionError, DataError, artifacts.CheckpointError, TrainingError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print(
            f"{parser.prog}: interrupted; --resume continues after the last epoch", file=sys.stderr
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
