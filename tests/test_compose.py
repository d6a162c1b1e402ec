"""Compose: chains of warps, against the reference and against one resampling after the other."""

import pytest
import torch
from cases import (
    CONFIGURATIONS,
    DTYPES,
    IMAGE_LAYOUTS,
    NAN,
    PADDINGS,
    configuration_id,
    homographies,
    image,
    thetas,
)
from chains import (
    EVERY,
    F64,
    FEW,
    FUSED,
    SIZES,
    chain_gradients,
    compose,
    expected,
    gradients,
    no_positions,
    randn,
    tensors_of,
)

import stn_cuda
from stn_cuda import Affine, Compose, Flow, Projective, sample

# --- against the reference ------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
@pytest.mark.parametrize("dims, chain", EVERY)
def test_against_the_reference(dims, chain, align, device):
    """Values and the gradients of the image and of every warp, in float64."""
    size, in_size = SIZES[dims], (11, 30, 8)[:dims]
    x, tensors = image((2, 3, *in_size), F64), tensors_of(chain, size)
    g = randn(2, 3, *size)
    settings = {"padding_mode": PADDINGS[len(chain) % 3], "align_corners": align}

    def ours(x, *tensors):
        return sample(x, compose(chain, tensors), size, **settings)

    def theirs(x, *tensors):
        return expected(x, compose(chain, tensors), size, **settings)

    there = [t.to(device) for t in (x, *tensors)]
    for one, exact in zip(
        gradients(ours, there, g), gradients(theirs, [x, *tensors], g), strict=True
    ):
        scale = exact.abs().max().item() + 1
        torch.testing.assert_close(one.cpu(), exact, rtol=0, atol=1e-11 * scale)


@pytest.mark.quick
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=configuration_id)
def test_modes(configuration, device):
    dims, mode, padding, align = configuration
    size = SIZES[dims]
    x = image((2, 2, *size), F64)
    for chain in FEW[dims]:
        tensors = tensors_of(chain, size)
        exact = expected(x, compose(chain, tensors), size, mode, padding, align)
        warp = compose(chain, [t.to(device) for t in tensors])
        settings = {"mode": mode, "padding_mode": padding, "align_corners": align}
        y = sample(x.to(device), warp, size, **settings)
        torch.testing.assert_close(y.cpu(), exact, rtol=0, atol=1e-11)


@pytest.mark.quick
@pytest.mark.parametrize("padding", ("wrap", ("wrap", "border"), ("reflection", "zeros")))
@pytest.mark.parametrize("chain", ("AF", "fP", "FS"))
def test_boundaries(chain, padding, device):
    """Those of each axis; and what lies outside, and how much inside."""
    size = SIZES[2]
    x, tensors = image((2, 2, *size), F64), tensors_of(chain, size)
    exact = expected(x, compose(chain, tensors), size, padding_mode=padding)
    x, warp = x.to(device), compose(chain, [t.to(device) for t in tensors])
    y = sample(x, warp, size, padding_mode=padding)
    torch.testing.assert_close(y.cpu(), exact, rtol=0, atol=1e-11)
    filled, mask = sample(x, warp, size, fill=0.5, return_mask=True)
    inside = sample(torch.ones_like(x), warp, size)
    torch.testing.assert_close(mask, inside[:, :1], rtol=0, atol=1e-11)
    zeros = sample(x, warp, size)
    torch.testing.assert_close(filled, zeros + 0.5 * (1 - inside), rtol=0, atol=1e-11)


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype, device):
    """Positions are computed in float32 at least, whatever is stored in 16 bits."""
    for dims, chains in FEW.items():
        size = SIZES[dims]
        x = image((1, 2, *size), torch.float32).to(device)
        slope = 2 * dims * x.abs().max().item()  # of a value, per pixel
        for chain in chains:
            tensors = [t.to(dtype) for t in tensors_of(chain, size, 1)]
            exact = expected(x.cpu(), compose(chain, tensors), size, padding_mode="border")
            y = sample(
                x, compose(chain, [t.to(device) for t in tensors]), size, padding_mode="border"
            )
            assert y.dtype == torch.float32
            # Some thirty roundings of positions and displacements of up to a hundred pixels.
            atol = 30 * 100 * 2.0**-24 * slope
            torch.testing.assert_close(y.cpu().double(), exact, rtol=0, atol=atol)


