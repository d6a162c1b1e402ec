"""What the tests are run on: calls of `sample` over modes, sizes, memory layouts and dtypes.

A `Call` is one call of the public function together with the way to evaluate it by an oracle in
float64; `sample_inputs` is the list that correctness, gradients and opcheck share.
"""

import contextlib
import itertools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

import stn_cuda
from stn_cuda import reference

PADDINGS = ("zeros", "border", "reflection")  # torch's
MIXED = {2: ("border", "wrap"), 3: ("wrap", "zeros", "reflection")}  # by the number of axes
LOW_PRECISION = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float64, *LOW_PRECISION)
NAN = float("nan")


def modes(dims):
    return ("bilinear", "nearest", "bicubic") if dims == 2 else ("bilinear", "nearest")


# (dims, mode, padding_mode, align_corners): those that torch has, and all.
CONFIGURATIONS = [
    (dims, mode, padding, align)
    for dims in (2, 3)
    for mode, padding, align in itertools.product(modes(dims), PADDINGS, (False, True))
]
ALL_CONFIGURATIONS = CONFIGURATIONS + [
    (dims, mode, padding, align)
    for dims in (2, 3)
    for mode in modes(dims)
    for padding, align in (("wrap", False), (MIXED[dims], True))
]


def configuration_id(configuration):
    dims, mode, padding, align = configuration
    padding = padding if isinstance(padding, str) else "+".join(padding)
    return f"{dims}d-{mode}-{padding}-{'corners' if align else 'edges'}"


# ((N, C, *input size), output size). Rows around the vector length 16 and tiles of 256 and 512
# output points, single pixels, odd sizes, channel counts around 4 and 16, output unlike input.
SHAPES_2D = [
    ((1, 1, 1, 1), (1, 1)),
    ((2, 3, 1, 1), (4, 5)),
    ((2, 1, 5, 1), (7, 15)),
    ((1, 2, 1, 9), (3, 16)),
    ((2, 3, 7, 11), (5, 17)),
    ((1, 5, 9, 13), (8, 33)),
    ((1, 16, 6, 5), (3, 300)),
    ((2, 17, 11, 8), (16, 16)),
    ((1, 3, 40, 37), (33, 31)),
    ((3, 1, 28, 28), (28, 28)),
    ((1, 1, 2, 2), (1, 513)),
    ((3, 4, 13, 18), (19, 1)),
]
SHAPES_3D = [
    ((1, 1, 1, 1, 1), (1, 1, 1)),
    ((2, 3, 1, 1, 1), (2, 3, 4)),
    ((2, 3, 3, 5, 4), (2, 3, 15)),
    ((1, 2, 1, 7, 5), (4, 4, 17)),
    ((1, 16, 4, 3, 9), (2, 2, 33)),
    ((1, 5, 5, 6, 7), (4, 8, 8)),
    ((2, 17, 2, 2, 3), (1, 2, 300)),
    ((1, 1, 9, 8, 7), (9, 8, 7)),
    ((3, 4, 1, 1, 6), (5, 1, 1)),
]


def shapes(dims):
    return SHAPES_2D if dims == 2 else SHAPES_3D


def generator(*key):
    """A random generator that depends on the key alone, in every process."""
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))


# ---------------------------------------------------------------------------- memory layouts


def channels_last(x):
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def _inside_nan(x, step, offset):
    """A view with x's values, every step-th column of a larger storage that is NaN elsewhere."""
    shape = [*x.shape[:-2], x.shape[-2] + 2, x.shape[-1] * step + 3]
    storage = torch.full((math.prod(shape) + offset,), NAN, dtype=x.dtype, device=x.device)
    room = storage[offset:].view(shape)
    view = room[..., 1:-1, 2 : 2 + x.shape[-1] * step : step]
    return view.copy_(x)


def _reversed_order(x):
    """The same values with the storage in the opposite order of axes."""
    axes = tuple(reversed(range(x.dim())))
    return x.permute(axes).contiguous().permute(axes)


