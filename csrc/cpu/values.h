// The values of a free map, read and their gradients written as vectors.
#pragma once

#include "cpu/tile.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Component d of points whose components lie next to each other, D vectors of them.
template <int D, class V>
STN_HD V component(const V (&packed)[D], Integer<V> point, int d) {
  constexpr int L = kLanes<Scalar<V>>;
  const Integer<V> index = point * D + d;
  const V low = select_lanes(packed[0], packed[1], Integer<V>(index & (2 * L - 1)));
  if (D == 2) return low;
  const Integer<V> lane = truncate(counting<V>());
  return select_lanes(low, packed[D - 1], Integer<V>(index < 2 * L ? lane : index - L));
}

// The inverse: the k-th of the D vectors of points' components that lie next to each other.
template <int D, class V>
STN_HD V packed_vector(const V (&value)[D], int k) {
  constexpr int L = kLanes<Scalar<V>>;
  Integer<V> point, component, lane = truncate(counting<V>());
  for (int i = 0; i < L; ++i) {
    point[i] = (k * L + i) / D;
    component[i] = (k * L + i) % D;
  }
  const V low = select_lanes(value[0], value[1], Integer<V>(component == 1 ? point + L : point));
  V packed = low;
  for (int d = 2; d < D; ++d) {
    packed = select_lanes(packed, value[d], Integer<V>(component == d ? point + L : lane));
  }
  return packed;
}

// The values of `count` points of a free map, up to a vector of them, from `from` on. Packed, or
// planar: the components of a row's points each lie next to each other; or neither.
template <class V, int D, class T, class E, bool Packed>
STN_HD void load_values(const GridMap<T, D, E, Packed>& map, bool planar, const E* from, int count,
                        V (&value)[D]) {
  constexpr int L = kLanes<T>;
  if constexpr (Packed) {
    V packed[D];
    for (int k = 0; k < D; ++k) {
      const int left = D * count - k * L;
      packed[k] = left >= L ? load_pixels<V>(from + k * L)
                            : load_pixels<V>(from + k * L, std::max(left, 0));
    }
    const Integer<V> lane = truncate(counting<V>());
    for (int d = 0; d < D; ++d) value[d] = component<D>(packed, lane, d);
  } else if (planar) {
    for (int d = 0; d < D; ++d) value[d] = load_some<V>(from + d * map.stride_k, count);
  } else {
    for (int d = 0; d < D; ++d) {
      T one[L] = {};
      for (int k = 0; k < count; ++k) {
        one[k] = static_cast<T>(to_float(from[k * map.stride[0] + d * map.stride_k]));
      }
      value[d] = load<V>(one);
    }
  }
}

// Announces the values of a vector of points from `from` on.
template <class T, int D, class E, bool Packed>
STN_HD void announce_values(const GridMap<T, D, E, Packed>& map, bool planar, const E* from) {
  if (!Packed && !planar) return;
  for (int d = 0; d < D; ++d) {
    __builtin_prefetch(from + (Packed ? d * kLanes<T> : d * map.stride_k));
  }
}

// Calls use(slot, look) for each vector of a tile's points, row by row, by a free map; lanes behind
// a row's last point look where that does.
template <class T, int D, class E, bool Packed, class Use>
STN_HD void look_by_vectors(const GridMap<T, D, E, Packed>& map, const Tile<D>& tile, Use&& use) {
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  const bool planar = map.stride[0] == 1;
  const Reading<T, D> reading = map.reading;  // a copy, which stores cannot touch
  const Integer<V> lane = truncate(counting<V>());
  const int64_t ahead = offset_of<D>(tile.next, map.stride);  // (No error past the end.)
  tile.for_each_row([&](int slot, const int32_t (&p)[D]) {
    const E* from = map.at(p);
    const int64_t next = L * (Packed ? D : map.stride[0]);
    for (int j = 0; j < tile.width; j += L, from += next) {
      const int count = std::min(L, tile.width - j);
      V look[D], at[D] = {};
      load_values(map, planar, from, count, look);
      announce_values(map, planar, from + ahead);
      if (reading.relative) positions(tile, p, j, at);
      reading.look(at, look);
      for (int d = 0; d < D && count < L; ++d) {
        look[d] = select_lanes(look[d], look[d],
                               Integer<V>(lane < count ? lane : all_index<V>(count - 1)));
      }
      use(slot + j, look);
    }
  });
}

