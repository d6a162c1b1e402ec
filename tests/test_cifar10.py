"""CIFAR-10: its files in both versions, its networks, and that they can be trained."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stn_cuda.cifar10 import Cifar10Net, load_cifar10
from stn_cuda.mnist import CorruptDataError, DataUnavailableError
from stn_cuda.train import main

BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def batch(name, count=6):
    """Images and labels of a file, the same for every version."""
    rng = np.random.default_rng(BATCHES.index(name))
    return rng.integers(0, 256, (count, 3072), np.uint8), rng.integers(0, 10, count)


def write_python(folder, name, **changes):
    images, labels = batch(name)
    content = {
        b"data": images,
        b"labels": [int(label) for label in labels],
        b"batch_label": b"of a test",
    }
    (folder / name).write_bytes(pickle.dumps(content | changes, protocol=2))


def write_binary(folder, name):
    images, labels = batch(name)
    records = np.concatenate((labels[:, None].astype(np.uint8), images), 1)
    records.tofile(folder / f"{name}.bin")


VERSIONS = {"cifar-10-batches-py": write_python, "cifar-10-batches-bin": write_binary}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder that STN_CUDA_DATA names; the cache is empty."""
    monkeypatch.setenv("STN_CUDA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


def write(root, version):
    folder = root / version
    folder.mkdir(parents=True)
    for name in BATCHES:
        VERSIONS[version](folder, name)
    return folder


@pytest.mark.quick
@pytest.mark.parametrize("version", VERSIONS)
def test_files(version, root):
    with pytest.raises(DataUnavailableError, match="CIFAR-10 is in none of .*cifar-10-batches-py"):
        load_cifar10()
    folder = write(root, version)
    data = load_cifar10()
    assert data.train_images.shape == (30, 3, 32, 32) and data.test_images.shape == (6, 3, 32, 32)
    images, labels = batch("data_batch_2")
    part = data.denormalised(data.train_images[6:12]) * 255
    torch.testing.assert_close(
        part, torch.from_numpy(images).view(6, 3, 32, 32).float(), rtol=0, atol=1e-4
    )
    assert data.train_labels[6:12].tolist() == labels.tolist()
    missing = next(path for path in folder.iterdir() if "batch_3" in path.name)
    missing.rename(missing.with_name("elsewhere"))
    with pytest.raises(CorruptDataError, match="data_batch_3.* is missing"):
        load_cifar10()


@pytest.mark.quick
def test_damaged_files(root):
    folder = write(root, "cifar-10-batches-py")
    for name, changes, text in (
        ("data_batch_1", {b"data": batch("test_batch")[0][:, :3000]}, "must hold uint8 images"),
        ("data_batch_1", {b"labels": [1, 2]}, "must hold uint8 images"),
        ("data_batch_1", {b"data": batch("test_batch")[0].astype(np.float32)}, "must hold uint8"),
        ("data_batch_1", {b"data": 3}, "missing, damaged or no CIFAR-10"),
    ):
        images, labels = batch(name)
        content = {b"data": images, b"labels": labels.tolist()} | changes
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(CorruptDataError, match=text):
            load_cifar10()
    (folder / "data_batch_1").write_bytes(b"nothing of the kind")
    with pytest.raises(CorruptDataError, match="missing, damaged or no CIFAR-10"):
        load_cifar10()


@pytest.mark.quick
def test_pickles_run_no_code(root, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    folder = write(root, "cifar-10-batches-py")
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": Evil()}, protocol=2))
    with pytest.raises(CorruptDataError, match="it asks for posix.mkdir"):
        load_cifar10()
    assert not (tmp_path / "made").exists()


@pytest.mark.quick
def test_damaged_binaries(root):
    folder = write(root, "cifar-10-batches-bin")
    for content in (b"", b"x" * 3074):
        (folder / "test_batch.bin").write_bytes(content)
        with pytest.raises(CorruptDataError, match="must hold records of 3073 bytes, got"):
            load_cifar10()


@pytest.mark.quick
def test_networks():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    ours, theirs, plain = Cifar10Net(), Cifar10Net("torch"), Cifar10Net("none")
    assert torch.equal(ours.transformer(x), x)
    with torch.no_grad():
        ours.transformer.localization[-1].bias += 0.1 * torch.rand(6)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.transformer(x), theirs.transformer(x), rtol=0, atol=1e-4)
    assert not hasattr(plain, "transformer")
    for net in (ours, theirs, plain):
        assert torch.allclose(net(x).exp().sum(1), torch.ones(4))
    F.nll_loss(ours(x), torch.arange(4)).backward()
    assert ours.transformer.localization[-1].bias.grad.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ("stn_cuda", "none"))
def test_program(sampler, root, tmp_path):
    write(root, "cifar-10-batches-bin")
    out = tmp_path / "run"
    options = ["--dataset=cifar10", f"--sampler={sampler}", "--epochs=1", "--threads=1"]
    assert main([*options, "--batch-size=8", f"--out={out}", "--device=cpu"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["config"]["dataset"] == "cifar10" and len(metrics["epochs"]) == 1
    assert (out / "transformed.png").exists() == (sampler != "none")