def _channels_in_nan(x):
    """Channels last, with twice as many channels in the storage."""
    last = x.movedim(1, -1)
    room = torch.full((*last.shape[:-1], 2 * x.shape[1] + 1), NAN, dtype=x.dtype, device=x.device)
    view = room[..., 1 : 1 + x.shape[1]]
    return view.copy_(last).movedim(-1, 1)


IMAGE_LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=channels_last(x)),
    "rows in NaN": lambda x: _inside_nan(x, step=1, offset=1),
    "every second column in NaN": lambda x: _inside_nan(x, step=2, offset=0),
    "reversed order": _reversed_order,
    "channels in NaN": _channels_in_nan,
    "expanded channels": lambda x: x[:, :1].expand_as(x),
    "expanded batch": lambda x: x[:1].expand_as(x),
}

GRID_LAYOUTS = {
    "contiguous": lambda g: g.contiguous(),
    "planar": lambda g: g.movedim(-1, 1).contiguous().movedim(1, -1),
    "points in NaN": lambda g: _inside_nan(g, step=1, offset=1),
    "components in NaN": lambda g: _inside_nan(g, step=2, offset=0),
    "reversed order": _reversed_order,
    "expanded rows": lambda g: g[..., :1, :, :].expand_as(g),
    "expanded batch": lambda g: g[:1].expand_as(g),
}

THETA_LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "transposed": lambda t: t.mT.contiguous().mT,
    "in NaN": lambda t: _inside_nan(t, step=2, offset=1),
    "expanded": lambda t: t[:1].expand_as(t),
}


# ---------------------------------------------------------------------------- values


def image(shape, dtype=torch.float32, key=0):
    values = torch.randn(shape, generator=generator("image", shape, key), dtype=torch.float64)
    return values.to(dtype)


def scattered_grid(batch, size, dtype=torch.float32, key=0, reach=1.6):
    """Every point looks somewhere else, some outside the image."""
    shape = (batch, *size, len(size))
    values = torch.rand(shape, generator=generator("grid", shape, key), dtype=torch.float64)
    return ((2 * values - 1) * reach).to(dtype)


def thetas(batch, dims, dtype=torch.float32, key=0, spread=0.4):
    """Near the identity: rotated, scaled, sheared and shifted by up to about `spread`."""
    noise = torch.rand(
        batch, dims, dims + 1, generator=generator("theta", batch, dims, key), dtype=torch.float64
    )
    return (torch.eye(dims, dims + 1) + spread * (2 * noise - 1)).to(dtype)


def smooth_grid(batch, size, dtype=torch.float32, key=0, spread=0.4):
    """Neighbouring points look at neighbouring places, as of an affine map."""
    theta = thetas(batch, len(size), torch.float64, key, spread)
    return reference.affine_grid(theta, size).to(dtype)


# ---------------------------------------------------------------------------- calls


def torch_sample(image, grid, mode, padding_mode, align_corners):
    """The oracle where torch is right: float64, no NaN, equal batches."""
    return torch.nn.functional.grid_sample(image, grid, mode, padding_mode, align_corners)


@contextlib.contextmanager
def poisoned_memory(device):
    """On the CPU, memory that torch allocates is full of NaN until it is written.

    A side effect of deterministic algorithms, which on CUDA would choose other kernels.
    """
    # (use_deterministic_algorithms would import the compiler.)
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else before)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def homographies(batch, dims, dtype=torch.float32, key=0, spread=0.4):
    """Near the identity, in front of the horizon wherever an output's point may be."""
    theta = thetas(batch, dims, torch.float64, ("homography", key), spread)
    noise = torch.rand(
        batch, 1, dims, generator=generator("horizon", batch, dims, key), dtype=torch.float64
    )
    # The last coordinate is 1 give or take 0.6.
    last = torch.cat((1.2 / dims * (noise - 0.5), torch.ones(batch, 1, 1)), 2)
    return torch.cat((theta, last), 1).to(dtype)


