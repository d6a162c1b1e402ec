"""The training program, end to end."""

import json
import math
import subprocess
import sys

import pytest
import torch

from stn_cuda import artifacts, train
from stn_cuda.data import load_digits, load_mnist
from stn_cuda.training import Config, Training, train_epoch
from stn_cuda.tutorial import TutorialNet

DIGITS = ["--dataset", "digits", "--limit", "200", "--threads", "1"]


@pytest.fixture(autouse=True)
def one_thread(threads):
    """A small network gains little from more, and threads that wait for a busy core cost much."""
    threads(1)


def run(*argv):
    return train.main([str(arg) for arg in argv])


@pytest.mark.quick
def test_outputs(tmp_path, capsys):
    assert run(*DIGITS, "--epochs", 2, "--out", tmp_path, "--seed", 5) == 0
    out, err = capsys.readouterr()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    accuracy = metrics["test_accuracy"]
    assert out.splitlines()[-1] == f"test accuracy {accuracy:.4f}"
    assert out.count("test loss") == 2
    assert "epoch 1/2" in err
    assert [entry["epoch"] for entry in metrics["epochs"]] == [1, 2]
    assert metrics["epochs"][-1]["test_accuracy"] == accuracy
    assert metrics["config"]["limit"] == metrics["train_images"] == 200
    assert (metrics["seed"], metrics["sampler"], metrics["device"]) == (5, "stn_cuda", "cpu")
    assert metrics["versions"]["torch"] == torch.__version__
    assert (tmp_path / "transformed.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.json",
        "model.pt",
        "transformed.png",
    ]
    net = TutorialNet()
    net.load_state_dict(artifacts.read_checkpoint(tmp_path)["model"])


@pytest.mark.quick
def test_resumed_is_uninterrupted(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*DIGITS, "--epochs", 3, "--out", whole) == 0
    assert run(*DIGITS, "--epochs", 1, "--out", parts) == 0
    torch.rand(7)  # what happens in between does not matter
    assert run(*DIGITS, "--epochs", 3, "--out", parts, "--resume") == 0
    expected, resumed = (artifacts.read_checkpoint(folder) for folder in (whole, parts))
    for name, value in expected["model"].items():
        assert torch.equal(resumed["model"][name], value), name
    losses = [[entry["train_loss"] for entry in s["history"]] for s in (expected, resumed)]
    assert losses[0] == losses[1]


