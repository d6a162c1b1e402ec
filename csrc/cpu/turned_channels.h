// Splat turned round (cpu/turned.h) of an image whose channels lie next to each other: each pixel
// gathers the channels of the points that see it, and is written once. The lanes of a vector are
// the points of a rectangle around where the pixel's own is.
#pragma once

#include "cpu/ahead.h"
#include "cpu/turned.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Whether the points that do see a pixel are quickly told from those that might: without an
// instruction for that, adding point by point is quicker.
constexpr bool kTurnedChannels = STN_VECTOR_BYTES == 64;

// The points of a rectangle, at most: few vectors, whose weights are mostly not 0.
constexpr int kMostAround = 16;

// The inverse of an affine map, for one pixel after the other.
template <class A>
struct TurnedAround {
  static constexpr int L = kLanes<A>;
  AffineMap<A, 2> map;
  bool usable;        // whether a pixel is seen by few enough points
  int columns, rows;  // of the rectangle
  A back[2][2], reach[2];
  alignas(64) A across[kMostAround],
      down[kMostAround];  // from the first point's look to each one's
  int32_t column[kMostAround], row[kMostAround];

  TurnedAround(const AffineMap<A, 2>& m, int64_t, const int64_t (&input_size)[3],
               const int64_t (&output_size)[3])
      : map(m) {
    const Inverse inverse(m.matrix);
    const double across_all = whole_above<A>(2 * inverse.reach(0));
    const double down_all = whole_above<A>(2 * inverse.reach(1));
    usable = inverse.suits(m, input_size, output_size) && across_all * down_all <= kMostAround &&
             across_all <= output_size[0] && down_all <= output_size[1];
    if (!usable) return;
    columns = static_cast<int>(across_all);
    rows = static_cast<int>(down_all);
    for (int r = 0; r < 2; ++r) {
      for (int k = 0; k < 2; ++k) back[r][k] = static_cast<A>(inverse.matrix[r][k]);
      reach[r] = static_cast<A>(inverse.reach(r));
    }
    for (int k = 0; k < kMostAround; ++k) {
      column[k] = k % columns;
      row[k] = k / columns;
      const A x = static_cast<A>(column[k]), y = static_cast<A>(row[k]);
      // (What is no point of the rectangle sees nothing.)
      across[k] = row[k] < rows ? m.matrix[0][0] * x + m.matrix[0][1] * y : A(1 << 20);
      down[k] = m.matrix[1][0] * x + m.matrix[1][1] * y;
    }
  }
};

// The rectangles of as many pixels of a row as a vector has lanes.
template <class A>
struct alignas(64) Rectangles {
  static constexpr int L = kLanes<A>;
  int32_t column[L], row[L];  // of the first point
  A across[L], down[L];       // from the pixel to where that looks

  STN_HD void find(const TurnedAround<A>& turned, int x, int y, const int64_t (&output_size)[3]) {
    using V = Native<A>;
    const AffineMap<A, 2>& map = turned.map;
    const V px = counting<V>() + static_cast<A>(x), py = all<V>(static_cast<A>(y));
    const V dx = px - map.offset[0], dy = py - map.offset[1];
    const auto first = [&](int d, int count) __attribute__((always_inline)) {
      const V place = map.centre[d] + turned.back[d][0] * dx + turned.back[d][1] * dy;
      const V least = floor_of(V(place - turned.reach[d])) + A(1);
      return V(smaller(larger(least, V{}), all<V>(static_cast<A>(output_size[d] - count))));
    };
    const V i = first(0, turned.columns), j = first(1, turned.rows);
    store<L>(column, truncate(i));
    store<L>(row, truncate(j));
    const V from_x = i - map.centre[0], from_y = j - map.centre[1];
    store<L>(across, V(map.matrix[0][0] * from_x + (map.matrix[0][1] * from_y - dx)));
    store<L>(down, V(map.matrix[1][0] * from_x + (map.matrix[1][1] * from_y - dy)));
  }
};

#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
// Stores those of a vector's weights that are not 0 next to each other, their offsets likewise, and
// anything behind them. Returns how many they are.
template <class V>
STN_HD int keep_some(V weight, const int32_t* offset, Scalar<V>* weights, int32_t* offsets) {
  if constexpr (sizeof(Scalar<V>) == 4) {
    const __mmask16 some = _mm512_cmp_ps_mask((__m512)weight, _mm512_setzero_ps(), _CMP_NEQ_OQ);
    _mm512_storeu_ps(weights, _mm512_maskz_compress_ps(some, (__m512)weight));
    _mm512_storeu_si512(offsets, _mm512_maskz_compress_epi32(some, _mm512_loadu_si512(offset)));
    return __builtin_popcount(some);
  } else {
    const __mmask8 some = _mm512_cmp_pd_mask((__m512d)weight, _mm512_setzero_pd(), _CMP_NEQ_OQ);
    const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(offset));
    const __m256i kept = _mm256_maskz_compress_epi32(some, all);
    _mm512_storeu_pd(weights, _mm512_maskz_compress_pd(some, (__m512d)weight));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(offsets), kept);
    return __builtin_popcount(some);
  }
}
#endif

