"""What the benchmark sets up before it measures."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

ROOT = Path(__file__).resolve().parent.parent
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Prints how many pages a tensor of 64 MiB is new to: as it is by default, and once memory is kept.
NEW_PAGES = """
import resource
import sys
import torch
sys.path.append(sys.argv[1])
from benchmarks import environment

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages()
by_default = new_pages()
assert environment.keep_memory()
for _ in range(12):
    last = new_pages()
print(by_default, last)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept():
    done = subprocess.run(
        [sys.executable, "-c", NEW_PAGES, str(ROOT)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    by_default, kept = map(int, done.stdout.split())
    assert kept < 100
    # Unless the system makes huge pages of its own accord, this is what glibc does by default.
    if not HUGE_PAGES.is_file() or "[always]" not in HUGE_PAGES.read_text():
        assert by_default > 1000