@pytest.mark.quick
def test_dtypes_mix(device):
    """A float16 field behind a float32 matrix: neither is rounded to the other's."""
    size = (4, 2100)
    x = torch.arange(size[1], dtype=torch.float32, device=device).expand(1, 1, *size)
    half = torch.full((1, 2, *size), 0.5, dtype=torch.float16, device=device)
    half[:, 1] = 0
    shift = Affine.translation((1.25, 0.0), size=size)
    shift = Affine(shift.theta.to(device))
    for warp, moved in (
        (Compose(shift, Flow(half)), 1.75),
        (Compose(Flow(half), shift), 1.75),
        (Compose(Flow(half), shift, Flow(half)), 2.25),
    ):
        y = sample(x, warp, padding_mode="border")
        torch.testing.assert_close(y[..., :-3], x[..., :-3] + moved, rtol=0, atol=1e-3)
        assert y.dtype == x.dtype
    assert sample(x.half(), Compose(shift, Flow(half))).dtype == torch.float16
    double = Compose(Affine(shift.theta.double()), Flow(half))
    assert double.grid().dtype == F64


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
@pytest.mark.parametrize("dims", (2, 3))
def test_identity_is_exact(dims, align, device):
    for size in (SIZES[dims], (1, 7, 3)[:dims], (33,) * dims):
        x = image((1, 2, *size)).to(device)
        zero = torch.zeros(1, dims, *size, device=device)
        eye, homography = (kind.identity(dims=dims, device=device) for kind in (Affine, Projective))
        chains = [[Flow(zero)], [Flow(zero, normalized=True)], [eye, Flow(zero)]]
        chains += [[Flow(zero), eye], [homography, Flow(zero), eye], [Flow(zero)] * 3]
        for chain in chains:
            for mode in ("bilinear", "nearest"):
                y = sample(x, Compose(*chain), size, mode=mode, align_corners=align)
                assert torch.equal(y, x), (size, chain)


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
def test_axes_of_one_pixel(align, device):
    """Neither images nor fields of one pixel bring positions together on their way."""
    for in_size, size, field in (
        ((1, 5), (4, 6), (4, 6)),
        ((5, 6), (1, 6), (1, 6)),
        ((5, 6), (4, 7), (1, 3)),
        ((5, 6), (4, 7), (1, 1)),
    ):
        x = image((1, 2, *in_size), F64)
        a, f = thetas(1, 2, F64), randn(1, 2, *field)
        for warp in (Compose(Affine(a), Flow(f)), Compose(Flow(f), Affine(a))):
            y = sample(x.to(device), warp, size, padding_mode="border", align_corners=align)
            exact = expected(x, warp, size, padding_mode="border", align_corners=align)
            torch.testing.assert_close(y, exact.to(device), rtol=0, atol=1e-12)
        three = Compose(Affine(a), Flow(f), Affine(a))
        y = sample(x.to(device), three, size, align_corners=align)
        exact = expected(x, three, size, align_corners=align)
        torch.testing.assert_close(y, exact.to(device), rtol=0, atol=1e-12)


@pytest.mark.quick
@pytest.mark.parametrize("chain", ("AF", "FA", "Af", "AFSfP"))
def test_broadcast(chain, device):
    """A batch of 1 on any side serves the others'; its gradient is the sum."""
    size = SIZES[2]
    three = tensors_of(chain, size, 3)
    for alone in range(len(chain) + 1):
        tensors = [t[:1] if k == alone else t for k, t in enumerate(three)]
        x = image((1 if alone == len(chain) else 3, 2, *size), F64)
        whole = [t.expand(3, *t.shape[1:]).clone() for t in (x, *tensors)]
        g = randn(3, 2, *size)

        def run(x, *tensors):
            return sample(x, compose(chain, tensors), size)

        small = gradients(run, [t.to(device) for t in (x, *tensors)], g)
        large = gradients(run, [t.to(device) for t in whole], g)
        for one, other_one in zip(small, large, strict=True):
            if one.shape != other_one.shape:
                other_one = other_one.sum(0, keepdim=True)
            torch.testing.assert_close(one, other_one, rtol=1e-11, atol=1e-11)


# --- in one kernel --------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("dims, chain", FUSED)
def test_no_position_is_written(dims, chain, monkeypatch):
    """Matrices around a field, on the CPU: forward and backward are kernels of their own."""
    size = SIZES[dims]
    x, tensors = image((2, 2, *size)), tensors_of(chain, size, 2, torch.float32)
    settings = {"padding_mode": "border"}
    written = stn_cuda._chains.can_fuse
    monkeypatch.setattr(stn_cuda._chains, "can_fuse", lambda *_: False)
    through_positions = chain_gradients(x, chain, tensors, size, **settings)
    monkeypatch.setattr(stn_cuda._chains, "can_fuse", written)
    for module in (stn_cuda._positions, stn_cuda._chains):
        monkeypatch.setattr(module, "positions", no_positions)
    alone = chain_gradients(x, chain, tensors, size, **settings)
    for one, exact in zip(alone, through_positions, strict=True):
        scale = exact.abs().max().item()
        torch.testing.assert_close(one, exact, rtol=0, atol=1e-4 * scale)


