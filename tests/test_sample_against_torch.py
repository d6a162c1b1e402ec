"""`sample` on a grid against torch's float64 kernels on the same values, over the whole matrix."""

import pytest
import torch
from accuracy import Checks, check_call, forward_bound, smooth_points
from cases import (
    CONFIGURATIONS,
    GRID_LAYOUTS,
    IMAGE_LAYOUTS,
    PADDINGS,
    Call,
    channels_last,
    configuration_id,
    image,
    modes,
    scattered_grid,
    shapes,
    smooth_grid,
    thetas,
    torch_sample,
)

import stn_cuda
from stn_cuda import reference

pytestmark = pytest.mark.filterwarnings("ignore:Default grid_sample")


@pytest.mark.quick
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_shapes_and_dtypes(configuration, device):
    """Forward and both gradients, every shape, float32 and float64, scattered and smooth grids."""
    dims, *settings = configuration
    with Checks() as checks:
        for shape, size in shapes(dims):
            for dtype in (torch.float32, torch.float64):
                for make in (scattered_grid, smooth_grid):
                    warp = make(shape[0], size, dtype)
                    call = Call(image(shape, dtype), warp, "grid", None, *settings)
                    check_call(checks, call.on(device), torch_sample)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_layouts(configuration, unwalked_device):
    """Every memory layout of the image with every one of the grid."""
    dims, *settings = configuration
    shape, size = ((2, 5, 7, 9), (6, 17)) if dims == 2 else ((2, 3, 4, 5, 6), (3, 2, 17))
    with Checks() as checks:
        for number, (image_name, image_layout) in enumerate(IMAGE_LAYOUTS.items()):
            for grid_name, grid_layout in GRID_LAYOUTS.items():
                dtype = (torch.float32, torch.float64)[number % 2]
                call = Call(
                    image_layout(image(shape, dtype).to(unwalked_device)),
                    grid_layout(scattered_grid(shape[0], size, dtype).to(unwalked_device)),
                    "grid",
                    None,
                    *settings,
                    label=f"[{image_name}, {grid_name}]",
                )
                check_call(checks, call, torch_sample)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_channel_counts_in_both_formats(configuration):
    """Channels below, at and above the vector lengths, channels first and last."""
    dims, *settings = configuration
    spatial, size = ((6, 5), (5, 7)) if dims == 2 else ((3, 4, 5), (2, 3, 4))
    with Checks() as checks:
        for channels in (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 65):
            for name in ("contiguous", "channels_last", "channels in NaN"):
                pixels = IMAGE_LAYOUTS[name](image((2, channels, *spatial)))
                grid = scattered_grid(2, size)
                call = Call(pixels, grid, "grid", None, *settings, label=f"[{name}]")
                check_call(checks, call, torch_sample)


@pytest.mark.parametrize("configuration", CONFIGURATIONS[::3], ids=configuration_id)
def test_large_enough_for_several_threads(configuration):
    dims, *settings = configuration
    cases = (
        [((1, 3, 91, 103), (97, 111)), ((2, 20, 34, 40), (31, 37))]
        if dims == 2
        else [((1, 2, 17, 23, 30), (19, 25, 27))]
    )
    with Checks() as checks:
        for shape, size in cases:
            for name in ("contiguous", "channels_last"):
                pixels = IMAGE_LAYOUTS[name](image(shape))
                grid = smooth_grid(shape[0], size)
                call = Call(pixels, grid, "grid", None, *settings, label=f"[{name}]")
                check_call(checks, call, torch_sample)


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_far_outside_and_far_inside(dims):
    """Whole rows outside on one side, whole rows inside: the paths without boundary checks."""
    shape, size = ((2, 3, 30, 41), (9, 40)) if dims == 2 else ((1, 2, 8, 9, 20), (3, 4, 20))
    with Checks() as checks:
        for mode in modes(dims):
            for padding in PADDINGS:
                for align in (False, True):
                    for shift in (0.0, 0.3, -0.9, 1.2, -1.9, 2.5, -3.0, 7.0, -31.7):
                        grid = scattered_grid(shape[0], size, reach=0.5) + shift
                        call = Call(image(shape), grid, "grid", None, mode, padding, align)
                        check_call(checks, call, torch_sample)


