"""README.md's section "Writing a warp", done as it says, in a copy of the sources."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What the new warp has to do, with nothing but what the README's class gives.
USE = """
import torch
import torch.nn.functional as F

import stn_cuda
from lens import Lens

assert stn_cuda.build_info()["cpu_isa"] == "baseline"


def grid(coefficients, size, align_corners):
    k1, k2 = coefficients[:, 0].view(-1, 1, 1, 1), coefficients[:, 1].view(-1, 1, 1, 1)
    theta = torch.eye(2, 3, dtype=coefficients.dtype).expand(len(coefficients), 2, 3)
    base = F.affine_grid(theta, (len(coefficients), 1, *size), align_corners)
    r2 = base.square().sum(-1, keepdim=True)
    return base * (1 + k1 * r2 + k2 * r2**2)


torch.manual_seed(0)
x = torch.randn(2, 3, 12, 15, dtype=torch.float64, requires_grad=True)
k = torch.tensor([[0.11, -0.04], [-0.2, 0.07]], dtype=torch.float64, requires_grad=True)
assert torch.equal(stn_cuda.sample(x, Lens(torch.zeros_like(k))), x)
for mode in ("bilinear", "nearest", "bicubic"):
    for padding in ("zeros", "border", "reflection"):
        for align in (False, True):
            size, how = (9, 14), {"mode": mode, "padding_mode": padding, "align_corners": align}
            y = stn_cuda.sample(x, Lens(k), size, **how)
            expected = F.grid_sample(x, grid(k, size, align), **how)
            torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
            cotangent = torch.randn_like(y)
            for leaf in (x, k) if mode != "nearest" else (x,):
                (got,) = torch.autograd.grad(y, leaf, cotangent, retain_graph=True)
                (wanted,) = torch.autograd.grad(expected, leaf, cotangent, retain_graph=True)
                torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
torch.testing.assert_close(Lens(k).grid((9, 14)), grid(k, (9, 14), False), rtol=0, atol=1e-14)

sample = lambda x, k: stn_cuda.sample(x, Lens(k), (5, 6), mode="bicubic")
small = (x[:, :1, :6, :7].detach().requires_grad_(), k)
assert torch.autograd.gradcheck(sample, small, check_forward_ad=True)
assert torch.autograd.gradgradcheck(sample, small)
one = torch.func.vmap(lambda k: stn_cuda.sample(x[:1], Lens(k[None]), (9, 14))[0])(k)
together = stn_cuda.sample(x[:1], Lens(k), (9, 14))
torch.testing.assert_close(one, together, rtol=0, atol=1e-14)
y = torch.randn(2, 3, 9, 14, dtype=torch.float64)
left = (stn_cuda.sample(x, Lens(k), (9, 14)) * y).sum()
right = (x * stn_cuda.splat(y, Lens(k), (12, 15))).sum()
torch.testing.assert_close(left, right, rtol=1e-12, atol=0)
"""


def section():
    text = (ROOT / "README.md").read_text()
    return re.search(r"^## Writing a warp\n(.*?)^## ", text, re.DOTALL | re.MULTILINE).group(1)


def replace(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, f"{old} in {path}"
    path.write_text(text.replace(old, new))


@pytest.mark.xdist_group("memory")
def test_the_example_builds_and_works(tmp_path):
    if not (ROOT / "setup.py").is_file() or not (ROOT / "csrc").is_dir():
        pytest.skip("the sources are not here")
    functor, line, python = re.findall(r"```(?:cpp|python)\n(.*?)```", section(), re.DOTALL)
    for folder in ("csrc", "stn_cuda"):
        ignored = shutil.ignore_patterns("_C.*", "__pycache__", "_build_config.py")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for file in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    end = "}  // namespace STN_ISA\n"
    replace(tmp_path / "csrc/math/warp.h", end, f"{functor}\n{end}")
    maps = (tmp_path / "csrc/maps.h").read_text().rstrip()
    (tmp_path / "csrc/maps.h").write_text(f"{maps} \\\n{line}")
    # The compiler's optimiser would take most of the time, and does not concern the example.
    replace(tmp_path / "setup.py", 'CXX_FLAGS = ["-O3", ', 'CXX_FLAGS = ["-O0", ')
    (tmp_path / "lens.py").write_text(python)
    (tmp_path / "use.py").write_text(USE)
    environ = {**os.environ, "STN_CUDA_BUILD": "cpu", "STN_CUDA_CPU": "baseline", "MAX_JOBS": "2"}
    environ |= {"STN_CUDA_WALK": "0", "STN_CUDA_ISA": "", "PYTHONPATH": str(tmp_path)}
    for command in (("setup.py", "build_ext", "--inplace"), ("use.py",)):
        result = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