def splines(batch, dims, dtype=torch.float32, key=0, spread=0.3, points=5):
    """Near the identity, bent towards a few points of the output."""
    shape = (batch, points, dims)
    random = generator("spline", shape, key)
    weights, places = (2 * torch.rand(2, *shape, generator=random, dtype=torch.float64) - 1).unbind(
        0
    )
    theta = thetas(batch, dims, torch.float64, ("spline", key), spread)
    parts = (spread / points * weights, theta.reshape(batch, dims + 1, dims), places)
    return torch.cat(parts, 1).to(dtype)


def spline_of(parameters):
    """The warp of what the kernels read of a ThinPlateSpline."""
    warp = stn_cuda.Warp(parameters)
    warp.map = "thin_plate_spline"
    return warp


# Other free maps than a grid: what their values are.
FLOWS = ("flow", "normalized_flow")
FREE = ("grid", "pixel_grid", *FLOWS)


def free_values(map, grid, in_size, align_corners=False):
    """The values of a free map that looks where a float64 grid does, in an input of in_size."""
    size, sizes = grid.shape[1:-1], tuple(reversed(in_size))
    base = reference.base_coordinates(size, align_corners)[..., :-1]
    if map == "grid":
        return grid
    if map == "normalized_flow":
        return grid - base
    pixels = reference.pixel_coordinates(grid, sizes, align_corners)
    if map == "pixel_grid":
        return pixels
    return pixels - reference.pixel_coordinates(base, sizes, align_corners)


def free_grid(map, values, in_size, align_corners=False):
    """The grid, float64, of a free map's values (N, *out, dims)."""
    if map == "grid":
        return values.double()
    if map == "pixel_grid":
        pixels = values.double()
    else:
        displacement, normalized = values.movedim(-1, 1), map == "normalized_flow"
        pixels = reference.flow_coordinates(displacement, in_size, align_corners, normalized)
    axes = enumerate(reversed(in_size))
    return torch.stack(
        [reference.from_pixel(pixels[..., a], extent, align_corners) for a, extent in axes], -1
    )


@dataclass(frozen=True)
class Map:
    """A parametric map: the product's warp, the reference's grid, and parameters for tests."""

    warp: Callable
    grid: Callable
    parameters: Callable
    dims: tuple = (2, 3)


WARPS = {
    "affine": Map(stn_cuda.Affine, reference.affine_grid, thetas),
    "projective": Map(stn_cuda.Projective, reference.projective_grid, homographies),
    "thin_plate_spline": Map(spline_of, reference.thin_plate_spline_grid, splines, (2,)),
}