@pytest.mark.quick
def test_cosine_schedule(tmp_path, capsys):
    """The step size falls from --lr towards 0; resuming keeps to the same curve."""
    config = Config(epochs=4, lr=2.0, schedule="cosine")
    half = math.sqrt(0.5)
    expected = [2.0, 1 + half, 1.0, 1 - half]
    assert [config.lr_of(epoch) for epoch in (1, 2, 3, 4)] == pytest.approx(expected)
    assert Config(lr=0.3).lr_of(20) == 0.3
    cosine = ("--schedule", "cosine", "--out", tmp_path)
    assert run(*DIGITS, "--epochs", 2, *cosine) == 0
    state = artifacts.read_checkpoint(tmp_path)
    assert state["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.005)
    assert run(*DIGITS, "--epochs", 3, *cosine, "--resume") == 2
    assert "epochs must be 2, got 3" in capsys.readouterr().err


@pytest.mark.quick
def test_module_is_a_program(tmp_path):
    command = [sys.executable, "-m", "stn_cuda.train", *DIGITS, "--epochs", "0"]
    failed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert failed.returncode == 2
    assert "--epochs: must be a positive integer, got '0'" in failed.stderr
    assert "Traceback" not in failed.stderr


def usage_error(*argv):
    with pytest.raises(SystemExit) as stopped:
        run(*argv)
    return stopped.value.code


@pytest.mark.quick
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "-1"], "--epochs: must be a positive integer, got '-1'"),
        (["--lr", "nan"], "--lr: must be a positive number, got 'nan'"),
        (["--batch-size", "x"], "--batch-size: must be a positive integer, got 'x'"),
        (["--seed", "-3"], "--seed: must be a non-negative integer"),
        (["--dataset", "svhn"], "invalid choice: 'svhn'"),
        (["--sampler", "opencv"], "invalid choice: 'opencv'"),
    ],
)
def test_wrong_options(argv, message, capsys):
    assert usage_error(*argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.quick
def test_wrong_resumes(tmp_path, capsys):
    def refusal(*argv, status):
        assert run(*DIGITS, "--out", tmp_path, "--resume", *argv) == status
        return capsys.readouterr().err

    assert "there is no" in refusal(status=1)
    assert run(*DIGITS, "--epochs", 2, "--out", tmp_path) == 0
    capsys.readouterr()
    assert "seed must be 0, got 1" in refusal("--seed", 1, status=2)
    assert "at least the 2" in refusal("--epochs", 1, status=2)
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 not really")
    assert "damaged or no checkpoint" in refusal(status=1)
    torch.save({"weights": 1}, tmp_path / "model.pt")
    assert "checkpoint of format 1, got format None" in refusal(status=1)


@pytest.mark.quick
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    artifacts.write_metrics(tmp_path, {"accuracy": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_metrics(tmp_path, {"accuracy": float("nan")})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"accuracy": 0.5}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.quick
def test_diverging_is_told(tmp_path, capsys):
    assert run(*DIGITS, "--epochs", 2, "--lr", "1e30", "--out", tmp_path) == 1
    assert "no longer finite" in capsys.readouterr().err


@pytest.mark.quick
def test_auto_falls_back_to_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stn_cuda.mnist.MNIST_MIRRORS", ())
    monkeypatch.setenv("STN_CUDA_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ["--limit", 64, "--epochs", 1, "--out", tmp_path / "out"]
    assert run("--dataset", "auto", *options) == 0
    assert "training on scikit-learn's digits instead" in capsys.readouterr().out
    assert run("--dataset", "mnist", *options) == 1
    assert "--dataset digits" in capsys.readouterr().err


def losses(sampler, data, steps):
    torch.manual_seed(0)
    net = TutorialNet(sampler)
    # Off the identity, where every point looks at a pixel's centre: that is a kink of the bilinear
    # weights, and torch's rounded grid falls on either side of it, ours (exact) on one.
    with torch.no_grad():
        net.transformer.localization[-1].bias += torch.linspace(-0.03, 0.04, 6)
    return train_epoch(
        net,
        torch.optim.SGD(net.parameters(), lr=0.01),
        data.train_images[: 64 * steps],
        data.train_labels[: 64 * steps],
        batch_size=64,
        generator=torch.Generator().manual_seed(0),
    )


def assert_same_curve(data):
    # Both samplers round differently: a few float32 ulp of the coordinates (28 * 6e-8 pixels),
    # which changes an output by some 1e-6 and a loss of 2.3 by about as much. Plain SGD over 30
    # steps at this rate amplifies that by no more than a small factor; ReLUs and max-pools that
    # flip add a little. 1e-3 leaves room for both, and a wrong gradient shows at 1e-2.
    ours, theirs = losses("stn_cuda", data, 30), losses("torch", data, 30)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.quick
def test_same_loss_curve_as_torch_on_digits():
    assert_same_curve(load_digits())


def test_same_loss_curve_as_torch_on_mnist(mnist_data):
    assert_same_curve(load_mnist())


@pytest.mark.slow
def test_learns_mnist(mnist_data):
    # The tutorial's own run, cut to two epochs of its twenty. After one, twenty-six seeds measured
    # 0.86 to 0.95; after two, six measured 0.94 to 0.97; guessing gets 0.1. The better of the two
    # counts, as one epoch may end on a bad step, and where it does depends on every rounding.
    mnist = load_mnist()
    learner = Training(Config(epochs=2), mnist)
    assert (learner.config.lr, len(mnist.train_images)) == (0.01, 60000)
    assert max(learner.epoch()["test_accuracy"] for _ in range(2)) >= 0.85