// Where the tile's points look, by a free map. A row's last vector may write past it, as above, and
// padding looks where the row's last point does.
template <class T, int D, class E, bool Packed>
STN_HD void coordinates(const GridMap<T, D, E, Packed>& map, const Tile<D>& tile,
                        T (&x)[D][kRoom]) {
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  const bool planar = map.stride[0] == 1;
  took(Packed ? Path::grid_packed : planar ? Path::grid_planar : Path::grid_strided);
  look_by_vectors(map, tile, [&](int slot, const V(&look)[D]) __attribute__((always_inline)) {
    for (int d = 0; d < D; ++d) store<L>(&x[d][slot], look[d]);
  });
  const int end = (tile.width + L - 1) / L * L;
  for (int row = 0; row < tile.rows && end < tile.pitch; ++row) {
    for (int d = 0; d < D; ++d) {
      T* of_row = x[d] + row * tile.pitch;
      std::fill(of_row + end, of_row + tile.pitch, of_row[tile.width - 1]);
    }
  }
}

// A free map's values, of a type: the gradient of each, written, or added to what stands there.
template <class Element, class T, int D>
STN_HD void write_gradient(const Reading<T, D>& reading, const SampleParams& p, bool add, int64_t n,
                           const Tile<D>& tile, const T (&grad)[D][kRoom]) {
  using V = Native<T>;
  const Warp& out = p.grad_warp;
  Element* data = static_cast<Element*>(out.data) + n * out.stride_n;
  constexpr int L = kLanes<T>;
  const auto vectors = [&](auto&& write) __attribute__((always_inline)) {
    tile.for_each_row([&](int slot, const int32_t (&at)[D]) {
      Element* row = data + offset_of<D>(at, out.stride);
      for (int j = 0; j < tile.width; j += L) {
        V g[D];
        for (int d = 0; d < D; ++d) g[d] = load<V>(&grad[d][slot + j]);
        reading.gradient(g);
        write(g, row + j * out.stride[0], std::min(L, tile.width - j));
      }
    });
  };
  const auto put = [&](Element* to, V g, int count) __attribute__((always_inline)) {
    if (add) g += load_some<V>(to, count);
    store_pixels(to, g, count);
  };
  if constexpr (D == 2) {
    if (tile.block > 0) {  // of slopes, axis by axis
      return tile.for_each_block([&](int slot, const int32_t (&at)[2], int columns, int rows) {
        V g[D];
        for (int d = 0; d < D; ++d) g[d] = load<V>(&grad[d][slot]);
        reading.gradient(g);
        Element* to = data + offset_of<D>(at, out.stride);
        for (int d = 0; d < D; ++d) {
          store_block(to + d * out.stride_k, out.stride[1], g[d], columns, rows);
        }
      });
    }
  }
  if (out.stride[0] == 1) {
    return vectors([&](const V(&g)[D], Element* to, int count) __attribute__((always_inline)) {
      for (int d = 0; d < D; ++d) put(to + d * out.stride_k, g[d], count);
    });
  }
  if (out.stride_k == 1 && out.stride[0] == D) {
    return vectors([&](const V(&g)[D], Element* to, int count) __attribute__((always_inline)) {
#pragma GCC unroll 3
      for (int k = 0; k < D; ++k) {
        const int n = std::min(L, D * count - k * L);
        if (n > 0) put(to + k * L, packed_vector<D>(g, k), n);
      }
    });
  }
  vectors([&](const V(&g)[D], Element* to, int count) {
    for (int j = 0; j < count; ++j) {
      for (int d = 0; d < D; ++d) {
        Element& one = to[j * out.stride[0] + d * out.stride_k];
        one = Rounded<Element>::from(g[d][j] + (add ? static_cast<T>(to_float(one)) : T(0)));
      }
    }
  });
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
