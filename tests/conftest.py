"""Devices, thread counts, hypothesis profiles and the memory that large tests need."""

import contextlib
import os
from pathlib import Path

import hypothesis
import pytest
import torch

import stn_cuda
from stn_cuda._extension import _C

# Without a deadline: a loaded machine is not a failure. In CI the same examples every time.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_modifyitems(items):
    """Those that take long first: where tests run side by side, none is then alone in the end."""
    ranks = ("xdist_group", "slow")
    items.sort(key=lambda item: [item.get_closest_marker(rank) is None for rank in ranks])


def cuda_problem():
    """Why tests on CUDA cannot run here; None when they can."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    if stn_cuda.build_info()["cuda"] is None:
        return "stn_cuda was built without CUDA"
    return None


def walk_problem():
    """Why the CUDA kernels cannot be walked on the CPU (csrc/cuda/walk.h); None when they can."""
    return None if hasattr(_C, "walk_cuda_kernels") else "stn_cuda was built without STN_CUDA_WALK"


_NOT_WALKING = (False, False, False, False)
_walks = [_NOT_WALKING]


@contextlib.contextmanager
def _walks_as(*settings):
    _walks.append(settings)
    _C.walk_cuda_kernels(*settings)
    try:
        yield
    finally:
        _walks.pop()
        _C.walk_cuda_kernels(*_walks[-1])


def walking(deterministic=False, descending=False, vectors=True):
    """Meanwhile, CPU tensors are worked on by the CUDA kernels, walked.

    descending: the order in which one thread plays all others; vectors: as on a GPU that adds
    vectors atomically.
    """
    return _walks_as(True, deterministic, descending, vectors)


class Gpu:
    """What runs the CUDA kernels: a GPU, with its tensors, or the walk, with the CPU's."""

    def __init__(self, kind):
        self.walks = kind == "walk"
        self.device = "cpu" if self.walks else "cuda"

    def paused(self):
        """Meanwhile, CPU tensors are worked on by the CPU's kernels."""
        return _walks_as(*_NOT_WALKING) if self.walks else contextlib.nullcontext()

    @contextlib.contextmanager
    def deterministic(self, on=True):
        """As under torch.use_deterministic_algorithms(on)."""
        if self.walks:
            with walking(deterministic=on):
                yield
            return
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(on)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


# What can run the CUDA kernels here. Where nothing can, test_cuda.py says so once; the tests of all
# devices have no such part there.
GPUS = [] if cuda_problem() else [pytest.param("cuda", marks=pytest.mark.cuda)]
GPUS += [] if walk_problem() else [pytest.param("walk", marks=pytest.mark.walk)]
NO_GPU = f"{cuda_problem()}, and {walk_problem()}"


@pytest.fixture(params=["cpu", *GPUS])
def device(request):
    """The device of a test's tensors: the CPU; a GPU; the CPU while CUDA kernels are walked."""
    with walking() if request.param == "walk" else contextlib.nullcontext():
        yield "cpu" if request.param == "walk" else request.param


@pytest.fixture(params=["cpu"] if cuda_problem() else ["cpu", GPUS[0]])
def unwalked_device(request):
    """As `device`, without the walk: for tests that take long, where others walk the same."""
    return request.param


@pytest.fixture(params=GPUS or [pytest.param(None, marks=pytest.mark.skip(reason=NO_GPU))])
def gpu(request):
    """A Gpu, at work."""
    with walking() if request.param == "walk" else contextlib.nullcontext():
        yield Gpu(request.param)


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
