"""stn_cuda.viz: what is drawn where, and files that are there whole or not at all."""

import pytest
import torch
from cases import image

import stn_cuda
from stn_cuda import Affine, Flow, Projective, viz

Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.quick


def photographs(count=3, channels=3, size=(20, 30)):
    return image((count, channels, *size)).sigmoid()


def test_tiled():
    images = photographs(5, 1, (4, 6))
    sheet = viz.tiled(images, columns=3, gap=1, background=0.5)
    assert sheet.shape == (1, 2 * 5 + 1, 3 * 7 + 1)
    assert torch.equal(sheet[:, 1:5, 8:14], images[1]) and torch.equal(
        sheet[:, 6:10, 8:14], images[4]
    )
    assert (sheet[:, 0] == 0.5).all() and (sheet[:, 6:, 15:] == 0.5).all()
    assert viz.tiled(images[:2]).shape == (1, 8, 2 * 8 + 2)  # as wide as there are images


@pytest.mark.parametrize("channels", (1, 3))
def test_before_after(channels, tmp_path):
    images = photographs(3, channels)
    warped = stn_cuda.sample(images, Affine.rotation(0.3), (10, 12))
    figure = viz.before_after(images, warped, columns=2, titles=("here", "there"))
    left, right = figure.axes
    assert [left.get_title(), right.get_title()] == ["here", "there"]
    for axes, batch in ((left, images), (right, warped)):
        (shown,) = axes.get_images()
        expected = viz.tiled(batch, 2).numpy()
        expected = expected[0] if channels == 1 else expected.transpose(1, 2, 0)
        assert (shown.get_array() == expected).all()
    figure.savefig(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width == 1000


@pytest.mark.parametrize("align_corners", (False, True))
def test_lattice(align_corners):
    """The lines pass where the points of the output look, in the image's pixels."""
    picture = photographs(1)[0]
    shift = Affine.translation((3.0, -2.0), size=(20, 30), align_corners=align_corners)
    axes = viz.lattice(picture, shift, lines=10, align_corners=align_corners).axes[0]
    rows = [line for line in axes.get_lines() if len(set(line.get_ydata().round(3))) == 1]
    across = sorted({float(round(line.get_ydata()[0], 3)) for line in rows})
    assert across == [y - 2.0 for y in (0, 3, 6, 10, 13, 16, 19)]
    for line in rows:
        assert torch.allclose(
            torch.as_tensor(line.get_xdata()), torch.arange(30.0).double() + 3, atol=1e-5
        )
    grid = shift.grid((5, 6), align_corners)
    assert len(viz.lattice(picture, grid, align_corners=align_corners).axes[0].get_lines()) == 11


def test_lattice_ends_at_the_horizon():
    theta = torch.eye(3)[None]
    theta[:, 2, 0] = -2.0
    lines = viz.lattice(photographs(1)[0], Projective(theta)).axes[0].get_lines()
    assert any(torch.as_tensor(line.get_xdata()).isnan().any() for line in lines)


def test_lattice_of_a_flow_of_another_size():
    lines = viz.lattice(photographs(1)[0], Flow(torch.zeros(1, 2, 7, 9))).axes[0].get_lines()
    same = Affine.identity().grid((7, 9))
    for line, expected in zip(
        lines, viz.lattice(photographs(1)[0], same).axes[0].get_lines(), strict=True
    ):
        assert torch.allclose(*(torch.as_tensor(one.get_xydata()) for one in (line, expected)))


def test_animation(tmp_path):
    frames = [photographs(4, 1, (6, 6)) * k / 4 for k in range(1, 4)]
    path = tmp_path / "moving.gif"
    viz.animation(path, iter(frames), fps=4, columns=2, scale=3)
    with Image.open(path) as gif:
        assert gif.n_frames == 3 and gif.size == (54, 54) and gif.info["duration"] == 250
    assert [p.name for p in tmp_path.iterdir()] == ["moving.gif"]
    with pytest.raises(ValueError, match="got none"):
        viz.animation(tmp_path / "nothing.gif", [])
    with pytest.raises(ValueError, match="got 2 channels"):
        viz.animation(path, [photographs(1, 2)])
    with Image.open(path) as gif:
        assert gif.n_frames == 3  # the file that was there


def test_errors():
    for call, text in (
        (lambda: viz.tiled(torch.zeros(3, 4, 5)), r"images must be \(N, C, H, W\)"),
        (lambda: viz.lattice(torch.zeros(1, 1, 4, 5), Affine.identity()), r"must be \(C, H, W\)"),
        (lambda: viz.lattice(torch.zeros(1, 4, 5), Affine.identity(2)), "must be one of images"),
        (lambda: viz.lattice(torch.zeros(1, 4, 5), torch.zeros(1, 2, 2, 2), (2, 2)), "None with a"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
