// The sums from which a parametric map's gradient is made: over the tiles of a task, then over the
// tasks of a warp, always in the same order.
#pragma once

#include "cpu/basis.h"
#include "cpu/partial.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

#define STN_SUMS(name, Functor) Functor<float, 3>::sums,
constexpr int kChainSums = 2 * ChainMap<float, 3>::Matrix::sums;
constexpr int kMostSums = std::max({STN_PARAMETRIC_MAPS(STN_SUMS) kChainSums});
#undef STN_SUMS

// The sums of a task's tiles, lane by lane: each lane has its own, in double, until the task ends.
// There may be too many of a grouped map's for that; they are added to the task's own.
struct LaneSums {
  static constexpr int kLanesKept = kLanes<float>;
  double* task;
  double of[kMostSums][kLanesKept] = {};
};

// Adds a tile's to those from `first` on.
template <class V, int N>
STN_HD void add_sums(const V (&sums)[N], int first, LaneSums& total) {
  constexpr int L = kLanes<Scalar<V>>;
  static_assert(L <= LaneSums::kLanesKept, "LaneSums is too small");
  for (int k = 0; k < N; ++k) {
    Vector<double, L> lanes;
    std::memcpy(&lanes, total.of[first + k], sizeof lanes);
    lanes += __builtin_convertvector(sums[k], Vector<double, L>);
    std::memcpy(total.of[first + k], &lanes, sizeof lanes);
  }
}

// Parameters: the tile's part of the sums that the map makes of the coordinates' gradients.
template <class Map, class T, int D>
STN_HD void sum_gradient(const Map& map, const Tile<D>& tile, const T (&grad)[D][kRoom],
                         LaneSums& total, int first = 0) {
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  V sums[Map::sums] = {};
  if constexpr (D == 2) {
    if (tile.block > 0) {
      tile.for_each_block([&](int slot, const int32_t (&p)[2], int columns, int rows) {
        V at[D], g[D];
        positions_in_block(p, columns, rows, at);
        const auto inside = (block_columns<V>() < static_cast<T>(columns)) &
                            (block_rows<V>() < static_cast<T>(rows));
        for (int d = 0; d < D; ++d) g[d] = inside ? load<V>(&grad[d][slot]) : V{};
        map.accumulate(at, g, sums);
      });
      return add_sums(sums, first, total);
    }
  }
  tile.for_each_row([&](int slot, const int32_t (&p)[D]) {
    for (int j = 0; j < tile.width; j += L) {
      V at[D], g[D];
      positions(tile, p, j, at);
      const auto inside = counting<V>() < static_cast<T>(tile.width - j);
      for (int d = 0; d < D; ++d) {
        g[d] = inside ? load<V>(&grad[d][slot + j]) : V{};
      }
      map.accumulate(at, g, sums);
    }
  });
  add_sums(sums, first, total);
}

// Adds a group's to the task's own.
template <class Map, class V, int N>
STN_HD void add_group(const Map& map, int group, const V (&sums)[N], LaneSums& kept) {
  for (int j = 0; j < N; ++j) {
    const int k = map.place(group, j);
    if (k >= 0) kept.task[k] += static_cast<double>(total(sums[j]));
  }
}

// The sums of fixed control points, four at once, for whom the gradients g are read once. Returns
// how many it has summed: all from one on whose position is NaN are left.
template <class Map, class T, int D>
STN_HD int sum_weights(const Map& map, const Tile<D>& tile, const T (&g)[D][kRoom],
                       const BasisRows<T>& basis, LaneSums& kept) {
  using V = Native<T>;
  int group = 0, places = 0;
  while (places < map.points && map.has_place(places)) ++places;
  const auto sum = [&](auto count) __attribute__((always_inline)) {
    constexpr int N = decltype(count)::value;
    const T* values = basis.values + group * basis.row;
    V sums[N][Map::sums] = {};
    for (int i = 0; i < tile.slots(); i += kLanes<T>) {
      V of[D];
      for (int d = 0; d < D; ++d) of[d] = load<V>(&g[d][i]);
      for (int k = 0; k < N; ++k) {
        map.accumulate(load<V>(values + k * basis.row + i), of, sums[k]);
      }
    }
    for (const auto& of_one : sums) add_group(map, group++, of_one, kept);
  };
  while (group + 4 <= places) sum(std::integral_constant<int, 4>{});
  while (group < places) sum(std::integral_constant<int, 1>{});
  return group;
}

