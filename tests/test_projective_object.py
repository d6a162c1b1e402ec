"""Projective as an object: homographies as people make them, what it refuses."""

import pytest
import torch
from cases import generator, homographies, thetas
from refusals import check_refused
from test_projective import F64, randn

import stn_cuda
from stn_cuda import Affine, Projective, reference, sample


@pytest.mark.quick
def test_pickled_and_printed(tmp_path):
    warp = Projective(homographies(2, 2))
    torch.save(warp, tmp_path / "warp.pt")
    assert torch.equal(torch.load(tmp_path / "warp.pt").theta, warp.theta)
    assert repr(warp) == "Projective(theta=(2, 3, 3), dtype=torch.float32, device=cpu)"


def through(matrix, points):
    """Points (N, K, dims) through matrices (N, dims + 1, dims + 1)."""
    whole = torch.nn.functional.pad(points, (0, 1), value=1.0)
    moved = whole @ matrix.mT
    return moved[..., :-1] / moved[..., -1:]


@pytest.mark.quick
@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("sign", (1, -1))
def test_from_pixels(sign, align_corners):
    in_size, out_size = (30, 40), (25, 50)
    matrix = torch.eye(3, dtype=F64) + randn(2, 3, 3) * torch.tensor([[0.1], [0.1], [0.003]])
    warp = Projective.from_pixels(sign * matrix, in_size, out_size, align_corners)
    grid = warp.grid(out_size, align_corners)
    looks = torch.stack(
        [reference.to_pixel(grid[..., k], in_size[1 - k], align_corners) for k in range(2)], -1
    )
    y, x = torch.meshgrid(torch.arange(25.0), torch.arange(50.0), indexing="ij")
    points = torch.stack((x, y), -1).double().flatten(0, 1).expand(2, -1, -1)
    expected = through(matrix, points)
    torch.testing.assert_close(looks.flatten(1, 2), expected, rtol=1e-11, atol=1e-10)


@pytest.mark.quick
@pytest.mark.parametrize("count", (4, 9))
def test_from_points(count):
    matrix = homographies(3, 2, F64)
    src = torch.rand(3, count, 2, generator=generator("points"), dtype=F64) * 2 - 1
    src[:, :4] = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    warp = Projective.from_points(src, through(matrix, src))
    expected = matrix / matrix[:, -1:, -1:]
    torch.testing.assert_close(warp.theta / warp.theta[:, -1:, -1:], expected, rtol=0, atol=1e-11)
    # In float32 it is made in float64 and rounded once, and in pixels it is the same map.
    low = Projective.from_points(src.float(), through(matrix, src).float())
    assert low.theta.dtype == torch.float32
    into, out_of = (stn_cuda.warps.pixels.to_pixels(s, False, src) for s in ((20, 30), (25, 35)))
    in_pixels = Projective.from_points(
        through(out_of.expand(3, 3, 3), src),
        through(into.expand(3, 3, 3), through(matrix, src)),
        in_size=(20, 30),
        out_size=(25, 35),
    )
    theta = in_pixels.theta / in_pixels.theta[:, -1:, -1:]
    torch.testing.assert_close(theta, expected, rtol=0, atol=1e-10)


@pytest.mark.quick
@pytest.mark.parametrize("count", (4, 6))
def test_from_points_is_differentiable(count):
    src = torch.tensor([[[-1.0, -1], [1, -1], [1, 1], [-1, 1], [0, 0.5], [0.3, -0.2]]]).double()
    src = src[:, :count]
    dst = src + 0.1 * randn(1, count, 2)
    leaves = (src.requires_grad_(), dst.requires_grad_())
    torch.autograd.gradcheck(lambda s, d: Projective.from_points(s, d).theta, leaves)


@pytest.mark.quick
def test_composition_and_inverse():
    for dims in (2, 3):
        a, b = (Projective(homographies(3, dims, F64, key=key)) for key in (1, 2))
        affine = Affine(thetas(3, dims, F64))
        points = torch.rand(3, 7, dims, generator=generator("points", dims), dtype=F64) - 0.5
        for one, other in ((a, b), (a, affine), (affine, b), (Projective(a.theta[:1]), b)):
            whole = [getattr(w, "homogeneous", lambda w=w: w.theta)() for w in (one, other)]
            whole = [w.expand(3, -1, -1) for w in whole]
            expected = through(whole[0], through(whole[1], points))
            product = (one @ other).theta
            torch.testing.assert_close(through(product, points), expected, rtol=1e-11, atol=1e-11)
        back = through((a @ a.inverse()).theta, points)
        torch.testing.assert_close(back, points, rtol=1e-11, atol=1e-11)
        with pytest.raises(torch.linalg.LinAlgError):
            Projective(torch.zeros(1, dims + 1, dims + 1)).inverse()
        assert Projective.identity(2, dims).theta.shape == (2, dims + 1, dims + 1)


ERRORS = {
    "list": (lambda: Projective([[1.0]]), TypeError, "theta must be a Tensor, got list"),
    "int": (
        lambda: Projective(torch.eye(3, dtype=torch.int64)[None]),
        TypeError,
        "theta must have a floating dtype, got torch.int64",
    ),
    "shape": (
        lambda: Projective(torch.zeros(1, 2, 3)),
        ValueError,
        "theta must have shape (N, 3, 3) or (N, 4, 4), got (1, 2, 3)",
    ),
    "dims": (
        lambda: Projective.identity(dims=1),
        ValueError,
        "identity: dims must be 2 or 3, got 1",
    ),
    "points": (
        lambda: Projective.from_points(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)),
        ValueError,
        "from_points: src must have shape (N, K, 2) with K >= 4, got (1, 3, 2)",
    ),
    "points int": (
        lambda: Projective.from_points(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2).int()),
        TypeError,
        "from_points: dst must be a floating Tensor, got torch.int32",
    ),
    "other points": (
        lambda: Projective.from_points(torch.zeros(1, 4, 2), torch.zeros(1, 5, 2)),
        ValueError,
        "from_points: src and dst must have the same shape, or batch 1 on either side, got "
        "(1, 4, 2) and (1, 5, 2)",
    ),
    "in_size": (
        lambda: Projective.from_pixels(torch.eye(3)[None], (3,)),
        ValueError,
        "from_pixels: in_size must be (H, W), positive integers, got (3,)",
    ),
    "dimensions": (
        lambda: Projective.identity(dims=2) @ Affine.identity(dims=3),
        ValueError,
        "maps that are composed must have as many dimensions",
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, kind, text = ERRORS[name]
    check_refused(call, kind, f"Projective: {text}", f"Projective.{text}")


@pytest.mark.quick
def test_errors_of_sample():
    x = torch.rand(1, 1, 4, 5)
    with pytest.raises(ValueError, match=r"sample: theta must have shape \(N, 3, 3\) for 2 "):
        sample(x, Projective.identity(dims=3))
    with pytest.raises(torch.linalg.LinAlgError):
        Projective.from_points(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2))
