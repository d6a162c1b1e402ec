"""The sampler written from its definitions, in float64 and in no hurry.

Every formula of the product stands here a second time, in its plainest form and without a look at
the kernels: normalised -> pixel coordinate, boundary rule, interpolation weights, weighted sum.
All of it is torch arithmetic, so that autograd supplies the gradients, of any order.

Axes are in coordinate order (x, y[, z]), which is the
reverse of the tensor's (..., H, W). `tests/test_reference.py` holds this file against torch's
float64 kernels.
"""

import functools
import itertools
import math
import operator

import torch

# Infinite and huge coordinates are brought here: beyond any image, and whole pixels still exact.
HUGE = 2.0**40
CUBIC_A = -0.75  # as torch and OpenCV


def sizes_of(image):
    """(W, H[, D]) of an (N, C, [D,] H, W) tensor."""
    return tuple(reversed(image.shape[2:]))


def to_pixel(normalised, size, align_corners):
    """[-1, 1] -> pixels: the corner pixels' centres with align_corners, else their outer edges.

    NaN is read as -1, infinities as huge numbers.
    """
    finite = torch.where(normalised.isnan(), -torch.ones_like(normalised), normalised)
    finite = finite.clamp(-HUGE, HUGE)
    if align_corners:
        return (finite + 1) / 2 * (size - 1)
    return ((finite + 1) * size - 1) / 2


def from_pixel(pixel, size, align_corners):
    """The inverse of to_pixel (an axis of one pixel with align_corners has none: 0)."""
    if align_corners:
        return 2 * pixel / (size - 1) - 1 if size > 1 else torch.zeros_like(pixel)
    return (2 * pixel + 1) / size - 1


def clip(x, size):
    """Into [0, size - 1]; on the limits themselves the slope is 0, as torch has it."""
    inside = (x > 0) & (x < size - 1)
    return torch.where(inside, x, x.detach().clamp(0, size - 1))


def reflect(x, size, align_corners):
    """Folded about 0 and size - 1 with align_corners, else about -0.5 and size - 0.5."""
    low, span = (0.0, size - 1) if align_corners else (-0.5, size)
    if span == 0:
        return torch.zeros_like(x)
    distance = (x - low).abs()
    turn = distance.detach().remainder(2 * span)
    start = distance.detach() - turn
    return low + torch.where(turn < span, distance - start, 2 * span - (distance - start))


def bound(x, size, padding_mode, align_corners):
    """The coordinate after the boundary rule."""
    if padding_mode == "zeros":
        return x
    if padding_mode == "wrap":  # of whole pixels
        return x.remainder(size)
    if padding_mode == "reflection":
        x = reflect(x, size, align_corners)
    return clip(x, size)


def cubic_weight(distance):
    """Cubic convolution (Keys 1981) of a pixel at the given distance, at most 2.

    At whole pixels the second derivative is that of what lies to their right: of the weight of 0 at
    the distance 2 it is not 0, and of a square not that of an absolute value's.
    """
    d, a = distance.abs(), CUBIC_A
    near = (a + 2) * d**3 - (a + 3) * distance**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return torch.where(d <= 1, near, far)


def axis_taps(x, size, mode, padding_mode, align_corners):
    """[(index, weight)] along one axis of the pixels that a look at pixel coordinate x reads.

    Indices are whole float64 numbers and may lie outside the image: those taps count as 0.
    """
    of_pixels = mode == "bicubic" or padding_mode == "wrap"  # the boundary rule; else of x
    if not of_pixels:
        x = bound(x, size, padding_mode, align_corners)
    below = x.detach().floor()
    if mode == "bicubic":
        pixels = [below + k for k in (-1, 0, 1, 2)]
        weights = [cubic_weight(x - pixel) for pixel in pixels]
    elif mode == "nearest":
        pixels, weights = [x.detach().round()], [torch.ones_like(x)]  # halves to even
    else:
        pixels, weights = [below, below + 1], [1 - (x - below), x - below]
    if of_pixels:
        pixels = [bound(pixel, size, padding_mode, align_corners) for pixel in pixels]
    return list(zip(pixels, weights, strict=True))


def paddings_of(padding_mode, dims):
    """A padding mode for each axis, x first, of one name or of a sequence of one for each."""
    if isinstance(padding_mode, str):
        return (padding_mode,) * dims
    return tuple(reversed(padding_mode))