// The points that see a pixel: a weight of 0 counts 0 whatever the value.
template <class A>
struct alignas(64) TurnedTaps {
  int count;
  A weight[2 * kMostAround];
  int32_t offset[2 * kMostAround];

  STN_HD TurnedTaps(const TurnedAround<A>& turned, const Rectangles<A>& rectangles, int g,
                    const int32_t* offsets)
      : count(0) {
    using V = Native<A>;
    constexpr int L = kLanes<A>;
    const int all = turned.columns * turned.rows;
    for (int k = 0; k < kMostAround && k < all; k += L) {
      const V u = load<V>(turned.across + k) + rectangles.across[g];
      const V v = load<V>(turned.down + k) + rectangles.down[g];
      count +=
          keep_some(V(kernel<2>(u) * kernel<2>(v)), offsets + k, weight + count, offset + count);
    }
  }
};

// Writes one pixel, or adds to it.
template <class Element, class A>
STN_HD void gather_channels(const TurnedTaps<A>& taps, const Element* values, int channels,
                            bool add, bool streams, Element* pixel) {
  using V = Native<A>;
  constexpr int L = kLanes<A>;
  const auto vectors = [&](auto count, int c) __attribute__((always_inline)) {
    V sum[count.value] = {};
    for (int k = 0; k < taps.count; ++k) {
      const Element* from = values + taps.offset[k] + c;
#pragma GCC unroll 4
      for (int v = 0; v < count.value; ++v) {
        sum[v] += taps.weight[k] * load_pixels<V>(from + v * L);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < count.value; ++v) {
      Element* to = pixel + c + v * L;
      if (add) sum[v] += load_pixels<V>(to);
      streams ? stream_pixels(to, sum[v]) : store_pixels(to, sum[v], L);
    }
  };
  int c = 0;
  for (; c + 4 * L <= channels; c += 4 * L) vectors(std::integral_constant<int, 4>{}, c);
  for (; c + L <= channels; c += L) vectors(std::integral_constant<int, 1>{}, c);
  if (c == channels) return;
  const int left = channels - c;
  V sum{};
  for (int k = 0; k < taps.count; ++k) {
    sum += taps.weight[k] * load_pixels<V>(values + taps.offset[k] + c, left);
  }
  if (add) sum += load_pixels<V>(pixel + c, left);
  store_pixels(pixel + c, sum, left);
}

// The rows [low, high) of an image, from an output's values. With `add`, on top of what is there.
template <class Element>
STN_SHARED void splat_around(const SampleParams& p, const TurnedAround<Accumulate<Element>>& turned,
                             const Element* values, bool add, bool streams, int low, int high,
                             Element* image) {
  using A = Accumulate<Element>;
  constexpr int L = kLanes<A>;
  const int width = static_cast<int>(p.input_size[0]), channels = static_cast<int>(p.channels);
  const int64_t bytes = p.channels * static_cast<int64_t>(sizeof(Element));
  const int64_t step = p.output.stride[0], stride_y = p.output.stride[1];
  int32_t offsets[kMostAround];
  for (int k = 0; k < kMostAround; ++k) {
    offsets[k] = static_cast<int32_t>(turned.column[k] * step + turned.row[k] * stride_y);
  }
  Rectangles<A> rectangles;
  for (int y = low; y < high; ++y) {
    Element* pixel = image + y * p.input.stride[1];
    for (int x = 0; x < width; x += L) {
      rectangles.find(turned, x, y, p.output_size);
      for (int g = 0; g < L && x + g < width; ++g, pixel += p.input.stride[0]) {
        const Element* first = values + rectangles.column[g] * step + rectangles.row[g] * stride_y;
        const TurnedTaps<A> taps(turned, rectangles, g, offsets);
        // What later pixels see of the last row. (Reading past the end is no error of a prefetch.)
        announce_run(first + (turned.rows - 1) * stride_y + kPointsAhead * step, bytes);
        gather_channels(taps, first, channels, add, streams, pixel);
      }
    }
  }
}

// The rows [low, high) of image `image` by gathering, if all of its warps allow it.
template <class Element>
STN_SHARED bool splat_channels_by_turning(const SampleParams& p, const Plan& plan, int64_t image,
                                          int low, int high) {
  using A = Accumulate<Element>;
  const int64_t images = p.input.batch == 1 ? p.batch : 1;
  if (!can_turn<Element>(p) || !only_zeros(p) || p.output.stride_c != 1) return false;
  if (std::max(p.output.stride[0], p.output.stride[1]) * kMostAround >= INT32_MAX) return false;
  const TurnedMaps<A, TurnedAround<A>> maps(p, image, images);
  if (!maps.usable()) return false;
  took(Path::turned_channels);
  const bool streams = plan.streams && images == 1;
  for (int64_t n = image; n < image + images; ++n) {
    if (n > image) took(Path::turned_onto);
    splat_around(p, n == image ? maps.first() : maps.of(n), plane_of<const Element>(p.output, n, 0),
                 n > image, streams, low, high, plane_of<Element>(p.input, image, 0));
  }
  if (streams) {
    took(Path::turned_streams);
    end_of_streams();
  }
  return true;
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
