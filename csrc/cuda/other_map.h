// The parametric maps that have no kernels of their own. Which of them it is, a thread asks at
// every point: a branch that all threads take alike.
#pragma once

#include <new>
#include <type_traits>

#include "math/parametric.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

constexpr int largest(int a, int b) { return a > b ? a : b; }

template <class T, int D>
class OtherMap {
 public:
  static constexpr bool parametric = true;
  static constexpr bool linear = false;
  static constexpr bool grouped = true;  // some of them; the others have no groups
#define STN_SUMS(name, Functor) largest(Functor<T, D>::sums,
#define STN_CLOSE(name, Functor) )
  static constexpr int sums = STN_PARAMETRIC_MAPS(STN_SUMS) 0 STN_PARAMETRIC_MAPS(STN_CLOSE);
#undef STN_SUMS
#define STN_SUMS(name, Functor) largest(Functor<T, D>::grouped ? Functor<T, D>::sums : 1,
  static constexpr int group_sums = STN_PARAMETRIC_MAPS(STN_SUMS) 1 STN_PARAMETRIC_MAPS(STN_CLOSE);
#undef STN_SUMS
#undef STN_CLOSE

  STN_HD OtherMap(MapKind kind, const Warp& warp, int64_t n, const Frame<T, D>& frame,
                  const int64_t (&output_size)[3], bool align_corners)
      : kind_(kind) {
    with_type([&](auto type) {
      using Map = typename decltype(type)::type;
      static_assert(sizeof(Map) <= sizeof bytes_ && std::is_trivially_copyable<Map>::value, "");
      new (bytes_) Map(warp, n, frame, output_size, align_corners);
    });
  }

  STN_HD void coordinate(const T (&p)[D], T (&x)[D]) const {
    visit([&](const auto& map) { map.coordinate(p, x); });
  }

  STN_HD int groups() const {
    int count = 0;
    visit([&](const auto& map) {
      if constexpr (std::decay_t<decltype(map)>::grouped) count = map.groups();
    });
    return count;
  }

  STN_HD int place(int group, int j) const {
    int k = -1;
    visit([&](const auto& map) {
      using Map = std::decay_t<decltype(map)>;
      if constexpr (Map::grouped) k = j < Map::sums ? map.place(group, j) : -1;
    });
    return k;
  }

  // group: of a map that has groups.
  template <int N, class... Group>
  STN_HD void accumulate(const T (&p)[D], const T (&g)[D], T (&s)[N], Group... group) const {
    visit([&](const auto& map) {
      using Map = std::decay_t<decltype(map)>;
      if constexpr (Map::grouped == (sizeof...(Group) > 0)) {
        map.accumulate(p, g, first<Map>(s), group...);
      }
    });
  }

  STN_HD void move(const T (&p)[D], const OtherMap& tangent, T (&x)[D]) const {
    visit([&](const auto& map) {
      using Map = std::decay_t<decltype(map)>;
      if constexpr (Map::linear) {
        tangent.as<Map>().coordinate(p, x);
      } else {
        map.move(p, tangent.as<Map>(), x);
      }
    });
  }

  template <int N, class... Group>
  STN_HD void bend(const T (&p)[D], const OtherMap& tangent, const T (&g)[D], T (&s)[N],
                   Group... group) const {
    visit([&](const auto& map) {
      using Map = std::decay_t<decltype(map)>;
      if constexpr (!Map::linear && Map::grouped == (sizeof...(Group) > 0)) {
        map.bend(p, tangent.as<Map>(), g, first<Map>(s), group...);
      }
    });
  }

  STN_HD double finish(int k, double sum) const {
    double result = 0;
    visit([&](const auto& map) { result = map.finish(k, sum); });
    return result;
  }

 private:
  template <class Map>
  struct Type {
    using type = Map;
  };

  // The sums of a map that has fewer.
  template <class Map, int N>
  STN_HD static auto& first(T (&s)[N]) {
    return reinterpret_cast<T(&)[std::decay_t<Map>::sums]>(s);
  }

  template <class Map>
  STN_HD const Map& as() const {
    return *reinterpret_cast<const Map*>(bytes_);
  }

  template <class F>
  STN_HD void visit(F&& f) const {
    with_type([&](auto type) { f(as<typename decltype(type)::type>()); });
  }

  template <class F>
  STN_HD void with_type(F&& f) const {
#define STN_CASE(name, Functor)                                                   \
  case MapKind::name:                                                             \
    if constexpr (D <= Functor<T, D>::most_dims) return f(Type<Functor<T, D>>{}); \
    return;
    switch (kind_) {
      STN_PARAMETRIC_MAPS(STN_CASE)
      default:
        return;
    }
#undef STN_CASE
  }

  MapKind kind_;
  alignas(16) unsigned char bytes_[64 + 48 * sizeof(T)];
};

// Makes the map of warp n there.
template <class Map, class T, int D>
STN_HD void make_map(void* there, MapKind kind, const Warp& warp, int64_t n,
                     const Frame<T, D>& frame, const int64_t (&output_size)[3],
                     bool align_corners) {
  if constexpr (std::is_same<Map, OtherMap<T, D>>::value) {
    new (there) Map(kind, warp, n, frame, output_size, align_corners);
  } else {
    new (there) Map(warp, n, frame, output_size, align_corners);
  }
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
