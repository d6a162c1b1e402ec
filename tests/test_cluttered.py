"""Cluttered MNIST: its files, its networks, and that they can be trained."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from stn_cuda import artifacts
from stn_cuda.cluttered import ClutteredNet, PlainNet, load_cluttered
from stn_cuda.data import denormalise
from stn_cuda.mnist import CorruptDataError, DataUnavailableError
from stn_cuda.train import main

NAME = "mnist_sequence1_sample_5distortions5x5.npz"


def made_up(train=24, test=8, **changes):
    """What a file holds: bright squares whose place and size tell their label."""
    content = {}
    for part, count in (("train", train), ("valid", 2), ("test", test)):
        rng = np.random.default_rng(count)
        labels = rng.integers(0, 10, (count, 1)).astype(np.int32)
        images = 0.2 * rng.random((count, 40, 40), dtype=np.float32)
        for image, label in zip(images, labels[:, 0], strict=True):
            y, x = rng.integers(2, 26, 2)
            image[y : y + 3 + label, x : x + 3 + label] = 1
        content |= {f"X_{part}": images.reshape(count, 1600), f"y_{part}": labels}
    return content | changes


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder that STN_CUDA_DATA names; the cache is empty."""
    monkeypatch.setenv("STN_CUDA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data" / "cluttered").mkdir(parents=True)
    return tmp_path / "data" / "cluttered"


@pytest.mark.quick
def test_networks():
    torch.manual_seed(0)
    x = torch.randn(5, 1, 40, 40)
    ours, theirs, plain = ClutteredNet(), ClutteredNet("torch"), PlainNet()
    for net in (ours, theirs, plain):
        assert net(x).shape == (5, 10)
        assert torch.allclose(net(x).exp().sum(1), torch.ones(5))
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.transformer(x), theirs.transformer(x), rtol=0, atol=1e-4)
    assert ours.transformer(x).shape == (5, 1, 13, 13)

    def size(net):
        return sum(p.numel() for p in net.parameters())

    assert size(ours) == size(theirs) == 113_018 and size(plain) == 112_330
    F.nll_loss(ours(x), torch.arange(5)).backward()
    assert ours.transformer.localization[-1].bias.grad.abs().max() > 0


@pytest.mark.quick
def test_files(data, tmp_path):
    with pytest.raises(
        DataUnavailableError, match=f"data/cluttered, .*stn_cuda/cluttered: put {NAME}"
    ):
        load_cluttered()
    content = made_up()
    np.savez(data / NAME, **content)
    loaded = load_cluttered()
    assert loaded.name == "cluttered" and loaded.test_images.shape == (8, 1, 40, 40)
    expected = torch.from_numpy(content["X_train"]).view(-1, 1, 40, 40)
    torch.testing.assert_close(denormalise(loaded.train_images), expected, rtol=0, atol=1e-6)
    assert torch.equal(loaded.train_labels, torch.from_numpy(content["y_train"][:, 0]).long())
    for changes in (
        {"X_train": content["X_train"][:, :1599]},
        {"X_test": content["X_test"][:3]},
        {"y_test": content["y_test"].astype(np.float32)},
    ):
        np.savez(data / NAME, **(content | changes))
        with pytest.raises(CorruptDataError, match="must hold images"):
            load_cluttered()
    np.savez(data / NAME, X_train=content["X_train"])
    with pytest.raises(CorruptDataError, match="damaged or no cluttered MNIST"):
        load_cluttered()
    (data / NAME).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(CorruptDataError, match="damaged or no cluttered MNIST"):
        load_cluttered()


@pytest.mark.quick
def test_the_cache_is_searched_too(data, tmp_path):
    cache = tmp_path / "cache" / "stn_cuda" / "cluttered"
    cache.mkdir(parents=True)
    np.savez(cache / "mine.npz", **made_up())
    assert len(load_cluttered().train_images) == 24


@pytest.mark.quick
def test_the_real_set():
    folder = Path(os.environ.get("STN_CUDA_DATA", "nowhere")) / "cluttered"
    if not folder.is_dir():
        pytest.skip(f"STN_CUDA_DATA names no folder with cluttered/: {folder}")
    loaded = load_cluttered()
    assert loaded.train_images.shape == (10000, 1, 40, 40)
    assert loaded.test_images.shape == (1000, 1, 40, 40)
    assert loaded.train_labels.unique().tolist() == list(range(10))


@pytest.mark.quick
@pytest.mark.parametrize("sampler", ("stn_cuda", "torch", "none"))
def test_program(sampler, data, tmp_path, capsys):
    np.savez(data / NAME, **made_up())
    out = tmp_path / "run"
    options = ["--dataset=cluttered", f"--sampler={sampler}", "--epochs=2", "--threads=1"]
    assert main([*options, "--batch-size=8", f"--out={out}", "--device=cpu"]) == 0
    assert "cluttered: 24 training and 8 test images" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["config"]["dataset"] == "cluttered" and metrics["config"]["lr"] == 0.001
    assert len(metrics["epochs"]) == 2
    state = artifacts.read_checkpoint(out)
    assert state["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)  # Adam's
    assert (out / "transformed.png").exists() == (sampler != "none")
    # And on, as if it had not stopped; with what it learns as pictures.
    options += ["--batch-size=8", f"--out={out}", "--device=cpu", "--resume"]
    assert main(options) == 0
    status = main([*options, "--epochs=4", "--animate"])
    if sampler == "none":
        assert status == 2
        assert "--animate: needs a transformer" in capsys.readouterr().err
        return
    assert status == 0
    with Image.open(out / "learning.gif") as frames:
        assert frames.n_frames == 3  # before, and after each of two epochs


@pytest.mark.quick
def test_to_animate_changes_nothing(data, tmp_path):
    np.savez(data / NAME, **made_up())
    for name, more in (("still", []), ("moving", ["--animate"])):
        options = ["--dataset=cluttered", "--epochs=2", "--threads=1", "--batch-size=8", *more]
        assert main([*options, f"--out={tmp_path / name}", "--device=cpu"]) == 0
    still, moving = (artifacts.read_checkpoint(tmp_path / name) for name in ("still", "moving"))
    for name, tensor in still["model"].items():
        assert torch.equal(tensor, moving["model"][name])


@pytest.mark.quick
def test_a_plain_network_is_for_cluttered_only(capsys):
    assert main(["--dataset=digits", "--sampler=none"]) == 2
    error = capsys.readouterr().err
    assert "--sampler: must be one of stn_cuda, torch for digits, got none" in error
