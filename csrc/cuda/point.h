// One output point: where it looks, and the taps that this makes.
#pragma once

#include "cuda/work.h"
#include "math/free_map.h"
#include "math/interpolation.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// A free map of any element type: asked for at every point, a branch that all threads take alike.
template <class T, int D>
struct AnyGrid {
  static constexpr bool parametric = false;
  static constexpr bool linear = true;

  const Warp* warp;
  const Reading<T, D>* reading;
  int64_t n;

  STN_HD void value(const int32_t (&p)[D], T (&x)[D]) const {
    switch (warp->type) {
      case ElementType::f32:
        return value_as<float>(p, x);
      case ElementType::f64:
        return value_as<double>(p, x);
      case ElementType::f16:
        return value_as<Half>(p, x);
      default:
        return value_as<BFloat16>(p, x);
    }
  }

 private:
  template <class Element>
  STN_HD void value_as(const int32_t (&p)[D], T (&x)[D]) const {
    GridMap<T, D, Element, false>(*warp, n, *reading).value(p, x);
  }
};

// A chain (chain.h): of matrices that a block has made, null where there are none, and a field.
template <class T, int D>
struct ChainMap {
  static constexpr bool parametric = false;
  static constexpr bool linear = false;
  using Matrix = ProjectiveMap<T, D>;

  const Matrix *outer, *inner;
  AnyGrid<T, D> values;
  const Frame<T, D>* field;
};

template <class Map>
constexpr bool kIsChain = false;
template <class T, int D>
constexpr bool kIsChain<ChainMap<T, D>> = true;

template <class T, int D>
STN_HD void position(const int32_t (&p)[D], T (&at)[D]) {
  for (int d = 0; d < D; ++d) at[d] = static_cast<T>(p[d]);
}

// Where point p looks, in the input's pixel coordinates.
template <class T, int D>
STN_HD void look(const AnyGrid<T, D>& map, const int32_t (&p)[D], T (&x)[D]) {
  T at[D];
  position(p, at);
  map.value(p, x);
  map.reading->look(at, x);
}

template <class Map, class T, int D>
STN_HD void look(const Map& map, const int32_t (&p)[D], T (&x)[D]) {
  T at[D];
  position(p, at);
  map.coordinate(at, x);
}

// The taps of a point. A: the type in which the image's values accumulate. Index: the type of
// offsets inside a plane, in elements, here along each axis.
template <class Index, class A, int K, int D>
struct PointTaps {
  Index offset[D][K];
  A weight[D][K];
  A slope[D][K];
  A curve[D][K];
};

template <class T, class Index, class A, int K, int D>
STN_HD void make_taps(const Frame<T, D>& frame, const T (&x)[D], const int64_t (&stride)[3],
                      PointTaps<Index, A, K, D>& taps) {
  STN_UNROLL
  for (int d = 0; d < D; ++d) {
    Taps<T, K> axis;
    axis_taps(frame.axis[d], x[d], axis);
    STN_UNROLL
    for (int k = 0; k < K; ++k) {
      taps.offset[d][k] = static_cast<Index>(axis.index[k]) * static_cast<Index>(stride[d]);
      taps.weight[d][k] = static_cast<A>(axis.weight[k]);
      taps.slope[d][k] = static_cast<A>(axis.slope[k]);
      taps.curve[d][k] = static_cast<A>(axis.curve[k]);
    }
  }
}

template <int K, int D>
constexpr int kTaps = D == 3 ? K * K * K : K * K;

// f(tap, offset, weight) for each tap.
template <class Index, class A, int K, int D, class F>
STN_HD void for_each_tap(const PointTaps<Index, A, K, D>& taps, F&& f) {
  STN_UNROLL
  for (int kz = 0; kz < (D == 3 ? K : 1); ++kz) {
    const A wz = D == 3 ? taps.weight[D - 1][kz] : A(1);
    const Index z = D == 3 ? taps.offset[D - 1][kz] : 0;
    STN_UNROLL
    for (int ky = 0; ky < K; ++ky) {
      const A wzy = wz * taps.weight[1][ky];
      const Index row = z + taps.offset[1][ky];
      STN_UNROLL
      for (int kx = 0; kx < K; ++kx) {
        f((kz * K + ky) * K + kx, row + taps.offset[0][kx], wzy * taps.weight[0][kx]);
      }
    }
  }
}

template <class Index, class A, int K, int D>
STN_HD Index tap_offset(const PointTaps<Index, A, K, D>& taps, int k) {
  Index offset = taps.offset[0][k % K] + taps.offset[1][k / K % K];
  if (D == 3) offset += taps.offset[D - 1][k / (K * K)];
  return offset;
}

// The factors of the taps' weights.
template <class Index, class A, int K, int D>
STN_HD auto factors_of(const PointTaps<Index, A, K, D>& taps) {
  return [&taps](int d, int tap, int order) {
    return order == 0 ? taps.weight[d][tap]
                      : (order == 1 ? taps.slope[d][tap] : taps.curve[d][tap]);
  };
}

// How much of a point's look lies inside, along the axes that have zeros around them.
template <int K, class T, int D>
STN_HD T cover_of(const Frame<T, D>& frame, const T (&x)[D]) {
  T product = 1;
  STN_UNROLL
  for (int d = 0; d < D; ++d) {
    if (frame.axis[d].padding == Padding::zeros) product *= inside_part<K>(frame.axis[d], x[d]);
  }
  return product;
}

// The offset of point p in an image's plane.
template <int D>
STN_HD int64_t offset_of(const int32_t (&p)[D], const int64_t (&stride)[3]) {
  int64_t offset = 0;
  for (int d = 0; d < D; ++d) offset += p[d] * stride[d];
  return offset;
}

// Whether the offsets inside a plane of the image fit 32 bits.
inline bool fits_int32(const SampleParams& p) {
  int64_t last = 0;
  for (int d = 0; d < p.dims; ++d) last += (p.input_size[d] - 1) * p.input.stride[d];
  return last < (int64_t(1) << 31);
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
