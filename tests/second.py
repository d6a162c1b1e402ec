"""Second derivatives: the product's, the oracle's, and how far they may be apart.

Both differentiate f(g, x, W) = <a, grad_x> + <b, grad_W>, where grad_x and grad_W are what a
gradient g of sample(x, W) becomes, and a and b are given. f is <g, sample(a, W)> plus what
<g, sample(x, W)> does along b; so with the symbols of accuracy.py, and

    V      the farthest that a point's look moves along b, in pixels, summed over the axes
    R1     the error of a weight's first derivatives, delta (S2 S0^(D-1) + (D-1) S1^2 S0^(D-2)) and
           roundings of S1 S0^(D-1)
    R2     that of its second derivatives, likewise

the bounds are those of sample and its gradients with a in the place of x, and beside them those
with one derivative more, times V.
"""

import math

import torch
from accuracy import (
    ROUNDINGS,
    S0,
    S1,
    S2,
    UNIT_ROUNDOFF,
    _magnitude,
    _spread,
    _stored,
    accumulation_dtype,
    coordinate_error,
    forward_bound,
    grad_warp_bound,
    smooth_points,
    weight_roundoff,
)
from cases import Call, generator

from stn_cuda import reference

# The largest sum over one axis' taps of |weight'''|.
S3 = {"nearest": 0.0, "bilinear": 0.0, "bicubic": 24.0}


def like(tensor, key):
    """Random numbers in the tensor's shape and dtype."""
    values = torch.randn(tensor.shape, generator=generator(key, tuple(tensor.shape)))
    return values.to(tensor.dtype)


def directions(call):
    """g, a and b of a call; g is 0 at the kinks, where there is no derivative."""
    smooth = smooth_points(call).unsqueeze(1)
    return call.cotangent() * smooth, like(call.input, "a"), like(call.warp, "b")


def second(run, g, x, warp, a, b):
    """The gradients of f by g, x and the warp; zeros where it does not depend on one."""
    leaves = [t.detach().requires_grad_() for t in (g, x, warp)]
    g, x, warp = leaves
    grads = torch.autograd.grad(
        run(x, warp), (x, warp), g, create_graph=True, allow_unused=True, materialize_grads=True
    )
    f = sum((grad * of).sum() for grad, of in zip(grads, (a, b), strict=True))
    if not f.requires_grad:  # of `nearest`, by the warp
        return [torch.zeros_like(t) for t in leaves]
    return torch.autograd.grad(f, leaves, allow_unused=True, materialize_grads=True)


def product(call, g, a, b):
    device = call.input.device
    return second(call.run, g.to(device), call.input, call.warp, a.to(device), b.to(device))


def oracle(call, g, a, b):
    def run(x, warp):
        return reference.sample(x, call.grid64(warp), **call.settings)

    return second(run, *(t.detach().cpu().double() for t in (g, call.input, call.warp, a, b)))


def movement(call, b):
    """V."""
    half = torch.tensor(reference.sizes_of(call.input), dtype=torch.float64) / 2
    moved = b.detach().cpu().double().abs()
    if call.map == "affine":
        moved = moved.sum(-1)
    return (moved * half).sum(-1).max().item()


def _relative(call):
    """(N, 1, *out): R1 and R2."""
    s0, s1, s2, s3 = (s[call.mode] for s in (S0, S1, S2, S3))
    dims = call.dims
    delta = coordinate_error(call).sum(-1).unsqueeze(1)
    roundings = 4 * ROUNDINGS[call.mode] * weight_roundoff(call)
    across = s0 ** (dims - 1)
    first = s1 * across
    mixed = s2 * across + (dims - 1) * s1**2 * s0 ** (dims - 2)
    third = s3 * across + 3 * (dims - 1) * s2 * s1 * s0 ** (dims - 2) + (dims - 2) * s1**3
    return delta * mixed + roundings * first, delta * third + roundings * mixed


def bounds(call, g, a, b, by_a, by_b):
    """How far each number of the three results may be off, given what a and b alone make.

    Each of them is rounded to the dtype of its result, and so is their sum.
    """
    of_g, of_x, of_warp = (one + other for one, other in zip(by_a, by_b, strict=True))
    shift, bend = _relative(call)
    far, most = movement(call, b), _magnitude(call)
    through = Call(a, call.warp, call.map, call.size, **call.settings)
    g_bound = forward_bound(through, by_a[0]) + far * most * shift
    g_bound = g_bound + 2 * _stored(g.dtype, by_b[0]) + 2 * _stored(g.dtype, of_g)
    # By g there is one at the kinks, too, of the side that a coordinate error decides.
    g_bound = torch.where(smooth_points(call).unsqueeze(1), g_bound, torch.inf)

    weight = g.detach().cpu().double().abs().amax(1, keepdim=True)
    parts = [weight * shift.expand_as(weight), weight, torch.ones_like(weight)]
    terms, total, count = _spread(call, torch.cat(parts, 1)).tolist()
    images = g.shape[0] if call.input.shape[0] == 1 else 1
    steep = S1[call.mode] * S0[call.mode] ** (call.dims - 1)
    unit = UNIT_ROUNDOFF[accumulation_dtype(call)]
    summing = images * count * unit * images * total * steep
    x_bound = far * (images * terms + summing) + 2 * _stored(call.input.dtype, of_x)

    points = math.prod(call.output_size)
    half = torch.tensor(reference.sizes_of(call.input), dtype=torch.float64) / 2
    every = g.detach().cpu().double().abs().sum(1).unsqueeze(-1)
    s0, s1, s2 = (s[call.mode] for s in (S0, S1, S2))
    mixed = s2 * s0 ** (call.dims - 1) + (call.dims - 1) * s1**2 * s0 ** (call.dims - 2)
    channels = call.input.shape[1] * weight_roundoff(call)
    scale = half * every * most * far
    error = scale * (bend.squeeze(1).unsqueeze(-1) + channels * mixed)
    if call.map == "affine":
        base = reference.base_coordinates(call.output_size, call.align_corners).abs()
        summed = error + (16 + 4 * math.sqrt(points)) * weight_roundoff(call) * scale * mixed
        error = torch.einsum("n...a,...k->nak", summed, base)
    if call.warp.shape[0] == 1:
        error = error.sum(0, keepdim=True)
    warp_bound = grad_warp_bound(through, g, by_a[2]) + error
    warp_bound = warp_bound + 2 * _stored(b.dtype, by_b[2]) + 2 * _stored(b.dtype, of_warp)
    return g_bound, x_bound, warp_bound


def check_second(checks, call):
    """The product's second derivatives against the oracle's."""
    g, a, b = directions(call)
    by_a = oracle(call, g, a, torch.zeros_like(b))
    by_b = oracle(call, g, torch.zeros_like(a), b)
    actual = product(call, g, a, b)
    limits = bounds(call, g, a, b, by_a, by_b)
    for name, mine, one, other, limit in zip(
        ("g", "x", "warp"), actual, by_a, by_b, limits, strict=True
    ):
        checks.close(mine, one + other, limit, f"second derivative by {name} of {call}")
