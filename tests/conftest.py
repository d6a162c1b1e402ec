"""Devices, thread counts, hypothesis profiles and the memory that large tests need."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

import stn_cuda

# Without a deadline: a loaded machine is not a failure. In CI the same examples every time.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def cuda_problem():
    """Why tests on CUDA cannot run here; None when they can."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    if stn_cuda.build_info()["cuda"] is None:
        return "stn_cuda was built without CUDA"
    return None


# Where there is no CUDA, test_cuda.py says so once; the other tests have no second half there.
DEVICES = ["cpu"] if cuda_problem() else ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def deterministic_algorithms():
    """torch.use_deterministic_algorithms, undone after the test."""
    before = torch.are_deterministic_algorithms_enabled()
    yield torch.use_deterministic_algorithms
    torch.use_deterministic_algorithms(before)


def _available_memory():
    """Bytes that can be had without swapping, within the control group's limit; 0 if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    free = next((int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line), 0)
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return free


@pytest.fixture
def needs_memory():
    """needs_memory(gib): skip the test unless that much memory, and a quarter more, is free."""

    def check(gib):
        free = _available_memory() / 2**30
        if free < 1.25 * gib:
            pytest.skip(f"needs {gib} GiB of memory and room to spare, {free:.1f} GiB available")

    return check


@pytest.fixture
def mnist_data():
    """Skips the test where MNIST is not at hand: tests download nothing."""
    folder = os.environ.get("STN_CUDA_DATA")
    if not folder or not Path(folder, "mnist", "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("needs MNIST's files in $STN_CUDA_DATA/mnist")
