// A tile: up to kTile neighbouring output points of one warp, their coordinates, and the taps that
// those make, as arrays over the points.
#pragma once

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/pixels.h"
#include "math/interpolation.h"
#include "math/warp.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// A rectangle of output points. Its arrays hold a slot per point, row by row; if it is padded, each
// row goes on to a multiple of kRowAlign with slots whose values are computed and dropped.
template <int D>
struct Tile {
  int32_t first[D];  // the position of its first point
  int32_t width, rows, pitch;
  bool padded;

  STN_HD Tile(const Plan& plan, const int64_t (&size)[3], int64_t tile) {
    const int64_t across = (size[0] + plan.tile_width - 1) / plan.tile_width;
    const int64_t down = (size[1] + plan.tile_rows - 1) / plan.tile_rows;
    first[0] = static_cast<int32_t>(tile % across * plan.tile_width);
    first[1] = static_cast<int32_t>(tile / across % down * plan.tile_rows);
    if (D == 3) first[D - 1] = static_cast<int32_t>(tile / across / down);
    width = static_cast<int32_t>(std::min<int64_t>(plan.tile_width, size[0] - first[0]));
    rows = static_cast<int32_t>(std::min<int64_t>(plan.tile_rows, size[1] - first[1]));
    padded = plan.padded;
    pitch = padded ? (width + kRowAlign - 1) / kRowAlign * kRowAlign : width;
  }

  STN_HD int slots() const { return rows * pitch; }

  // f(slot, p) for each row: the slot and the position of its first point.
  template <class F>
  STN_HD void for_each_row(F&& f) const {
    int32_t p[D];
    for (int d = 0; d < D; ++d) p[d] = first[d];
    for (int row = 0; row < rows; ++row) {
      f(row * pitch, p);
      ++p[1];
    }
  }
};

// The offset of position p in a tensor with these strides.
template <int D>
STN_HD int64_t offset_of(const int32_t (&p)[D], const int64_t (&stride)[3]) {
  int64_t offset = 0;
  for (int d = 0; d < D; ++d) offset += p[d] * stride[d];
  return offset;
}

// Calls f with the map of warp n.
template <class T, int D, class F>
STN_HD void with_map(MapKind kind, const Warp& warp, int64_t n, const Frame<T, D>& frame,
                     const int64_t (&output_size)[3], bool align_corners, F&& f) {
  if (kind == MapKind::affine) {
    f(AffineMap<T, D>(warp, n, frame, output_size, align_corners));
    return;
  }
  const bool packed = warp.stride_k == 1 && warp.stride[0] == D;
  const auto grid = [&](auto element) {
    using Element = decltype(element);
    if (packed) {
      f(GridMap<T, D, Element, true>(warp, n, frame));
    } else {
      f(GridMap<T, D, Element, false>(warp, n, frame));
    }
  };
  if constexpr (sizeof(T) == sizeof(double)) {
    grid(double{});
  } else if (warp.type == ElementType::f32) {
    grid(float{});
  } else if (warp.type == ElementType::f16) {
    grid(Half{});
  } else {
    grid(BFloat16{});
  }
}

// The positions of a row's points as vectors: x runs, the rest is the same in all lanes.
template <class V, int D>
STN_HD void positions(const int32_t (&p)[D], int j, V (&at)[D]) {
  at[0] = counting<V>() + static_cast<Scalar<V>>(p[0] + j);
  for (int d = 1; d < D; ++d) at[d] = all<V>(static_cast<Scalar<V>>(p[d]));
}

// Where the tile's points look, parametric. A row's last vector may write past it, onto what the
// next row writes again. What is left of the padding looks where the row's last point does.
template <class Map, class T, int D>
STN_HD void coordinates(const Map& map, const Tile<D>& tile, T (&x)[D][kRoom]) {
  using V = Native<T>;
  tile.for_each_row([&](int slot, const int32_t (&p)[D]) {
    int j = 0;
    for (; j < tile.width; j += kLanes<T>) {
      V at[D], look[D];
      positions(p, j, at);
      map.coordinate(at, look);
      for (int d = 0; d < D; ++d) store<kLanes<T>>(&x[d][slot + j], look[d]);
    }
    for (; j < tile.pitch; j += kLanes<T>) {
      for (int d = 0; d < D; ++d) {
        store<kLanes<T>>(&x[d][slot + j], all<V>(x[d][slot + tile.width - 1]));
      }
    }
  });
}

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

