"""nn.SpatialTransformer and the tutorial's network."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import stn_cuda
from stn_cuda.nn import ParallelTransformers, SpatialTransformer
from stn_cuda.tutorial import TutorialLocalization, TutorialNet

pytestmark = pytest.mark.quick


class Constant(torch.nn.Module):
    """A localisation net that says the same for every image."""

    def __init__(self, theta):
        super().__init__()
        self.theta = torch.nn.Parameter(theta)

    def forward(self, input):
        return self.theta.expand(input.shape[0], *self.theta.shape)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_is_affine_grid_and_grid_sample(dims, flat, mode):
    torch.manual_seed(0)
    theta = torch.eye(dims, dims + 1) + 0.1 * torch.randn(dims, dims + 1)
    size, images = (6, 7, 5)[:dims], torch.randn(2, 3, *(9, 8, 7)[:dims])
    options = {"mode": mode, "padding_mode": "border", "align_corners": True}
    transformer = SpatialTransformer(
        Constant(theta.flatten() if flat else theta), size=size, **options
    )
    grid = F.affine_grid(theta.expand(2, -1, -1), (2, 3, *size), align_corners=True)
    expected = F.grid_sample(images, grid, **options)
    # Coordinates up to 9 pixels, in float32, on an image whose neighbours differ by up to 8.
    torch.testing.assert_close(transformer(images), expected, rtol=0, atol=1e-4)
    assert transformer.theta(images).shape == (2, dims, dims + 1)


def test_gradients_reach_the_localisation_net():
    transformer = SpatialTransformer(Constant(torch.eye(2, 3) * 0.9))
    images = torch.randn(4, 1, 8, 8)
    transformer(images).square().sum().backward()
    assert transformer.localization.theta.grad.abs().max() > 0


def test_starts_at_the_identity():
    images = torch.randn(5, 1, 28, 28)
    assert torch.equal(SpatialTransformer(TutorialLocalization())(images), images)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("warp", ["affine", "attention", "projective"])
def test_the_last_layer_is_set_to_the_identity(warp, dims):
    """Whatever the net's earlier layers say, and from there it learns."""
    numbers = {"affine": dims * (dims + 1), "attention": dims + 1, "projective": (dims + 1) ** 2}
    size = (6, 7, 5)[:dims]
    layers = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(torch.Size(size).numel(), 4),
        torch.nn.Linear(4, numbers[warp]),
    )
    transformer = SpatialTransformer(layers, warp)
    images = torch.randn(5, 1, *size)
    assert torch.equal(transformer(images), images)
    transformer(images).square().sum().backward()
    assert layers[-1].weight.grad.abs().max() > 0
    # A last layer of another size is not ours to set.
    other = torch.nn.Linear(4, 2 + numbers[warp])
    before = other.weight.clone()
    SpatialTransformer(other, warp)
    assert torch.equal(other.weight, before)
    mine = torch.nn.Linear(4, numbers[warp])
    before = mine.weight.clone()
    SpatialTransformer(mine, warp, identity=False)
    assert torch.equal(mine.weight, before)


def test_thin_plate_splines():
    """A net says the targets; the last layer's bias becomes the control points."""
    images = torch.randn(5, 1, 6, 7)
    for count, net in ((1, SpatialTransformer), (2, ParallelTransformers)):
        layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(42, count * 18))
        transformer = net(layers, "tps", **({} if count == 1 else {"count": count}))
        assert torch.equal(transformer(images), images.repeat(1, count, 1, 1))
        transformer(images).square().sum().backward()
        assert layers[-1].weight.grad.abs().max() > 0
    targets = stn_cuda.ThinPlateSpline.control_grid((3, 3)) + 0.1 * torch.randn(9, 2)
    expected = stn_cuda.sample(images, stn_cuda.ThinPlateSpline(targets[None]), (4, 5))
    for said in (targets, targets.flatten()):
        transformer = SpatialTransformer(Constant(said), "tps", size=(4, 5))
        assert torch.equal(transformer(images), expected)
        assert transformer.theta(images).shape == (5, 9, 2)
    # Six points are no square grid: nothing to start at, and nothing to make a spline of.
    layer = torch.nn.Linear(4, 12)
    before = layer.weight.clone()
    SpatialTransformer(layer, "tps")
    assert torch.equal(layer.weight, before)
    with pytest.raises(ValueError, match="control_points must be given with 6 targets"):
        SpatialTransformer(Constant(targets[:6]), "tps")(images)
    with pytest.raises(ValueError, match=r"must return theta of shape \(5, 8, 2\) or \(5, 16\)"):
        SpatialTransformer(Constant(torch.zeros(17)), "tps")(images)
    with pytest.raises(ValueError, match=r"input must be \(N, C, H, W\), got shape"):
        SpatialTransformer(Constant(targets), "tps")(images[None])


