// Images of which a few planes at a time are woven together: a pixel's channels lie next to each
// other, so that what a point sees of a row in all of them is one load and a line or two of a
// cache, where planes take as many of each. For points that windows (cpu/window.h) do not hold.
#pragma once

#include "cpu/gathers.h"
#include "cpu/groups.h"
#include "cpu/values.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// Where the channels from c on begin in the woven image n, of `pixels` in a plane. Behind the last
// one is room for a vector more, which may be loaded with it.
template <class Woven>
STN_HD Woven* woven_channels(Woven* woven, const SampleParams& p, int64_t n, int64_t c) {
  const int64_t image = p.input.batch == 1 ? 0 : n;
  return woven + (image * p.channels + c) * points(p.input_size, p.dims);
}

// What group g's points see of C planes (cpu/window.h says what a view is). Starts: RunStarts.
template <int C, class Starts, int K, int D>
struct WovenView;

#if defined(__x86_64__) && STN_VECTOR_BYTES >= 32
template <class Element, int K>
constexpr bool kWeaves = std::is_same<Element, float>::value && K == 2;

// Turns the quarters of 128 bits that each of four vectors consists of, of four numbers each, on
// their side.
STN_HD void turn_quarters(FloatVector (&v)[4]) {
  using V = FloatVector;
  IntVector ones, twos;  // of the first vector a number, then of the second; two, then two
  for (int lane = 0; lane < kLanes<float>; ++lane) {
    const int quarter = lane / 4 * 4, k = lane % 4;
    ones[lane] = quarter + k / 2 + k % 2 * kLanes<float>;
    twos[lane] = quarter + k % 2 + k / 2 * kLanes<float>;
  }
  const V first[2] = {select_lanes(v[0], v[1], ones), select_lanes(v[0], v[1], ones + 2)};
  const V last[2] = {select_lanes(v[2], v[3], ones), select_lanes(v[2], v[3], ones + 2)};
  for (int k = 0; k < 4; ++k) {
    v[k] = select_lanes(first[k / 2], last[k / 2], IntVector(twos + k % 2 * 2));
  }
}

// Runs of four or eight numbers: of every fourth point, as many as a vector has room for.
template <int Run>
STN_HD FloatVector load_runs(const float* from, const int32_t* at) {
  const auto half = [&](int i) __attribute__((always_inline)) {
    if constexpr (Run == 8) {
      return _mm256_loadu_ps(from + at[i * 4]);
    } else {
      const __m256 low = _mm256_castps128_ps256(_mm_loadu_ps(from + at[i * 8]));
      return _mm256_insertf128_ps(low, _mm_loadu_ps(from + at[i * 8 + 4]), 1);
    }
  };
#if STN_VECTOR_BYTES == 64
  const __m512d low = _mm512_castpd256_pd512(_mm256_castps_pd(half(0)));
  return (FloatVector)_mm512_insertf64x4(low, _mm256_castps_pd(half(1)), 1);
#else
  return (FloatVector)half(0);
#endif
}

// What a vector of points sees in a row of two pixels, their offsets being `at`: tap[k * C + c] is
// the k-th one's channel c.
template <int C>
STN_HD void load_woven(const float* from, const int32_t* at, FloatVector (&tap)[2 * C]) {
  constexpr int L = kLanes<float>;
  if constexpr (C == 1) {
    const FloatVector low = insert_pairs(from, at), high = insert_pairs(from, at + L / 2);
    const IntVector even = truncate(counting<FloatVector>()) * 2;
    for (int k = 0; k < 2; ++k) tap[k] = select_lanes(low, high, IntVector(even + k));
    return;
  } else {
    constexpr int kRun = C == 2 ? 4 : 8;
    FloatVector low[4], high[4];
    for (int j = 0; j < 4; ++j) low[j] = load_runs<kRun>(from, at + j);
    turn_quarters(low);
    if constexpr (kRun == 4) {
      for (int k = 0; k < 4; ++k) tap[k] = low[k];
      return;
    }
    for (int j = 0; j < 4; ++j) high[j] = load_runs<kRun>(from, at + L / 2 + j);
    turn_quarters(high);
    IntVector halves;  // every other quarter
    for (int lane = 0; lane < L; ++lane) {
      halves[lane] = lane / 4 * 8 % L + lane % 4 + lane / (L / 2) * L;
    }
    for (int k = 0; k < 2 * C; ++k) {
      tap[k] = select_lanes(low[k % 4], high[k % 4], IntVector(halves + k / 4 * 4));
    }
  }
}

