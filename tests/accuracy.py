"""How far a result may be from the exact one: bounds derived from the arithmetic, and the checks.

The expected value is always the float64 evaluation of the *same quantised* operands, so that only
the product's own roundings count. With

    u_c  unit roundoff of the coordinates and weights (float32; float64 if the warp is float64)
    u_a  unit roundoff of the sums (float32; float64 for a float64 input),  u = max(u_c, u_a)
    u_o  unit roundoff of the dtype that the result is stored in
    delta  the error of a pixel coordinate along one axis
    M    the largest |pixel|; D the number of axes
    S0, S1, S2  the largest sum over one axis' taps of |weight|, |weight'|, |weight''|

one output, a sum of S0^D |weights| times pixels, is off by at most

    M (sum over axes of delta S1 S0^(D-1)  +  K u S0^D)  +  u_o |result|

where K counts the roundings that one term meets. The gradients follow the same way; see below.
Points closer to a kink (a whole pixel; for nearest a half) than delta may see other pixels, so
their gradients (for nearest, their values) say nothing: `smooth_points` leaves them out.
"""

import functools
import math

import torch
from cases import FREE, WARPS

from stn_cuda import reference

UNIT_ROUNDOFF = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
}

# S0, S1, S2 (cubic: the maxima over the fraction, at 1/2, 1/2 and 0) and K: a nearest output is a
# copy. Linear: per axis a difference and a product, then a product and the sum over the taps.
# Cubic: the weights' polynomials pass through values of up to 6, which doubles or trebles u.
S0 = {"nearest": 1.0, "bilinear": 1.0, "bicubic": 1.375}
S1 = {"nearest": 0.0, "bilinear": 2.0, "bicubic": 3.0}
S2 = {"nearest": 0.0, "bilinear": 0.0, "bicubic": 12.0}
ROUNDINGS = {"nearest": 0, "bilinear": 16, "bicubic": 96}


def once(of_call):
    """What follows from a call, computed once for all that ask for it."""

    @functools.wraps(of_call)
    def kept(call):
        known = vars(call)
        if of_call not in known:
            known[of_call] = of_call(call)
        return known[of_call]

    return kept


def weight_roundoff(call):
    """u: of the weights and of the sums, whichever is coarser."""
    return max(coordinate_roundoff(call), UNIT_ROUNDOFF[accumulation_dtype(call)])


def coordinate_roundoff(call):
    return UNIT_ROUNDOFF[torch.float64 if call.warp.dtype == torch.float64 else torch.float32]


def accumulation_dtype(call):
    return torch.float64 if call.input.dtype == torch.float64 else torch.float32


@once
def coordinate_error(call):
    """delta (N, *out, dims) in pixels.

    A free map's g, whichever way its values tell it, meets 3 roundings of magnitudes up to |pixel|
    on its way to a pixel coordinate, and 5 more when it is reflected; |pixel| <= (|g| + 1) size /
    2. theta's row meets 3 roundings per term and the sum, with sum(|theta|) in the place of |g|.
    Twice that is allowed: 8 u (|g| + 1) size.
    """
    sizes = reference.sizes_of(call.input)
    size = torch.tensor(sizes, dtype=torch.float64)
    warp = call.warp.detach().cpu().double().nan_to_num(nan=1.0, posinf=1e30, neginf=-1e30)
    if call.map in FREE:
        reach = call.grid64(warp).abs() + 1
    elif call.map == "projective":
        reach = _projective_reach(call, warp)
    elif call.map == "thin_plate_spline":
        reach = _spline_reach(call, warp)
    else:
        reach = warp.abs().sum(-1) + 1
        reach = reach.reshape(-1, *[1] * call.dims, call.dims)
        reach = reach.expand(-1, *call.output_size, call.dims)
    delta = 8 * coordinate_roundoff(call) * reach * size
    return torch.where(_out_of_reach(call, delta), 0.0, delta)


