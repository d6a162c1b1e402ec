"""What a result depends on: versions, processor, instruction set, commit, speed of memory."""

from __future__ import annotations

import ctypes
import datetime
import functools
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import timing
from .problem import graphed

ROOT = Path(__file__).resolve().parent.parent

# Bytes of the tensors that are copied: two of them fit into a core's cache; no cache holds two.
# On a GPU two of them fill half of its L2 cache, or it holds an eighth of one; see `copied`.
COPIED = {"cache": 2**20, "memory": 2**28}


def prefer_installed() -> None:
    """Have `import stn_cuda` find an installed package before the source folder.

    `python -m` puts the working directory first. There the source folder stn_cuda/ would hide an
    installed stn_cuda, which holds the compiled module; last, it still serves an in-place build.
    """
    if sys.path[0] == os.getcwd():
        sys.path.append(sys.path.pop(0))


_keeps_memory = False


def keep_memory() -> bool:
    """Have the C library keep freed memory for the next tensor, from now on. Whether it can.

    For a process that does nothing but measure. By default glibc hands large tensors back to the
    system and has them made anew, page by page, or does not, as the history of the heap will have
    it: up to 1.3 ns per float32, more than many a cell takes, and by chance at the one peer's
    expense or the other's. It may take glibc eight calls of the same sizes to find back to memory
    that it has: a tensor's aligned end leaves a scrap, and seven of a size are kept aside.
    """
    global _keeps_memory
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    _keeps_memory = bool(mallopt and mallopt(trim_threshold, 2**31 - 1) and mallopt(mmap_max, 0))
    return _keeps_memory


def describe(device: str) -> dict:
    """Facts about this run, for the JSON file. Holds no path and no user or host name."""
    import stn_cuda

    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "stn_cuda": stn_cuda.build_info(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "device_name": torch.cuda.get_device_name(0) if device == "cuda" else processor(),
        "cores": cores(),
        "load": load(),
        "keeps_memory": _keeps_memory,
    }
    return facts | ({"gpu": gpu()} if device == "cuda" else {}) | commit()


def gpu() -> dict:
    """What a result on CUDA depends on besides the device's name."""
    properties = torch.cuda.get_device_properties()
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "driver": driver.partition("\n")[0] if driver else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def copied(device: str) -> dict[str, int]:
    """Bytes of the tensors that `copy_speeds` copies, by kind."""
    if device != "cuda":
        return COPIED
    l2_bytes = torch.cuda.get_device_properties().L2_cache_size
    return {"cache": l2_bytes // 16 * 4, "memory": max(COPIED["memory"], 8 * l2_bytes)}


def copy_speeds(device: str, threads: Sequence[int], kinds: Sequence[str]) -> list[dict]:
    """GB/s, read and written together, of `tensor.copy_`: for each number of threads, each kind.

    No sampler is faster than a copy of its output, so this tells how near to the bound a cell is.
    "memory" takes a second or so, most of it for the system's handing out of the tensors.
    """
    speeds = [{"threads": count} for count in threads]
    sizes = copied(device)
    for kind in kinds:
        source = torch.ones(sizes[kind] // 4, device=device)  # zeros may be one page, many times
        target = torch.empty_like(source)
        copy = functools.partial(target.copy_, source)
        runs = sizes["memory"] // sizes[kind]
        for speed in speeds:
            if device == "cuda":
                best = _copy_in_a_graph(copy, runs)
            else:
                best = min(timing.cpu_block(speed["threads"])(copy, runs) for _ in range(2))
            speed[kind] = round(2 * sizes[kind] / best / 1e9, 1)
    return speeds


def _copy_in_a_graph(copy: timing.Work, runs: int) -> float:
    """Seconds of a copy on CUDA: one launch for all of them, since one is done before Python is."""
    copies = graphed(lambda: tuple(copy() for _ in range(runs)))
    return min(timing.cuda_block(copies, 10) for _ in range(3)) / runs


def cores() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """How many processes wanted a processor during the last minute; None where nobody counts."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor() -> str:
    """The processor's name, as the system tells it."""
    if platform.system() == "Darwin":
        name = _output("sysctl", "-n", "machdep.cpu.brand_string")
    else:
        name = _cpuinfo("model name")
        family, model = _cpuinfo("cpu family"), _cpuinfo("model")
        # Virtual machines often hide the name; family and model still tell the generation.
        if name and family and model:
            name = f"{name} (family {family}, model {model})"
    return name or platform.processor() or platform.machine()


def commit() -> dict:
    """The repository's commit, and whether its files differ from it; None outside a repository."""
    head = _output("git", "rev-parse", "--verify", "--quiet", "HEAD")
    changes = _output("git", "status", "--porcelain")
    return {"commit": head or None, "dirty": None if changes is None else bool(changes)}


def _cpuinfo(field: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == field:
            return value.strip()
    return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