// Where the tile's points look, from a grid. Padding looks where the row's last point does.
template <class T, int D, class E, bool Packed>
STN_HD void coordinates(const GridMap<T, D, E, Packed>& map, const Tile<D>& tile,
                        T (&x)[D][kRoom]) {
  took(Packed ? Path::grid_packed : Path::grid_strided);
  using V = Native<T>;
  constexpr int L = kLanes<T>;
  Axis<T> axis[D];
  for (int d = 0; d < D; ++d) axis[d] = map.frame.axis[d];
  const Integer<V> lane = truncate(counting<V>());
  const auto put = [&](int i, const V(&packed)[D], Integer<V> point)
                       __attribute__((always_inline)) {
                         for (int d = 0; d < D; ++d) {
                           store<L>(&x[d][i], to_pixel(axis[d], component<D>(packed, point, d)));
                         }
                       };
  tile.for_each_row([&](int slot, const int32_t (&p)[D]) {
    int j = 0;
    if constexpr (Packed) {
      const E* from = map.at(p);
      V packed[D];
      for (; j + L <= tile.width; j += L, from += D * L) {
        for (int k = 0; k < D; ++k) packed[k] = load_pixels<V>(from + k * L);
        put(slot + j, packed, lane);
      }
      if (j < tile.width) {
        const int left = tile.width - j;
        for (int k = 0; k < D; ++k) {
          packed[k] = load_pixels<V>(from + k * L, std::clamp(D * left - k * L, 0, L));
        }
        put(slot + j, packed, lane < left ? lane : all_index<V>(left - 1));
        j += L;
      }
    } else {
      for (; j < tile.width; ++j) {
        int32_t q[D];
        T value[D];
        for (int d = 0; d < D; ++d) q[d] = p[d] + (d == 0 ? j : 0);
        map.value(q, value);
        for (int d = 0; d < D; ++d) x[d][slot + j] = to_pixel(axis[d], value[d]);
      }
    }
    for (; j < tile.pitch; ++j) {
      for (int d = 0; d < D; ++d) x[d][slot + j] = x[d][slot + tile.width - 1];
    }
  });
}

// Where the point p of a parametric map or a grid looks.
template <class Map, class T, int D>
STN_HD void look_of(const Map& map, const int32_t (&p)[D], T (&x)[D]) {
  if constexpr (Map::parametric) {
    T at[D];
    for (int d = 0; d < D; ++d) at[d] = static_cast<T>(p[d]);
    map.coordinate(at, x);
  } else {
    map.value(p, x);
    for (int d = 0; d < D; ++d) x[d] = to_pixel(map.frame.axis[d], x[d]);
  }
}

// Whether rows of points see columns of the image rather than rows: the middles of a few warps'
// outputs stand for all. How a tile is cut depends on it, what is computed does not.
template <int D>
bool sees_columns(const SampleParams& p) {
  const auto look = [&](auto type) {
    using T = decltype(type);
    const auto frame = pixel_frame<T, D>(p.input_size, p.align_corners);
    const int64_t warps = std::min<int64_t>(p.warp.batch, 4);
    int columns = 0;
    for (int64_t n = 0; n < warps; ++n) {
      with_map<T, D>(p.map, p.warp, n, frame, p.output_size, p.align_corners, [&](const auto& map) {
        constexpr int32_t kDistance = 16;
        int32_t at[D];
        T from[D], to[D];
        for (int d = 0; d < D; ++d) at[d] = static_cast<int32_t>(p.output_size[d] / 2);
        look_of(map, at, to);
        at[0] = std::max(0, at[0] - kDistance);
        look_of(map, at, from);
        columns += std::abs(to[1] - from[1]) > T(0.5) * kDistance;
      });
    }
    return 2 * columns > warps;
  };
  return p.warp.type == ElementType::f64 ? look(double{}) : look(float{});
}
inline bool sees_columns_of(const SampleParams& p) {
  return p.dims == 2 ? sees_columns<2>(p) : sees_columns<3>(p);
}

// The taps of a tile. A: the type in which the image's values accumulate.
template <class A, int K, int D>
struct alignas(64) TileTaps {
  int32_t index[D][K][kRoom];
  A weight[D][K][kRoom];
  A slope[D][K][kRoom];  // filled on request
};

// Calls f with the padding as a compile-time constant, so that each of its loops is compiled
// without the others' work.
template <Padding P>
struct PaddingTag {
  static constexpr Padding value = P;
};
template <class F>
STN_HD void with_padding(Padding padding, F&& f) {
  if (padding == Padding::zeros) {
    f(PaddingTag<Padding::zeros>{});
  } else if (padding == Padding::border) {
    f(PaddingTag<Padding::border>{});
  } else {
    f(PaddingTag<Padding::reflection>{});
  }
}

// Whether a linear look at each of these coordinates is one inside the image.
template <class T, int D>
STN_HD bool all_inside(const Frame<T, D>& frame, const T (&x)[D][kRoom], int count) {
  using V = Native<T>;
  auto inside = is_inside(frame.axis[0], load<V>(x[0]));
  for (int d = 0; d < D; ++d) {
    for (int i = 0; i < count; i += kLanes<T>)
      inside &= is_inside(frame.axis[d], load<V>(x[d] + i));
  }
  return all_lanes(inside);
}

