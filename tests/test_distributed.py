"""Several processes: DistributedDataParallel, FSDP, DTensor, and the training program.

Two processes, which torchrun starts, run the checks of distributed_models.py and
distributed_tensors.py, once per topic; every check is a test here.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stn_cuda import artifacts
from stn_cuda.data import load_digits
from stn_cuda.processes import Processes
from stn_cuda.training import Config, Training
from stn_cuda.tutorial import TutorialNet

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this torch was built without torch.distributed or without gloo",
)

WORKER = Path(__file__).with_name("distributed_worker.py")
# (topic, name) of every check. Read, and not imported: torch.distributed.tensor takes its time.
CHECKS = [
    check
    for part in ("models", "tensors")
    for check in re.findall(
        r'^@check\("(\w+)"\)\ndef (\w+)',
        WORKER.with_name(f"distributed_{part}.py").read_text(),
        re.MULTILINE,
    )
]


def torchrun(*arguments, cwd, timeout=240):
    """Run ``arguments`` in two processes; what subprocess.run returns."""
    # --standalone: a free port. One thread each: there may be no more cores than processes.
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    return subprocess.run(
        [*launch, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
    )


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """reports(topic): the folder of the topic's launch, and for every check "" or what failed."""
    done = {}

    def report(topic):
        if topic not in done:
            folder = tmp_path_factory.mktemp(topic)
            launched = torchrun(WORKER, topic, cwd=folder)
            assert launched.returncode == 0, launched.stderr
            done[topic] = folder, json.loads((folder / "report.json").read_text())
        return done[topic]

    return report


@pytest.mark.slow
@pytest.mark.parametrize(("topic", "name"), CHECKS)
def test_in_two_processes(topic, name, reports):
    failure = reports(topic)[1][name]
    assert not failure, failure


@pytest.mark.slow
def test_rules_do_not_depend_on_the_order_of_imports():
    """torch.distributed.tensor is costly to import, and not stn_cuda's to import."""
    program = """
import sys
import torch
import stn_cuda
assert "torch.distributed.tensor" not in sys.modules
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

store = torch.distributed.HashStore()
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
x, theta = torch.rand(2, 1, 4, 4), torch.eye(2, 3).expand(2, 2, 3)
there = [distribute_tensor(t, mesh, [Shard(0)]) for t in (x, theta)]
y = stn_cuda.sample(there[0], stn_cuda.Affine(there[1]))
assert y.placements == (Shard(0),) and torch.equal(y.to_local(), x)
torch.distributed.destroy_process_group()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# --- the training program ---------------------------------------------------------------------


@pytest.mark.slow
def test_weights_are_those_of_one_process(reports, monkeypatch, threads):
    threads(1)
    folder, checks = reports("train")
    assert not checks["same_weights_as_one_process"]
    several = artifacts.read_checkpoint(folder / "comparable")
    for layer in (torch.nn.Dropout, torch.nn.Dropout2d):
        monkeypatch.setattr(layer, "forward", lambda self, input: input)
    config = Config(**several["config"])
    with torch.random.fork_rng():
        one = Training(config, load_digits(config.seed).limited(config.limit))
        start = {name: value.clone() for name, value in one.model.state_dict().items()}
        for _ in range(config.epochs):
            one.epoch()
    # float32: the sums of a step's gradients, of order 0.1 and lr 0.01, round differently in their
    # last bits, six steps long; 1e-6 is some ten ulp of the largest weights. A batch shared wrongly
    # moves weights by more than 1e-4.
    for name, value in several["model"].items():
        torch.testing.assert_close(value, one.model.state_dict()[name], rtol=0, atol=1e-6)
    moved = max((value - start[name]).abs().max() for name, value in several["model"].items())
    assert moved > 1e-3
    for ours, theirs in zip(several["history"], one.history, strict=True):
        for key in ("train_loss", "test_loss", "test_accuracy"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-6), key


@pytest.mark.slow
def test_torchrun_as_it_is(tmp_path):
    options = ["--dataset", "digits", "--limit", 200, "--epochs", 2, "--device", "cpu"]
    launched = torchrun("-m", "stn_cuda.train", *options, "--out", "run", cwd=tmp_path)
    assert launched.returncode == 0, launched.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["processes"] == 2
    # One process speaks, and one writes.
    accuracy = metrics["test_accuracy"]
    assert launched.stdout.count("test loss") == 2
    assert launched.stdout.splitlines()[-1] == f"test accuracy {accuracy:.4f}"
    assert launched.stdout.count(f"\ntest accuracy {accuracy:.4f}") == 1
    assert "in each of 2 processes" in launched.stdout
    assert "rank1" not in launched.stderr
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "metrics.json",
        "model.pt",
        "transformed.png",
    ]
    TutorialNet().load_state_dict(artifacts.read_checkpoint(tmp_path / "run")["model"])


@pytest.mark.slow
def test_one_that_fails_takes_the_others_along(tmp_path):
    failed = torchrun(WORKER, "one fails", cwd=tmp_path, timeout=120)
    assert failed.returncode != 0
    assert "'NoneType' object is not callable" in failed.stderr


@pytest.mark.quick
@pytest.mark.parametrize("images", [0, 1, 2, 5, 6])
def test_parts_are_the_whole(images):
    whole = torch.arange(images)
    parts = [Processes(rank, 3).part(whole) for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.quick
def test_parts_of_the_loss_average_to_the_whole():
    torch.manual_seed(0)
    images, labels = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LogSoftmax(1)).double()
    for batch in (torch.arange(7), torch.tensor([8]), torch.tensor([4, 2])):
        expected = Processes().loss(model, images, labels, batch)
        parts = [Processes(rank, 3).loss(model, images, labels, batch) for rank in range(3)]
        torch.testing.assert_close(sum(parts) / 3, expected, rtol=1e-14, atol=0)
        assert all(part.requires_grad for part in parts)