// What sum_gradient does, for a grouped map: group by group over all of the tile's points, from its
// basis functions where they are at hand.
template <class Map, class T, int D>
STN_HD void sum_groups(const Map& map, const Tile<D>& tile, const T (&grad)[D][kRoom],
                       LaneSums& kept, const BasisRows<T>& basis = {}) {
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  alignas(64) T at[D][kRoom], g[D][kRoom] = {};  // beside the points, too, g is 0
  find_positions(tile, at);
  tile.for_each_row([&](int slot, const int32_t (&)[D]) {
    for (int j = 0; j < tile.width; j += L) {
      const auto inside = counting<V>() < static_cast<T>(tile.width - j);
      for (int d = 0; d < D; ++d) {
        store<L>(&g[d][slot + j], inside ? load<V>(&grad[d][slot + j]) : V{});
      }
    }
  });
  // add(i, at, g) of the points from slot i on.
  const auto over_points = [&](auto&& add) __attribute__((always_inline)) {
    for (int i = 0; i < tile.slots(); i += L) {
      V here[D], of[D];
      for (int d = 0; d < D; ++d) {
        here[d] = load<V>(&at[d][i]);
        of[d] = load<V>(&g[d][i]);
      }
      add(i, here, of);
    }
  };
  int group = 0;
  if constexpr (kHasBasis<Map>) {
    if (basis && map.fixed) group = sum_weights(map, tile, g, basis, kept);
  }
  for (; group < map.groups(); ++group) {
    V sums[Map::sums] = {};
    bool done = false;
    if constexpr (kHasBasis<Map>) {
      if (basis && !map.fixed && map.has_place(group)) {
        const auto point = map.control_point(group);
        const T *value = basis.values + group * basis.row,
                *slope = basis.slopes + group * basis.row;
        over_points([&](int i, const V(&here)[D], const V(&of)[D]) __attribute__((always_inline)) {
          map.accumulate(point, load<V>(value + i), load<V>(slope + i), here, of, sums);
        });
        done = true;
      }
    }
    if (!done) {
      over_points([&](int, const V(&here)[D], const V(&of)[D])
                      __attribute__((always_inline)) { map.accumulate(here, of, sums, group); });
    }
    add_group(map, group, sums, kept);
  }
}

template <class Map, class T, int D>
STN_HD void sum_map(const Map& map, const Tile<D>& tile, const T (&grad)[D][kRoom],
                    LaneSums& kept) {
  if constexpr (Map::grouped) {
    sum_groups(map, tile, grad, kept);
  } else {
    sum_gradient(map, tile, grad, kept);
  }
}

// The task's sums over the lanes, in order, of a map that has so few.
inline void add_lanes(const LaneSums& total, int sums) {
  for (int k = 0; k < std::min(sums, kMostSums); ++k) {
    for (double lane : total.of[k]) total.task[k] += lane;
  }
}

// Adds the partial sums in order and turns them into the parameters' gradient, of the warps [begin,
// end).
template <class T, int D>
void finish(MapKind kind, const Warp& warp, const Warp& grad_warp, const Frame<T, D>& frame,
            const int64_t (&output_size)[3], bool align_corners, const Plan& plan, int64_t begin,
            int64_t end) {
  const int64_t groups = plan.tasks / grad_warp.batch;
  const int count = warp.count;
  for (int64_t n = begin; n < end; ++n) {
    const AnyMap<T, D> any(kind, warp, n, frame, output_size, align_corners);
    any.visit([&](const auto& map) {
      using Map = typename std::decay<decltype(map)>::type;
      const auto finish_one = [&](const auto& one, const Warp& to, int first) {
        for (int k = 0; k < to.count; ++k) {
          double sum = 0;
          for (int64_t g = 0; g < groups; ++g) {
            sum += plan.partial[(n * groups + g) * count + first + k];
          }
          store_as(to.data, to.type, n * to.stride_n + k, one.finish(k, sum));
        }
      };
      if constexpr (Map::parametric) {
        finish_one(map, grad_warp, 0);
      } else if constexpr (kIsChain<Map>) {
        const Chain& chain = *warp.chain;
        if (map.outer) finish_one(*map.outer, chain.grad_outer, 0);
        if (map.inner) finish_one(*map.inner, chain.grad_inner, chain.grad_outer.count);
      }
    });
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
