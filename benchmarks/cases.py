"""The matrix of cases, as data: one line per piece of work."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace

# Each suite holds the ones before it.
SUITES = ("quick", "default", "full")

# The directions up to a gradient; the others are derivatives beyond it.
FIRST = ("forward", "backward")


@dataclass(frozen=True)
class Case:
    """One piece of work to time.

    op         "affine": `sample(x, Affine(theta), size)`; "projective": the same of a homography;
               "tps": of a thin-plate spline through 4 x 4 targets;
               "flow": `sample(x, Flow(displacement))`, of an affine map plus half a pixel of noise;
               "compose": `sample(x, Compose(Affine(theta), Flow(displacement)))`, of half a pixel
               of noise before the affine map;
               "smooth" and "random": `sample(x, grid)` with a grid that is affine plus half a
               pixel of noise, or uniform over the image
    shape      of the input, (N, C, H, W) or (N, C, D, H, W)
    size       spatial size of the output; None: the input's
    suite      the smallest suite that holds the case
    theta      "noise": identity + 0.1 * randn; "identity"; "rotate45", "rotate90": rotation of the
               pixels; "zoom4": the input's middle quarter fills the output; "zoom1/4": the reverse
    warps      number of thetas or grids; None: the input's N. Unlike N, one side is broadcast.
    direction  "forward"; "backward": forward, then the gradients of everything in `wrt`;
               "double": the gradients of those gradients, times fixed tensors, with respect to the
               output's gradient and everything in `wrt`, whose graph is there beforehand;
               "double-whole": forward, backward and that; "jvp": forward, with the derivative along
               fixed tangents of everything in `wrt`; "gradient": forward, with the derivatives by
               the position in the input (`sample_with_gradient`)
    graph      captured in a CUDA graph, and replayed
    """

    op: str
    shape: tuple[int, ...]
    size: tuple[int, ...] | None = None
    suite: str = "full"
    theta: str = "noise"
    warps: int | None = None
    channels_last: bool = False
    dtype: str = "float32"
    warp_dtype: str = "float32"
    mode: str = "bilinear"
    padding: str = "zeros"
    align_corners: bool = False
    direction: str = "forward"
    wrt: tuple[str, ...] = ("input", "warp")
    graph: bool = False

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(N, C, ...) of the result."""
        batch = max(self.shape[0], self.warps or 1)
        return (batch, self.shape[1], *(self.size or self.shape[2:]))

    @property
    def elements(self) -> int:
        """Number of elements of the result."""
        count = 1
        for length in self.output_shape:
            count *= length
        return count

    @property
    def is_grid(self) -> bool:
        """Whether the warp is a given grid, and not of a family of `warps.py`."""
        return self.op in ("smooth", "random")

    @property
    def is_parametric(self) -> bool:
        """Whether the warp is a map of a few parameters."""
        return not self.is_grid and self.op not in ("compose", "flow")

    @property
    def group(self) -> str:
        """The line of the summary that the case belongs to."""
        kind = "grid" if self.is_grid else self.op
        wide = self.dtype in ("float32", "float64")
        precision = "" if wide else (", bytes" if self.dtype == "uint8" else ", half types")
        return f"{kind} {len(self.shape) - 2}-D {self.mode}{precision}"

    @property
    def work(self) -> str:
        """What is done, without the direction, defaults left out: the label in tables."""
        return " ".join(self._parts(short=True))

    @property
    def name(self) -> str:
        """The unique full name, which `--filter` matches."""
        only = "" if len(self.wrt) == 2 else f"-{self.wrt[0]}"
        return " ".join([*self._parts(short=False), self.direction + only])

    def _parts(self, short: bool) -> list[str]:
        size = f"->{_times(self.size)}" if self.size else ""
        dtypes = self.dtype if self.dtype == self.warp_dtype else f"{self.dtype}/{self.warp_dtype}"
        parts = [
            (self.op, None),
            (_times(self.shape) + size, None),
            (f"{self.warps}-warps" if self.warps else "", ""),
            (self.theta, "noise"),
            ("channels_last" if self.channels_last else "contiguous", "contiguous"),
            (dtypes, "float32"),
            (self.mode, "bilinear"),
            (self.padding, "zeros"),
            ("align_corners" if self.align_corners else "", ""),
            ("graph" if self.graph else "", ""),
        ]
        return [text for text, default in parts if text and not (short and text == default)]

    def to_json(self) -> dict:
        """Fields and derived names, ready for `json.dump`."""
        derived = ("name", "work", "group", "output_shape", "elements")
        return asdict(self) | {key: getattr(self, key) for key in derived}

    @classmethod
    def from_json(cls, entry: dict) -> Case:
        """The case that `to_json` told of."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in entry.items() if key in known}
        # JSON has no tuples.
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _times(lengths: Iterable[int]) -> str:
    return "x".join(map(str, lengths))


AFFINE_2D = [
    Case("affine", (64, 1, 28, 28), suite="quick"),
    Case("affine", (256, 1, 28, 28), suite="default"),
    Case("affine", (64, 1, 60, 60), (20, 20), suite="quick"),
    Case("affine", (1, 3, 512, 512), suite="quick"),
    Case("affine", (8, 3, 224, 224), suite="quick"),
    Case("affine", (8, 3, 512, 512), suite="default"),
    Case("affine", (16, 64, 64, 64), suite="quick"),
    Case("affine", (16, 64, 64, 64), suite="quick", channels_last=True),
    Case("affine", (1, 64, 256, 256), suite="default"),
    Case("affine", (1, 64, 256, 256), suite="default", channels_last=True),
    Case("affine", (1, 1, 2048, 2048), suite="default"),
    Case("affine", (1, 3, 1080, 1920), theta="rotate45"),
    Case("affine", (1, 3, 1080, 1920), theta="rotate90"),
    Case("affine", (1, 3, 512, 512), theta="zoom4"),
    Case("affine", (1, 3, 512, 512), theta="zoom1/4"),
    Case("affine", (1, 3, 512, 512), (2048, 2048), theta="identity"),
    Case("affine", (1, 3, 512, 512), (128, 128), theta="identity"),
    Case("affine", (1, 3, 256, 256), (128, 128), suite="default", warps=64),
]

AFFINE_2D_VARIANTS = [
    Case("affine", (64, 1, 28, 28), padding="border"),
    Case("affine", (64, 1, 28, 28), padding="reflection"),
    Case("affine", (16, 64, 64, 64), padding="border"),
    Case("affine", (16, 64, 64, 64), padding="reflection"),
    Case("affine", (8, 3, 224, 224), suite="default", padding="border"),
    Case("affine", (8, 3, 224, 224), suite="default", padding="reflection"),
    Case("affine", (8, 3, 224, 224), suite="default", align_corners=True),
    Case("affine", (8, 3, 224, 224), suite="default", dtype="float64", warp_dtype="float64"),
]

GRID_2D = [
    Case("smooth", (64, 1, 28, 28), suite="default"),
    Case("smooth", (8, 3, 224, 224), suite="quick"),
    Case("smooth", (64, 1, 60, 60), (20, 20)),
    Case("smooth", (1, 3, 512, 512)),
    Case("smooth", (8, 3, 512, 512)),
    Case("smooth", (16, 64, 64, 64)),
    Case("smooth", (16, 64, 64, 64), suite="default", channels_last=True),
    Case("smooth", (1, 64, 256, 256)),
    Case("smooth", (1, 64, 256, 256), channels_last=True),
    Case("smooth", (1, 1, 2048, 2048)),
    Case("random", (1, 3, 512, 512), suite="quick"),
    Case("random", (64, 1, 28, 28)),
    Case("random", (8, 3, 224, 224), suite="default"),
    Case("random", (8, 3, 512, 512)),
    Case("random", (16, 64, 64, 64)),
    Case("random", (16, 64, 64, 64), channels_last=True),
    Case("random", (1, 64, 256, 256)),
    Case("random", (1, 1, 2048, 2048)),
    Case("random", (1, 1, 1000, 1200), (13, 13), warps=100),
]

# The image is large and the grid small: without a gradient to the image, none of its size counts.
GRID_2D_WARP_ONLY = [
    Case("random", (1, 1, 1000, 1200), (13, 13), warps=100, direction="backward", wrt=("warp",)),
    Case("smooth", (8, 3, 224, 224), direction="backward", wrt=("warp",)),
]

VOLUMES = [
    Case("affine", (1, 1, 64, 64, 64), suite="quick"),
    Case("affine", (1, 1, 128, 128, 128), suite="default"),
    Case("affine", (2, 16, 32, 32, 32), suite="default"),
    Case("affine", (2, 16, 32, 32, 32), suite="default", channels_last=True),
    Case("smooth", (1, 1, 64, 64, 64), suite="default"),
    Case("smooth", (1, 1, 128, 128, 128)),
    Case("smooth", (2, 16, 32, 32, 32)),
    Case("smooth", (2, 16, 32, 32, 32), channels_last=True),
    Case("random", (1, 1, 64, 64, 64)),
    Case("random", (1, 1, 128, 128, 128)),
    Case("random", (2, 16, 32, 32, 32)),
    Case("random", (2, 16, 32, 32, 32), channels_last=True),
]

# Homographies, beside the affine maps of the same shapes.
PROJECTIVE = [
    Case("projective", (64, 1, 28, 28), suite="default"),
    Case("projective", (8, 3, 256, 256), suite="default"),
    Case("projective", (1, 3, 512, 512)),
    Case("projective", (16, 64, 64, 64)),
    Case("projective", (1, 1, 64, 64, 64)),
]

# Thin-plate splines of 4 x 4 control points.
SPLINES = [
    Case("tps", (64, 1, 28, 28), suite="default"),
    Case("tps", (8, 3, 256, 256), suite="default"),
    Case("tps", (16, 64, 64, 64)),
]

# Displacements of every point, beside the grids of the same looks.
FLOW = [
    Case("flow", (1, 3, 512, 512), suite="default"),
    Case("flow", (1, 1, 128, 128, 128), suite="default"),
]

# A displacement of every point, and a matrix after it, as registration has them.
COMPOSE = [
    Case("compose", (1, 3, 512, 512), suite="default"),
    Case("compose", (1, 1, 128, 128, 128), suite="default"),
]

HALF = [
    Case("affine", (8, 3, 512, 512), dtype="float16"),
    Case("affine", (8, 3, 512, 512), dtype="bfloat16"),
    Case("affine", (16, 64, 64, 64), suite="default", dtype="float16"),
    Case("affine", (16, 64, 64, 64), suite="quick", dtype="bfloat16"),
    Case("affine", (16, 64, 64, 64), dtype="float16", channels_last=True),
    Case("affine", (16, 64, 64, 64), dtype="bfloat16", channels_last=True),
]

# Photographs, rounded to bytes again: forward only.
BYTES = [
    Case("affine", (8, 3, 512, 512), suite="default", dtype="uint8"),
    Case("affine", (8, 3, 512, 512), suite="default", dtype="uint8", channels_last=True),
]

# The other interpolations and boundaries over the work above, forward only.
_WORK = [case for case in AFFINE_2D if not case.warps]
_COMMON = (8, 3, 224, 224)
INTERPOLATIONS = [
    replace(case, mode=mode, suite="quick" if case.shape == _COMMON else "full")
    for mode in ("bicubic", "nearest")
    for case in _WORK
]
_VARIANTS = {case.name for case in AFFINE_2D_VARIANTS}  # these are there in both directions
BOUNDARIES = [
    one
    for padding in ("border", "reflection")
    for case in _WORK
    if (one := replace(case, padding=padding, suite="full")).name not in _VARIANTS
]


# Derivatives beyond a gradient.
_DERIVED = [
    Case("affine", (1, 16, 64, 64), suite="default"),
    Case("smooth", (1, 16, 64, 64), suite="default"),
    Case("affine", (8, 3, 224, 224), suite="default"),
    Case("smooth", (8, 3, 224, 224), suite="default"),
    Case("affine", (1, 4, 32, 32, 32), suite="default"),
    Case("smooth", (1, 4, 32, 32, 32), suite="default"),
    Case("affine", (1, 16, 64, 64), suite="default", mode="bicubic"),
]
_DERIVATIVES = [
    ("double", ("input", "warp")),
    ("double-whole", ("input", "warp")),
    ("jvp", ("warp",)),
    ("jvp", ("input", "warp")),
    ("gradient", ("input", "warp")),
]
# Of the first, those that the quick suite has.
_QUICK = [("double", ("input", "warp")), ("jvp", ("warp",)), ("gradient", ("input", "warp"))]


def _derivative(case: Case, direction: str, wrt: tuple[str, ...]) -> Case:
    suite = "full" if direction == "double-whole" else case.suite
    if case == _DERIVED[0] and (direction, wrt) in _QUICK:
        suite = "quick"
    return replace(case, direction=direction, wrt=wrt, suite=suite)


DERIVATIVES = [_derivative(case, *kind) for case in _DERIVED for kind in _DERIVATIVES]


def _both_directions(cases: Iterable[Case]) -> list[Case]:
    return [one for case in cases for one in (case, replace(case, direction="backward"))]


CASES: list[Case] = [
    *_both_directions(AFFINE_2D + AFFINE_2D_VARIANTS + GRID_2D + VOLUMES + PROJECTIVE + HALF),
    *_both_directions(SPLINES + FLOW + COMPOSE),
    *GRID_2D_WARP_ONLY,
    *BYTES,
    *INTERPOLATIONS,
    *BOUNDARIES,
    *DERIVATIVES,
]

# Only on a GPU, and first there: larger than its cache, which is too large for the CPU's matrix.
_PHOTOGRAPHS, _FEATURES, _VOLUME = (64, 3, 512, 512), (16, 64, 256, 256), (2, 16, 128, 128, 128)
CUDA_FLOAT32 = [
    Case("affine", _PHOTOGRAPHS, suite="quick"),
    Case("smooth", _PHOTOGRAPHS, suite="quick"),
    Case("random", _PHOTOGRAPHS, suite="quick"),
    # Where torch uses cuDNN: 4-D, bilinear, zeros outside, and this.
    Case("affine", _PHOTOGRAPHS, suite="quick", align_corners=True),
    Case("smooth", _PHOTOGRAPHS, suite="quick", align_corners=True),
    Case("random", _PHOTOGRAPHS, suite="quick", align_corners=True),
    Case("affine", _VOLUME, suite="quick"),
    Case("affine", _VOLUME, suite="default", channels_last=True),
    Case("smooth", _VOLUME, suite="default"),
]

# Each has its float32 beside it, which is what it is compared with.
_FLOAT32 = [
    Case("affine", _FEATURES, suite="quick", channels_last=True),
    Case("smooth", _FEATURES, suite="quick", channels_last=True),
    Case("random", _FEATURES, suite="quick", channels_last=True),
]
CUDA_HALF = [
    *_FLOAT32,
    *(replace(case, dtype="bfloat16") for case in _FLOAT32),
    *(replace(case, dtype="float16", suite="full") for case in _FLOAT32),
    # One dtype for both, so that torch converts nothing.
    *(replace(case, dtype="bfloat16", warp_dtype="bfloat16") for case in _FLOAT32),
    Case("affine", _PHOTOGRAPHS, dtype="float16"),
    Case("affine", _PHOTOGRAPHS, dtype="bfloat16"),
]

CUDA_GRAPHS = [
    Case("affine", (64, 1, 28, 28), suite="quick", graph=True),
    Case("smooth", (64, 1, 28, 28), suite="default", graph=True),
]

CUDA_CASES = _both_directions(CUDA_FLOAT32 + CUDA_HALF + CUDA_GRAPHS)


def select(suite: str, pattern: str = "", device: str = "cpu") -> list[Case]:
    """The device's cases of `suite` ("quick", "default" or "full") that match `pattern` by name."""
    wanted = SUITES[: SUITES.index(suite) + 1]
    expression = re.compile(pattern)
    cases = CUDA_CASES + CASES if device == "cuda" else CASES
    return [case for case in cases if case.suite in wanted and expression.search(case.name)]
