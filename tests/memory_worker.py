"""Run by test_properties.py in a process of its own, which memory errors are to bring down.

memory_worker.py pages end|start   operands lie against an unreadable page
memory_worker.py malloc            results are allocated by a malloc that checks itself
memory_worker.py canary            writes one byte too far, on purpose
"""

import ctypes
import mmap
import sys
from dataclasses import replace

import torch
from cases import (
    CONFIGURATIONS,
    DTYPES,
    Call,
    channels_last,
    image,
    scattered_grid,
    shapes,
    smooth_grid,
    thetas,
)

PAGE = mmap.PAGESIZE
PROT_NONE = 0
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
maps = []  # kept: a freed map could be handed out again, readable


def guarded(tensor, side):
    """A copy, of the same strides, whose first or last byte is next to an unreadable page."""
    if tensor.numel() == 0:
        return tensor
    spanned = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    size = spanned * tensor.element_size()
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    maps.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + (pages + 1) * PAGE):
        if libc.mprotect(guard, PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE if side == "start" else (pages + 1) * PAGE - size
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=spanned, offset=offset)
    return flat.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def all_calls():
    for dims, *settings in CONFIGURATIONS:
        for number, (shape, size) in enumerate(shapes(dims)):
            dtype = DTYPES[number % 4]
            pixels = image(shape, dtype)
            for x in (pixels, pixels.contiguous(memory_format=channels_last(pixels))):
                yield Call(x, scattered_grid(shape[0], size, dtype), "grid", None, *settings)
                yield Call(x, smooth_grid(shape[0], size), "grid", None, *settings)
                yield Call(x, thetas(shape[0], dims), "affine", size, *settings)


def calls_of_bytes():
    """Without gradients."""
    for dims, *settings in CONFIGURATIONS:
        for shape, size in shapes(dims):
            pixels = image(shape).abs().mul(100).to(torch.uint8)
            for x in (pixels, pixels.contiguous(memory_format=channels_last(pixels))):
                yield Call(x, scattered_grid(shape[0], size), "grid", None, *settings)
                yield Call(x, thetas(shape[0], dims), "affine", size, *settings)


def run_pages(side):
    count = 0
    for call in calls_of_bytes():
        print(call, flush=True)
        call.run(guarded(call.input, side), guarded(call.warp, side))
        count += 1
        if count % 100 == 0:
            maps.clear()
    for call in all_calls():
        print(call, flush=True)
        input, warp = guarded(call.input, side), guarded(call.warp, side)
        own = replace(call, input=input, warp=warp)
        own.gradients(guarded(call.cotangent(), side))
        count += 1
        if count % 100 == 0:
            maps.clear()
    print(f"{count} calls")


def run_malloc():
    count = 0
    for call in calls_of_bytes():
        print(call, flush=True)
        call.run()
        count += 1
    for call in all_calls():
        print(call, flush=True)
        results = call.gradients(call.cotangent())
        del results  # the canaries are looked at here
        count += 1
    print(f"{count} calls")


def run_canary():
    tensor = torch.empty(33, dtype=torch.float32)
    ctypes.memset(tensor.data_ptr() + 33 * 4, 0x5A, 9)
    del tensor
    torch.empty(33)


if __name__ == "__main__":
    {"pages": run_pages, "malloc": run_malloc, "canary": run_canary}[sys.argv[1]](*sys.argv[2:])