def test_other_families_of_warps():
    images = torch.randn(2, 1, 6, 7)
    theta = torch.tensor([0.5, 0.1, -0.2])
    y = SpatialTransformer(Constant(theta), "attention")(images)
    expected = stn_cuda.sample(images, stn_cuda.Affine.attention(0.5, (0.1, -0.2)))
    assert torch.equal(y, expected)
    homography = torch.eye(3) + 0.1 * torch.randn(3, 3)
    y = SpatialTransformer(Constant(homography), "projective", size=(4, 5))(images)
    expected = stn_cuda.sample(images, stn_cuda.Projective(homography[None]), (4, 5))
    assert torch.equal(y, expected)

    def turned(angle):
        return stn_cuda.Affine.rotation(angle[:, 0])

    y = SpatialTransformer(Constant(torch.tensor([0.3])), turned, size=(4, 5))(images)
    expected = stn_cuda.sample(images, stn_cuda.Affine.rotation(torch.tensor([0.3])), (4, 5))
    assert torch.equal(y, expected)
    grids = SpatialTransformer(Constant(torch.rand(3, 4, 2)), lambda grid: grid)
    assert grids(images).shape == (2, 1, 3, 4)
    assert "warp='turned'" in repr(SpatialTransformer(Constant(torch.tensor([0.3])), turned))


