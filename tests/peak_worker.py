"""Run by test_peak_memory.py: measures, in processes of their own, the highest use of memory.

For each line of its input it prints one (null: it failed, and standard error says why):

["SAMPLER", "CASE"]   {"forward": ..., "backward": ...}: the memory in use at the peak beyond the
                      operands and results, as a share of the results
["SAMPLER", "CASE", "derivatives"]
                      {"double": ..., "jvp": ..., ...}: likewise, for each of DERIVATIVES
"""

import json
import os
import re
import signal
import sys
import traceback
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

import stn_cuda

PLANES = (1, 4, 2048, 2048)
VOLUME = (1, 4, 160, 160, 160)
# name -> (shape, number of warps, warp, image's dtype, options)
CASES = {
    "affine": (PLANES, 1, "affine", torch.float32, {}),
    "affine channels_last": (PLANES, 1, "affine", torch.float32, {}),
    "affine bfloat16": ((1, 16, 2048, 2048), 1, "affine", torch.bfloat16, {}),
    "affine bicubic": (PLANES, 1, "affine", torch.float32, {"mode": "bicubic"}),
    "affine 16 warps": ((1, 4, 1024, 1024), 16, "affine", torch.float32, {}),
    "spline": (PLANES, 1, "spline", torch.float32, {}),
    "16 splines": ((16, 4, 512, 512), 16, "spline", torch.float32, {}),
    "one image, 16 splines": ((1, 4, 1024, 1024), 16, "spline", torch.float32, {}),
    "affine 3-D": (VOLUME, 1, "affine", torch.float32, {}),
    "grid": (PLANES, 1, "grid", torch.float32, {}),
    "grid scattered": (PLANES, 1, "grid", torch.float32, {"padding_mode": "reflection"}),
    "grid bfloat16": ((1, 16, 2048, 2048), 1, "grid", torch.bfloat16, {}),
    "grid 3-D": (VOLUME, 1, "grid", torch.float32, {}),
    "grid of one channel": ((1, 1, 4096, 4096), 1, "grid", torch.float32, {}),
    "chain": (PLANES, 1, "chain", torch.float32, {}),
    "chain of one channel": ((1, 1, 4096, 4096), 1, "chain", torch.float32, {}),
}


