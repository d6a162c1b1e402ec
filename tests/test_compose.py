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
    generator,
    homographies,
    image,
    thetas,
)

import stn_cuda
from stn_cuda import Affine, Compose, Flow, Projective, ThinPlateSpline, reference, sample

F64 = torch.float64
SIZES = {2: (17, 24), 3: (7, 9, 12)}


def randn(*shape, key=0):
    return torch.randn(*shape, generator=generator("compose", *shape, key), dtype=F64)


def targets(batch, key=0):
    points = ThinPlateSpline.control_grid((3, 3), dtype=F64)
    return points + 0.15 * randn(batch, 9, 2, key=key)


# What a letter stands for: (warp of a tensor, tensor of a batch, a field's size and a key).
LETTERS = {
    "A": (Affine, lambda batch, size, key: thetas(batch, len(size), F64, key, 0.25)),
    "P": (Projective, lambda batch, size, key: homographies(batch, len(size), F64, key, 0.15)),
    "F": (Flow, lambda batch, size, key: 1.5 * randn(batch, len(size), *size, key=key)),
    "N": (
        lambda tensor: Flow(tensor, normalized=True),
        lambda batch, size, key: 0.2 * randn(batch, len(size), *size, key=key),
    ),
    "S": (ThinPlateSpline, lambda batch, size, key: targets(batch, key)),
}
# A lower-case flow has a field of another size than the output.
CHAINS = {
    2: ("AF", "FA", "PF", "FP", "AFP", "NA", "AN", "FF", "NfA", "Af", "f", "n", "SF", "FS", "ASA")
    + ("SS", "APA", "AFSfP"),
    3: ("AF", "FA", "PFA", "fN", "FPf", "AP"),
}
EVERY = [(dims, chain) for dims, chains in CHAINS.items() for chain in chains]
FEW = {2: ("AF", "FA", "PfS"), 3: ("AF", "fP")}


def other(size):
    """A field's size that is not the output's."""
    return tuple(n + (3, -1, 2)[k] for k, n in enumerate(size))


def tensors_of(chain, size, batch=2, dtype=F64):
    """What the chain's warps are made of."""
    return [
        LETTERS[letter.upper()][1](batch, other(size) if letter.islower() else size, key).to(dtype)
        for key, letter in enumerate(chain)
    ]


def compose(chain, tensors):
    warps = (LETTERS[letter.upper()][0](t) for letter, t in zip(chain, tensors, strict=True))
    return Compose(*warps)


def looks(warp, in_size, size, align):
    """Where it looks, in pixels, by the reference."""
    stages = [
        (one.map, one.displacement if isinstance(one, Flow) else one.parameters)
        for one in warp.warps
    ]
    return reference.chain_coordinates(stages, in_size, size, align)


def expected(x, warp, size, mode="bilinear", padding_mode="zeros", align_corners=False):
    pixels = looks(warp, x.shape[2:], size, align_corners)
    return reference.sample(x, pixels, mode, padding_mode, align_corners, coords="pixel")


def gradients(function, leaves, cotangent):
    leaves = [t.detach().requires_grad_() for t in leaves]
    y = function(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, cotangent.to(y))


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

FUSED = [(dims, chain) for dims in (2, 3) for chain in ("AF", "FA", "PF", "fP", "AfP", "AN", "n")]


def no_positions(*arguments):
    raise AssertionError("positions were written")


def chain_gradients(x, chain, tensors, size, **settings):
    """What flows back into the image and all warps from a fixed gradient of the values."""

    def run(x, *tensors):
        return sample(x, compose(chain, tensors), size, **settings)

    return gradients(run, (x, *tensors), randn(*x.shape[:2], *size))


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


@pytest.mark.quick
@pytest.mark.parametrize("dims, chain", EVERY)
def test_splat_is_the_adjoint(dims, chain, device):
    size, in_size = SIZES[dims], (11, 30, 8)[:dims]
    x, y = image((2, 2, *in_size), F64).to(device), randn(2, 2, *size).to(device)
    warp = compose(chain, [t.to(device) for t in tensors_of(chain, size)])
    for padding in PADDINGS:
        seen = sample(x, warp, size, padding_mode=padding)
        pushed = stn_cuda.splat(y, warp, in_size, padding_mode=padding)
        inner, outer = (seen * y).sum(), (x * pushed).sum()
        assert (inner - outer).abs() <= 1e-13 * (seen * y).abs().sum(), padding


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_values_with_gradients(dims, device):
    """d value / d pixel of the input, at the position that the chain looks at."""
    size = SIZES[dims]
    x = image((2, 2, *size), F64).to(device)
    for chain in FEW[dims]:
        warp = compose(chain, [t.to(device) for t in tensors_of(chain, size)])
        value, slope = stn_cuda.sample_with_gradient(x, warp, size)
        torch.testing.assert_close(value, sample(x, warp, size), rtol=0, atol=1e-12)
        pixels = looks(warp, size, size, False)
        exact = stn_cuda.sample_with_gradient(x, pixels, coords="pixel")[1]
        torch.testing.assert_close(slope, exact, rtol=0, atol=1e-10)


