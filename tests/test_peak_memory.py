"""No grid, and no other large tensor, is made on the way: what a call needs is its results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from peak_worker import CASES

STATUS = Path("/proc/self/status")
WORKER = Path(__file__).with_name("peak_worker.py")
# Of the results' size. A grid of float32 would be 50 % of four planes.
ALLOWED = 0.10
# A process's memory grows by pages.
PAGES = 0.01

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("memory"),
    pytest.mark.skipif(
        not STATUS.is_file() or "VmHWM" not in STATUS.read_text(),
        reason="the system does not tell a process's peak of memory",
    ),
]


@pytest.fixture(scope="module")
def peak():
    """Asks the worker."""
    with subprocess.Popen(
        [sys.executable, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:

        def ask(*what):
            print(json.dumps(what), file=worker.stdin, flush=True)
            shares = json.loads(worker.stdout.readline())
            assert shares, f"{what} failed"
            return shares

        yield ask


@pytest.mark.parametrize("case", CASES)
def test_peak(case, peak, needs_memory):
    needs_memory(1.5)
    shares = peak("stn_cuda", case)
    if "of one channel" in case:  # the forward makes what the warp's gradient will be
        assert 2 - PAGES < shares["forward"] < 2 + ALLOWED
    else:
        assert shares["forward"] < ALLOWED
    assert shares["backward"] < ALLOWED


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="no second peak can be told"
)
@pytest.mark.parametrize(
    "case",
    # Derivatives of chains go by positions in torch's operations.
    [case for case in CASES if "bfloat16" not in case and "chain" not in case],
)
def test_peak_of_derivatives(case, peak, needs_memory):
    needs_memory(2)
    shares = peak("stn_cuda", case, "derivatives")
    # One pass, and no grid of tangents.
    assert shares["jvp"] < ALLOWED
    assert shares["gradient"] < ALLOWED
    # Sums of two parts each.
    assert shares["double"] < 1 + PAGES
    assert shares["jvp of both"] < 1 + PAGES


def test_the_measure_sees_a_grid(peak, needs_memory):
    """torch makes one: half as large as the output."""
    needs_memory(1.5)
    shares = peak("torch", "affine")
    assert 0.4 < shares["forward"] < 0.6
    assert shares["backward"] > ALLOWED
