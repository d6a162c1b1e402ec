"""Training in several processes, as `torchrun` starts them: who does what, and what is averaged."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ElsewhereError", "Processes", "process_group"]

Result = TypeVar("Result")


class ElsewhereError(RuntimeError):
    """The first process failed, and says why itself."""


class Processes:
    """The processes that train one model together, seen from one of them.

    Attributes:
        rank (int): this process's number, from 0.
        count (int): how many there are.

    Example::

        with process_group("cpu") as processes:
            loss = processes.loss(model, images, labels, index)
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks, and writes files."""
        return self.rank == 0

    def first(self, work: Callable[[], Result]) -> Result:
        """What ``work()`` returns in the first process, which alone calls it, for all.

        Raises:
            ElsewhereError: in the others, if it raises in the first.
        """
        if self.count == 1:
            return work()
        # The result, and the message of what went wrong.
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = work()
            except Exception as error:
                torch.distributed.broadcast_object_list([None, str(error)])
                raise
        torch.distributed.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise ElsewhereError(f"the first process failed: {outcome[1]}")
        return outcome[0]

    def wrapped(self, model: torch.nn.Module) -> torch.nn.Module:
        """``model``, with the first's weights everywhere and gradients that are averaged."""
        if self.count == 1:
            return model
        return torch.nn.parallel.DistributedDataParallel(model)

    def seed(self, run: int, epoch: int) -> None:
        """Seed torch's generators for an epoch of the run seeded with ``run``: each its own.

        Dropout then draws independently in every process, and a resumed run draws what the
        uninterrupted one would. A single process is left as it is.
        """
        if self.count > 1:
            torch.manual_seed(random.Random(f"{run} {epoch} {self.rank}").getrandbits(63))

    def part(self, tensor: Tensor) -> Tensor:
        """This process's share of ``tensor``'s first dimension; possibly none of it."""
        return tensor.tensor_split(self.count)[self.rank]

    def loss(self, model: torch.nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """A number whose average over the processes is the mean loss of the batch ``index``.

        Args:
            model (torch.nn.Module): (N, 1, 28, 28) -> log-probabilities (N, 10).
            images (Tensor[N, 1, 28, 28]), labels (Tensor[N]): the whole training set.
            index (Tensor): the batch, the same in every process; each works on its part.

        Returns:
            Tensor: 0-D, with its graph.
        """
        if self.count == 1:
            return F.nll_loss(model(images.index_select(0, index)), labels.index_select(0, index))
        part = self.part(index)
        if len(part) == 0:
            # Every process must take part in the averaging of the gradients; this one with zeros.
            return model(images.index_select(0, index[:1])).sum() * 0
        output = model(images.index_select(0, part))
        loss = F.nll_loss(output, labels.index_select(0, part), reduction="sum")
        # Parts of unequal length count by their images, so that the batch's mean is what one
        # process would have had.
        return loss * (self.count / len(index))

    def sum(self, tensor: Tensor) -> Tensor:
        """``tensor``, which is overwritten, added up over the processes: the same in all."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor


@contextmanager
def process_group(device: str) -> Iterator[Processes]:
    """Join the processes that this one was started with; leave them on success.

    What `torchrun` puts into the environment says who they are (RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR, MASTER_PORT). They talk through gloo on the CPU, and through nccl on CUDA, where
    each takes the GPU of its LOCAL_RANK. A process group that is there already is used, and left
    alone. Without WORLD_SIZE, or where it is 1, nothing is set up: there is one process.

    Args:
        device (str): ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: the environment is incomplete.
        RuntimeError: the others cannot be reached, or there are fewer GPUs than processes.

    Example::

        with process_group("cpu") as processes:
            print(f"{processes.rank} of {processes.count}")
    """
    available = torch.distributed.is_available()
    ours = not (available and torch.distributed.is_initialized())
    if ours and (not available or int(os.environ.get("WORLD_SIZE", 1)) == 1):
        yield Processes()
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if ours:
        torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    # Not after an exception: leaving may wait for the others, who wait for this one. They notice
    # that it has gone, by its connections and from torchrun.
    if ours:
        # What a model in a cycle still holds of the group would keep the group's own threads, which
        # can abort the process if they find the interpreter ending (pytorch #179291).
        gc.collect()
        torch.distributed.destroy_process_group()
