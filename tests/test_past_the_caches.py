"""Results that are too large to stay in a cache, and are written past them: the same bits."""

import itertools
from dataclasses import replace

import pytest
import torch
from cases import IMAGE_LAYOUTS, Call, image, scattered_grid, thetas
from machine import machine, paths_of
from ways import BY_SIZE, TURNING, turn

import stn_cuda
from stn_cuda import ops


@pytest.mark.quick
@pytest.mark.parametrize("size", ((700, 1504), (1100, 957)))
@pytest.mark.parametrize("layout", ("contiguous", "channels_last"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
def test_results_past_the_caches(size, layout, dtype, threads):
    """Of whole lines of a cache, or not; the same bits as image by image, each of them small."""
    planar = layout == "contiguous"
    size = size if planar else (size[0] // 7, size[1] // 4)
    shape = (1, 600, 700) if planar else (24, 20, 30)
    pixels = IMAGE_LAYOUTS[layout](image((5, *shape), dtype))
    upright = torch.cat([turn(degrees) for degrees in (90, 40, 2, -60, 70)])
    threads(2)
    warps = (
        (thetas(5, 2, spread=0.1), {"sample_streams"}),
        (upright, {"sample_streams", "sample_staged"}),
    )
    for mode, (warp, wanted) in itertools.product(("bilinear", "bicubic", "nearest"), warps):
        call = Call(pixels, warp, "affine", size, mode)
        together, ways = paths_of(call.run)
        wanted = wanted if planar else wanted - {"sample_staged"}
        assert ways & BY_SIZE == (wanted if machine() in TURNING else set())
        for n in range(5):
            one = replace(call, input=pixels[n : n + 1], warp=warp[n : n + 1])
            alone, ways = paths_of(one.run)
            assert not ways & BY_SIZE
            assert torch.equal(alone, together[n : n + 1])
    # What is around the image is added to the values.
    filled = paths_of(lambda: stn_cuda.sample(pixels, stn_cuda.Affine(warp), size, fill=0.5))[1]
    assert "sample_streams" not in filled


@pytest.mark.quick
@pytest.mark.parametrize("size", (1000, 600))
def test_parts_of_results_past_the_caches(size, threads):
    """Some channels at a time, of a result that is too large, or is not."""
    threads(2)
    call = Call(image((1, 5, 530, 530)), scattered_grid(1, (size, size)))
    output, ways = paths_of(call.run)
    assert "channels_apart" in ways
    assert ("sample_streams" in ways) == (size == 1000 and machine() in TURNING)
    for c in range(5):
        one = replace(call, input=call.input[:, c : c + 1])
        assert torch.equal(one.run(), output[:, c : c + 1])


@pytest.mark.quick
@pytest.mark.parametrize("channels", (20, 23, 64))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16))
def test_images_past_the_caches(channels, dtype, threads):
    """Gathered ones whose channels lie next to each other: the same bits as image by image."""
    threads(2)
    size = (171, 3 + 4200 // channels)
    values = IMAGE_LAYOUTS["channels_last"](image((5, channels, *size), dtype))
    warp = thetas(5, 2, spread=0.05)

    def splat(values, warp, images):
        shape = [images, *values.shape[1:]]
        return paths_of(
            lambda: ops.splat(values, warp, "affine", shape, True, "bilinear", "zeros", False)
        )

    gathered = {"turned_channels", "turned_streams"}
    together, ways = splat(values, warp, 5)
    assert gathered & ways == (gathered if machine() in TURNING else set())
    for n in range(5):
        alone, ways = splat(values[n : n + 1], warp[n : n + 1], 1)
        assert "turned_streams" not in ways
        assert torch.equal(alone, together[n : n + 1])
    # What another output is added to is not written past them, whatever its size.
    large = IMAGE_LAYOUTS["channels_last"](image((2, channels, 2 * size[0], 3 * size[1])))
    ways = splat(large, thetas(2, 2, spread=0.05), 1)[1]
    assert ("turned_onto" in ways) == (machine() in TURNING) and "turned_streams" not in ways
