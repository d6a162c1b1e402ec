"""A list of calls and their results, for comparing thread counts and instruction sets.

outputs_worker.py FILE   evaluates every second call and saves the results
"""

import sys

import torch
from accuracy import smooth_points
from cases import (
    MIXED,
    PADDINGS,
    Call,
    channels_last,
    image,
    modes,
    scattered_grid,
    smooth_grid,
    thetas,
)

# Large enough to be split among threads: one plane, few images, many channels, volumes.
CASES = [
    ((1, 1, 150, 160), (161, 140), torch.float32),
    ((1, 3, 80, 90), (70, 91), torch.float64),
    ((3, 3, 65, 70), (70, 61), torch.bfloat16),
    ((1, 20, 50, 60), (60, 55), torch.float32),
    ((4, 1, 28, 28), (28, 28), torch.float16),
    ((1, 2, 17, 20, 24), (18, 21, 25), torch.float32),
    ((2, 16, 7, 9, 10), (8, 9, 17), torch.float32),
    ((3, 5, 140, 150), (50, 60), torch.float32),
    ((1, 9, 30, 31, 32), (15, 16, 17), torch.float32),
]


def calls():
    """[(call, gradient)]: the gradient is 0 at the kinks, where rounding may choose either side."""
    result = []
    for number, (shape, size, dtype) in enumerate(CASES):
        dims = len(size)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        warps = {
            "scattered": (scattered_grid(shape[0], size, wide), "grid"),
            "smooth": (smooth_grid(shape[0], size, wide), "grid"),
            "affine": (thetas(shape[0], dims, wide), "affine"),
            "shrinking": (thetas(1, dims, wide, spread=0.2) * 7, "affine"),
        }
        if shape[0] > 1:
            mixed = torch.cat([warps["scattered"][0][:1], warps["smooth"][0][1:]])
            warps["mixed"] = (mixed, "grid")
        pixels = image(shape, dtype)
        for memory_format in (torch.contiguous_format, channels_last(pixels)):
            x = pixels.contiguous(memory_format=memory_format)
            for n, (name, (warp, kind)) in enumerate(warps.items()):
                in_turn = modes(dims)[(n + number) % len(modes(dims))]
                padding = (*PADDINGS, "wrap", MIXED[dims])[(n + number) % 5]
                for mode in dict.fromkeys(("bilinear", in_turn)):
                    call = Call(x, warp, kind, size, mode, padding, n % 2 == 0, label=f"[{name}]")
                    smooth = smooth_points(call).unsqueeze(1)
                    result.append((call, call.cotangent() * smooth.to(dtype)))
    return result


def evaluate(pairs):
    """[(output, grad_input, grad_warp)] of calls()."""
    return [call.gradients(gradient) for call, gradient in pairs]


if __name__ == "__main__":
    torch.save(evaluate(calls()[::2]), sys.argv[1])
