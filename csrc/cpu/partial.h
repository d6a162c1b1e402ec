// Vectors of which only the first lanes lie in memory that may be touched, at the end of a row; and
// what the instruction sets have for masks.
#pragma once

#include "cpu/simd.h"

namespace stn_cuda {
inline namespace STN_ISA {

// As many 16-bit pixels as a vector of float32 has lanes, as they are stored.
using HalfBits = Vector<uint16_t, kLanes<float>>;
using ByteBits = Vector<uint8_t, kLanes<float>>;  // likewise

// load_first(from, n): the first n lanes; zeros in the others. store_first(to, v, n): only those.
// all_lanes(mask): whether a comparison holds in every lane. least_lane(v): the smallest number.
// any_nan(x, y): whether a lane of either is NaN. total(v): the sum of the lanes, in any order.
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
STN_HD FloatVector load_first(const float* from, int n) {
  return (FloatVector)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), from);
}
STN_HD DoubleVector load_first(const double* from, int n) {
  return (DoubleVector)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), from);
}
STN_HD void store_first(float* to, FloatVector v, int n) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
}
STN_HD void store_first(double* to, DoubleVector v, int n) {
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << n) - 1), (__m512d)v);
}
STN_HD HalfBits load_first(const uint16_t* from, int n) {
  return (HalfBits)_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), from);
}
STN_HD void store_first(uint16_t* to, HalfBits v, int n) {
  _mm256_mask_storeu_epi16(to, static_cast<__mmask16>((1u << n) - 1), (__m256i)v);
}
STN_HD ByteBits load_first(const uint8_t* from, int n) {
  return (ByteBits)_mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << n) - 1), from);
}
STN_HD void store_first(uint8_t* to, ByteBits v, int n) {
  _mm_mask_storeu_epi8(to, static_cast<__mmask16>((1u << n) - 1), (__m128i)v);
}
STN_HD bool all_lanes(IntVector mask) { return _mm512_movepi32_mask((__m512i)mask) == 0xffff; }
STN_HD bool all_lanes(LongVector mask) { return _mm512_movepi64_mask((__m512i)mask) == 0xff; }
STN_HD bool any_nan(FloatVector x, FloatVector y) {
  return _mm512_cmp_ps_mask((__m512)x, (__m512)y, _CMP_UNORD_Q) != 0;
}
STN_HD bool any_nan(DoubleVector x, DoubleVector y) {
  return _mm512_cmp_pd_mask((__m512d)x, (__m512d)y, _CMP_UNORD_Q) != 0;
}
STN_HD float least_lane(FloatVector v) { return _mm512_reduce_min_ps((__m512)v); }
STN_HD double least_lane(DoubleVector v) { return _mm512_reduce_min_pd((__m512d)v); }
STN_HD float total(FloatVector v) { return _mm512_reduce_add_ps((__m512)v); }
STN_HD double total(DoubleVector v) { return _mm512_reduce_add_pd((__m512d)v); }

#elif defined(__x86_64__) && STN_VECTOR_BYTES == 32
STN_HD __m256i first_ints(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
STN_HD __m256i first_longs(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
STN_HD FloatVector load_first(const float* from, int n) {
  return (FloatVector)_mm256_maskload_ps(from, first_ints(n));
}
STN_HD DoubleVector load_first(const double* from, int n) {
  return (DoubleVector)_mm256_maskload_pd(from, first_longs(n));
}
STN_HD void store_first(float* to, FloatVector v, int n) {
  _mm256_maskstore_ps(to, first_ints(n), (__m256)v);
}
STN_HD void store_first(double* to, DoubleVector v, int n) {
  _mm256_maskstore_pd(to, first_longs(n), (__m256d)v);
}
STN_HD bool all_lanes(IntVector mask) { return _mm256_movemask_ps((__m256)mask) == 0xff; }
STN_HD bool all_lanes(LongVector mask) { return _mm256_movemask_pd((__m256d)mask) == 0xf; }

#else
template <class S>
STN_HD Native<S> load_first(const S* from, int n) {
  Native<S> v{};
  for (int k = 0; k < kLanes<S>; ++k) {
    if (k < n) v[k] = from[k];
  }
  return v;
}
template <class S>
STN_HD void store_first(S* to, Native<S> v, int n) {
  for (int k = 0; k < kLanes<S>; ++k) {
    if (k < n) to[k] = v[k];
  }
}
template <class I>
STN_HD bool all_lanes(I mask) {
  bool all = true;
  for (size_t k = 0; k < sizeof(I) / sizeof(mask[0]); ++k) all &= mask[k] != 0;
  return all;
}
#endif

#if !(defined(__x86_64__) && STN_VECTOR_BYTES == 64)
template <class Bits>
STN_HD Bits load_first_bits(const void* from, int n) {
  Bits v{};
  std::memcpy(&v, from, std::min<size_t>(n, kLanes<float>) * sizeof(v[0]));
  return v;
}
template <class Bits>
STN_HD void store_first_bits(void* to, Bits v, int n) {
  std::memcpy(to, &v, std::min<size_t>(n, kLanes<float>) * sizeof(v[0]));
}
STN_HD HalfBits load_first(const uint16_t* from, int n) {
  return load_first_bits<HalfBits>(from, n);
}
STN_HD ByteBits load_first(const uint8_t* from, int n) {
  return load_first_bits<ByteBits>(from, n);
}
STN_HD void store_first(uint16_t* to, HalfBits v, int n) { store_first_bits(to, v, n); }
STN_HD void store_first(uint8_t* to, ByteBits v, int n) { store_first_bits(to, v, n); }
template <class V>
STN_HD bool any_nan(V x, V y) {
  return !all_lanes(Integer<V>((x == x) & (y == y)));
}
template <class V>
STN_HD Scalar<V> total(V v) {
  return sum_lanes(v);
}
template <class V>
STN_HD Scalar<V> least_lane(V v) {
  Scalar<V> least = v[0];
  for (int k = 1; k < kLanes<Scalar<V>>; ++k) least = v[k] < least ? v[k] : least;
  return least;
}
#endif

template <class V, int N>
STN_HD bool any_nan(const V (&v)[N]) {
  bool any = any_nan(v[N - 1], v[0]);
  for (int k = 1; k + 1 < N; k += 2) any |= any_nan(v[k], v[k + 1 < N - 1 ? k + 1 : k]);
  return any;
}

}  // namespace STN_ISA
}  // namespace stn_cuda
