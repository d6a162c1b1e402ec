"""Checks in two processes: models under DDP and FSDP, and the training program."""

import copy
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from stn_cuda import artifacts, train, training
from stn_cuda.nn import SpatialTransformer

CHECKS = {}


def check(topic):
    def add(function):
        CHECKS[function.__name__] = (topic, function)
        return function

    return add


def close(actual, expected):
    # float64, values of order 1, sums of at most some hundred terms: 1e-12 leaves a thousand ulp.
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def randn(*shape):
    """The same in all processes."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# --- training ---------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        theta = nn.Linear(16, 6)
        nn.init.normal_(theta.weight, std=0.01)
        theta.bias.data = torch.tensor([0.9, 0.1, 0, -0.1, 0.9, 0.05])
        localization = nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 5, 16), nn.Tanh(), theta)
        self.transformer = SpatialTransformer(localization, size=(4, 7))
        self.head = nn.Linear(2 * 4 * 7, 3)

    def forward(self, x):
        return self.head(self.transformer(x).flatten(1))


IMAGES, TARGETS, STEPS = randn(8, 2, 6, 5), randn(8, 3), 4


def trained(model, images, targets):
    """After a few steps, in which every process's mean loss counts the same."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(images) - targets).square().mean().backward()
        optimizer.step()
    return model


def check_training(wrap, weights):
    net = Net().double()
    alone = trained(copy.deepcopy(net), IMAGES, TARGETS).state_dict()
    part = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    # Averages of averages, in another order: each step rounds differently by some ulp.
    model = trained(wrap(net), IMAGES[part], TARGETS[part])
    for name, value in weights(model).items():
        close(value, alone[name])
        assert not torch.equal(value, Net().double().state_dict()[name]), f"{name} has not moved"


@check("tensors")
def ddp():
    check_training(DistributedDataParallel, lambda model: model.module.state_dict())


@check("tensors")
def fsdp2():
    mesh = init_device_mesh("cpu", (2,))

    def wrap(net):
        for part in (net.transformer, net.head, net):
            fully_shard(part, mesh=mesh)
        return net

    def weights(model):
        return {name: value.full_tensor() for name, value in model.state_dict().items()}

    check_training(wrap, weights)


@check("tensors")
def fsdp1():
    def wrap(net):
        return FullyShardedDataParallel(net, device_id=torch.device("cpu"), use_orig_params=True)

    def weights(model):
        with FullyShardedDataParallel.summon_full_params(model):
            return {name: value.clone() for name, value in model.module.state_dict().items()}

    check_training(wrap, weights)


# --- the training program ---------------------------------------------------------------------


def without_dropout():
    """Each process draws its own: without, the weights are those of one process."""
    for layer in (nn.Dropout, nn.Dropout2d):
        layer.forward = lambda self, input: input


def run_training(folder, *options):
    # A last batch of 1, which leaves a process without.
    limits = ["--dataset", "digits", "--limit", "129", "--device", "cpu", "--out", str(folder)]
    return train.main([*limits, *options])


@check("train")
def resumed_is_uninterrupted():
    assert run_training(Path.cwd() / "whole", "--epochs", "3") == 0
    assert run_training(Path.cwd() / "parts", "--epochs", "1") == 0
    torch.rand(5)
    assert run_training(Path.cwd() / "parts", "--epochs", "3", "--resume") == 0
    dist.barrier()  # until the first has written
    whole, parts = (artifacts.read_checkpoint(Path.cwd() / name) for name in ("whole", "parts"))
    for name, value in whole["model"].items():
        assert torch.equal(parts["model"][name], value), name


@check("train")
def what_the_first_refuses_all_refuse():
    assert run_training(Path.cwd() / "whole", "--epochs", "1", "--resume") == (
        1 if dist.get_rank() else 2
    )


@check("train")
def diverging_ends_all():
    assert run_training(Path.cwd() / "diverged", "--epochs", "2", "--lr", "1e30") == 1


@check("train")
def dropout_draws_are_their_own():
    seeds, dropout = set(), nn.Dropout.forward

    def forward(self, input):
        if self.training:
            seeds.add(torch.initial_seed())
        return dropout(self, input)

    nn.Dropout.forward = forward
    try:
        assert run_training(Path.cwd() / "draws", "--epochs", "2") == 0
    finally:
        nn.Dropout.forward = dropout
    everywhere = [None, None]
    dist.all_gather_object(everywhere, seeds)
    assert len(everywhere[0]) == len(everywhere[1]) == 2, "another in every epoch"
    assert not everywhere[0] & everywhere[1]


@check("train")
def same_weights_as_one_process():  # the last: it changes dropout
    without_dropout()
    assert run_training(Path.cwd() / "comparable", "--epochs", "2") == 0


def one_fails():
    """In the first epoch one of the two processes has bad luck."""
    if int(os.environ["RANK"]) == 1:
        training.evaluate = None
    return run_training(Path.cwd() / "failed", "--epochs", "2")
