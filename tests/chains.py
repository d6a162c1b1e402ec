"""Chains of warps for the tests of Compose, and what the reference makes of them."""

import torch
from cases import (
    generator,
    homographies,
    thetas,
)

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


FUSED = [(dims, chain) for dims in (2, 3) for chain in ("AF", "FA", "PF", "fP", "AfP", "AN", "n")]


def no_positions(*arguments):
    raise AssertionError("positions were written")


def chain_gradients(x, chain, tensors, size, **settings):
    """What flows back into the image and all warps from a fixed gradient of the values."""

    def run(x, *tensors):
        return sample(x, compose(chain, tensors), size, **settings)

    return gradients(run, (x, *tensors), randn(*x.shape[:2], *size))
