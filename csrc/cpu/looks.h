// Where the points of a tile look: the coordinates of a warp, tile by tile.
#pragma once

#include "cpu/ahead.h"
#include "cpu/values.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Where the tile's points look: look(i, at, x) says it of those that stand `at`, from slot i on. A
// row's last vector may write past it, onto what the next row writes again. What is left of the
// padding looks where the row's last point does.
template <class T, int D, class Look>
STN_HD void coordinates_by(const Tile<D>& tile, T (&x)[D][kRoom], Look&& look) {
  using V = Native<T>;
  if constexpr (D == 2) {
    if (tile.block > 0) {
      return tile.for_each_block([&](int slot, const int32_t (&p)[2], int columns, int rows) {
        V at[D], found[D];
        positions_in_block(p, columns, rows, at);
        look(slot, at, found);
        for (int d = 0; d < D; ++d) store<kLanes<T>>(&x[d][slot], found[d]);
      });
    }
  }
  const auto find = [&](auto folded) __attribute__((always_inline)) {
    tile.for_each_row([&](int slot, const int32_t (&p)[D]) {
      int j = 0;
      for (; j < tile.width; j += kLanes<T>) {
        V at[D], found[D];
        positions<folded.value>(tile, p, j, at);
        look(slot + j, at, found);
        for (int d = 0; d < D; ++d) store<kLanes<T>>(&x[d][slot + j], found[d]);
      }
      for (; j < tile.pitch; j += kLanes<T>) {
        for (int d = 0; d < D; ++d) {
          store<kLanes<T>>(&x[d][slot + j], all<V>(x[d][slot + tile.width - 1]));
        }
      }
    });
  };
  tile.fold > 0 ? find(std::true_type{}) : find(std::false_type{});
}

// By a parametric map.
template <class Map, class T, int D>
STN_HD void coordinates(const Map& map, const Tile<D>& tile, T (&x)[D][kRoom]) {
  using V = Native<T>;
  const Map own = map;  // a copy, which stores cannot touch
  coordinates_by(tile, x, [&](int, const V(&at)[D], V(&look)[D]) __attribute__((always_inline)) {
    own.coordinate(at, look);
  });
}

// What the basis functions of `Vectors` vectors of points, from slot i on, make of them. (One would
// wait for each sum to be ready for the next.)
template <int Vectors, class Map, class T, int D>
STN_HD void add_moves(const Map& map, const BasisRows<T>& basis, int i, T (&moved)[D][kRoom]) {
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  V sum[Vectors][D] = {};
  const T* values = basis.values;
  for (int k = 0; k < map.points; ++k, values += basis.row) {
    for (int m = 0; m < Vectors; ++m) map.add_move(k, load<V>(values + i + m * L), sum[m]);
  }
  for (int m = 0; m < Vectors; ++m) {
    for (int d = 0; d < D; ++d) store<L>(&moved[d][i + m * L], sum[m][d]);
  }
}

// The same from the map's basis functions.
template <class Map, class T, int D>
STN_HD void coordinates(const Map& map, const Tile<D>& tile, const BasisRows<T>& basis,
                        T (&x)[D][kRoom]) {
  using V = Native<T>;
  constexpr int L = kLanes<T>, kTogether = 4;
  alignas(64) T moved[D][kRoom];
  int i = 0;
  for (; i + (kTogether - 1) * L < tile.slots(); i += kTogether * L) {
    add_moves<kTogether>(map, basis, i, moved);
  }
  for (; i < tile.slots(); i += L) add_moves<1>(map, basis, i, moved);
  coordinates_by(tile, x, [&](int at, const V(&p)[D], V(&look)[D]) __attribute__((always_inline)) {
    V by[D];
    for (int d = 0; d < D; ++d) by[d] = load<V>(&moved[d][at]);
    map.arrive(p, by, look);
  });
}

// Where the point p of a map looks.
template <class Map, class T, int D>
STN_HD void look_of(const Map& map, const int32_t (&p)[D], T (&x)[D]) {
  T at[D];
  for (int d = 0; d < D; ++d) at[d] = static_cast<T>(p[d]);
  if constexpr (Map::parametric) {
    map.coordinate(at, x);
  } else {
    map.value(p, x);
    map.reading.look(at, x);
  }
}

template <class T, int D>
STN_SHARED void look_of(const AnyMap<T, D>& any, const int32_t (&p)[D], T (&x)[D]) {
  any.visit([&](const auto& map) { look_of(map, p, x); });
}