def _projective_reach(call, theta):
    """Of a quotient g = a / b, |g| < |a + da| / |b + db| with the products' errors da and db.

    |dg| <= (|da| + |g| |db|) / b, each with its row's sum of |theta|; and two roundings of g.
    """
    base = reference.base_coordinates(call.output_size, call.align_corners)
    last = torch.einsum("nc,...c->n...", theta[:, -1], base)
    rows = theta.abs().sum(-1).reshape(-1, *[1] * call.dims, call.dims + 1)
    g = reference.projective_grid(theta, call.output_size, call.align_corners).abs()
    reach = (rows[..., :-1] + g * rows[..., -1:]) / last.clamp_min(1e-300)[..., None]
    return torch.where(last[..., None] > 0, reach, 0.0) + g + 1


def _spline_reach(call, parameters):
    """Beside theta's row, of control points in [-1, 1]: |p - c|^2 is at most 8.

    U is then at most 8 log 8 < 17 in size, with 3 roundings, and its slope 1 + log 8 < 4 by a
    square that is off by 4 roundings of 8; and the sum of K terms rounds K times: for a weight of
    1 it is (3 * 17 + 4 * 32 + 17 K) / 8.
    """
    count = (parameters.shape[1] - 3) // 2
    weights, theta, _ = parameters[:, : 2 * count + 3].abs().split((count, 3, count), 1)
    rows = theta.reshape(-1, 2, 3).sum(-1) + weights.sum(1) * (180 + 17 * count) / 8
    return (rows + 1).reshape(-1, 1, 1, 2).expand(-1, *call.output_size, 2)


@once
def pixels_of(call):
    """(N, *out, dims), float64: where the points look."""
    sizes = reference.sizes_of(call.input)
    return reference.pixel_coordinates(call.grid64().detach(), sizes, call.align_corners)


def _out_of_reach(call, delta):
    """(N, *out, dims) bool: so far outside that the coordinate's exact value does not matter."""
    pixel = pixels_of(call)
    last = torch.tensor(reference.sizes_of(call.input)) - 1
    paddings = reference.paddings_of(call.padding_mode, call.dims)
    fixed = torch.tensor([padding in ("zeros", "border") for padding in paddings])
    return (torch.maximum(-pixel, pixel - last) > 3 + delta) & fixed


def smooth_points(call, margin=2.0):
    """(N, *out) bool: the points farther from every kink than `margin` coordinate errors."""
    kinks = 0.5 if call.mode == "nearest" else 0.0
    x = pixels_of(call) - kinks
    distance = (x - x.round()).abs()
    delta = coordinate_error(call)
    fixed = [size == 1 and call.align_corners for size in reference.sizes_of(call.input)]
    smooth = (distance > margin * delta) | _out_of_reach(call, delta) | torch.tensor(fixed)
    return smooth.all(-1)


def _magnitude(call):
    finite = call.input.detach().cpu().double()
    finite = torch.where(finite.isfinite(), finite, 0.0)
    return finite.abs().max().item() if finite.numel() else 0.0


def _stored(dtype, expected):
    """The rounding of a result to the dtype it is stored in (half a spacing when subnormal).

    A result near or beyond the dtype's largest number may be stored as infinity.
    """
    info = torch.finfo(dtype)
    rounding = UNIT_ROUNDOFF[dtype] * expected.abs().clamp(min=info.tiny)
    return torch.where(expected.abs() > info.max * (1 - info.eps), torch.inf, rounding)


def _relative_error(call):
    """(N, 1, *out): an output's error in units of M."""
    s0, s1, dims = S0[call.mode], S1[call.mode], call.dims
    shift = coordinate_error(call).sum(-1) * s1 * s0 ** (dims - 1)
    return (shift + ROUNDINGS[call.mode] * weight_roundoff(call) * s0**dims).unsqueeze(1)


def forward_bound(call, expected):
    """How far each output may be from the expected one."""
    error = _magnitude(call) * _relative_error(call)
    if call.mode == "nearest":
        return error.expand_as(expected)  # a copy of a pixel: nothing is rounded
    return error + 2 * _stored(call.input.dtype, expected)


