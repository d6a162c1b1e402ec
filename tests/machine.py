"""What the CPU kernels run on here, and which ways they go."""

import platform
from pathlib import Path

import stn_cuda
from stn_cuda._extension import _C

# The kernels as they differ in the ways that they have: with gather instructions, with them where
# windows do not hold what is seen (but for pairs of float32 and float64, with these at once), with
# few of them where they are slower, or without.
MACHINES = (
    "avx512 gather",
    "avx512 rest gather",
    "avx512 some gather",
    "avx512",
    "avx2 gather",
    "avx2 pair gather",
    "avx2 rest gather",
    "avx2 some gather",
    "avx2",
    "baseline",
)


def forced(isa, gather, insert="0"):
    """The variables that force it. insert: whether pairs are gathered without the instruction."""
    return {"STN_CUDA_ISA": isa, "STN_CUDA_GATHER": gather, "STN_CUDA_INSERT": insert}


# What forces each of them.
ENVIRONMENTS = {
    "avx512 gather": forced("avx512", "1", "0"),
    "avx512 rest gather": forced("avx512", "rest", "1"),
    "avx512 some gather": forced("avx512", "2d", "1"),
    "avx512": forced("avx512", "0"),
    "avx2 gather": forced("avx2", "1", "1"),
    "avx2 pair gather": forced("avx2", "pairs", "1"),
    "avx2 rest gather": forced("avx2", "rest", "0"),
    "avx2 some gather": forced("avx2", "2d", "1"),
    "avx2": forced("avx2", "0"),
    "baseline": forced("baseline", "0"),
}


def machine():
    """The one of MACHINES that this process runs on."""
    isa = stn_cuda.build_info()["cpu_isa"]
    if isa == "baseline":
        return isa
    gathers = {"0": "", "1": " gather"}
    gathers |= {"2d": " some gather", "rest": " rest gather", "pairs": " pair gather"}
    return isa + gathers[_C.cpu_gathers()]


def processor_has(isa):
    """Whether the processor can run it; None where that cannot be told."""
    if isa == "baseline":
        return True
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = set(next((line for line in lines if line.startswith("flags")), "").split())
    needed = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}}
    return needed[isa] <= flags


def all_paths():
    """The names of the ways that csrc/cpu/paths.h counts."""
    return set(_C.cpu_paths())


def paths_of(work):
    """(what work() returns, the names of the ways that the CPU kernels went meanwhile)."""
    _C.count_cpu_paths(True)
    try:
        result = work()
        return result, {name for name, count in _C.cpu_paths().items() if count}
    finally:
        _C.count_cpu_paths(False)