// Whether f(type, look) holds for warp n, where look(at, x) says where the point `at` looks, of
// that type. Such hints decide how work is cut, and so in which order is summed.
template <int D, class F>
bool holds_for(const SampleParams& p, int64_t n, F&& f) {
  const auto ask = [&](auto type) {
    using T = decltype(type);
    const auto frame = pixel_frame<T, D>(p);
    const AnyMap<T, D> map(p.map, p.warp, n, frame, p.output_size, p.align_corners);
    return f(type, [&](const int32_t (&at)[D], T(&x)[D]) { look_of(map, at, x); });
  };
  return p.warp.type == ElementType::f64 ? ask(double{}) : ask(float{});
}

// Whether rows of points are aslant, so that they see columns of the image as much as rows; the
// middle of the output stands for all of it.
template <int D>
bool sees_columns(const SampleParams& p, int64_t n) {
  return holds_for<D>(p, n, [&](auto type, auto&& look) {
    using T = decltype(type);
    constexpr int32_t kDistance = 16;
    int32_t at[D];
    T from[D], to[D];
    for (int d = 0; d < D; ++d) at[d] = static_cast<int32_t>(p.output_size[d] / 2);
    look(at, to);
    at[0] = std::max(0, at[0] - kDistance);
    look(at, from);
    return std::abs(to[1] - from[1]) > T(0.3) * kDistance;
  });
}
inline bool sees_columns_of(const SampleParams& p, int64_t n) {
  return p.dims == 2 ? sees_columns<2>(p, n) : sees_columns<3>(p, n);
}

// Whether there are two pixels and more to each point of a plane, but not so many that no two see
// the same; the middle of the output stands for all of it.
inline bool is_sparse(const SampleParams& p, int64_t n) {
  return holds_for<2>(p, n, [&](auto type, auto&& look) {
    using T = decltype(type);
    constexpr int32_t kDistance = 8;
    T from[2], step[2][2];
    int32_t at[2];
    for (int d = 0; d < 2; ++d) at[d] = static_cast<int32_t>(p.output_size[d] / 2);
    look(at, from);
    for (int d = 0; d < 2; ++d) {
      const int32_t distance = std::min(at[d], kDistance);
      at[d] -= distance;
      look(at, step[d]);
      at[d] += distance;
      for (int k = 0; k < 2; ++k) step[d][k] = (from[k] - step[d][k]) / static_cast<T>(distance);
    }
    // (Not so for NaN, as of a single row of points.)
    const T pixels = std::abs(step[0][0] * step[1][1] - step[0][1] * step[1][0]);
    return pixels >= 2 && pixels < 6;
  });
}

// Whether neighbouring points look at places far apart, so that nothing in a cache serves both.
template <int D>
bool is_scattered(const SampleParams& p, int64_t n) {
  return holds_for<D>(p, n, [&](auto type, auto&& look) {
    using T = decltype(type);
    // (Of few points, asking each warp must not cost much beside them.)
    const int places = points(p.output_size, D) <= kTile ? 4 : 8;
    int far = 0, near = 0;
    for (int k = 0; k < places && 2 * far <= places && 2 * near < places; ++k) {
      int32_t at[D];
      T from[D], to[D];
      for (int d = 0; d < D; ++d) {
        at[d] = static_cast<int32_t>(p.output_size[d] * (2 * k + 1) / (2 * places));
      }
      look(at, to);
      at[0] = at[0] > 0 ? at[0] - 1 : static_cast<int32_t>(p.output_size[0] - 1);
      look(at, from);
      bool apart = std::abs(to[0] - from[0]) > 64;
      for (int d = 1; d < D; ++d) apart |= std::abs(to[d] - from[d]) > 8;
      apart ? ++far : ++near;
    }
    return 2 * far > places;
  });
}
inline bool is_scattered_of(const SampleParams& p, int64_t n) {
  return p.dims == 2 ? is_scattered<2>(p, n) : is_scattered<3>(p, n);
}

// Where the points of a tile look, in pixels.
template <class T, int D>
struct alignas(64) Looks {
  T x[D][kRoom];
  Frame<T, D> frame;
  bool monotonic;           // along each row of points and from row to row, as they are in x
  bool ranged;              // whether all of x is known to lie
  T least[D], greatest[D];  // in these intervals
};

// The intervals between where the four corners look: corner(k, x) says it of one. Whether they look
// so near that this is all there is to say.
template <class T, int D, class Corner>
STN_HD bool range_of_corners(Corner&& corner, T (&least)[D], T (&greatest)[D]) {
  std::fill(least, least + D, coordinate_limit<T>());
  std::fill(greatest, greatest + D, -coordinate_limit<T>());
  bool near = true;
  for (int k = 0; k < 4; ++k) {
    T x[D];
    corner(k, x);
    for (int d = 0; d < D; ++d) {
      near &= std::abs(x[d]) < coordinate_limit<T>();  // not so for NaN
      least[d] = std::min(least[d], x[d]);
      greatest[d] = std::max(greatest[d], x[d]);
    }
  }
  return near;
}

