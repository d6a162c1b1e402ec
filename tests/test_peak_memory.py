"""No grid, and no other large tensor, is made on the way: what a call needs is its results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from peak_worker import CASES

STATUS = Path("/proc/self/status")
WORKER = Path(__file__).with_name("peak_worker.py")
# Of the results' size. A grid of float32 would be 50 % of four planes.
ALLOWED = 0.10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("memory"),
    pytest.mark.skipif(
        not STATUS.is_file() or "VmHWM" not in STATUS.read_text(),
        reason="the system does not tell a process's peak of memory",
    ),
]


def peak(sampler, case):
    done = subprocess.run(
        [sys.executable, WORKER, sampler, case], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_peak(case, needs_memory):
    needs_memory(1.5)
    shares = peak("stn_cuda", case)
    assert shares["forward"] < ALLOWED
    assert shares["backward"] < ALLOWED


def test_the_measure_sees_a_grid(needs_memory):
    """torch makes one: half as large as the output."""
    needs_memory(1.5)
    shares = peak("torch", "affine")
    assert 0.4 < shares["forward"] < 0.6
    assert shares["backward"] > ALLOWED
