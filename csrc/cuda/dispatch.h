// From what the parameters say at run time to the kernels' template arguments (host).
#pragma once

#include "cuda/element.h"
#include "cuda/other_map.h"
#include "cuda/point.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

template <class T>
struct Type {
  using type = T;
};

// Of a parameter of that kind. (GCC takes one for a reference inside a nested lambda.)
template <class Parameter>
using TypeOf = typename std::decay_t<Parameter>::type;

template <int N>
struct Number {
  static constexpr int value = N;
};

// f(Type<element>), but for bytes, which sample alone knows.
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

// f(Type<map>), its coordinates in float32, in float64 where the grid or theta is float64. Free
// maps share their kernels, chains and the affine map have their own, all other maps share theirs.
template <class T, int D, class F>
auto with_map_of(MapKind kind, F&& f) {
  if (is_free(kind)) return f(Type<AnyGrid<T, D>>{});
  if (kind == MapKind::chain) return f(Type<ChainMap<T, D>>{});
  return kind == MapKind::affine ? f(Type<AffineMap<T, D>>{}) : f(Type<OtherMap<T, D>>{});
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
  static constexpr int dims = D;
  using type = T;
  using in_double = Map<double, D>;
};
template <class Map>
using Coordinate = typename CoordinateOf<Map>::type;
template <class Map>
using InDouble = typename CoordinateOf<Map>::in_double;

// The map of a kernel that serves others as well.
template <class Map>
struct SharedMapOf {
  using type = Map;
};
template <class T, int D>
struct SharedMapOf<AffineMap<T, D>> {
  using type = OtherMap<T, D>;
};
template <class Map>
using SharedMap = typename SharedMapOf<Map>::type;

// What the kernels of sample, splat and grad_warp are templates over.
template <class Element_, int K_, class Index_, class Map_, int D_, bool Along = false>
struct Choice {
  using Element = Element_;
  using Index = Index_;  // of offsets inside a plane
  using Map = Map_;
  using T = Coordinate<Map>;
  static constexpr int K = K_, D = D_;
  // The usual coordinates and images: worth a form of their own for consecutive channels.
  static constexpr bool fast = sizeof(Index) == sizeof(int32_t);
  // In its place where speed counts less than how many kernels there are: for images of any size
  // and type, all parametric maps together.
  using Shared = Choice<AnyOf<Element>, K, int64_t, SharedMap<Map>, D, Along>;
  // Of derivatives, along a direction or not: for images of any size and type.
  using Moved = Choice<AnyOf<Element>, K, int64_t, Map, D, true>;
  static constexpr bool along = Along;
};

// f(Choice) of the kernel for the parameters.
template <class Element, class F>
void with_kernel_of(const SampleParams& p, F&& f) {
  with_taps(p.interpolation, p.dims, [&](auto taps, auto dims) {
    constexpr int K = decltype(taps)::value, D = decltype(dims)::value;
    with_map<D>(p.map, p.warp.type, [&](auto map) {
      using Map = TypeOf<decltype(map)>;
      using Usual = Choice<Element, K, int32_t, Map, D>;
      if constexpr (sizeof(Coordinate<Map>) == sizeof(float) && !kIsChain<Map>) {
        if (fits_int32(p)) return f(Usual{});
      }
      f(typename Usual::Shared{});
    });
  });
}
template <class F>
void with_kernel(const SampleParams& p, F&& f) {
  with_element(p.input.type,
               [&](auto element) { with_kernel_of<TypeOf<decltype(element)>>(p, f); });
}

// The same, Choice::Moved if the parameters have a direction. Not of nearest: its derivatives are
// 0, and ops.cpp returns zeros. Nor of chains, which have none here.
template <class F>
void with_kernel_along(const SampleParams& p, F&& f) {
  with_kernel(p, [&](auto chosen) {
    using Chosen = decltype(chosen);
    if constexpr (Chosen::K > 1 && !kIsChain<typename Chosen::Map>) {
      if (p.direction != Direction::none) return f(typename Chosen::Moved{});
    }
    f(chosen);
  });
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