def exact_grid(spatial, align):
    """Normalised coordinates whose pixel coordinates are exact in float32, halves included.

    Image sides are a power of two (or one more, with align_corners), so that every step of the
    coordinate arithmetic is exact.
    """
    axes = []
    for length in reversed(spatial):
        steps = torch.arange(-6, 2 * length + 6, dtype=torch.float64) / 2  # pixels and halves
        axes.append(2 * steps / (length - 1) - 1 if align else (2 * steps + 1) / length - 1)
    mesh = torch.meshgrid(*reversed(axes), indexing="ij")
    return torch.stack(list(reversed(mesh)), -1).unsqueeze(0).float()


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_exact_pixel_centres_and_ties(dims):
    """On whole pixels and on the halves between them, forward equals torch's float32 exactly.

    Ties of `nearest` round to even, as torch's. Bicubic at a half and trilinear sums may be added
    in another order: a few roundings of the largest term.
    """
    with Checks() as checks:
        for align in (False, True):
            spatial = (4, 8) if dims == 2 else (4, 2, 8)
            spatial = tuple(side + align for side in spatial)
            pixels = image((1, 2, *spatial))
            grid = exact_grid(spatial, align)
            for mode in modes(dims):
                for padding in PADDINGS:
                    output = stn_cuda.sample(
                        pixels, grid, mode=mode, padding_mode=padding, align_corners=align
                    )
                    expected = torch_sample(pixels, grid, mode, padding, align)
                    what = f"{mode} {padding} align {align}"
                    if mode == "nearest":
                        checks.same(output, expected, what)
                    else:
                        bound = 2.0**-24 * 64 * pixels.abs().max()
                        checks.close(output, expected.double(), bound, what)
                    if mode != "bicubic":  # a look at a pixel's centre gives that pixel
                        step = slice(6, -6, 2)
                        centre = output[(..., *[step] * dims)]
                        checks.same(centre, pixels, f"centres, {what}")


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_memory_format_is_kept(dims, device):
    """channels_last in, channels_last out, and so the input's gradient."""
    shape, size = ((2, 5, 6, 7), (3, 4)) if dims == 2 else ((2, 5, 4, 6, 7), (2, 3, 4))
    last = channels_last(image(shape))
    grid = scattered_grid(2, size).to(device)
    with Checks() as checks:
        for mode in modes(dims):
            for memory_format in (torch.contiguous_format, last):
                pixels = image(shape).to(device).contiguous(memory_format=memory_format)
                pixels.requires_grad_()
                output = stn_cuda.sample(pixels, grid, mode=mode)
                what = f"{mode}, {memory_format}"
                checks.true(output.is_contiguous(memory_format=memory_format), f"output, {what}")
                (grad,) = torch.autograd.grad(output, pixels, torch.ones_like(output))
                checks.true(grad.is_contiguous(memory_format=memory_format), f"gradient, {what}")


@pytest.mark.quick
def test_nan_coordinates_are_read_as_minus_one(device):
    """As torch documents it (its CPU kernels do not do it), whichever coordinate it is."""
    with Checks() as checks:
        for dims, *settings in CONFIGURATIONS:
            shape, size = ((2, 3, 6, 7), (5, 20)) if dims == 2 else ((2, 3, 4, 5, 6), (3, 4, 5))
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                grid = scattered_grid(2, size, dtype).to(device)
                grid.view(-1)[::3] = float("nan")
                grid.view(-1)[5::7] = float("nan")
                call = Call(image(shape, dtype).to(device), grid, "grid", None, *settings)
                plain = call.run(warp=grid.nan_to_num(nan=-1.0))
                checks.same(call.run(), plain, str(call))


