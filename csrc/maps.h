// The parametric maps: a name, as Python has it, and its functor (math/parametric.h), which also
// says what shape the parameters have. A line here registers a map everywhere.
#pragma once

#define STN_PARAMETRIC_MAPS(MAP) \
  MAP(affine, AffineMap)         \
  MAP(projective, ProjectiveMap) \
  MAP(thin_plate_spline, ThinPlateSplineMap)
