"""Whole launches of the CUDA kernels, walked on the CPU by one thread (csrc/cuda/walk.h).

What does not depend on the order of the threads must come out the same in any, to the bit.
"""

import itertools

import pytest
import torch
from accuracy import Checks, check_call
from cases import IMAGE_LAYOUTS, MIXED, PADDINGS, Call, image, scattered_grid, smooth_grid, thetas
from chains import LETTERS, SIZES, compose, tensors_of
from conftest import walk_problem, walking
from hypothesis import given
from hypothesis import strategies as st

import stn_cuda
from stn_cuda._extension import _C

if walk_problem():
    pytest.skip(walk_problem(), allow_module_level=True)

pytestmark = pytest.mark.walk

ORDERS = (False, True)  # ascending, descending
# 60 points per pixel: a sum of float32 numbers shows the order of its terms.
CROWDED = {2: ((2, 5, 6, 7), (50, 51)), 3: ((2, 3, 3, 4, 4), (12, 13, 14))}


def results(call, **settings):
    """(output, grad_input, grad_warp), walked."""
    with walking(**settings):
        return call.gradients(call.cotangent())


def in_both_orders(call, **settings):
    return [results(call, descending=order, **settings) for order in ORDERS]


def crowded(dims, theta, layout="contiguous", dtype=torch.float32, **keywords):
    shape, size = CROWDED[dims]
    pixels = IMAGE_LAYOUTS[layout](image(shape, dtype))
    return Call(pixels, theta.to(torch.float32), "affine", size, **keywords)


def collapsed(dims, count=2):
    """Maps whose points all see a few pixels: too many to be gathered."""
    return 1e-3 * thetas(count, dims) + 0.03


def test_is_on():
    """While walking is on the CPU's kernels do nothing, and afterwards they are back."""
    call = Call(image((1, 2, 4, 5)), scattered_grid(1, (3, 4)))
    _C.count_cpu_paths(True)
    try:
        with walking():
            call.run()
        assert not any(_C.cpu_paths().values())
        call.run()
        assert any(_C.cpu_paths().values())
    finally:
        _C.count_cpu_paths(False)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_deterministic_in_any_order(dtype, layout):
    """Bitwise, for grids and for maps of every kind, whatever the boundary rule."""
    shape, size = CROWDED[2]
    pixels = IMAGE_LAYOUTS[layout](image(shape, dtype))
    calls = [Call(pixels, smooth_grid(shape[0], size)), Call(pixels, scattered_grid(2, size))]
    for padding, mode in itertools.product((*PADDINGS, "wrap"), ("bilinear", "bicubic")):
        for theta in (thetas(2, 2), collapsed(2), torch.cat([thetas(1, 2), collapsed(2, 1)])):
            calls.append(Call(pixels, theta, "affine", size, mode, padding))
    for padding in ("zeros", "border"):
        calls.append(crowded(3, thetas(2, 3), layout, dtype, padding_mode=padding))
    with Checks() as checks:
        for call in calls:
            for one, other in zip(*in_both_orders(call, deterministic=True), strict=True):
                checks.same(one, other, str(call))


def test_forward_and_warp_gradients_in_any_order():
    """They are repeatable in any mode."""
    with Checks() as checks:
        for dims in (2, 3):
            shape, size = CROWDED[dims]
            for call in (
                Call(image(shape), smooth_grid(shape[0], size)),
                crowded(dims, thetas(2, dims)),
                crowded(dims, collapsed(dims), padding_mode="reflection"),
            ):
                one, other = in_both_orders(call)
                checks.same(one[0], other[0], f"output of {call}")
                checks.same(one[2], other[2], f"gradient of the warp of {call}")


