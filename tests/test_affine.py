"""Affine's constructors, composition and inverse: against matrices between pixels, and pictures."""

import math

import pytest
import torch
from cases import generator, image, thetas
from refusals import check_refused

import stn_cuda
from stn_cuda import Affine, sample

# Of float64, after a handful of operations on numbers of about 100.
CLOSE = {"rtol": 1e-13, "atol": 1e-12}
SIZES = {2: (17, 24), 3: (9, 17, 24)}


def randn(*shape, key=0):
    return torch.randn(*shape, generator=generator("affine", *shape, key), dtype=torch.float64)


def in_pixels(warp, size, points, align_corners):
    """Where points (M, dims) of an output of `size`, in pixels, look in an input of that size."""
    extents = torch.tensor(size[::-1], dtype=torch.float64)
    half = (extents - 1) / 2 if align_corners else extents / 2
    middle = (extents - 1) / 2
    theta = warp.theta.double()
    normalised = (points - middle) / half
    looks = torch.einsum("nrc,mc->nmr", theta[..., :-1], normalised) + theta[:, None, :, -1]
    return looks * half + middle


def rotations(angle):
    """Independent of the code: of an angle, or of an axis of that length (Rodrigues)."""
    if angle.dim() == 1:
        rows = [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]
        return torch.stack([torch.stack(row, -1) for row in rows], -2)
    length = angle.norm(dim=1)[:, None, None]
    x, y, z = (angle / angle.norm(dim=1, keepdim=True)).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    return torch.eye(3) + length.sin() * cross + (1 - length.cos()) * cross @ cross


def angles(dims, batch=3):
    return randn(batch) if dims == 2 else randn(batch, 3)


def shears(dims, batch=3):
    return 0.3 * randn(batch, dims * (dims - 1), key=1)


def shear_matrix(shear, dims):
    matrix = torch.eye(dims, dtype=torch.float64).repeat(len(shear), 1, 1)
    off = [(r, c) for r in range(dims) for c in range(dims) if r != c]
    for k, (r, c) in enumerate(off):
        matrix[:, r, c] = shear[:, k]
    return matrix


def made(dims, centre, **units):
    """(warp, matrix, shift) of every constructor that has a centre or a shift."""
    angle, scale, shift = angles(dims), randn(3, key=2).exp(), 3 * randn(3, dims, key=3)
    eye = torch.eye(dims, dtype=torch.float64)
    about = {"centre": centre, **units}
    zero = torch.zeros(1, dims, dtype=torch.float64)
    each = randn(3, dims, key=4).exp()
    turn = rotations(angle)
    return {
        "rotation": (Affine.rotation(angle, **about), turn, zero),
        "scaling": (Affine.scaling(scale, dims=dims, **about), scale[:, None, None] * eye, zero),
        "each axis": (Affine.scaling(each, **about), torch.diag_embed(each), zero),
        "shear": (Affine.shear(shears(dims), **about), shear_matrix(shears(dims), dims), zero),
        "similarity": (
            Affine.similarity(angle, scale, shift, **about),
            scale[:, None, None] * turn,
            shift,
        ),
        "translation": (Affine.translation(shift, **units), eye[None], shift),
    }


@pytest.mark.quick
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("dims", (2, 3))
def test_in_pixels(dims, align_corners):
    """About a point given in pixels, or the middle: as matrix and shift say, in pixels."""
    size = SIZES[dims]
    points = 10 * randn(5, dims, key=5)
    middle = torch.tensor([(extent - 1) / 2 for extent in size[::-1]], dtype=torch.float64)
    for centre in (None, 4 * randn(dims, key=6), 4 * randn(3, dims, key=7)):
        about = middle if centre is None else centre
        about = about.expand(3, dims)[:, None]
        for name, (warp, matrix, shift) in made(
            dims, centre, size=size, align_corners=align_corners
        ).items():
            looks = in_pixels(warp, size, points, align_corners)
            turned = torch.einsum("nrc,nmc->nmr", matrix.expand(3, -1, -1), points - about)
            expected = turned + about + shift[:, None]
            torch.testing.assert_close(looks, expected, **CLOSE, msg=name)


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_normalised(dims):
    for centre in (None, randn(dims, key=6), randn(3, dims, key=7)):
        about = torch.zeros(dims).double() if centre is None else centre
        about = about.expand(3, dims)
        for name, (warp, matrix, shift) in made(dims, centre).items():
            matrix = matrix.expand(3, -1, -1)
            offset = about + shift - torch.einsum("nrc,nc->nr", matrix, about)
            expected = torch.cat((matrix, offset[..., None]), 2)
            torch.testing.assert_close(warp.theta, expected, **CLOSE, msg=name)