@pytest.mark.quick
def test_parameters_that_are_nan(device):
    """Likewise of a map, whichever parameter it is that makes a coordinate NaN."""
    with Checks() as checks:
        for dims, *settings in CONFIGURATIONS:
            shape, size = ((2, 2, 9, 8), (4, 21)) if dims == 2 else ((2, 2, 4, 5, 6), (3, 4, 5))
            for k in range(dims * (dims + 1)):
                theta = thetas(2, dims)
                theta[0].view(-1)[k] = float("nan")
                call = Call(image(shape), theta, "affine", size, *settings)
                check_call(checks, call.on(device))


@pytest.mark.quick
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("padding_mode", ("zeros", "border"))
def test_looks_of_any_magnitude(padding_mode, dtype, device):
    """However far away, and on axes of one pixel too, which have no next tap."""
    powers = 2.0 ** torch.arange(2, 126, dtype=torch.float64)
    far = torch.cat([powers, -powers, powers + 0.25, 0.25 - powers, powers - 1, -1 - powers])
    with Checks() as checks:
        for sizes in ((1, 9), (9, 1), (1, 1), (6, 5), (1, 3, 4), (3, 1, 4), (3, 4, 1), (3, 4, 5)):
            dims = len(sizes)
            for axis in range(dims):
                pixels = torch.full((len(far), dims), 0.125, dtype=torch.float64)
                pixels[:, axis] = far
                grid = pixels.reshape(1, *[1] * (dims - 2), -1, 8, dims).to(dtype)
                for mode in modes(dims):
                    x = image((1, 3, *sizes), dtype)
                    call = Call(x, grid, "pixel_grid", None, mode, padding_mode)
                    check_call(checks, call.on(device))


def reads(call, marked):
    """(N, C, *out) bool: does an output read a marked pixel with a weight other than 0?"""
    sizes = reference.sizes_of(call.input)
    pixels = reference.pixel_coordinates(call.grid64(), sizes, call.align_corners)
    result = torch.zeros(call.output_shape, dtype=torch.bool)
    for flat, inside, weight in reference.all_taps(
        pixels, sizes, call.mode, call.padding_mode, call.align_corners
    ):
        seen = marked.flatten(2)[:, :, flat[0]]
        result |= seen & (inside & (weight != 0)).unsqueeze(1)
    return result


@pytest.mark.quick
def test_pixels_that_are_not_finite(device):
    """A NaN or infinite pixel reaches the outputs that look at it, and no others.

    torch also multiplies pixels by weights of 0 on some of its paths; here those are not read.
    """
    with Checks() as checks:
        for dims, *settings in CONFIGURATIONS:
            shape, size = ((1, 2, 9, 11), (13, 14)) if dims == 2 else ((1, 2, 4, 5, 6), (4, 5, 6))
            finite = image(shape)
            grid = scattered_grid(1, size)
            for value in (float("nan"), float("inf")):
                pixels = finite.clone()
                pixels.view(2, -1)[:, 7::17] = value
                call = Call(pixels, grid, "grid", None, *settings)
                smooth = smooth_points(call).unsqueeze(1)
                affected = reads(call, ~pixels.isfinite())
                checks.true((affected & smooth).any() and not affected.all(), f"too easy: {call}")
                output = call.on(device).run().cpu()
                checks.same(output.isfinite() | ~smooth, ~affected | ~smooth, f"{value} in {call}")
                clean = Call(finite, grid, "grid", None, *settings)
                expected = clean.expect(torch_sample)
                bound = forward_bound(clean, expected)
                bound = torch.where(affected | ~smooth, torch.inf, bound)
                output = torch.where(affected, 0.0, output)
                checks.close(output, expected, bound, f"beside {value} in {call}")
