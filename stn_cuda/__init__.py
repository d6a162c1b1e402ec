"""Differentiable sampling: a coordinate map x an interpolation x a boundary rule, in one kernel.

y = stn_cuda.sample(x, grid)                              # what F.grid_sample does
y = stn_cuda.sample(x, stn_cuda.Affine(theta), (28, 28))  # the fused spatial transformer
"""

from stn_cuda._extension import build_info
from stn_cuda._version import __version__
from stn_cuda.acceleration import accelerate
from stn_cuda.drop_in import affine_grid, grid_sample
from stn_cuda.functional import sample, sample_with_gradient, splat
from stn_cuda.warps import Affine, Compose, Flow, Projective, ThinPlateSpline, Warp

from stn_cuda import nn, onnx, viz  # isort: skip  (their modules use the names above)
from stn_cuda import _sharding, _vmap  # isort: skip

_sharding.register()
_vmap.register()

__all__ = [
    "Affine",
    "Compose",
    "Flow",
    "Projective",
    "ThinPlateSpline",
    "Warp",
    "__version__",
    "accelerate",
    "affine_grid",
    "build_info",
    "grid_sample",
    "nn",
    "onnx",
    "sample",
    "sample_with_gradient",
    "splat",
    "viz",
]