# --- derivatives ----------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("align", (False, True))
@pytest.mark.parametrize("dims, chain", [(d, c) for d, chains in FEW.items() for c in chains])
def test_gradgradcheck(dims, chain, align):
    size = (4, 5) if dims == 2 else (3, 2, 4)
    x = image((2, 1, *size), F64)
    tensors = tensors_of(chain, size)
    leaves = [t.clone().requires_grad_() for t in (x, *tensors)]
    mode = "bicubic" if dims == 2 else "bilinear"

    def run(x, *tensors):
        warp = compose(chain, tensors)
        return sample(x, warp, size, mode=mode, padding_mode="border", align_corners=align)

    torch.autograd.gradcheck(run, leaves, check_forward_ad=True)
    torch.autograd.gradgradcheck(run, leaves, fast_mode=True, check_fwd_over_rev=True)


@pytest.mark.quick
@pytest.mark.parametrize("chain", ("AF", "FA", "AfP"))
def test_second_derivatives_against_the_reference(chain, device):
    size = SIZES[2]
    x, tensors = image((2, 2, *size), F64), tensors_of(chain, size)
    directions = [randn(*t.shape, key="direction") for t in (x, *tensors)]
    g = randn(2, 2, *size)

    def second(function, on):
        leaves = [t.to(on).requires_grad_() for t in (x, *tensors)]
        y = function(leaves[0], compose(chain, leaves[1:]), size)
        first = torch.autograd.grad(y, leaves, g.to(on), create_graph=True)
        product = sum((a * d.to(on)).sum() for a, d in zip(first, directions, strict=True))
        return [t.cpu() for t in torch.autograd.grad(product, leaves)]

    for one, exact in zip(second(sample, device), second(expected, "cpu"), strict=True):
        scale = exact.abs().max().item() + 1
        torch.testing.assert_close(one, exact, rtol=0, atol=1e-11 * scale)


@pytest.mark.quick
@pytest.mark.parametrize("chain", ("AF", "FA"))
def test_transforms(chain):
    size = (4, 5)
    x, many = image((1, 2, 6, 5), F64), tensors_of(chain, size, 3)

    def of(function):
        return lambda *ts: function(x, compose(chain, [t[None] for t in ts]), size)[0]

    ours, exact = of(sample), of(expected)
    close = {"rtol": 0, "atol": 1e-11}
    each = list(zip(*many, strict=True))
    mapped = torch.func.vmap(ours)(*many)
    torch.testing.assert_close(mapped, torch.stack([exact(*ts) for ts in each]), **close)
    primals, tangents = each[0], tuple(randn(*t.shape, key="t") for t in each[0])
    for one, other_one in zip(
        torch.func.jvp(ours, primals, tangents),
        torch.func.jvp(exact, primals, tangents),
        strict=True,
    ):
        torch.testing.assert_close(one, other_one, **close)
    for k in range(2):
        hessian = torch.func.hessian(lambda *ts: ours(*ts).square().sum(), argnums=k)(*primals)
        inner = torch.func.jacrev(lambda *ts: exact(*ts).square().sum(), argnums=k)
        oracle = torch.func.jacrev(inner, argnums=k)(*primals)
        torch.testing.assert_close(hessian, oracle, rtol=0, atol=1e-9)
    gradient = torch.func.grad(lambda *ts: ours(*ts).square().sum(), argnums=(0, 1))
    alone = torch.func.grad(lambda *ts: exact(*ts).square().sum(), argnums=(0, 1))
    for one, other_one in zip(
        torch.func.vmap(gradient)(*many),
        zip(*(alone(*ts) for ts in each), strict=True),
        strict=True,
    ):
        torch.testing.assert_close(one, torch.stack(other_one), rtol=0, atol=1e-10)