def _spread(call, values):
    """The largest sum over the points that read one pixel, of values (N, K, *out): (K,)."""
    batch, kinds = values.shape[:2]
    sizes = reference.sizes_of(call.input)
    total = torch.zeros(batch, kinds, math.prod(sizes), dtype=torch.float64)
    flat_values = values.reshape(batch, kinds, -1)
    taps = reference.all_taps(
        pixels_of(call), sizes, call.mode, call.padding_mode, call.align_corners
    )
    for flat, inside, _ in taps:
        index = flat.reshape(flat.shape[0], 1, -1).expand(batch, kinds, -1)
        here = inside.reshape(inside.shape[0], 1, -1)
        total.scatter_add_(2, index, torch.where(here, flat_values, 0.0))
    return total.amax(dim=(0, 2))


def grad_input_bound(call, cotangent, expected):
    """How far each element of the input's gradient may be off.

    A pixel's gradient is a sum of n terms |weight g|, each with an output's relative error, and
    the sum's own n roundings. The largest over pixels and channels is allowed everywhere, since a
    point within delta of a whole pixel may be added to the next one.
    """
    if cotangent.numel() == 0:
        return torch.zeros_like(expected)
    g = cotangent.detach().cpu().double().abs().amax(1, keepdim=True)
    relative = _relative_error(call).expand_as(g)
    spread = _spread(call, torch.cat([g * relative, g, torch.ones_like(g)], 1))
    terms, total, count = spread.tolist()
    if call.input.shape[0] == 1:  # a broadcast input sums over the batch
        terms, total, count = (x * g.shape[0] for x in (terms, total, count))
    summing = count * UNIT_ROUNDOFF[accumulation_dtype(call)] * total * S0[call.mode] ** call.dims
    return terms + summing + 2 * _stored(call.input.dtype, expected)


def _grad_grid_parts(call, cotangent):
    """(error, largest magnitude) of the gradient of each normalised coordinate, (N, *out, dims).

    d out / d x_a = half_a * sum of weight'_a * the other axes' weights * pixels, summed over the
    channels; half_a, the pixels per normalised unit, is size / 2 at most. A shift of x_a changes
    weight'_a by S2 delta, a shift of another axis changes that axis' weight by S1 delta.
    """
    s0, s1, s2, dims = S0[call.mode], S1[call.mode], S2[call.mode], call.dims
    g = cotangent.detach().cpu().double().abs().sum(1).unsqueeze(-1)  # (N, *out, 1)
    delta = coordinate_error(call)
    half = torch.tensor(reference.sizes_of(call.input), dtype=torch.float64) / 2
    if call.map in ("pixel_grid", "flow"):
        half = torch.ones_like(half)
    own = delta * s2 * s0 ** (dims - 1)
    others = (delta.sum(-1, keepdim=True) - delta) * s1**2 * s0 ** (dims - 2)
    roundings = 2 * ROUNDINGS[call.mode] + call.input.shape[1]
    largest = s1 * s0 ** (dims - 1)
    arithmetic = roundings * weight_roundoff(call) * largest
    scale = half * g * _magnitude(call)
    return scale * (own + others + arithmetic), scale * largest


def grad_warp_bound(call, cotangent, expected):
    """How far each element of the grid's or theta's gradient may be off.

    theta's gradient sums the grid's over P points times the base coordinates. The roundings of a
    sum of P terms amount to P u in the worst case and to sqrt(P) u in practice; 16 + 4 sqrt(P) is
    allowed, which a sum that loses its small terms does not keep.
    """
    error, largest = _grad_grid_parts(call, cotangent)
    if call.map in ("affine", "thin_plate_spline"):
        points = math.prod(call.output_size)
        summing = (16 + 4 * math.sqrt(points)) * weight_roundoff(call)
        per_point = error + summing * largest
    if call.map == "affine":
        base = reference.base_coordinates(call.output_size, call.align_corners).abs()
        error = torch.einsum("n...a,...k->nak", per_point, base)
    elif call.map == "thin_plate_spline":
        error = _spline_gradient_bound(call.warp, per_point.flatten(1, -2).sum(1))
    if call.warp.shape[0] == 1:
        error = error.sum(0, keepdim=True)
    return error + 2 * _stored(call.warp.dtype, expected)


