"""Warps: coordinate maps from the points of an output to positions in an input."""

import torch

from stn_cuda.warps.affine import Affine
from stn_cuda.warps.base import Warp
from stn_cuda.warps.compose import Compose
from stn_cuda.warps.flow import Flow
from stn_cuda.warps.projective import Projective
from stn_cuda.warps.spline import ThinPlateSpline

__all__ = ["Affine", "Compose", "Flow", "Projective", "ThinPlateSpline", "Warp"]

# A warp is tensors and a class of ours: nothing that torch.load need not trust.
torch.serialization.add_safe_globals([Affine, Compose, Flow, Projective, ThinPlateSpline])
