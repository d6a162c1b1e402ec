"""On the CPU large results ask Linux for huge pages, and small ones do not."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MEBIBYTE = 1 << 20

# Prints how many bytes of a call's output and gradients lie in memory with the advice.
CODE = """
import json, re, sys
import torch
import stn_cuda

def advised(tensor):
    first = tensor.data_ptr()
    last = first + tensor.numel() * tensor.element_size()
    total = 0
    for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read())[1:]:
        low, high = (int(end, 16) for end in part.split()[0].split("-"))
        if " hg" in re.search(r"VmFlags:(.*)", part)[1]:
            total += max(0, min(high, last) - max(low, first))
    return total

side = int(sys.argv[1])
x = torch.ones(1, 1, side, side, requires_grad=True)
grid = stn_cuda.Affine(torch.eye(2, 3)[None]).grid((side, side)).requires_grad_()
output = stn_cuda.sample(x, grid)
gradients = torch.autograd.grad(output.sum(), (x, grid))
print(json.dumps([(t.numel() * t.element_size(), advised(t)) for t in (output, *gradients)]))
"""


def run(side, **environ):
    return subprocess.run(
        [sys.executable, "-c", CODE, str(side)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def advised(side, **environ):
    """[(bytes, bytes advised)] of the output and the gradients of the image and the grid."""
    if not OFFERED.is_file() or not re.search(r"\[(madvise|always)\]", OFFERED.read_text()):
        pytest.skip("the system does not offer huge pages on request")
    done = run(side, **environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_large_results(needs_memory):
    needs_memory(0.6)
    for size, inside in advised(3000):
        assert size >= 32 * MEBIBYTE
        # All but what shares the first and the last page with others.
        assert size - 4 * MEBIBYTE < inside <= size


def test_small_results():
    assert [inside for _, inside in advised(1000)] == [0, 0, 0]


def test_switched_off(needs_memory):
    needs_memory(0.6)
    assert [inside for _, inside in advised(3000, STN_CUDA_HUGE_PAGES="0")] == [0, 0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_unknown_value(needs_memory):
    needs_memory(0.6)
    done = run(3000, STN_CUDA_HUGE_PAGES="yes")
    assert "STN_CUDA_HUGE_PAGES must be 0 or 1, got 'yes'" in done.stderr
