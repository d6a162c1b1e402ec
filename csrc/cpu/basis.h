// The radial basis functions of a map that has them (math/spline.h) at the points of some tiles.
// They follow from the control points alone, and take longer than all that is made of them; so
// they are kept, from where a tile's points look to the sums of the parameters' gradient, and from
// one warp to the next where all have the same control points.
#pragma once

#include "cpu/partial.h"
#include "cpu/tile.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// A tile's: for each control point a row of so many values and, if they were asked for and it is
// not fixed, of slopes.
template <class T>
struct BasisRows {
  int64_t row = 0;
  const T* values = nullptr;
  const T* slopes = nullptr;
  explicit operator bool() const { return values; }
};

// Where the tile's points stand; beside them, somewhere.
template <class T, int D>
STN_HD void find_positions(const Tile<D>& tile, T (&at)[D][kRoom]) {
  using V = Native<T>;
  for (auto& along : at) std::fill(along, along + kRoom, T(0));
  tile.for_each_row([&](int slot, const int32_t (&p)[D]) {
    for (int j = 0; j < tile.width; j += kLanes<T>) {
      V here[D];
      positions(tile, p, j, here);
      for (int d = 0; d < D; ++d) store<kLanes<T>>(&at[d][slot + j], here[d]);
    }
  });
}

template <class Map, class T, int D>
__attribute__((noinline)) void find_basis(const Map& map, const Tile<D>& tile, int64_t row,
                                          T* values, T* slopes) {
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  const Map of = map;  // a copy, which the stores cannot touch
  alignas(64) T at[D][kRoom];
  find_positions(tile, at);
  for (int k = 0; k < of.points; ++k, values += row) {
    T place[D];
    for (int d = 0; d < D; ++d) place[d] = of.controls[k * D + d];
    for (int i = 0; i < tile.slots(); i += L) {
      V here[D];
      for (int d = 0; d < D; ++d) here[d] = load<V>(&at[d][i]);
      const auto u = of.basis(place, here);
      store<L>(values + i, u.value());
      if (slopes) store<L>(slopes + i, u.slope());
    }
    if (slopes) slopes += row;
  }
}

// Those that a thread keeps; none where the plan says so.
class Basis {
 public:
  Basis() = default;
  Basis(const Plan& plan, bool slopes)
      : tiles_(plan.tiles),
        slots_(plan.basis_tiles),
        row_(basis_row(plan)),
        shared_(plan.basis_shared),
        slopes_(slopes) {
    std::fill(held_, held_ + kMostBasisTiles, -1);
  }

  // Of a tile of warp n, whose map is given. They last until as many other tiles are asked for as
  // are kept.
  template <class Map, int D, class T = typename Map::coordinate_type>
  STN_HD BasisRows<T> of(const Map& map, int64_t n, const Tile<D>& tile) {
    if (slots_ == 0) return {};
    const bool with_slopes = slopes_ && !map.fixed;
    const int64_t rows = map.points * row_, size = with_slopes ? 2 * rows : rows;
    if (!room_) room_.reset(new unsigned char[slots_ * size * sizeof(T) + kAlign]);
    const int64_t slot = tile.index % slots_, wanted = (shared_ ? 0 : n) * tiles_ + tile.index;
    T* values =
        reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(room_.get()) / kAlign * kAlign + kAlign) +
        slot * size;
    T* slopes = with_slopes ? values + rows : nullptr;
    took(held_[slot] == wanted ? Path::basis_kept : Path::basis_found);
    if (held_[slot] != wanted) find_basis(map, tile, row_, values, slopes);
    held_[slot] = wanted;
    return {row_, values, slopes};
  }

 private:
  static constexpr uintptr_t kAlign = 64;

  int64_t tiles_ = 0, slots_ = 0, row_ = 0;
  bool shared_ = false, slopes_ = false;
  int64_t held_[kMostBasisTiles];  // by the tile's index and, unless they are shared, its warp's
  std::unique_ptr<unsigned char[]> room_;
};

template <class Map>
constexpr bool kHasBasis = false;
template <class T, int D>
constexpr bool kHasBasis<ThinPlateSplineMap<T, D>> = true;

// f(n, first, last) for the tiles [first, last) of each warp n in tasks [begin, end), each of them
// a warp and a group of plan.tiles_per_task tiles, where warp after warp comes to these. (So many
// threads may share a group as there are warps.)
template <class F>
STN_HD void for_each_stretch(const Plan& plan, int64_t warps, int64_t begin, int64_t end, F&& f) {
  for (int64_t task = begin; task < end;) {
    const int64_t n = task % warps, count = std::min(warps - n, end - task);
    const int64_t group = task / warps * plan.tiles_per_task;
    const int64_t last = std::min(plan.tiles, group + plan.tiles_per_task);
    for (int64_t first = group; first < last; first += plan.basis_tiles) {
      for (int64_t k = n; k < n + count; ++k) {
        f(k, first, std::min(last, first + plan.basis_tiles));
      }
    }
    task += count;
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