template <int C, class Starts, int K, int D>
struct WovenView {
  using V = FloatVector;
  static constexpr int L = kLanes<float>;

  const Starts& starts;
  const float* woven;
  int first;  // slot
  V across;
  V down[D - 1];

  STN_HD WovenView(const Starts& s, const float* from, int g)
      : starts(s), woven(from), first(g * L), across(load<V>(&s.distance[0][first]) + 0) {
    for (int d = 1; d < D; ++d) down[d - 1] = load<V>(&s.distance[d][first]) + 0;
  }

  template <class Row, class End>
  STN_HD void rows(Row&& row, End&& end) const {
    alignas(64) int32_t at[L];
    IntVector offset;
    std::memcpy(&offset, starts.offset + first, sizeof offset);
    offset *= C;
    std::memcpy(at, &offset, sizeof at);
    V behind = down[D - 2];
    for (int z = 0; z < (D == 3 ? K : 1); ++z) {
      V distance = down[0];
      for (int y = 0; y < K; ++y) {
        V tap[K * C];
        // Leaves them in memory, where they are loaded from: out of vectors they come slowly.
        __asm__ volatile("" : "+m"(at));
        load_woven<C>(woven + C * starts.row[z * K + y], at, tap);
        const auto channel = [&](int c, auto&& use) __attribute__((always_inline)) {
          use([&](int k) __attribute__((always_inline)) { return tap[k * C + c]; });
        };
        row(channel, distance);
        distance -= starts.step[1];
      }
      end(behind);
      behind -= starts.step[D - 1];
    }
  }
};

// The pixels [begin, end) of C planes, each in one piece.
template <int C>
STN_HD void weave(const float* planes, int64_t stride_c, int64_t begin, int64_t end, float* to) {
  using V = FloatVector;
  constexpr int L = kLanes<float>;
  for (; begin + L <= end; begin += L) {
    V value[C];
    for (int c = 0; c < C; ++c) value[c] = load<V>(planes + c * stride_c + begin);
    if constexpr (C == 1) {
      store<L>(to + begin, value[0]);
    } else {
#pragma GCC unroll 4
      for (int k = 0; k < C; ++k) store<L>(to + C * begin + k * L, packed_vector<C>(value, k));
    }
  }
  for (; begin < end; ++begin) {
    for (int c = 0; c < C; ++c) to[C * begin + c] = planes[c * stride_c + begin];
  }
}

template <int Most>
STN_HD void weave_blocks(const SampleParams& p, int64_t begin, int64_t end, float* to) {
  const int64_t pixels = points(p.input_size, p.dims);
  while (begin < end) {
    const int64_t n = begin / pixels, first = begin % pixels;
    const int64_t last = std::min(pixels, first + end - begin);
    for_each_channel_block<Most>(p.channels, [&](auto count, int64_t c) {
      weave<count.value>(plane_of<const float>(p.input, n, c), p.input.stride_c, first, last,
                         woven_channels(to, p, n, c));
    });
    begin += last - first;
  }
}

inline void weave_images(const SampleParams& p, int64_t together, int64_t begin, int64_t end,
                         float* to) {
  if (together == 2) return weave_blocks<2>(p, begin, end, to);
  if (together == 3) return weave_blocks<3>(p, begin, end, to);
  weave_blocks<4>(p, begin, end, to);
}
#else
template <class Element, int K>
constexpr bool kWeaves = false;
inline void weave_images(const SampleParams&, int64_t, int64_t, int64_t, float*) {}
#endif

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
