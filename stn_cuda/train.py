"""Train a spatial transformer network: ``python -m stn_cuda.train``.

https://docs.pytorch.org/tutorials/intermediate/spatial_transformer_tutorial.html, with this
package's sampler in the place of `F.affine_grid` + `F.grid_sample`; ``--sampler torch`` puts those
back. Network, loss, optimiser, batch size and normalisation are the tutorial's. With
``--dataset cluttered`` they are those of Lasagne's recipe (``stn_cuda/cluttered.py``), and
``--dataset cifar10`` has a network for photographs (``stn_cuda/cifar10.py``).

Started by ``torchrun``, its processes share every batch, and the first of them speaks and writes.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

import stn_cuda
from stn_cuda import artifacts, viz
from stn_cuda.mnist import DataError, DataUnavailableError, mnist_files
from stn_cuda.processes import ElsewhereError, Processes, process_group
from stn_cuda.recipes import RECIPES
from stn_cuda.training import Config, Training, TrainingError

__all__ = ["main"]


class OptionError(ValueError):
    """The options cannot be carried out; the message says which and why."""


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
        description="Train the spatial transformer network of PyTorch's tutorial, or of Lasagne's "
        "recipe for cluttered MNIST, or one for CIFAR-10.",
        epilog="OUT gets metrics.json, model.pt (the checkpoint that --resume continues from; both "
        "after every epoch) and transformed.png. Files of an earlier run there are replaced.",
    )
    option = parser.add_argument
    option(
        "--dataset",
        choices=(*RECIPES, "auto"),
        default="auto",
        help="mnist: found or downloaded; digits: scikit-learn's, warped, needs no download; "
        "cluttered: cluttered MNIST, 40x40, and cifar10: found, not downloaded; "
        "auto: mnist if it can be had, else digits (default)",
    )
    option("--out", type=Path, help="folder for the results (default: out/DATASET)")
    for name, kind, text in (
        ("epochs", _positive, "how often to go through the training set"),
        ("batch_size", _positive, "images per step"),
        ("lr", _number(float, 0.0, "a positive number"), "learning rate"),
    ):
        values = ", ".join(f"{getattr(r, name)} ({key})" for key, r in RECIPES.items())
        option(f"--{name.replace('_', '-')}", type=kind, help=f"{text} (default: {values})")
    seed = _number(int, 0, "a non-negative integer")
    option("--seed", type=seed, default=default.seed, help="random seed (default: 0)")
    option(
        "--schedule",
        choices=("constant", "cosine"),
        default=default.schedule,
        help="the learning rate stays, or falls towards 0 over the epochs (default: constant)",
    )
    option(
        "--sampler",
        choices=("stn_cuda", "torch", "none"),
        default=default.sampler,
        help="this package, or torch's affine_grid + grid_sample (default: stn_cuda); none, with "
        "cluttered (of the same size) and cifar10: a plain network, to compare with",
    )
    option("--device", choices=("cpu", "cuda"), help="default: cuda if there is one, else cpu")
    option("--limit", type=_positive, metavar="N", help="first N training images only")
    option("--threads", type=_positive, metavar="N", help="CPU threads (default: torch's)")
    option(
        "--resume",
        action="store_true",
        help="continue the run in OUT up to --epochs, as if it had not been interrupted",
    )
    option(
        "--animate",
        action="store_true",
        help="write learning.gif, too: what the transformer makes of 32 test images, epoch by "
        "epoch (of a run that is resumed, from there on)",
    )
    return parser


def _require_packages() -> None:
    missing = [name for name in ("tqdm", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        raise OptionError(f"training needs {' and '.join(missing)}: pip install {names}")


def _resolved_dataset(name: str) -> str:
    """``name``, with ``"auto"`` decided; MNIST's files are there afterwards."""
    if name in ("digits", "cluttered", "cifar10"):
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
    gpu, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if gpu >= gpus:
        raise OptionError(
            f"every process needs a GPU of its own, got {gpus} for process {gpu} (from 0); use "
            "--device cpu or fewer processes"
        )
    if sampler != "stn_cuda" or stn_cuda.build_info()["cuda"] is not None:
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
    # More epochs are what resuming is for, unless the schedule depends on them; anything else would
    # make it another run.
    free = {"epochs"} if config.schedule == "constant" else set()
    different = [
        f"{name} must be {state['config'].get(name)}, got {value}"
        for name, value in wanted.items()
        if name not in free and value != state["config"].get(name)
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
def _torch_settings(threads: int | None, devices: list[int] | None) -> Iterator[None]:
    """Set torch's threads, and leave them and its random generators as they were afterwards.

    devices: the GPUs whose generators are used; None: all.
    """
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices):
        torch.set_num_threads(threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _prepared(
    options: argparse.Namespace, device: str
) -> tuple[Config, Path, dict[str, Any] | None]:
    """The run's settings, its folder, which is there afterwards, and what it continues from."""
    dataset = _resolved_dataset(options.dataset)
    recipe = RECIPES[dataset]
    if options.sampler not in recipe.networks:
        known = ", ".join(recipe.networks)
        raise OptionError(f"--sampler: must be one of {known} for {dataset}, got {options.sampler}")
    if options.animate and options.sampler == "none":
        raise OptionError("--animate: needs a transformer, which --sampler none has not")
    config = Config(
        dataset,
        options.epochs or recipe.epochs,
        options.batch_size or recipe.batch_size,
        options.lr or recipe.lr,
        options.seed,
        options.sampler,
        device,
        options.limit,
        options.schedule,
    )
    folder = options.out or Path("out") / config.dataset
    state = _resumable(folder, config) if options.resume else None
    _make_folder(folder)
    return config, folder, state


def run(options: argparse.Namespace) -> None:
    """Carry out the parsed command line."""
    _require_packages()
    device = _resolved_device(options.device, options.sampler)
    with process_group(device) as processes:
        _train(options, device, processes)


def _train(options: argparse.Namespace, device: str, processes: Processes) -> None:
    # Once, for all: two processes that download, or that disagree, would be worse than waiting.
    config, folder, state = processes.first(lambda: _prepared(options, device))
    several = processes.count > 1
    devices = [torch.cuda.current_device()] if several and device == "cuda" else None
    with _torch_settings(options.threads, devices):
        data = RECIPES[config.dataset].load(config.seed)
        data = data.limited(config.limit).to(torch.device(device))
        training = Training(config, data, state, processes)
        if processes.is_first:
            print(
                f"{config.dataset}: {len(training.data.train_images)} training and "
                f"{len(training.data.test_images)} test images; sampler {config.sampler}, "
                f"device {device}, {torch.get_num_threads()} threads"
                f"{f' in each of {processes.count} processes' if several else ''}, "
                f"seed {config.seed}",
                flush=True,
            )
        frames = [training.transformed(32)] if options.animate and processes.is_first else []
        while len(training.history) < config.epochs:
            entry = training.epoch()
            if frames:
                frames.append(training.transformed(32))
                viz.animation(folder / artifacts.ANIMATION, frames, scale=3)
            if processes.is_first:
                artifacts.write_checkpoint(folder, training.state())
                artifacts.write_metrics(folder, training.metrics())
                print(
                    f"epoch {entry['epoch']}/{config.epochs}: "
                    f"train loss {entry['train_loss']:.4f}, "
                    f"test loss {entry['test_loss']:.4f}, "
                    f"test accuracy {entry['test_accuracy']:.4f}, {entry['seconds']:.1f} s",
                    flush=True,
                )
        if processes.is_first:
            if training.write_picture(folder):
                print(f"dataset and transformed images: {folder / artifacts.PICTURE}")
            print(f"test accuracy {training.history[-1]['test_accuracy']:.4f}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's); the exit status.

    0: done; 1: the data, the checkpoint or the training failed; 2: wrong options; 130: interrupted.
    """
    parser = _parser()
    # What happens to all of torchrun's processes alike is told once, by the first.
    is_first = int(os.environ.get("RANK", 0)) == 0
    out, err = (sys.stdout, sys.stderr) if is_first else (io.StringIO(), io.StringIO())
    with redirect_stdout(out), redirect_stderr(err):
        options = parser.parse_args(argv)
    try:
        run(options)
    except (OptionError, DataError, artifacts.CheckpointError, TrainingError) as error:
        if is_first or not isinstance(error, TrainingError):
            print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except ElsewhereError:
        return 1
    except KeyboardInterrupt:
        if is_first:
            print(
                f"{parser.prog}: interrupted; --resume continues after the last epoch",
                file=sys.stderr,
            )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