def order_matters(call, **settings):
    """Whether grad_input, sample by sample, depends on the order: whether it was made by adding."""
    one, other = (grads[1] for grads in in_both_orders(call, **settings))
    return [not torch.equal(a, b) for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dims", [2, 3])
def test_pixels_gather_where_the_map_allows_it(dims, layout):
    """One writer per pixel; else points add to it. Chosen sample by sample, on the device."""
    assert order_matters(crowded(dims, thetas(2, dims), layout)) == [False, False]
    assert order_matters(crowded(dims, collapsed(dims), layout)) == [True, True]
    for mixed, expected in (
        (torch.cat([thetas(1, dims), collapsed(dims, 1)]), [False, True]),
        (torch.cat([collapsed(dims, 1), thetas(1, dims)]), [True, False]),
    ):
        call = crowded(dims, mixed, layout)
        assert order_matters(call) == expected
        with Checks() as checks, walking():
            check_call(checks, call)


def test_only_what_looks_outside_is_added():
    """Under border and reflection: the same where every point looks inside."""
    inside = 0.7 * thetas(2, 2, spread=0.1)
    outside = 1.3 * thetas(2, 2, spread=0.1)
    for padding in ("border", "reflection"):
        assert order_matters(crowded(2, inside, padding_mode=padding)) == [False, False]
        assert order_matters(crowded(2, outside, padding_mode=padding)) == [True, True]


def test_grids_are_added():
    shape, size = CROWDED[2]
    assert order_matters(Call(image(shape), smooth_grid(shape[0], size))) == [True, True]


def turned_thetas(dims):
    """Maps near the limits of what is gathered: (name, theta of one sample)."""
    eye = torch.eye(dims, dims + 1)
    shift = torch.zeros(dims, dims + 1)
    shift[:, -1] = 0.137
    yield "identity", eye
    for scale in (0.05, 0.2, 0.5, 2.0, 7.0, 40.0, 3000.0):
        yield f"scaled by {scale}", scale * eye + shift
        yield f"mirrored, scaled by {scale}", shift - scale * eye
    for name, angle in (("30 degrees", 0.5236), ("45 degrees", 0.7854), ("90 degrees", 1.570796)):
        turn = eye.clone()
        cos, sin = torch.tensor(angle).cos(), torch.tensor(angle).sin()
        turn[0, 0], turn[0, 1], turn[1, 0], turn[1, 1] = cos, -sin, sin, cos
        yield name, turn + shift
    axes = shift.clone()
    for row in range(dims):
        axes[row, (row + 1) % dims] = 1.0
    yield "axes exchanged", axes
    for slant in (0.5, 3.0, 20.0, 1e4):
        shear = eye + shift
        shear[0, 1] = slant
        yield f"sheared by {slant}", shear
    thin = eye + shift
    thin[0, 0], thin[1, 1] = 0.02, 5.0
    yield "thin", thin
    for distance in (3.0, 1e3, 1e7):
        far = eye.clone()
        far[0, -1] = distance
        yield f"{distance} away", far


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", (*PADDINGS, "wrap", "mixed"))
@pytest.mark.parametrize("dims", [2, 3])
def test_maps_at_the_limits(dims, padding, align, deterministic):
    shape, size = ((1, 3, 13, 18), (21, 16)) if dims == 2 else ((1, 2, 5, 6, 4), (7, 5, 9))
    padding = MIXED[dims] if padding == "mixed" else padding
    with Checks() as checks, walking(deterministic=deterministic):
        for name, theta in turned_thetas(dims):
            for dtype in (torch.float32, torch.float64):
                call = Call(
                    image(shape),
                    theta.unsqueeze(0).to(dtype),
                    "affine",
                    size,
                    "bilinear",
                    padding,
                    align,
                    label=f"[{name}]",
                )
                check_call(checks, call)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_shared_images_and_warps(dtype, deterministic):
    """One image seen through many warps, of which some are gathered; one warp of many images."""
    with Checks() as checks, walking(deterministic=deterministic):
        for layout, padding in itertools.product(IMAGE_LAYOUTS, ("zeros", "border", MIXED[2])):
            one = IMAGE_LAYOUTS[layout](image((1, 8, 7, 9), dtype))
            many = IMAGE_LAYOUTS[layout](image((5, 8, 7, 9), dtype))
            for theta in (thetas(5, 2), torch.cat([thetas(2, 2), collapsed(2, 3)])):
                arguments = (theta, "affine", (11, 12), "bilinear", padding)
                check_call(checks, Call(one, *arguments, label=f"[one image, {layout}]"))
                check_call(checks, Call(many, *arguments, label=f"[many, {layout}]"))
            for theta in (thetas(1, 2), collapsed(2, 1)):
                arguments = (theta, "affine", (11, 12), "bilinear", padding)
                check_call(checks, Call(many, *arguments, label=f"[one warp, {layout}]"))


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_additions_of_vectors(dtype, vectors):
    """Devices that add four neighbours at once, and others; channels that fill vectors, or not."""
    with Checks() as checks, walking(vectors=vectors):
        for channels in (1, 3, 4, 8, 12, 20, 64, 130):
            pixels = IMAGE_LAYOUTS["channels_last"](image((2, channels, 6, 5), dtype))
            check_call(checks, Call(pixels, smooth_grid(2, (9, 8))))
            check_call(checks, Call(pixels, thetas(2, 2), "affine", (9, 8), "bicubic"))


def warps_of_every_kind(dims, size, dtype):
    """(warp of a tensor, the tensor) for each map that has kernels of its own."""
    yield lambda tensor: tensor, smooth_grid(2, size, dtype)
    for letter in "APFS" if dims == 2 else "APF":
        warp, tensor_of = LETTERS[letter]
        yield warp, tensor_of(2, size, 0).to(dtype)
    outer, field, inner = tensors_of("PfA", size, dtype=dtype)
    yield lambda tensor: compose("PfA", (outer, tensor, inner)), field


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("coordinates", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "dims, mode", [(2, "nearest"), (2, "bilinear"), (2, "bicubic"), (3, "nearest"), (3, "bilinear")]
)
def test_types_of_images_that_share_kernels(dims, mode, dtype, coordinates, deterministic):
    """16-bit images give what the same numbers in float32 do, rounded."""
    size = SIZES[dims]
    x, cotangent = image((2, 3, *size), dtype), image((2, 3, *size), dtype, key=1)

    def results(x, cotangent, warp_of, tensor):
        x, tensor = (t.detach().requires_grad_() for t in (x, tensor))
        warp = warp_of(tensor)
        arguments = (x, warp, None if warp is tensor else size)
        y = stn_cuda.sample(*arguments, mode=mode)
        grad_x, grad_tensor = torch.autograd.grad(y, (x, tensor), cotangent, create_graph=True)
        yield from (y, grad_x, grad_tensor)
        if mode != "nearest":
            yield from stn_cuda.sample_with_gradient(*arguments, mode=mode)
            yield from torch.autograd.grad(grad_tensor.sum(), (x, tensor), retain_graph=True)
            yield from torch.autograd.grad((grad_x * x).sum(), tensor)

    with walking(deterministic=deterministic):
        for case in warps_of_every_kind(dims, size, coordinates):
            narrow = results(x, cotangent, *case)
            wide = results(x.float(), cotangent.float(), *case)
            for a, b in zip(narrow, wide, strict=True):
                assert torch.equal(a, b.to(a.dtype)), case


def test_offsets_beyond_32_bits():
    """A plane of more than 2^31 elements: two rows that lie that far apart."""
    far = 2**31 + 8
    storage = torch.empty(far + 2, dtype=torch.float16)  # of which little is touched
    x = storage.as_strided((1, 1, 2, 2), (2 * far, 2 * far, far, 1))
    x.copy_(torch.arange(4.0).view(1, 1, 2, 2))
    near = x.contiguous()
    for warp in (scattered_grid(1, (5, 6)), stn_cuda.Affine(thetas(1, 2))):
        size = None if isinstance(warp, torch.Tensor) else (5, 6)
        with walking():
            assert torch.equal(stn_cuda.sample(x, warp, size), stn_cuda.sample(near, warp, size))
    grid, cotangent = scattered_grid(1, (5, 6)), image((1, 1, 5, 6), torch.float16)
    with walking():
        grads = [
            torch.ops.stn_cuda.sample_grad_warp(
                cotangent, pixels, grid, "grid", "bilinear", "zeros", False
            )
            for pixels in (x, near)
        ]
    assert torch.equal(*grads)


@given(st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_division_of_block_numbers(n, divisor):
    """How a block finds its place: exact for every number of blocks that a launch can have."""
    assert _C.cuda_divide(n, divisor) == n // divisor


@given(st.integers(1, 2**31 - 1), st.integers(-1, 1), st.integers(0, 2**31))
def test_division_near_multiples(divisor, off, factor):
    n = min(max(divisor * (factor % (2**31 // divisor + 1)) + off, 0), 2**31 - 1)
    assert _C.cuda_divide(n, divisor) == n // divisor
