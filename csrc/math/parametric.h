// All parametric maps, and what can be said of each by its name.
#pragma once

#include "math/spline.h"
#include "math/warp.h"

namespace stn_cuda {
inline namespace STN_ISA {

struct MapFacts {
  bool linear;
  int most_dims;
  int rows, columns;  // of its parameters
  // If it is grouped, so many rows more for each of its points, of which there are least to most.
  int rows_per_point, least_points, most_points;
};

template <class Map>
STN_HD MapFacts facts_of_map() {
  MapFacts facts{Map::linear, Map::most_dims, Map::rows, Map::columns, 0, 0, 0};
  if constexpr (Map::grouped) {
    facts.rows_per_point = Map::rows_per_point;
    facts.least_points = Map::least_points;
    facts.most_points = Map::most_points;
  }
  return facts;
}

template <int D>
STN_HD MapFacts facts_of(MapKind kind) {
#define STN_CASE(name, Functor) \
  case MapKind::name:           \
    return facts_of_map<Functor<float, D>>();
  switch (kind) {
    STN_PARAMETRIC_MAPS(STN_CASE)
    default:
      return {true, 3, 0, 0, 0, 0, 0};
  }
#undef STN_CASE
}
// Of how many points a map's parameters are, `count` numbers; 0 if it is not grouped.
STN_HD int64_t points_of(const MapFacts& facts, int64_t count) {
  if (facts.rows_per_point == 0) return 0;
  return (count / facts.columns - facts.rows) / facts.rows_per_point;
}
// Whether these are fixed: a row more says so.
STN_HD bool are_fixed(const MapFacts& facts, int64_t count) {
  return count / facts.columns > facts.rows + facts.rows_per_point * points_of(facts, count);
}

STN_HD MapFacts facts_of(MapKind kind, int64_t dims) {
  return dims == 2 ? facts_of<2>(kind) : facts_of<3>(kind);
}

}  // namespace STN_ISA
}  // namespace stn_cuda
