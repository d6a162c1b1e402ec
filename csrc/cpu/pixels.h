// Pixels of every element type as vectors of the type that they are computed in.
#pragma once

#include "cpu/partial.h"
#include "math/element.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// 16-bit patterns to 32 bits, and the lower (k = 0) or upper halves of 32 bits. (GCC makes several
// instructions of the conversions.)
using WideBits = Vector<uint32_t, kLanes<float>>;
STN_HD WideBits to_wide(HalfBits bits) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  return (WideBits)_mm512_cvtepu16_epi32((__m256i)bits);
#elif defined(__x86_64__) && STN_VECTOR_BYTES == 32
  return (WideBits)_mm256_cvtepu16_epi32((__m128i)bits);
#else
  return __builtin_convertvector(bits, WideBits);
#endif
}
STN_HD HalfBits halves(WideBits bits, int k) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  Vector<uint16_t, 32> lane;
  for (int i = 0; i < 32; ++i) lane[i] = static_cast<uint16_t>((2 * i + k) % 32);
  return (HalfBits)_mm512_castsi512_si256(_mm512_permutexvar_epi16((__m512i)lane, (__m512i)bits));
#else
  return __builtin_convertvector(bits >> (16 * k), HalfBits);
#endif
}

// 16-bit pixels to float32, and back, rounded to nearest even.
STN_HD FloatVector widen(HalfBits bits, BFloat16) { return (FloatVector)(to_wide(bits) << 16); }
STN_HD FloatVector widen(HalfBits bits, Half) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  return (FloatVector)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__x86_64__) && STN_VECTOR_BYTES == 32
  return (FloatVector)_mm256_cvtph_ps((__m128i)bits);
#else
  FloatVector v;
  for (int k = 0; k < kLanes<float>; ++k) v[k] = to_float(Half{bits[k]});
  return v;
#endif
}

STN_HD HalfBits narrow(FloatVector v, BFloat16) {
  const WideBits rounded = rounded_upper_half((WideBits)v);
  return halves(v == v ? rounded : WideBits{} + kBFloat16NaN, 0);
}
STN_HD HalfBits narrow(FloatVector v, Half) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  return (HalfBits)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__x86_64__) && STN_VECTOR_BYTES == 32
  return (HalfBits)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
  HalfBits bits;
  for (int k = 0; k < kLanes<float>; ++k) bits[k] = Rounded<Half>::from(v[k]).bits;
  return bits;
#endif
}

// Bytes to float32, and back, rounded to nearest even and saturated.
STN_HD FloatVector widen(ByteBits bits, Byte) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  return (FloatVector)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32((__m128i)bits));
#elif defined(__x86_64__) && STN_VECTOR_BYTES == 32
  return (FloatVector)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)bits)));
#else
  return __builtin_convertvector(bits, FloatVector);
#endif
}
STN_HD ByteBits narrow(FloatVector v, Byte) {
  const WideBits rounded = (WideBits)saturated_byte(v);
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  return (ByteBits)_mm512_cvtepi32_epi8((__m512i)rounded);
#elif defined(__x86_64__) && STN_VECTOR_BYTES == 32
  const __m256i low = (__m256i)(rounded & 0xffu);
  const __m128i pairs =
      _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  return (ByteBits)_mm_cvtsi128_si64(_mm_packus_epi16(pairs, pairs));
#else
  return __builtin_convertvector(rounded, ByteBits);
#endif
}

// The elements of as many pixels as a vector has lanes, as they are stored.
template <class Element>
using Stored = Vector<decltype(Element::bits), kLanes<float>>;

// load_pixels<V>(from): as many consecutive pixels as V has lanes.
template <class V, class Element>
STN_HD V load_pixels(const Element* from) {
  if constexpr (std::is_same<Element, Scalar<V>>::value) {
    return load<V>(from);
  } else {
    Stored<Element> bits;
    std::memcpy(&bits, from, sizeof bits);
    return widen(bits, Element{});
  }
}

