// A tile: up to kTile consecutive output points of one warp, their coordinates, and the taps that
// those make, as arrays over the points.
#pragma once

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/simd.h"
#include "math/interpolation.h"
#include "math/warp.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// f(i, run, p) for every stretch of the points [begin, begin + count) that lies in one row: the
// stretch starts at the tile's point i, at output position p, and has run points.
template <int D, class F>
STN_HD void for_each_run(const int64_t (&size)[3], int64_t begin, int count, F&& f) {
  int32_t p[D];
  int64_t rest = begin;
  for (int d = 0; d < D; ++d) {
    p[d] = static_cast<int32_t>(d + 1 < D ? rest % size[d] : rest);
    rest /= size[d];
  }
  for (int i = 0; i < count;) {
    const int run = static_cast<int>(std::min<int64_t>(count - i, size[0] - p[0]));
    f(i, run, p);
    i += run;
    p[0] = 0;
    if (++p[1] == size[1] && D == 3) {
      p[1] = 0;
      ++p[D - 1];
    }
  }
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

// Arrays over a tile's points have room for a last vector that is not full.
constexpr int kRoom = kTile + 16;

// The position of a stretch's points as vectors: x runs, the rest is the same in all lanes.
template <class V, int D>
STN_HD void positions(const int32_t (&p)[D], int j, V (&at)[D]) {
  at[0] = counting<V>() + static_cast<Scalar<V>>(p[0] + j);
  for (int d = 1; d < D; ++d) at[d] = all<V>(static_cast<Scalar<V>>(p[d]));
}

// Where the tile's points look, parametric: computed row by row. A stretch's last vector may write
// past it, onto what the next stretch writes again.
template <class Map, class T, int D>
STN_HD void coordinates(const Map& map, const int64_t (&size)[3], int64_t begin, int count,
                        T (&x)[D][kRoom]) {
  using V = Native<T>;
  for_each_run<D>(size, begin, count, [&](int i, int run, const int32_t (&p)[D]) {
    for (int j = 0; j < run; j += kLanes<T>) {
      V at[D], look[D];
      positions(p, j, at);
      map.coordinate(at, look);
      for (int d = 0; d < D; ++d) store<kLanes<T>>(&x[d][i + j], look[d]);
    }
  });
}

// Where the tile's points look, from a grid: copied, then turned into pixels.
template <class T, int D, class E, bool Packed>
STN_HD void coordinates(const GridMap<T, D, E, Packed>& map, const int64_t (&size)[3],
                        int64_t begin, int count, T (&x)[D][kRoom]) {
  for_each_run<D>(size, begin, count, [&](int i, int run, const int32_t (&p)[D]) {
    for (int j = 0; j < run; ++j) {
      int32_t q[D];
      T value[D];
      for (int d = 0; d < D; ++d) q[d] = p[d] + (d == 0 ? j : 0);
      map.value(q, value);
      for (int d = 0; d < D; ++d) x[d][i + j] = value[d];
    }
  });
  for (int d = 0; d < D; ++d) {
    for (int i = 0; i < count; i += kLanes<T>) {
      store<kLanes<T>>(&x[d][i], to_pixel(map.frame.axis[d], load<Native<T>>(&x[d][i])));
    }
  }
}

// The taps of a tile. A: the type in which the image's values accumulate.
template <class A, int K, int D>
struct alignas(64) TileTaps {
  int32_t index[D][K][kRoom];
  A weight[D][K][kRoom];
  A slope[D][K][kRoom];  // filled on request
};

template <bool Slopes, class A, int K, class T>
STN_HD void fill_axis(const Axis<T>& axis, Padding padding, const T* x, int count,
                      int32_t (&index)[K][kRoom], A (&weight)[K][kRoom], A (&slope)[K][kRoom]) {
  for (int i = 0; i < count; i += kLanes<T>) {
    Taps<Native<T>, K> taps;
    axis_taps(axis, padding, load<Native<T>>(x + i), taps);
    for (int k = 0; k < K; ++k) {
      store<kLanes<T>>(&index[k][i], taps.index[k]);
      store<kLanes<T>>(&weight[k][i], taps.weight[k]);
      if (Slopes) store<kLanes<T>>(&slope[k][i], taps.slope[k]);
    }
  }
}

template <bool Slopes, class T, class A, int K, int D>
void fill_taps(const Frame<T, D>& frame, Padding padding, const T (&x)[D][kRoom], int count,
               TileTaps<A, K, D>& taps) {
  const auto fill = [&](Padding constant) __attribute__((always_inline)) {
    for (int d = 0; d < D; ++d) {
      fill_axis<Slopes>(frame.axis[d], constant, x[d], count, taps.index[d], taps.weight[d],
                        taps.slope[d]);
    }
  };
  // A constant padding in each branch, so that each loop is compiled without the others' work.
  if (padding == Padding::zeros) {
    fill(Padding::zeros);
  } else if (padding == Padding::border) {
    fill(Padding::border);
  } else {
    fill(Padding::reflection);
  }
}

// Where the tile's points look in pixel coordinates.
template <class T, int D>
void pixel_coordinates(const SampleParams& p, const Frame<T, D>& frame, int64_t n, int64_t begin,
                       int count, T (&x)[D][kRoom]) {
  with_map<T, D>(p.map, p.warp, n, frame, p.output_size, p.align_corners,
                 [&](const auto& map) { coordinates(map, p.output_size, begin, count, x); });
}

template <class T, bool Slopes, class A, int K, int D>
void make_taps_as(const SampleParams& p, int64_t n, int64_t begin, int count,
                  TileTaps<A, K, D>& taps) {
  alignas(64) T x[D][kRoom];
  const auto frame = pixel_frame<T, D>(p.input_size, p.align_corners);
  pixel_coordinates(p, frame, n, begin, count, x);
  fill_taps<Slopes>(frame, p.padding, x, count, taps);
}

// Coordinates are computed in float32, in float64 where the grid or theta is float64.
template <bool Slopes, class A, int K, int D>
void make_taps(const SampleParams& p, int64_t n, int64_t begin, int count,
               TileTaps<A, K, D>& taps) {
  if (p.warp.type == ElementType::f64) {
    make_taps_as<double, Slopes>(p, n, begin, count, taps);
  } else {
    make_taps_as<float, Slopes>(p, n, begin, count, taps);
  }
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

STN_HD int tile_count(int64_t total, int64_t begin) {
  return static_cast<int>(std::min<int64_t>(kTile, total - begin));
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
