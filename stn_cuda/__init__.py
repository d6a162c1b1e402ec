"""Differentiable sampling: a coordinate map x an interpolation x a boundary rule, in one kernel.

y = stn_cuda.sample(x, grid)                              # what F.grid_sample does
y = stn_cuda.sample(x, stn_cuda.Affine(theta), (28, 28))  # the fused spatial transformer
"""

from stn_cuda._extension import build_info
from stn_cuda._version import __version__
from stn_cuda.functional import affine_grid, grid_sample, sample, sample_with_gradient, splat
from stn_cuda.warps import Affine, Warp

from stn_cuda import _vmap, nn  # isort: skip  (they use the names above)

__all__ = [
    "Affine",
    "Warp",
    "__version__",
    "affine_grid",
    "build_info",
    "grid_sample",
    "nn",
    "sample",
    "sample_with_gradient",
    "splat",
]