@pytest.mark.quick
@pytest.mark.parametrize("dims, chain", FUSED)
def test_threads_change_nothing(dims, chain, threads):
    size = {2: (70, 90), 3: (20, 30, 40)}[dims]
    x, tensors = image((1, 3, *size)), tensors_of(chain, size, 1, torch.float32)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(chain_gradients(x, chain, tensors, size))
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


@pytest.mark.quick
@pytest.mark.parametrize("layout", ("channels_last", "components last", "rows in NaN"))
def test_layouts(layout, device):
    """Of the image and of the field."""
    size = SIZES[2]
    x, tensors = image((2, 3, *size), F64), tensors_of("AFP", size)
    lay = {
        **IMAGE_LAYOUTS,
        "components last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    }
    for chain, parts in (("AF", tensors[:2]), ("FP", tensors[1:]), ("AFP", tensors)):
        exact = chain_gradients(x.to(device), chain, [t.to(device) for t in parts], size)
        laid = [lay[layout](t) if t.dim() == 4 else t for t in (x, *parts)]
        laid = [t.to(device) for t in laid]
        for one, other_one in zip(
            chain_gradients(laid[0], chain, laid[1:], size), exact, strict=True
        ):
            torch.testing.assert_close(one, other_one, rtol=1e-12, atol=1e-12)


@pytest.mark.quick
def test_nan_and_infinities(device):
    """They read nothing outside, and have no gradient."""
    size = (6, 20)
    x, tensors = image((1, 2, *size), F64).to(device), tensors_of("AFP", size, 1)
    tensors[1][0, :, 2, 3], tensors[1][0, 0, 3, 4], tensors[1][0, 1, 4, 5] = NAN, torch.inf, -1e30
    tensors = [t.to(device) for t in tensors]
    for padding in PADDINGS:
        for chain, parts in (("F", tensors[1:2]), ("AF", tensors[:2]), ("FP", tensors[1:])):
            y, grad_input, *_ = chain_gradients(x, chain, parts, size, padding_mode=padding)
            assert y.isfinite().all() and grad_input.isfinite().all(), (chain, padding)


# --- what it means --------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("chain", ("AF", "FA", "AnS", "PF", "FF", "NA"))
def test_as_one_resampling_after_the_other(chain, device):
    """Of a smooth image, whose interpolation is off by its curvatures over eight each time."""
    size = (120, 160)
    y, x = (torch.arange(n, dtype=F64, device=device) for n in size)
    wave = 0.05  # per pixel
    smooth = (torch.sin(wave * y[:, None] + 1) * torch.cos(0.7 * wave * x))[None, None]
    tensors = []
    for key, letter in enumerate(chain):
        tensor = tensors_of(letter.upper(), (6, 7) if letter in "FNfn" else size, 1)[0]
        if letter in "FNfn":  # smooth, too
            shape = size if letter.isupper() else (90, 100)
            tensor = torch.nn.functional.interpolate(tensor, shape, mode="bicubic")
        elif letter != "S":
            eye = torch.eye(*tensor.shape[1:], dtype=F64)
            tensor = eye + 0.3 * (tensor - eye) * (1 + key)
        tensors.append(tensor.to(device))
    warp = compose(chain, tensors)
    settings = {"padding_mode": "border"}
    image_now, seen = smooth, torch.ones_like(smooth)
    for one in warp.warps:
        image_now = sample(image_now, Compose(one), size, **settings)
        seen = sample(seen, Compose(one), size)
    inside = (seen == 1) & (sample(torch.ones_like(smooth), warp, size) == 1)
    inside[..., :4, :] = inside[..., -4:, :] = inside[..., :4] = inside[..., -4:] = False
    assert inside.double().mean() > 0.3
    apart = (sample(smooth, warp, size, **settings) - image_now)[inside].abs().max()
    steep = 2 * wave  # what the warps make of it: they shrink no part of it to less than a half
    assert apart < (len(chain) + 1) * 2 * steep**2 / 8, apart
    assert apart > 0


@pytest.mark.quick
def test_order(device):
    """The first warp looks at the input, from where the last one looks."""
    size = (40, 40)
    x = image((1, 1, *size), F64).to(device)
    zoom = Affine.scaling(0.5, dims=2)
    zoom = Affine(zoom.theta.to(device, F64))
    shift = torch.zeros(1, 2, *size, dtype=F64, device=device)
    shift[:, 0] = 4.0
    # Half of the four pixels is left after the zoom, all four are if they come last.
    inner, outer = Compose(zoom, Flow(shift)), Compose(Flow(shift), zoom)
    for warp, pixels in ((inner, 2.0), (outer, 4.0)):
        shifted = Affine.translation(torch.tensor((pixels, 0.0), dtype=F64), size=size)
        alone = Affine(shifted.theta.to(device)) @ zoom
        torch.testing.assert_close(sample(x, warp, size), sample(x, alone, size))


@pytest.mark.quick
def test_pixels_of_a_displacement(device):
    """Those of the input first in the chain, those of an image like its field later."""
    x = torch.arange(32.0, dtype=F64, device=device).expand(1, 1, 8, 32)
    eye = Affine.identity(dtype=F64, device=device)
    one = torch.ones(1, 2, 8, 16, dtype=F64, device=device)
    one[:, 1] = 0
    plain = sample(x, eye, (8, 16), padding_mode="border")
    for warp, moved in (
        (Compose(Flow(one)), 1),
        (Compose(Flow(one), eye), 1),
        (Compose(eye, Flow(one)), 2),
    ):
        y = sample(x, warp, (8, 16), padding_mode="border")
        torch.testing.assert_close(y[..., :-2], plain[..., :-2] + moved)


@pytest.mark.quick
def test_the_field_goes_on_at_its_border(device):
    x = torch.arange(24.0, dtype=F64, device=device).expand(1, 1, 6, 24)
    field = torch.zeros(1, 2, 6, 24, dtype=F64, device=device)
    field[:, 0] = 3.0
    out = Affine.translation((0.9, 0.0)).theta.to(device, F64)
    back = Affine.translation((-0.9, 0.0)).theta.to(device, F64)
    y = sample(x, Compose(Affine(back), Flow(field), Affine(out)), (6, 24), padding_mode="border")
    torch.testing.assert_close(y, (x + 3).clamp(max=23))


@pytest.mark.quick
def test_matrices_become_one(device):
    """By @, and their kernels' values; their gradients as well."""
    x = image((2, 2, 9, 8)).to(device)
    a, b = thetas(2, 2).to(device), thetas(1, 2, key=1).to(device)
    h = homographies(2, 2).to(device)
    y = sample(x, Compose(Affine(a), Affine(b)), (5, 6))
    torch.testing.assert_close(y, sample(x, Affine(a) @ Affine(b), (5, 6)), rtol=0, atol=1e-5)
    for first, second in ((Affine(b), Projective(h)), (Projective(h), Affine(b))):
        y = sample(x, Compose(first, second), (5, 6))
        torch.testing.assert_close(y, sample(x, first @ second, (5, 6)), rtol=0, atol=1e-5)
    chain = Compose(Compose(Affine(a)), Compose(Affine(b), Projective(h)))
    assert [type(one) for one in chain.warps] == [Affine, Affine, Projective]
    alone = Compose(Affine(a))
    assert torch.equal(sample(x, alone, (5, 6)), sample(x, Affine(a), (5, 6)))


@pytest.mark.quick
def test_sizes(device):
    """The last flow's field has the output's size, where none is given; otherwise the input's."""
    x = image((1, 2, 9, 8)).to(device)
    flow, eye = Flow(torch.zeros(1, 2, 5, 6, device=device)), Affine.identity(device=device)
    assert sample(x, Compose(eye, flow)).shape[2:] == (5, 6)
    assert sample(x, Compose(flow, eye)).shape[2:] == (9, 8)
    assert torch.equal(sample(x, Compose(flow)), sample(x, flow))
    assert sample(x, Compose(eye, flow), (7, 0)).shape == (1, 2, 7, 0)
    assert torch.equal(sample(x, Compose(eye, flow), (9, 8)), x)


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
@pytest.mark.parametrize("dims, chain", EVERY)
def test_grid(dims, chain, align, device):
    size, in_size = SIZES[dims], (11, 30, 8)[:dims]
    x = image((2, 1, *in_size), F64).to(device)
    warp = compose(chain, [t.to(device) for t in tensors_of(chain, size)])
    grid = warp.grid(size, align, in_size=in_size)
    assert grid.shape == (2, *size, dims) and grid.dtype == F64
    y = sample(x, grid, align_corners=align)
    exact = sample(x, warp, size, align_corners=align)
    torch.testing.assert_close(y, exact, rtol=0, atol=1e-11)