// Where corner k of a tile looks: of whole rows laid end to end, from the first one of which there
// is a point to the last.
template <class Map, class T, int D>
STN_HD void look_of_corner(const Map& map, const Tile<D>& tile, int k, T (&x)[D]) {
  int32_t p[D];
  for (int d = 0; d < D; ++d) p[d] = tile.first[d];
  const int32_t right = k % 2, below = k / 2;
  if (tile.fold > 0) {
    p[0] = right * (tile.fold - 1);
    p[1] = (tile.first[0] + below * (tile.width - 1)) / tile.fold;
  } else {
    p[0] += right * (tile.width - 1);
    p[1] += below * (tile.rows - 1);
  }
  look_of(map, p, x);
}

// Finds the intervals in which a tile looks, those of its corners, if the map is monotonic.
template <class Map, class T, int D>
STN_HD void find_range(const Map& map, const Tile<D>& tile, Looks<T, D>& looks) {
  looks.ranged = Map::monotonic;
  if (!Map::monotonic) return;
  const int below = tile.rows - 1, right = tile.width - 1;
  const auto corner = [&](int k, T(&x)[D]) {
    if (tile.fold > 0) return look_of_corner(map, tile, k, x);
    for (int d = 0; d < D; ++d) x[d] = looks.x[d][tile.slot_of(k % 2 * right, k / 2 * below)];
  };
  looks.ranged = range_of_corners(corner, looks.least, looks.greatest);
}

// Where the tile looks through the map of warp n. (One copy for all kernels: there are many maps.)
template <class T, int D>
STN_SHARED void look_through(const AnyMap<T, D>& any, const Tile<D>& tile, Looks<T, D>& looks,
                             Basis& basis, int64_t n) {
  any.visit([&](const auto& map) {
    if constexpr (kHasBasis<typename std::decay<decltype(map)>::type>) {
      const auto rows = basis.of(map, n, tile);
      rows ? coordinates(map, tile, rows, looks.x) : coordinates(map, tile, looks.x);
    } else {
      coordinates(map, tile, looks.x);
    }
    find_range(map, tile, looks);
  });
}

// Whether a tile is known to see nothing but the image's inside.
template <class T, int D>
STN_HD bool look_inside(Interpolation interpolation, const Looks<T, D>& looks) {
  const T reach = interpolation == Interpolation::bicubic ? T(1) : T(0);
  bool inside = looks.ranged;
  for (int d = 0; d < D; ++d) {
    inside &= looks.least[d] > reach && looks.greatest[d] < looks.frame.axis[d].last - reach;
  }
  return inside;
}

// The boundary rules that count for a tile: inside the image all are the same, and zeros the
// cheapest way to say so.
template <class T, int D>
STN_HD void choose_rules(const SampleParams& p, Looks<T, D>& looks) {
  const bool inside = look_inside(p.interpolation, looks);
  for (int d = 0; d < D; ++d) {
    looks.frame.axis[d].padding = inside ? Padding::zeros : p.padding[d];
  }
  if (inside) took(Path::inside);
}

// Whether a tile is known to see nothing but the zeros around the image.
template <int K, class T, int D>
STN_HD bool look_outside(const Looks<T, D>& looks) {
  if (!looks.ranged) return false;
  const T reach = K == 4 ? T(2) : T(1);
  bool outside = false;
  for (int d = 0; d < D; ++d) {
    if (looks.frame.axis[d].padding != Padding::zeros) continue;
    outside |= looks.greatest[d] < -reach;  // at -reach, a slope counts
    outside |= looks.least[d] >= looks.frame.axis[d].last + reach;
  }
  return outside;
}

// The boundary rules as far as they are rules of a look: of bicubic, those of its taps, except that
// a look that wraps takes its taps along.
template <int K, class T, int D>
STN_HD Frame<T, D> frame_of_looks(const Frame<T, D>& frame) {
  Frame<T, D> of_looks = frame;
  for (int d = 0; d < D; ++d) {
    Padding& padding = of_looks.axis[d].padding;
    if (K == 4 && padding != Padding::wrap) padding = Padding::zeros;
  }
  return of_looks;
}

// Whether taps beyond the image stand elsewhere in it, so that a look needs room for all of its
// taps to find them next to each other.
template <int K, class AnyAxis>
STN_HD bool needs_room(const AnyAxis& axis) {
  if (K == 4) return axis.padding != Padding::zeros;
  return K == 2 && axis.padding == Padding::wrap;
}
template <int K, class T, int D>
STN_HD bool any_needs_room(const Frame<T, D>& frame) {
  bool any = false;
  for (int d = 0; d < D; ++d) any |= needs_room<K>(frame.axis[d]);
  return any;
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