@pytest.mark.quick
@pytest.mark.parametrize("dynamic", (False, True))
@pytest.mark.parametrize("chain", ("AF", "PFA", "Af", "AP", "SF"))
def test_compiled(chain, dynamic):
    if dynamic and "S" in chain:
        pytest.skip("Dynamo has no square root of a symbol, which a spline's grid is made of")
    torch._dynamo.reset()
    size = (5, 6)
    x, tensors = image((2, 2, 9, 8)), tensors_of(chain, size, dtype=torch.float32)

    def f(x, *tensors):
        warp = compose(chain, tensors)
        pushed = stn_cuda.splat(sample(x, warp, size), warp, size, padding_mode="border")
        return pushed.square().sum() + warp.grid(size).sum()

    compiled = torch.compile(f, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    leaves = [t.requires_grad_() for t in (x, *tensors)]
    for one, eager in zip(
        torch.autograd.grad(compiled(*leaves), leaves),
        torch.autograd.grad(f(*leaves), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, eager, rtol=1e-4, atol=1e-4 * eager.abs().max().item())


@pytest.mark.quick
def test_autocast_rounds_no_position(device):
    size = (30, 40)
    x, tensors = image((1, 1, *size)).to(device), tensors_of("AFPA", size, 1, torch.float32)
    warp = compose("AFPA", [t.to(device) for t in tensors])
    y = sample(x, warp, size)
    with torch.autocast(y.device.type, dtype=torch.bfloat16):
        assert torch.equal(sample(x, warp, size), y)


# --- the object -----------------------------------------------------------------------------


@pytest.mark.quick
def test_printed():
    warp = Compose(Affine.identity(), Compose(Flow(torch.zeros(1, 2, 3, 4))))
    assert repr(warp) == (
        "Compose(Affine(theta=(1, 2, 3), dtype=torch.float32, device=cpu), "
        "Flow(displacement=(1, 2, 3, 4), normalized=False, dtype=torch.float32, device=cpu))"
    )


class Watched(torch.Tensor):
    """One that answers calls itself."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (sample, stn_cuda.splat, stn_cuda.sample_with_gradient):
            return function.__name__
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.quick
def test_subclasses_are_asked():
    watched = torch.zeros(1, 2, 5, 6).as_subclass(Watched)
    warp = Compose(Affine.identity(), Flow(watched))
    for function in (sample, stn_cuda.splat, stn_cuda.sample_with_gradient):
        assert function(X[:1], warp) == function.__name__


X, A, D = torch.rand(2, 3, 5, 6), torch.eye(2, 3)[None], torch.zeros(2, 2, 5, 6)
AF = Compose(Affine(A), Flow(D))
ERRORS = {
    "nothing": (lambda: Compose(), ValueError, "Compose: warps must be one or more, got none"),
    "a tensor": (
        lambda: Compose(Affine(A), D),
        TypeError,
        "Compose: warps must be Affine, Projective, ThinPlateSpline, Flow or Compose, "
        "got Tensor for warps[1]",
    ),
    "dimensions": (
        lambda: Compose(Affine(A), Flow(torch.zeros(1, 3, 4, 5, 6))),
        ValueError,
        "Compose: warps[1] (Flow) must have 2 dimensions, like warps[0] (Affine), got 3",
    ),
    "batches": (
        lambda: Compose(Affine(A), Flow(D), Projective(torch.eye(3).expand(3, 3, 3))),
        ValueError,
        "Compose: warps[2] (Projective) must have batch size 1 or 2, like warps[1] (Flow), got 3",
    ),
    "devices": (
        lambda: Compose(Affine(A), Flow(D.to("meta"))),
        RuntimeError,
        "Compose: warps[1] (Flow) must be on cpu, like warps[0] (Affine), got meta",
    ),
    "input": (lambda: sample(1, AF), TypeError, "sample: input must be a Tensor, got int"),
    "values": (lambda: stn_cuda.splat(1, AF), TypeError, "splat: values must be a Tensor, got int"),
    "of volumes": (
        lambda: sample(torch.rand(1, 1, 4, 5, 6), AF),
        ValueError,
        "sample: input must be 4-D for a Compose of 2 dimensions, got shape (1, 1, 4, 5, 6)",
    ),
    "batch of the input": (
        lambda: sample(torch.rand(3, 1, 5, 6), AF),
        RuntimeError,
        "sample: input and warp must have the same batch size, or 1 on either side, got 3 and 2",
    ),
    "size": (
        lambda: sample(X, AF, (4, 5, 6)),
        ValueError,
        "sample: size must have 2 entries, none negative, for a Compose of 2 dimensions, "
        "got (4, 5, 6)",
    ),
    "negative size": (
        lambda: sample(X, AF, (4, -1)),
        ValueError,
        "sample: size must have 2 entries, none negative",
    ),
    "size of splat": (
        lambda: stn_cuda.splat(X, AF, (4, 0)),
        ValueError,
        "splat: size must have 2 positive entries, the image's spatial size, got (4, 0)",
    ),
    "mode": (lambda: sample(X, AF, mode="cubic"), ValueError, "sample: "),
    "coords": (
        lambda: stn_cuda.sample_with_gradient(X, AF, coords="pixel"),
        ValueError,
        "sample_with_gradient: coords must be 'normalized' with a warp object",
    ),
    "grid without a size": (
        lambda: Compose(Flow(D), Affine(A)).grid(),
        ValueError,
        "Compose.grid: size must be given where the last warp is no Flow, got None",
    ),
    "in_size": (
        lambda: AF.grid(in_size=(4,)),
        ValueError,
        "Compose.grid: in_size must have 2 entries",
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, kind, text = ERRORS[name]
    with pytest.raises(kind) as error:
        call()
    assert str(error.value).startswith(text), error.value
