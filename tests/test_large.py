"""Tensors of more than 2^31 elements, forward and backward, at their far end.

An index in 32 bits would fall short of it, or become negative.
"""

import numpy
import pytest
import torch

import stn_cuda

pytestmark = [
    pytest.mark.large_memory,
    pytest.mark.slow,
    pytest.mark.xdist_group("memory"),
]

BEYOND = 2**31


def ramp(*shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def look(rows, columns, size):
    """A grid (1, 1, n, 2) that looks at the given pixels' centres (align_corners=False)."""
    height, width = size
    y = (2 * torch.tensor(rows, dtype=torch.float64) + 1) / height - 1
    x = (2 * torch.tensor(columns, dtype=torch.float64) + 1) / width - 1
    return torch.stack([x, y], -1).reshape(1, 1, -1, 2)


LAYOUTS = {
    "one plane": (1, 1, 65536, 32784),
    "many planes": (3, 700, 1024, 1000),
    "channels_last": (1, 2052, 1024, 1024),
}


def untouched_zeros(layout, dtype):
    """An image of more than 2^31 zeros that takes no memory until it is written to."""
    batch, channels, *spatial = shape = LAYOUTS[layout]
    assert torch.Size(shape).numel() > BEYOND
    if layout == "channels_last":
        shape = (batch, *spatial, channels)
    kind = {torch.float16: numpy.float16, torch.float32: numpy.float32}[dtype]
    x = torch.from_numpy(numpy.zeros(shape, kind))  # calloc: the system's zero page
    return x.movedim(-1, 1) if layout == "channels_last" else x


def corner_grid(x):
    """Looks at three of the last four pixels, then at the first."""
    height, width = x.shape[2:]
    rows = [height - 2, height - 2, height - 1, 0]
    columns = [width - 2, width - 1, width - 1, 0]
    return look(rows, columns, (height, width)).expand(x.shape[0], -1, -1, -1)


@pytest.mark.parametrize("mode", ("bilinear", "nearest", "bicubic"))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_input(layout, mode, needs_memory):
    """Reading the last pixels of the last plane, from a grid and through an affine map."""
    needs_memory(4.5)
    x = untouched_zeros(layout, torch.float16)
    x[-1, -1, -2:, -2:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x[0, 0, 0, 0] = 5.0
    y = stn_cuda.sample(x, corner_grid(x), mode=mode)
    assert y[-1, -1, 0, :3].tolist() == [1.0, 2.0, 4.0]
    assert y[0, 0, 0, 3].item() == 5.0
    theta = torch.zeros(1, 2, 3, dtype=torch.float64)
    theta[0, :, 2] = corner_grid(x)[0, 0, 1]
    y = stn_cuda.sample(x, stn_cuda.Affine(theta), (1, 2), mode=mode)
    assert y[-1, -1].tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        ("one plane", torch.float32),
        ("many planes", torch.float16),
        ("channels_last", torch.float32),
    ],
)
def test_gradient_of_large_input(layout, dtype, needs_memory):
    """The gradient that is written to the last pixels of the last plane, and nowhere else."""
    needs_memory(9)
    x = untouched_zeros(layout, dtype).requires_grad_()
    y = stn_cuda.sample(x, corner_grid(x))
    cotangent = torch.zeros_like(y)
    cotangent[-1, -1, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (grad,) = torch.autograd.grad(y, x, cotangent)
    assert grad[-1, -1, -2:, -2:].tolist() == [[1.0, 2.0], [0.0, 3.0]]
    assert grad[-1, -1, 0, 0].item() == 4.0
    assert grad[-1, -1].sum().item() == 10.0
    if layout != "one plane":
        assert not grad[0, 0].any()


def test_large_output(needs_memory):
    """An output of more than 2^31 elements from a small image: its far end, both gradients."""
    needs_memory(9)  # the output and its gradient
    size = (65536, 32784)
    x = ramp(1, 1, 4, 4).half().requires_grad_()
    theta = (torch.eye(2, 3)[None] * 0.5).requires_grad_()
    y = stn_cuda.sample(x, stn_cuda.Affine(theta), size)
    assert y.numel() > BEYOND
    # value = x + 4 y in pixels; the corners look at (0.5, 0.5) and (2.5, 2.5), within 1e-4
    assert y[0, 0, 0, 0].item() == 2.5 and y[0, 0, -1, -1].item() == 12.5
    cotangent = torch.zeros_like(y)
    cotangent[0, 0, -1, -1] = 1.0
    grad_x, grad_theta = torch.autograd.grad(y, (x, theta), cotangent)
    expected = torch.zeros(4, 4)
    expected[2:, 2:] = 0.25
    torch.testing.assert_close(grad_x[0, 0].float(), expected, rtol=1e-3, atol=0)
    # a normalised unit is 2 pixels; the point itself is at (1, 1)
    expected = torch.tensor([[2.0, 2.0, 2.0], [8.0, 8.0, 8.0]])
    torch.testing.assert_close(grad_theta[0], expected, rtol=1e-3, atol=0)


def test_large_grid(needs_memory):
    """A grid of more than 2^31 elements: its far end is read, and its gradient written there."""
    needs_memory(11)  # the grid, its gradient, the output and its gradient
    size = (32768, 32784)
    x = ramp(1, 1, 4, 4).half()
    grid = torch.zeros(1, *size, 2, dtype=torch.float16)
    assert grid.numel() > BEYOND
    grid[0, -1, -1] = torch.tensor([0.25, 0.5])
    grid.requires_grad_()
    y = stn_cuda.sample(x, grid)
    # pixel = (g + 1) * 2 - 0.5: (2, 2.5); value = 2 + 4 * 2.5
    assert y[0, 0, -1, -1].item() == 12.0
    assert y[0, 0, 0, 0].item() == 1.5 + 4 * 1.5
    cotangent = torch.zeros_like(y)
    cotangent[0, 0, -1, -2:] = 1.0
    (grad,) = torch.autograd.grad(y, grid, cotangent)
    assert grad[0, -1, -2].tolist() == [2.0, 8.0]
    assert grad[0, -1, -1, 1].item() == 8.0
    assert not grad[0, 0, 0].any()


def test_large_affine_grid(needs_memory):
    """affine_grid of more than 2^31 elements and its gradient."""
    needs_memory(9)
    size = (1, 1, 32768, 32784)
    theta = torch.eye(2, 3, dtype=torch.float16)[None].requires_grad_()
    grid = stn_cuda.affine_grid(theta, size, align_corners=True)
    assert grid.numel() > BEYOND
    assert grid[0, -1, -1].tolist() == [1.0, 1.0] and grid[0, 0, 0].tolist() == [-1.0, -1.0]
    assert grid[0, -1, 0].tolist() == [-1.0, 1.0]
    cotangent = torch.zeros_like(grid)
    cotangent[0, -1, -1] = torch.tensor([1.0, 2.0])
    (grad,) = torch.autograd.grad(grid, theta, cotangent)
    assert grad[0].tolist() == [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]


def test_axis_too_long(needs_memory):
    """An axis beyond what float32 coordinates and 32-bit indices can hold is refused by name."""
    needs_memory(2)
    x = torch.zeros(1, dtype=torch.float16).expand(1, 1, 1, 2**30)
    with pytest.raises(RuntimeError, match="input must have at most"):
        stn_cuda.sample(x, torch.zeros(1, 1, 1, 2))