def _spline_gradient_bound(parameters, total):
    """Of the parameters' gradients, from that of the grid's (N, 2), summed over the points.

    Control points in [-1, 1] are at most sqrt(8) away: U, by which a weight moves the grid, is less
    than 17, and its gradient 2 r (1 + log r^2), which counts times the weight, less than 18.
    """
    count = (parameters.shape[1] - 3) // 2
    weights = parameters.detach().cpu().double()[:, :count].abs()
    theta = total.repeat_interleave(3, 1).reshape(-1, 3, 2)
    moved = torch.einsum("nkd,nd->nk", weights, total).unsqueeze(2)
    rows = (17 * total.unsqueeze(1).expand(-1, count, 2), theta, 18 * moved.expand(-1, -1, 2))
    return torch.cat([row.expand(len(total), -1, -1) for row in rows], 1)


# ---------------------------------------------------------------------------- checks


class Checks:
    """Collects what fails over a loop of cases, so that one test names every failing case."""

    def __init__(self):
        self.failures = []
        self.count = 0

    def close(self, actual, expected, bound, what):
        """|actual - expected| <= bound elementwise; NaN only where expected."""
        self.count += 1
        actual = actual.detach().cpu().double()
        if actual.shape != expected.shape:
            self.fail(f"shape {tuple(actual.shape)} instead of {tuple(expected.shape)}", what)
            return
        exact = (actual == expected) | (actual.isnan() & expected.isnan())
        off = ~(((actual - expected).abs() <= bound) | exact)
        if off.any():
            where = tuple(off.nonzero()[0].tolist())
            bound = torch.as_tensor(bound, dtype=torch.float64).expand_as(expected)
            self.fail(
                f"{int(off.sum())} of {off.numel()} off; at {where}: {actual[where].item()!r}, "
                f"expected {expected[where].item()!r} +- {bound[where].item():.3g}",
                what,
            )

    def same(self, actual, expected, what):
        """Equal bit for bit (NaN equals NaN), in shape and dtype."""
        self.count += 1
        if actual.dtype != expected.dtype or actual.shape != expected.shape:
            self.fail(
                f"{actual.dtype} {tuple(actual.shape)} instead of "
                f"{expected.dtype} {tuple(expected.shape)}",
                what,
            )
        elif not torch.equal(actual.nan_to_num(nan=12345.0), expected.nan_to_num(nan=12345.0)):
            differ = int((actual != expected).sum())
            self.fail(f"{differ} of {actual.numel()} elements differ", what)

    def true(self, condition, what):
        self.count += 1
        if not condition:
            self.fail("does not hold", what)

    def fail(self, problem, what):
        self.failures.append(f"{what}: {problem}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            assert self.count, "no case was checked"
            shown = "\n".join(self.failures[:20])
            more = f"\n... and {len(self.failures) - 20} more" if len(self.failures) > 20 else ""
            assert not self.failures, (
                f"{len(self.failures)} of {self.count} checks failed:\n{shown}{more}"
            )


def check_call(checks, call, oracle=reference.sample, gradients=True):
    """Forward, gradients and dtypes of one call against the oracle; kinks left out."""
    smooth = smooth_points(call).unsqueeze(1)
    if not gradients:
        output, expected = call.run(), call.expect(oracle)
    else:
        cotangent = call.cotangent() * smooth.to(call.input.dtype)
        output, *grads = call.gradients(cotangent.to(call.input.device))
        expected, *expected_grads = call.expect_gradients(cotangent, oracle)
        bounds = (
            grad_input_bound(call, cotangent, expected_grads[0]),
            grad_warp_bound(call, cotangent, expected_grads[1]),
        )
        names = ("grad_input", f"grad_{'theta' if call.map in WARPS else call.map}")
        tensors = (call.input, call.warp)
        for name, of, grad, wanted, bound in zip(
            names, tensors, grads, expected_grads, bounds, strict=True
        ):
            checks.close(grad, wanted, bound, f"{name} of {call}")
            checks.true(grad.dtype == of.dtype, f"{name}'s dtype {grad.dtype} of {call}")
    bound = forward_bound(call, expected)
    if call.mode == "nearest":
        bound = torch.where(smooth, bound, torch.inf)
    checks.close(output, expected, bound, f"output of {call}")
    checks.true(output.dtype == call.input.dtype, f"output's dtype {output.dtype} of {call}")
