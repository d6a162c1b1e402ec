// From what the parameters say at run time to the kernels' template arguments (host).
#pragma once

#include "cuda/point.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

template <class T>
struct Type {
  using type = T;
};

template <int N>
struct Number {
  static constexpr int value = N;
};

// f(Type<element>)
template <class F>
auto with_element(ElementType type, F&& f) {
  switch (type) {
    case ElementType::f32:
      return f(Type<float>{});
    case ElementType::f64:
      return f(Type<double>{});
    case ElementType::f16:
      return f(Type<Half>{});
    default:
      return f(Type<BFloat16>{});
  }
}

// f(Number<taps per axis>, Number<dims>); bicubic is 2-D only: ops.cpp refuses the rest.
template <class F>
auto with_taps(Interpolation interpolation, int dims, F&& f) {
  constexpr Number<TapCount<Interpolation::nearest>::value> nearest{};
  constexpr Number<TapCount<Interpolation::bilinear>::value> bilinear{};
  constexpr Number<TapCount<Interpolation::bicubic>::value> bicubic{};
  if (interpolation == Interpolation::bicubic) return f(bicubic, Number<2>{});
  if (interpolation == Interpolation::nearest) {
    return dims == 2 ? f(nearest, Number<2>{}) : f(nearest, Number<3>{});
  }
  return dims == 2 ? f(bilinear, Number<2>{}) : f(bilinear, Number<3>{});
}

// f(Type<map>), its coordinates in float32, in float64 where the grid or theta is float64.
template <class T, int D, class F>
auto with_map_of(MapKind kind, F&& f) {
  return kind == MapKind::affine ? f(Type<AffineMap<T, D>>{}) : f(Type<AnyGrid<T, D>>{});
}
template <int D, class F>
auto with_map(MapKind kind, ElementType type, F&& f) {
  return type == ElementType::f64 ? with_map_of<double, D>(kind, f)
                                  : with_map_of<float, D>(kind, f);
}

// The type of a map's coordinates, and the same map with float64 coordinates.
template <class Map>
struct CoordinateOf;
template <template <class, int> class Map, class T, int D>
struct CoordinateOf<Map<T, D>> {
  using type = T;
  using in_double = Map<double, D>;
};
template <class Map>
using Coordinate = typename CoordinateOf<Map>::type;
template <class Map>
using InDouble = typename CoordinateOf<Map>::in_double;

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