@dataclass(frozen=True)
class Call:
    """One call of stn_cuda.sample. map: one of FREE, or of WARPS, with the output's size.

    warp: as the kernels take it, of a flow (N, *out, dims).
    """

    input: torch.Tensor
    warp: torch.Tensor
    map: str = "grid"
    size: tuple | None = None
    mode: str = "bilinear"
    padding_mode: str | tuple = "zeros"
    align_corners: bool = False
    label: str = ""

    def __str__(self):
        def describe(t):
            return f"{tuple(t.shape)} {str(t.dtype)[6:]} strides {t.stride()}"

        return (
            f"{self.label} input {describe(self.input)}, {self.map} {describe(self.warp)}, "
            f"size {self.size}, {self.mode}, {self.padding_mode}, align {self.align_corners}"
        )

    @property
    def dims(self):
        return self.input.dim() - 2

    @property
    def output_size(self):
        if self.map in FREE:
            return tuple(self.warp.shape[1:-1])
        return tuple(self.size or self.input.shape[2:])

    @property
    def output_shape(self):
        batch = torch.broadcast_shapes(self.input.shape[:1], self.warp.shape[:1])
        return (*batch, self.input.shape[1], *self.output_size)

    @property
    def keywords(self):
        coords = {"coords": "pixel"} if self.map == "pixel_grid" else {}
        return self.settings | coords

    @property
    def settings(self):
        return dict(
            mode=self.mode, padding_mode=self.padding_mode, align_corners=self.align_corners
        )

    @property
    def op_settings(self):
        """The settings as the ops take them."""
        one = isinstance(self.padding_mode, str)
        padding = self.padding_mode if one else ",".join(self.padding_mode)
        return self.mode, padding, self.align_corners

    def on(self, device):
        return replace(self, input=self.input.to(device), warp=self.warp.to(device))

    def run(self, input=None, warp=None):
        """The product's answer."""
        input = self.input if input is None else input
        warp = self.warp if warp is None else warp
        with poisoned_memory(self.input.device):
            return stn_cuda.sample(input, *self.arguments(warp), **self.keywords)

    def arguments(self, warp=None):
        """The warp and the size, as the public functions take them."""
        warp = self.warp if warp is None else warp
        if self.map in FLOWS:
            return stn_cuda.Flow(warp.movedim(-1, 1), self.map == "normalized_flow"), None
        if self.map in FREE:
            return warp, None
        return WARPS[self.map].warp(warp), self.size

    def grid64(self, warp=None):
        """The float64 grid of normalised coordinates that the call looks at."""
        warp = (self.warp if warp is None else warp).cpu().double()
        if self.map in FREE:
            return free_grid(self.map, warp, self.input.shape[2:], self.align_corners)
        return WARPS[self.map].grid(warp, self.output_size, self.align_corners)

    def expect(self, oracle=reference.sample, input=None, warp=None):
        """The oracle's answer in float64 on the same (quantised) values."""
        input = (self.input if input is None else input).cpu().double()
        return oracle(input, self.grid64(warp), **self.settings)

    def cotangent(self):
        """A gradient for the output, in the input's dtype."""
        values = torch.randn(self.output_shape, generator=generator("cotangent", self.output_shape))
        return values.to(self.input.dtype)

    def gradients(self, cotangent):
        """The product's (output, grad_input, grad_warp). The leaves keep their strides."""
        input = self.input.detach().requires_grad_()
        warp = self.warp.detach().requires_grad_()
        output = self.run(input, warp)
        with poisoned_memory(self.input.device):
            return output.detach(), *torch.autograd.grad(output, (input, warp), cotangent)

    def expect_gradients(self, cotangent, oracle=reference.sample):
        """The oracle's (output, grad_input, grad_warp), float64."""
        input = self.input.detach().cpu().double().requires_grad_()
        warp = self.warp.detach().cpu().double().requires_grad_()
        output = self.expect(oracle, input, warp)
        grads = torch.autograd.grad(
            output,
            (input, warp),
            cotangent.cpu().double(),
            allow_unused=True,  # `nearest` does not depend on the grid at all
            materialize_grads=True,
        )
        return output.detach(), *grads


def sample_inputs(dtype=torch.float64, maps=("grid", "affine"), configurations=ALL_CONFIGURATIONS):
    """Small calls of every mode x padding x align_corners x dims x map."""
    for dims, mode, padding, align in configurations:
        for kind in maps:
            if kind not in FREE and dims not in WARPS[kind].dims:
                continue
            shape, size = ((2, 3, 4, 5), (3, 6)) if dims == 2 else ((2, 2, 3, 4, 3), (2, 3, 4))
            key = (mode, padding, align)
            if kind in FREE:
                grid = scattered_grid(shape[0], size, torch.float64, key=key)
                warp = free_values(kind, grid, shape[2:], align).to(dtype)
            else:
                warp = WARPS[kind].parameters(shape[0], dims, dtype, key=key)
            yield Call(
                image(shape, dtype),
                warp,
                kind,
                None if kind in FREE else size,
                mode,
                padding,
                align,
            )
