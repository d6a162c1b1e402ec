// The coordinate maps, by their names in Python.
#pragma once

// The free maps hold a value for each point of the output, in memory; one functor reads all of them
// (math/free_map.h). A name; whether its values are pixels of the input, or else normalised;
// whether they are displacements from where the point itself is, or else positions.
#define STN_FREE_MAPS(MAP)     \
  MAP(grid, false, false)      \
  MAP(pixel_grid, true, false) \
  MAP(flow, true, true)        \
  MAP(normalized_flow, false, true)

// The parametric maps: a name and its functor (math/parametric.h), which also says what shape the
// parameters have. A line here registers a map everywhere.
#define STN_PARAMETRIC_MAPS(MAP) \
  MAP(affine, AffineMap)         \
  MAP(projective, ProjectiveMap) \
  MAP(thin_plate_spline, ThinPlateSplineMap)