// The first n of them; zeros in the other lanes.
template <class V, class Element>
STN_HD V load_pixels(const Element* from, int n) {
  if constexpr (std::is_same<Element, Scalar<V>>::value) {
    return load_first(from, n);
  } else {
    return widen(load_first(&from->bits, n), Element{});
  }
}

// As many as there are, at least one.
template <class V, class Element>
STN_HD V load_some(const Element* from, int n) {
  return n >= kLanes<Scalar<V>> ? load_pixels<V>(from) : load_pixels<V>(from, n);
}

// Writes the first n lanes, rounded.
template <class V, class Element>
STN_HD void store_pixels(Element* to, V v, int n) {
  constexpr int L = kLanes<Scalar<V>>;
  if constexpr (std::is_same<Element, Scalar<V>>::value) {
    if (n == L) {
      store<L>(to, v);
    } else {
      store_first(to, v, n);
    }
  } else {
    const Stored<Element> bits = narrow(v, Element{});
    if (n == L) {
      std::memcpy(to, &bits, sizeof bits);
    } else {
      store_first(&to->bits, bits, n);
    }
  }
}

// Whether vectors are whole cache lines, or halves of them, which can be written past the caches.
template <class Element>
constexpr bool kStreams = STN_VECTOR_BYTES == 64 && sizeof(Element) > 1;

// Writes a vector; past the caches, if it is (half) a line of them: that would be read only to be
// overwritten. Others see it after end_of_streams().
template <class V, class Element>
STN_HD void stream_pixels(Element* to, V v) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  const auto address = reinterpret_cast<uintptr_t>(to);
  if constexpr (std::is_same<Element, Scalar<V>>::value) {
    if (address % sizeof v == 0) return _mm512_stream_si512((__m512i*)to, (__m512i)v);
  } else if constexpr (kStreams<Element>) {
    const auto bits = narrow(v, Element{});
    if (address % sizeof bits == 0) return _mm256_stream_si256((__m256i*)to, (__m256i)bits);
  }
#endif
  store_pixels(to, v, kLanes<Scalar<V>>);
}

STN_HD void end_of_streams() {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  _mm_sfence();
#endif
}

// The first or the second of as many pairs of 16-bit pixels as FloatVector has lanes.
STN_HD FloatVector pixels_of_pairs(WideBits pairs, int k, BFloat16) {
  return (FloatVector)(k == 0 ? pairs << 16 : pairs & 0xffff0000u);
}
STN_HD FloatVector pixels_of_pairs(WideBits pairs, int k, Half) {
  return widen(halves(pairs, k), Half{});
}

// Of as many runs of K consecutive pixels as V has lanes: each one's k-th pixel.
template <class V, int K, class Element>
STN_HD V pixels_of_runs(const Element* runs, int k) {
  constexpr int L = kLanes<Scalar<V>>;
  if constexpr (K == 1) {
    return load_pixels<V>(runs);
  } else if constexpr (K == 2 && sizeof(Element) == 2) {
    WideBits pairs;
    std::memcpy(&pairs, runs, sizeof pairs);
    return pixels_of_pairs(pairs, k, Element{});
  } else if constexpr (sizeof(Element) == 1) {  // each run is one number
    WideBits numbers;
    if constexpr (K == 2) {
      HalfBits pairs;
      std::memcpy(&pairs, runs, sizeof pairs);
      numbers = to_wide(pairs);
    } else {
      static_assert(K == 4, "");
      std::memcpy(&numbers, runs, sizeof numbers);
    }
    return to_real<V>((IntVector)(numbers >> (8 * k) & 0xffu));
  } else {
    const Integer<V> lane = truncate(counting<V>());
    const auto halves = [&](const Element* from) __attribute__((always_inline)) {
      return select_lanes(load_pixels<V>(from), load_pixels<V>(from + L),
                          Integer<V>((lane * K + k) & (2 * L - 1)));
    };
    if constexpr (K == 2) {
      return halves(runs);
    } else {
      static_assert(K == 4, "the second half of the lanes comes from the second half of the runs");
      const Integer<V> low = lane < L / 2 ? lane : lane + L / 2;
      return select_lanes(halves(runs), halves(runs + 2 * L), low);
    }
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