def all_taps(coordinates, sizes, mode, padding_mode, align_corners):
    """[(flat index, inside, weight)] over the product of the axes, each (N, *out).

    coordinates (N, *out, dims) are in pixels; sizes is (W, H[, D]).
    """
    paddings = paddings_of(padding_mode, len(sizes))
    per_axis, stride = [], 1
    for axis, size in enumerate(sizes):
        taps = axis_taps(coordinates[..., axis], size, mode, paddings[axis], align_corners)
        per_axis.append(
            [
                (index.clamp(0, size - 1).long() * stride, (index >= 0) & (index < size), weight)
                for index, weight in taps
            ]
        )
        stride *= size
    result = []
    for combination in itertools.product(*per_axis):
        flat, inside, weight = zip(*combination, strict=True)
        result.append((sum(flat), functools.reduce(operator.and_, inside), math.prod(weight)))
    return result


def finite_pixel(pixel, size, align_corners):
    """Of a pixel coordinate what to_pixel makes of NaN and infinities."""
    first = to_pixel(torch.full_like(pixel, -1), size, align_corners)
    return torch.where(pixel.isnan(), first, pixel).clamp(-HUGE, HUGE)


def pixel_coordinates(grid, sizes, align_corners):
    """(N, *out, dims) pixel coordinates of a grid of normalised ones."""
    return torch.stack(
        [to_pixel(grid[..., a], size, align_corners) for a, size in enumerate(sizes)], dim=-1
    )


def sample(
    image, grid, mode="bilinear", padding_mode="zeros", align_corners=False, coords="normalized"
):
    """image (N, C, [D,] H, W), grid (N, *out, dims) -> (N, C, *out), all float64.

    coords="pixel": the grid holds pixel coordinates, 0 is the first pixel's centre. A batch of 1 on
    either side is broadcast. A tap outside the image is not read: a NaN or an infinity there does
    not matter.
    """
    image, grid = image.double(), grid.double()
    batch = torch.broadcast_shapes(image.shape[:1], grid.shape[:1])
    image = image.expand(*batch, *image.shape[1:])
    grid = grid.expand(*batch, *grid.shape[1:])
    sizes = sizes_of(image)
    channels, out = image.shape[1], grid.shape[1:-1]
    points = out.numel()
    planes = image.reshape(*batch, channels, math.prod(sizes))
    if coords == "pixel":
        axes = [finite_pixel(grid[..., a], n, align_corners) for a, n in enumerate(sizes)]
        coordinates = torch.stack(axes, dim=-1)
    else:
        coordinates = pixel_coordinates(grid, sizes, align_corners)
    total = torch.zeros(*batch, channels, points, dtype=torch.float64)
    for flat, inside, weight in all_taps(coordinates, sizes, mode, padding_mode, align_corners):
        index = flat.reshape(*batch, 1, points).expand(-1, channels, -1)
        here = inside.reshape(*batch, 1, points)
        value = torch.where(here, planes.gather(2, index), 0.0)
        total = total + value * torch.where(here, weight.reshape(*batch, 1, points), 0.0)
    return total.reshape(*batch, channels, *out)


def base_coordinates(size, align_corners):
    """Normalised centres of an output's points, (*out, dims + 1) with the constant 1 last.

    size is (H, W) or (D, H, W). With align_corners an axis of one point lies at 0.
    """
    axes = []
    for length in reversed(size):
        points = torch.arange(length, dtype=torch.float64)
        if not align_corners:
            axes.append((2 * points + 1) / length - 1)
        elif length > 1:
            axes.append(2 * points / (length - 1) - 1)
        else:
            axes.append(torch.zeros(length, dtype=torch.float64))
    mesh = torch.meshgrid(*reversed(axes), indexing="ij")  # (z,) y, x
    return torch.stack([*reversed(mesh), torch.ones(tuple(size), dtype=torch.float64)], dim=-1)


def affine_grid(theta, size, align_corners=False):
    """theta (N, dims, dims + 1), size the output's spatial -> grid (N, *out, dims), float64."""
    return affine(theta, base_coordinates(size, align_corners)[None])


def affine(theta, base):
    """Jaderberg et al. 2015, eq. 1: the normalised source is theta times (normalised target, 1).

    base (N or 1, *out, dims + 1) are the latter -> (N, *out, dims).
    """
    theta = theta.double()
    dims = base.dim() - 2
    rows = [theta[:, row].reshape(-1, *[1] * dims, dims + 1) for row in range(theta.shape[1])]
    return torch.stack([(base * row).sum(-1) for row in rows], dim=-1)


def projective_grid(theta, size, align_corners=False):
    """The grid (N, *size, dims) of homographies (N, dims + 1, dims + 1), in float64."""
    return projective(theta, base_coordinates(size, align_corners).to(theta.device)[None])


