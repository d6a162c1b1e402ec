"""Every kernel of stn_cuda on small tensors: what `make gpu-check` has compute-sanitizer watch.

    compute-sanitizer --tool memcheck python tests/sanitizer_subset.py

Not a test by itself, and without the tests' libraries: under the sanitizer every kernel is slow,
and those of others raise errors of their own. The tests say whether the results are right; here
they have to be finite.
"""

import itertools
import sys
from pathlib import Path

import torch

# Last, so that the source folder stn_cuda/ does not hide an installed stn_cuda.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import stn_cuda

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
PADDINGS = ("zeros", "border", "reflection")
MODES = {2: ("bilinear", "nearest", "bicubic"), 3: ("bilinear", "nearest")}
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
# Neither extents nor channels fill a block or, contiguous, a vector. 3 of 4 images have a map that
# can be turned round; the fourth collapses the plane, which takes the way back by adding.
SHAPES = {2: ((4, 5, 13, 35), (37, 19)), 3: ((4, 3, 5, 6, 7), (4, 9, 6))}
CHANNELS_LAST = 8


def thetas(count, dims, dtype):
    theta = torch.eye(dims, dims + 1).repeat(count, 1, 1)
    theta += 0.2 * torch.randn(theta.shape)
    theta[-1] *= 0.01
    return theta.to(dtype)


def calls():
    """(image, warp, map, output size, options) of all modes, dtypes, layouts and kinds of maps.

    The paddings and align_corners take turns, so that each meets each mode.
    """
    turns = itertools.cycle(itertools.product(PADDINGS, (False, True)))
    for dims, (shape, size) in SHAPES.items():
        for mode, dtype in itertools.product(MODES[dims], DTYPES):
            for channels_last, shared in ((False, False), (True, False), (False, True)):
                batch = 1 if shared else shape[0]
                channels = CHANNELS_LAST if channels_last else shape[1]
                image = torch.rand(batch, channels, *shape[2:]).to(dtype)
                if channels_last:
                    image = image.contiguous(memory_format=FORMATS[dims])
                wide = dtype if dtype == torch.float64 else torch.float32
                grid = 2.2 * torch.rand(shape[0], *size, dims) - 1.1
                for warp, kind in ((thetas(shape[0], dims, wide), "affine"), (grid, "grid")):
                    padding, align_corners = next(turns)
                    options = dict(mode=mode, padding_mode=padding, align_corners=align_corners)
                    yield image, warp.to(wide), kind, size, options


def run(image, warp, kind, size, options):
    """Forward and backward: (output, gradients)."""
    image, warp = image.requires_grad_(), warp.requires_grad_()
    if kind == "affine":
        output = stn_cuda.sample(image, stn_cuda.Affine(warp), size, **options)
    else:
        output = stn_cuda.sample(image, warp, **options)
    return output.detach(), *torch.autograd.grad(output, (image, warp), torch.ones_like(output))


def main(device="cuda"):
    """Run all of them, once as by default and once repeatably. Returns how many calls it was."""
    torch.manual_seed(0)
    # Filled memory would hide from initcheck what a kernel does not write.
    torch.utils.deterministic.fill_uninitialized_memory = False
    count = 0
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        for image, warp, *rest in calls():
            results = run(image.to(device), warp.to(device), *rest)
            for result in results:
                assert bool(result.cpu().isfinite().all()), (image.shape, image.dtype, *rest)
            count += 1
        for dims, (shape, size) in SHAPES.items():
            theta = thetas(shape[0], dims, torch.float32).to(device).requires_grad_()
            grid = stn_cuda.Affine(theta).grid(size)
            (gradient,) = torch.autograd.grad(grid, theta, torch.ones_like(grid))
            assert bool(gradient.cpu().isfinite().all()), (shape, size)
            count += 1
    return count


if __name__ == "__main__":
    print(f"{main(*sys.argv[1:])} calls, forward and backward")