@pytest.mark.quick
def test_attention():
    """Equation (2) of the paper, and gradients to its numbers."""
    scale, shift = randn(3).requires_grad_(), randn(3, 2).requires_grad_()
    theta = Affine.attention(scale, shift).theta
    zero = torch.zeros(3, dtype=torch.float64)
    rows = ([scale, zero, shift[:, 0]], [zero, scale, shift[:, 1]])
    expected = torch.stack([torch.stack(row, 1) for row in rows], 1)
    assert torch.equal(theta, expected)
    theta.sum().backward()
    assert torch.equal(scale.grad, torch.full((3,), 2.0).double())
    assert torch.equal(shift.grad, torch.ones(3, 2).double())
    assert Affine.attention(0.5, (0.1, 0.2, 0.3)).theta.shape == (1, 3, 4)


@pytest.mark.quick
def test_the_picture_turns_anticlockwise():
    x = image((2, 3, 8, 8), torch.float64)
    y = sample(x, Affine.rotation(torch.tensor(math.pi / 2).to(x), size=(8, 8)))
    torch.testing.assert_close(y, torch.rot90(x, 1, (-2, -1)), rtol=0, atol=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize("align_corners", (False, True))
def test_a_shift_by_whole_pixels(align_corners):
    x = image((1, 2, 9, 16), torch.float64)
    shift = torch.tensor((3.0, -2.0), dtype=torch.float64)
    warp = Affine.translation(shift, size=(9, 16), align_corners=align_corners)
    y = sample(x, warp, align_corners=align_corners)
    expected = torch.zeros_like(x)
    expected[..., 2:, :13] = x[..., :-2, 3:]
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.quick
def test_a_square_rotates_undistorted_in_pixels_only():
    """In pixels a rotation by 90 degrees about a pixel of an oblong image moves whole pixels."""
    x = image((1, 1, 9, 15), torch.float64)
    angle = torch.tensor(math.pi / 2, dtype=torch.float64)
    y = sample(x, Affine.rotation(angle, size=(9, 15)))
    middle = x[..., 3:12]
    torch.testing.assert_close(y[..., 3:12], torch.rot90(middle, 1, (-2, -1)), rtol=0, atol=1e-12)


@pytest.mark.quick
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("dims", (2, 3))
def test_from_pixels_of_other_sizes(dims, align_corners):
    in_size, out_size = SIZES[dims], tuple(extent + 5 for extent in SIZES[dims])
    matrix = torch.eye(dims, dims + 1).double() + 0.1 * randn(2, dims, dims + 1)
    warp = Affine.from_pixels(matrix, in_size, out_size, align_corners)
    grid = warp.grid(out_size, align_corners)
    extents = torch.tensor(in_size[::-1], dtype=torch.float64)
    half = (extents - 1) / 2 if align_corners else extents / 2
    looks = (grid * half + (extents - 1) / 2).flatten(1, -2)
    axes = [torch.arange(extent).double() for extent in out_size]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1).flatten(0, -2)
    expected = torch.einsum("nrc,mc->nmr", matrix[..., :-1], points) + matrix[:, None, :, -1]
    torch.testing.assert_close(looks, expected, **CLOSE)


@pytest.mark.quick
def test_from_pixels_of_one_pixel():
    """With align_corners an axis of one pixel has no extent: finite, and at its only pixel."""
    warp = Affine.from_pixels(thetas(1, 2, torch.float64), (1, 5), align_corners=True)
    assert warp.theta.isfinite().all()
    x = image((1, 1, 1, 5), torch.float64)
    y = sample(x, Affine.rotation(0.0, size=(1, 5), align_corners=True), align_corners=True)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_composition(dims):
    """A @ B: where B looks, A looks on. The same for grids, and for one against a batch."""
    a, b = Affine(thetas(3, dims, torch.float64)), Affine(thetas(3, dims, torch.float64, key=1))
    for one, other in ((a, b), (Affine(a.theta[:1]), b), (a, Affine(b.theta[:1]))):
        grid = other.grid(SIZES[dims])
        theta = one.theta.expand(3, -1, -1)
        expected = torch.einsum("nrc,n...c->n...r", theta[..., :-1], grid)
        expected = expected + theta[..., -1].view(3, *[1] * dims, dims)
        torch.testing.assert_close((one @ other).grid(SIZES[dims]), expected, **CLOSE)


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_inverse(dims):
    warp = Affine(thetas(3, dims, torch.float64))
    identity = Affine.identity(3, dims, dtype=torch.float64).theta
    for product in (warp @ warp.inverse(), warp.inverse() @ warp):
        torch.testing.assert_close(product.theta, identity, **CLOSE)
    with pytest.raises(torch.linalg.LinAlgError):
        Affine(torch.zeros(1, dims, dims + 1)).inverse()


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_identity(dims):
    x = image((2, 1, *SIZES[dims]))
    assert torch.equal(sample(x, Affine.identity(dims=dims)), x)
    warp = Affine.identity(4, dims, dtype=torch.float64)
    assert warp.theta.shape == (4, dims, dims + 1) and warp.theta.dtype == torch.float64