def projective(theta, base):
    """The same at base (N or 1, *out, dims + 1).

    Points where the last homogeneous coordinate is not positive look far outside.
    """
    homogeneous = affine(theta, base)
    last = homogeneous[..., -1:]
    front = last > 0
    far = torch.where(homogeneous[..., :-1] < 0, -HUGE, HUGE)
    return torch.where(front, homogeneous[..., :-1] / torch.where(front, last, 1), far)


def thin_plate_spline(targets, control_points, regularization=0.0):
    """The parameters (N, 2 K + 3, 2) of the splines, float64: half the weights of r^2 log r, the
    affine part's (2, 3) as three rows of two, the control points.
    """
    targets = targets.double()
    batch, count, _ = targets.shape
    points = control_points.double().expand(batch, -1, -1)
    distance = (points[:, :, None] - points[:, None]).square().sum(-1)
    apart = distance > 0
    bending = torch.where(apart, distance * torch.where(apart, distance, 1).log() / 2, 0.0)
    bending = bending + regularization * torch.eye(count, dtype=torch.float64)
    affine = torch.cat((points, torch.ones(batch, count, 1, dtype=torch.float64)), -1)
    above = torch.cat((bending, affine), -1)
    below = torch.cat((affine.mT, torch.zeros(batch, 3, 3, dtype=torch.float64)), -1)
    wanted = torch.cat((targets, torch.zeros(batch, 3, 2, dtype=torch.float64)), 1)
    solution = torch.linalg.solve(torch.cat((above, below), 1), wanted)
    theta = solution[:, count:].mT
    return torch.cat((solution[:, :count] / 2, theta.reshape(batch, 3, 2), points), 1)


def thin_plate_spline_grid(parameters, size, align_corners=False):
    """The grid (N, H, W, 2) of splines (N, 2 K + 3 or 4, 2), in float64."""
    base = base_coordinates(size, align_corners).to(parameters.device)[None]
    return thin_plate_spline_at(parameters, base)


def thin_plate_spline_at(parameters, base):
    """The same at base (N or 1, H, W, 3)."""
    parameters = parameters.double()
    count = (parameters.shape[1] - 3) // 2
    weights, theta, points = parameters[:, : 2 * count + 3].split((count, 3, count), 1)
    distance = (base[..., None, :2] - points[:, None, None]).square().sum(-1)
    apart = distance > 0
    radial = torch.where(apart, distance * torch.where(apart, distance, 1).log(), 0.0)
    return base @ theta.reshape(-1, 1, 2, 3).mT + radial @ weights[:, None]


def flow_coordinates(displacement, in_size, align_corners=False, normalized=False):
    """Where displacements (N, dims, *out) look in an input of in_size: pixels (N, *out, dims).

    A point's own position, as an affine identity has it, and the displacement from there.
    """
    sizes = tuple(reversed(in_size))
    base = base_coordinates(displacement.shape[2:], align_corners)[..., :-1]
    moved = displacement.double().movedim(1, -1)
    if normalized:
        return pixel_coordinates(base.to(moved.device) + moved, sizes, align_corners)
    return pixel_coordinates(base, sizes, align_corners).to(moved.device) + moved


def chain_coordinates(stages, in_size, size, align_corners=False):
    """Where a chain of maps looks in an input of in_size: pixels (N, *size, dims), float64.

    stages: [(map's name in the kernels, parameters; of a flow its displacement (N, dims, *field))],
    of which the first looks at the input. A field is sampled bilinearly, its border goes on; where
    it belongs to the output's own points it is read there.
    """
    functions = {
        "affine": affine,
        "projective": projective,
        "thin_plate_spline": thin_plate_spline_at,
    }
    base = base_coordinates(size, align_corners)[None]
    for k in reversed(range(len(stages))):
        map, parameters = stages[k]
        base = base.to(parameters.device)
        if map in functions:
            moved = functions[map](parameters, base)
        else:
            field, own = parameters.double(), base[..., :-1]
            if k == len(stages) - 1 and field.shape[2:] == tuple(size):
                values = field
            else:
                values = sample(field, own, "bilinear", "border", align_corners)
            values = values.movedim(1, -1)
            if k == 0 and map == "flow":
                return pixel_coordinates(own, tuple(reversed(in_size)), align_corners) + values
            if map == "flow":
                pixels = [n - 1 if align_corners else n for n in reversed(field.shape[2:])]
                values = values * values.new_tensor([2 / max(n, 1) for n in pixels])
            moved = own + values
        base = torch.cat((moved, torch.ones_like(moved[..., :1])), -1)
    return pixel_coordinates(base[..., :-1], tuple(reversed(in_size)), align_corners)
