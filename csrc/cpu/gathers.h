// Whether the processor's gather instructions are worth using: two float32 pixels are one element
// of 64 bits, two 16-bit ones of 32. Some processors' are slower than scalar loads, by far where
// they are mended against data sampling, so that it is measured, once. Results do not depend on it.
#pragma once

#include <chrono>

#include "cpu/partial.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

template <class Element, int K>
constexpr bool kGathers =
    STN_VECTOR_BYTES == 64 &&
    ((std::is_same<Element, float>::value && K <= 2) || (sizeof(Element) == 2 && K == 2));

#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
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

inline bool gathers_are_fast() {
  constexpr int kPixels = 2048, kPoints = 1024;
  alignas(64) float image[kPixels + 1] = {};
  alignas(64) int32_t offset[kPoints];
  alignas(64) double pairs[kPoints];
  for (int i = 0; i < kPoints; ++i) offset[i] = i * 977 % kPixels;
  const double gather = fastest([&] {
    for (int i = 0; i < kPoints; i += 8) {
      const __m256i at = _mm256_load_si256(reinterpret_cast<const __m256i*>(offset + i));
      _mm512_store_pd(pairs + i, _mm512_i32gather_pd(at, image, 4));
    }
    __asm__ volatile("" : : "r"(pairs) : "memory");
  });
  const double copy = fastest([&] {
    for (int i = 0; i < kPoints; ++i) {
      std::memcpy(pairs + i, image + offset[i], sizeof(double));
      __asm__ volatile("");  // keeps the compiler from turning this loop into gathers
    }
    __asm__ volatile("" : : "r"(pairs) : "memory");
  });
  // What is copied has to be read again, too.
  return gather < 1.25 * copy;
}
#else
inline bool gathers_are_fast() { return false; }
#endif

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