def test_downsampling():
    images = torch.randn(2, 1, 60, 61)
    transformer = SpatialTransformer(Constant(torch.eye(2, 3)), downsample=3)
    assert transformer(images).shape == (2, 1, 20, 20)
    assert "size=input's / 3" in repr(transformer)
    expected = stn_cuda.sample(images, stn_cuda.Affine.identity(), (20, 20))
    assert torch.equal(transformer(images), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(copied):
    transformer = SpatialTransformer(Constant(torch.eye(2, 3) * 0.8), size=(5, 4), mode="nearest")
    images = torch.randn(2, 1, 6, 6)
    assert torch.equal(copied(transformer)(images), transformer(images))
    assert list(transformer.state_dict()) == ["localization.theta"]


def test_repr_says_what_it_does():
    text = repr(SpatialTransformer(TutorialLocalization(), size=(20, 30), mode="bicubic"))
    for part in ("warp='affine'", "size=(20, 30)", "mode='bicubic'", "Conv2d(1, 8"):
        assert part in text


# --- several side by side -----------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("warp", ["affine", "attention", "projective"])
def test_parallel_transformers_are_their_parts(warp, dims):
    """With a net for each, and with one net that says the same for all."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, *(9, 8, 7)[:dims])
    options = {"size": (6, 5, 4)[:dims], "mode": "nearest", "padding_mode": "border"}
    shape = {"affine": (dims, dims + 1), "attention": (dims + 1,), "projective": (dims + 1,) * 2}
    thetas = torch.eye(dims + 1)[:dims].flatten()[: torch.Size(shape[warp]).numel()]
    thetas = torch.nn.functional.pad(
        thetas, (0, torch.Size(shape[warp]).numel() - len(thetas)), value=1.0
    )
    thetas = thetas.reshape(shape[warp]) + 0.1 * torch.randn(3, *shape[warp])
    nets = [Constant(theta) for theta in thetas]
    expected = torch.cat([SpatialTransformer(net, warp, **options)(images) for net in nets], 1)
    for parallel in (
        ParallelTransformers(nets, warp, **options),
        ParallelTransformers(torch.nn.ModuleList(nets), warp, **options, count=3),
        ParallelTransformers(Constant(thetas), warp, **options, count=3),
        ParallelTransformers(Constant(thetas.flatten()), warp, **options, count=3),
    ):
        assert torch.equal(parallel(images), expected)
        assert "count=3, " in repr(parallel) and f"warp={warp!r}" in repr(parallel)


def test_parallel_transformers_start_at_the_identity_and_learn():
    images = torch.randn(4, 2, 6, 7)
    shared = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(84, 3 * 6))
    own = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(84, 6)) for _ in range(3)]
    for parallel in (ParallelTransformers(shared, count=3), ParallelTransformers(own)):
        y = parallel(images)
        assert torch.equal(y, images.repeat(1, 3, 1, 1))
        y.square().sum().backward()
        assert all(p.grad.abs().max() > 0 for p in parallel.parameters())
        again = copy.deepcopy(parallel)
        again.load_state_dict(parallel.state_dict())
        assert torch.equal(again(images), y)
    one = ParallelTransformers(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(84, 6)), count=1
    )
    assert torch.equal(one(images), images)


def test_parallel_transformers_of_a_callable():
    def turned(angle):
        return stn_cuda.Affine.rotation(angle[:, 0])

    images, angles = torch.randn(2, 1, 6, 7), torch.tensor([0.3, -0.2])
    y = ParallelTransformers(Constant(angles), turned, count=2)(images)
    expected = [stn_cuda.sample(images, stn_cuda.Affine.rotation(a)) for a in angles]
    assert torch.equal(y, torch.cat(expected, 1))


IMAGES = torch.zeros(2, 1, 6, 6)
WRONG = {
    "localization": (lambda: SpatialTransformer(lambda x: x), TypeError, "localization must be"),
    "warp": (lambda: SpatialTransformer(Constant(IMAGES), "bent"), ValueError, "'affine'.*'bent'"),
    "size": (lambda: SpatialTransformer(Constant(IMAGES), size=28), ValueError, "size must be"),
    "downsample": (
        lambda: SpatialTransformer(Constant(IMAGES), downsample=0),
        ValueError,
        "downsample must be a positive number, without a size, got 0 and size None",
    ),
    "no count": (
        lambda: ParallelTransformers(Constant(IMAGES)),
        ValueError,
        "count must be a positive integer with one localisation net, got None",
    ),
    "another count": (
        lambda: ParallelTransformers([Constant(IMAGES)], count=2),
        ValueError,
        "count must be None or 1 with as many localisation nets, got 2",
    ),
    "no nets": (
        lambda: ParallelTransformers([]),
        TypeError,
        "localization must be a module or a sequence of modules",
    ),
    "nets that are none": (
        lambda: ParallelTransformers([lambda x: x]),
        TypeError,
        "localization must be a module or a sequence of modules",
    ),
    "too few numbers for all": (
        lambda: ParallelTransformers(Constant(torch.zeros(6)), count=2)(IMAGES),
        ValueError,
        r"Transformers: localization must return theta of shape \(2, 2, 2, 3\) or \(2, 12\)",
    ),
    "size and downsample": (
        lambda: SpatialTransformer(Constant(IMAGES), size=(2, 3), downsample=2),
        ValueError,
        "downsample must be a positive number, without a size",
    ),
    "input": (
        lambda: SpatialTransformer(Constant(torch.eye(2, 3)))(IMAGES[0]),
        ValueError,
        r"input must be .* got shape \(1, 6, 6\)",
    ),
    "theta's shape": (
        lambda: SpatialTransformer(Constant(torch.zeros(4)))(IMAGES),
        ValueError,
        r"\(2, 2, 3\) or \(2, 6\).* got \(2, 4\)",
    ),
    "theta's type": (
        lambda: SpatialTransformer(type("Net", (torch.nn.Module,), {"forward": lambda s, x: 1})())(
            IMAGES
        ),
        TypeError,
        "must return a tensor, got int",
    ),
    "mode": (
        lambda: SpatialTransformer(Constant(torch.eye(2, 3)), mode="cubic")(IMAGES),
        ValueError,
        "'bicubic'.*'cubic'",
    ),
    "sampler": (lambda: TutorialNet("opencv"), ValueError, "'stn_cuda', 'torch'.*'opencv'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors(what):
    call, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        call()


def test_tutorial_net_is_the_same_for_both_samplers():
    nets = []
    for sampler in ("stn_cuda", "torch"):
        torch.manual_seed(1)
        nets.append(TutorialNet(sampler).eval())
    ours, theirs = nets
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    images = torch.randn(3, 1, 28, 28)
    # At the identity both look at the pixels themselves, torch up to the rounding of its grid:
    # a few ulp of 28 pixels times neighbours' differences of up to 8.
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    assert ours(images).shape == (3, 10)
    assert stn_cuda.nn.SpatialTransformer is SpatialTransformer