@pytest.mark.quick
@pytest.mark.parametrize("dims", (2, 3))
def test_gradients_to_what_was_given(dims):
    angle, shift = angles(dims, 2), randn(2, dims, key=3)
    scale, centre, shear = randn(2, key=2).exp(), randn(2, dims, key=4), shears(dims, 2)
    given = [t.requires_grad_() for t in (angle, scale, shift, centre, shear)]

    def thetas_of(angle, scale, shift, centre, shear):
        units = {"size": SIZES[dims]}
        return (
            Affine.rotation(angle, centre, **units).theta,
            Affine.scaling(scale, centre, dims=dims, **units).theta,
            Affine.similarity(angle, scale, shift, centre).theta,
            (Affine.shear(shear, centre) @ Affine.translation(shift)).theta,
            Affine.similarity(angle, scale, shift).inverse().theta,
        )

    assert torch.autograd.gradcheck(thetas_of, given)
    # At no rotation at all, too.
    zero = torch.zeros_like(angle).requires_grad_()
    assert torch.autograd.gradcheck(lambda angle: Affine.rotation(angle).theta, (zero,))


@pytest.mark.quick
def test_numbers_become_tensors():
    half = torch.tensor(0.5, dtype=torch.float64)
    assert Affine.rotation(0.5).theta.dtype == torch.float32
    assert Affine.scaling(half).theta.dtype == torch.float64
    assert Affine.similarity(0.5, half, (1, 2)).theta.dtype == torch.float64
    assert Affine.similarity(half.float(), half, (1, 2)).theta.dtype == torch.float64
    assert Affine.scaling((0.5, 1.0, 2.0)).theta.shape == (3, 2, 3)  # three maps
    assert Affine.scaling(((0.5, 1.0, 2.0),)).theta.shape == (1, 3, 4)
    assert Affine.translation(torch.zeros(4, 3)).theta.shape == (4, 3, 4)


ERRORS = {
    "angle": (lambda: Affine.rotation(torch.zeros(2, 2)), ValueError, "rotation: angle must be"),
    "angle int": (
        lambda: Affine.rotation(torch.zeros(2, dtype=torch.int32)),
        TypeError,
        "rotation: angle must have a floating dtype, got torch.int32",
    ),
    "angle text": (
        lambda: Affine.rotation("left"),
        TypeError,
        "rotation: angle must be numbers or a Tensor, got 'left'",
    ),
    "size": (
        lambda: Affine.rotation(0.1, size=(3,)),
        ValueError,
        "rotation: size must be (H, W), positive integers, got (3,)",
    ),
    "size of a volume": (
        lambda: Affine.rotation(torch.zeros(1, 3), size=(3, 4)),
        ValueError,
        "rotation: size must be (D, H, W), positive integers, got (3, 4)",
    ),
    "centre": (
        lambda: Affine.rotation(0.1, (1.0, 2.0, 3.0)),
        ValueError,
        "rotation: centre and translation must have 2 components, got 3 and 2",
    ),
    "batches": (
        lambda: Affine.similarity(torch.zeros(2), 1.0, torch.zeros(3, 2)),
        ValueError,
        "similarity: batches must be equal or 1, got 2, 3",
    ),
    "scale": (
        lambda: Affine.scaling(torch.ones(1, 4)),
        ValueError,
        "scaling: scale must be a number, (N,), (N, 2) or (N, 3), got (1, 4)",
    ),
    "dims": (
        lambda: Affine.scaling(2.0, dims=4),
        ValueError,
        "scaling: dims must be 2 or 3, got 4",
    ),
    "identity": (
        lambda: Affine.identity(dims=1),
        ValueError,
        "identity: dims must be 2 or 3, got 1",
    ),
    "shift": (
        lambda: Affine.translation(1.0),
        ValueError,
        "translation: shift must be (N, 2), (N, 3), (2,) or (3,), got ()",
    ),
    "shear": (
        lambda: Affine.shear((1.0, 2.0, 3.0)),
        ValueError,
        "shear: shear must be (N, 2) for images, (N, 6) for volumes, or one of them without N, "
        "got (3,)",
    ),
    "attention": (
        lambda: Affine.attention(torch.ones(2, 2), (0.0, 0.0)),
        ValueError,
        "attention: scale must be a number or (N,), got (2, 2)",
    ),
    "out_size": (
        lambda: Affine.from_pixels(torch.zeros(1, 2, 3), (3, 4), (0, 4)),
        ValueError,
        "from_pixels: out_size must be (H, W), positive integers, got (0, 4)",
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, kind, text = ERRORS[name]
    check_refused(call, kind, f"Affine.{text}")


@pytest.mark.quick
def test_only_like_maps_compose():
    with pytest.raises(ValueError, match=r"got theta of shapes \(1, 2, 3\) and \(1, 3, 4\)"):
        Affine.identity(dims=2) @ Affine.identity(dims=3)
    with pytest.raises(TypeError):
        Affine.identity() @ torch.eye(3)
    assert stn_cuda.Affine is Affine