template <bool Slopes, class T, class A, int K, int D>
void fill_taps(const Frame<T, D>& frame, Padding padding, const T (&x)[D][kRoom], int count,
               TileTaps<A, K, D>& taps) {
  using V = Native<T>;
  const auto fill = [&](auto&& taps_of) __attribute__((always_inline)) {
    for (int d = 0; d < D; ++d) {
      const Axis<T> axis = frame.axis[d];  // a copy, which the stores cannot touch
      for (int i = 0; i < count; i += kLanes<T>) {
        Taps<V, K> one;
        taps_of(axis, load<V>(x[d] + i), one);
        for (int k = 0; k < K; ++k) {
          store<kLanes<T>>(&taps.index[d][k][i], one.index[k]);
          store<kLanes<T>>(&taps.weight[d][k][i], one.weight[k]);
          if (Slopes) store<kLanes<T>>(&taps.slope[d][k][i], one.slope[k]);
        }
      }
    }
  };
  const auto bounded = [&](auto tag) __attribute__((always_inline)) {
    fill([](const Axis<T>& axis, V at, Taps<V, K>& one)
             __attribute__((always_inline)) { axis_taps(axis, decltype(tag)::value, at, one); });
  };
  if constexpr (K == 2) {
    if (all_inside(frame, x, count)) {
      took(Path::taps_inside);
      fill([](const Axis<T>&, V at, Taps<V, K>& one)
               __attribute__((always_inline)) { axis_taps_inside(at, one); });
      return;
    }
  }
  took(Path::taps_bounded);
  with_padding(padding, bounded);
}

// Where the points of a tile look, in pixels.
template <class T, int D>
struct alignas(64) Looks {
  T x[D][kRoom];
  Frame<T, D> frame;
  bool monotonic;  // along each row of points and from row to row
};

// Calls f with the looks of warp n's tile. Coordinates are computed in float32, in float64 where
// the grid or theta is float64.
template <int D, class F>
STN_HD void with_looks(const SampleParams& p, int64_t n, const Tile<D>& tile, F&& f) {
  const auto look = [&](auto type) {
    using T = decltype(type);
    Looks<T, D> looks;
    looks.frame = pixel_frame<T, D>(p.input_size, p.align_corners);
    with_map<T, D>(p.map, p.warp, n, looks.frame, p.output_size, p.align_corners,
                   [&](const auto& map) {
                     looks.monotonic = std::decay<decltype(map)>::type::monotonic;
                     coordinates(map, tile, looks.x);
                   });
    f(looks);
  };
  p.warp.type == ElementType::f64 ? look(double{}) : look(float{});
}

// Whether a tile whose outermost looks are at its corners sees nothing but the zeros around the
// image.
template <int K, class T, int D>
STN_HD bool look_outside(Padding padding, const Tile<D>& tile, const Looks<T, D>& looks) {
  if (padding != Padding::zeros || !looks.monotonic) return false;
  const int below = (tile.rows - 1) * tile.pitch, right = tile.width - 1;
  const int corner[4] = {0, right, below, below + right};
  const T reach = K == 4 ? T(2) : T(1);
  for (int d = 0; d < D; ++d) {
    bool before = true, after = true;
    for (int i : corner) {
      before &= looks.x[d][i] < -reach;  // at -reach, a slope counts
      after &= looks.x[d][i] >= looks.frame.axis[d].last + reach;
    }
    if (before || after) return true;
  }
  return false;
}

// Calls f(element, interpolation, dims) with the compile-time forms of what p says.
template <Interpolation I>
struct InterpolationTag {
  static constexpr Interpolation value = I;
};
template <int D>
struct DimsTag {
  static constexpr int value = D;
};

template <class F>
STN_HD void with_element(ElementType type, F&& f) {
  switch (type) {
    case ElementType::f32:
      return f(float{});
    case ElementType::f64:
      return f(double{});
    case ElementType::f16:
      return f(Half{});
    case ElementType::bf16:
      return f(BFloat16{});
  }
}

template <class F>
STN_HD void with_types(const SampleParams& p, ElementType type, F&& f) {
  with_element(type, [&](auto element) {
    switch (p.interpolation) {
      case Interpolation::bilinear:
        if (p.dims == 2)
          return f(element, InterpolationTag<Interpolation::bilinear>{}, DimsTag<2>{});
        return f(element, InterpolationTag<Interpolation::bilinear>{}, DimsTag<3>{});
      case Interpolation::nearest:
        if (p.dims == 2)
          return f(element, InterpolationTag<Interpolation::nearest>{}, DimsTag<2>{});
        return f(element, InterpolationTag<Interpolation::nearest>{}, DimsTag<3>{});
      case Interpolation::bicubic:  // 2-D only: ops.cpp refuses the rest
        return f(element, InterpolationTag<Interpolation::bicubic>{}, DimsTag<2>{});
    }
  });
}

// The images that look through warp n: one, or all where the warp is broadcast.
struct BatchRange {
  int64_t begin, end;
};
STN_HD BatchRange images_of_warp(const SampleParams& p, int64_t n) {
  return p.warp.batch == 1 ? BatchRange{0, p.batch} : BatchRange{n, n + 1};
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