def field(name):
    """Bytes of a line of the process's status: VmRSS is what it uses now, VmHWM the peak."""
    [kilobytes] = re.findall(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024


def placed(warp, size):
    if not size:
        return warp
    if warp.dim() == 4:
        turned = torch.tensor([[[0.9, 0.1, 0.0], [-0.1, 0.9, 0.0]]])
        return stn_cuda.Compose(stn_cuda.Affine(turned), stn_cuda.Flow(warp))
    spline = warp.shape[1:] == (16, 2)
    return stn_cuda.ThinPlateSpline(warp) if spline else stn_cuda.Affine(warp)


def ours(x, warp, size, options):
    return stn_cuda.sample(x, placed(warp, size), size, **options)


def of_torch(x, warp, size, options):
    grid = F.affine_grid(warp, (warp.shape[0], x.shape[1], *size), False) if size else warp
    return F.grid_sample(x, grid, align_corners=False, **options)


def operands(name, shape, warps, kind, dtype):
    """x, the warp, and the output's size if the warp is not a grid."""
    dims = len(shape) - 2
    x = torch.rand(shape).to(dtype)
    if "channels_last" in name:
        x = x.contiguous(memory_format=torch.channels_last)
    theta = torch.eye(dims, dims + 1) + 0.05 * torch.randn(warps, dims, dims + 1)
    x.requires_grad_()
    if kind == "affine":
        return x, theta.requires_grad_(), shape[2:]
    if kind == "spline":
        moved = stn_cuda.ThinPlateSpline.control_grid() + 0.05 * torch.randn(warps, 16, 2)
        return x, moved.requires_grad_(), shape[2:]
    if kind == "chain":
        return x, torch.rand(1, dims, *shape[2:]).requires_grad_(), shape[2:]
    grid = stn_cuda.Affine(theta).grid(shape[2:])
    if "scattered" in name:
        grid = grid.uniform_(-1.5, 1.5)
    return x, grid.requires_grad_(), None


def measure(sampler, x, warp, size, options):
    batch = max(x.shape[0], warp.shape[0])
    # As large as the output, and written to: an operand like the others.
    cotangent = torch.ones_like(x.detach().expand(batch, *x.shape[1:]))
    before = field("VmRSS")
    output = sampler(x, warp, size, options)
    shares, results = {}, [output]
    shares["forward"] = beyond(before, results)
    results += torch.autograd.grad(output, (x, warp), cotangent)
    shares["backward"] = beyond(before, results)
    return shares


def double(sampler, x, warp, size, options):
    """Of the gradients' gradients: the graph of the gradients is an operand."""
    leaves = [sampler(x, warp, size, options).detach().requires_grad_(), x, warp]
    gradients = torch.autograd.grad(
        sampler(x, warp, size, options), leaves[1:], leaves[0], create_graph=True
    )
    cotangents = [torch.ones_like(gradient) for gradient in gradients]
    yield
    yield torch.autograd.grad(gradients, leaves, cotangents, retain_graph=True)


def jvp(sampler, x, warp, size, options):
    return dual(sampler, (x, warp), (None, torch.ones_like(warp)), size, options)


def jvp_of_both(sampler, x, warp, size, options):
    return dual(sampler, (x, warp), (torch.ones_like(x), torch.ones_like(warp)), size, options)


def dual(sampler, primals, tangents, size, options):
    yield
    with forward_ad.dual_level():
        duals = [
            primal.detach() if tangent is None else forward_ad.make_dual(primal.detach(), tangent)
            for primal, tangent in zip(primals, tangents, strict=True)
        ]
        results = tuple(forward_ad.unpack_dual(sampler(*duals, size, options)))
    yield results


def gradient(sampler, x, warp, size, options):
    x, warp = x.detach(), warp.detach()
    yield
    yield stn_cuda.sample_with_gradient(x, placed(warp, size), size, **options)


# Each prepares its operands, then yields; and then yields its results.
DERIVATIVES = {"double": double, "jvp": jvp, "jvp of both": jvp_of_both, "gradient": gradient}


def measure_derivatives(sampler, x, warp, size, options):
    shares = {}
    for name, derivative in DERIVATIVES.items():
        steps = derivative(sampler, x, warp, size, options)
        next(steps)
        before = field("VmRSS")
        # What was in use at an earlier peak is forgotten.
        Path("/proc/self/clear_refs").write_text("5")
        shares[name] = beyond(before, next(steps))
        steps.close()
    return shares


def beyond(before, results):
    size = sum(tensor.numel() * tensor.element_size() for tensor in results)
    return (field("VmHWM") - before - size) / size


def answer(sampler, name, *what):
    torch.set_num_threads(2)
    torch.manual_seed(0)
    sampler = {"stn_cuda": ours, "torch": of_torch}[sampler]
    shape, warps, kind, dtype, options = CASES[name]
    small = (shape[0], shape[1], *(16 for _ in shape[2:]))
    how = measure_derivatives if what == ("derivatives",) else measure
    # Threads, autograd's engine and libraries loaded late take their memory here.
    how(sampler, *operands(name, small, warps, kind, dtype), options)
    print(json.dumps(how(sampler, *operands(name, shape, warps, kind, dtype), options)), flush=True)


if __name__ == "__main__":
    # torch takes longer to load than most cases to measure: a copy of this process, which has it
    # and no threads yet, measures each.
    for line in sys.stdin:
        if child := os.fork():
            if os.waitpid(child, 0)[1]:
                print("null", flush=True)
        else:
            signal.alarm(600)  # one that hangs has failed
            try:
                answer(*json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
