// The processor's gather instructions: two float32 pixels are one element of 64 bits, two 16-bit
// ones of 32. Some processors' are slower than scalar loads, by far where they are mended against
// data sampling, so that it is measured, once; AMD's take longer than loading float32 pairs one by
// one into a vector. Results depend on it by roundings alone.
#pragma once

#include <chrono>

#include "cpu/pixels.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

#if defined(__x86_64__) && STN_VECTOR_BYTES >= 32
template <class Element, int K>
constexpr bool kGathers =
    (std::is_same<Element, float>::value && K <= 2) || (sizeof(Element) == 2 && K == 2) ||
    (std::is_same<Element, double>::value && K == 2 && STN_VECTOR_BYTES == 32);

template <class Element, int K>
constexpr bool kInserts = std::is_same<Element, float>::value && K == 2;

STN_HD __m128d two_pairs(const float* from, const int32_t* offset) {
  const __m128d first = _mm_load_sd(reinterpret_cast<const double*>(from + offset[0]));
  return _mm_loadh_pd(first, reinterpret_cast<const double*>(from + offset[1]));
}
STN_HD __m256d four_pairs(const float* from, const int32_t* offset) {
  const __m256d first = _mm256_castpd128_pd256(two_pairs(from, offset));
  return _mm256_insertf128_pd(first, two_pairs(from, offset + 2), 1);
}

// Pixels, or pairs of neighbouring ones, at these offsets: a vector of float32 pixels, of 16-bit
// pairs, and half as many float32 pairs, these also without the instruction (insert_pairs).
#if STN_VECTOR_BYTES == 64
STN_HD FloatVector gather_pixels(const float* from, const int32_t* offset) {
  return (FloatVector)_mm512_i32gather_ps(_mm512_loadu_si512(offset), from, 4);
}
STN_HD WideBits gather_pairs(const void* from, const int32_t* offset) {
  return (WideBits)_mm512_i32gather_epi32(_mm512_loadu_si512(offset), from, 2);
}
STN_HD FloatVector gather_pairs(const float* from, const int32_t* offset) {
  const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(offset));
  return (FloatVector)_mm512_i32gather_pd(at, from, 4);
}
STN_HD FloatVector insert_pairs(const float* from, const int32_t* offset) {
  const __m512d first = _mm512_castpd256_pd512(four_pairs(from, offset));
  return (FloatVector)_mm512_insertf64x4(first, four_pairs(from, offset + 4), 1);
}
#else
STN_HD __m256i eight_offsets(const int32_t* offset) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(offset));
}
STN_HD FloatVector gather_pixels(const float* from, const int32_t* offset) {
  return (FloatVector)_mm256_i32gather_ps(from, eight_offsets(offset), 4);
}
STN_HD WideBits gather_pairs(const void* from, const int32_t* offset) {
  return (WideBits)_mm256_i32gather_epi32(static_cast<const int*>(from), eight_offsets(offset), 2);
}
STN_HD FloatVector gather_pairs(const float* from, const int32_t* offset) {
  const __m128i at = _mm_loadu_si128(reinterpret_cast<const __m128i*>(offset));
  return (FloatVector)_mm256_i32gather_pd(reinterpret_cast<const double*>(from), at, 4);
}
STN_HD FloatVector insert_pairs(const float* from, const int32_t* offset) {
  return (FloatVector)four_pairs(from, offset);
}
// Every second of four pairs of float64 pixels, one by one: no instruction gathers these.
STN_HD __m256d every_second_pair(const double* from, const int32_t* offset) {
  const __m256d first = _mm256_castpd128_pd256(_mm_loadu_pd(from + offset[0]));
  return _mm256_insertf128_pd(first, _mm_loadu_pd(from + offset[2]), 1);
}
#endif

// Seconds of the fastest of a few runs: the others were interrupted.
template <class F>
double fastest(F&& f) {
  using Clock = std::chrono::steady_clock;
  double least = 1;
  for (int run = 0; run < 8; ++run) {
    const auto start = Clock::now();
    f();
    least = std::min(least, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return least;
}

// The time of gathering pairs of float32 pixels, where copying them one by one takes 1.
inline double gather_cost() {
  constexpr int kPixels = 2048, kPoints = 1024;
  alignas(64) float image[kPixels + 1] = {};
  alignas(64) int32_t offset[kPoints];
  alignas(64) float pairs[2 * kPoints];
  for (int i = 0; i < kPoints; ++i) offset[i] = i * 977 % kPixels;
  const double gather = fastest([&] {
    for (int i = 0; i < kPoints; i += kLanes<float> / 2) {
      store<kLanes<float>>(pairs + 2 * i, gather_pairs(image, offset + i));
    }
    __asm__ volatile("" : : "r"(pairs) : "memory");
  });
  const double copy = fastest([&] {
    for (int i = 0; i < kPoints; ++i) {
      std::memcpy(pairs + 2 * i, image + offset[i], 2 * sizeof(float));
      __asm__ volatile("");  // keeps the compiler from turning this loop into gathers
    }
    __asm__ volatile("" : : "r"(pairs) : "memory");
  });
  return gather / copy;
}
#else
template <class Element, int K>
constexpr bool kGathers = false;
template <class Element, int K>
constexpr bool kInserts = false;
inline double gather_cost() { return INFINITY; }
#endif

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
