// Pixels of every element type as vectors of the type that they are computed in.
#pragma once

#include "cpu/partial.h"
#include "math/element.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// load_pixels<V>(from): as many consecutive pixels as V has lanes.
template <class V>
STN_HD V load_pixels(const Scalar<V>* from) {
  return load<V>(from);
}
template <class V>
STN_HD V load_pixels(const BFloat16* from) {
  Vector<uint16_t, kLanes<float>> bits;
  std::memcpy(&bits, from, sizeof bits);
  return (V)(__builtin_convertvector(bits, Vector<uint32_t, kLanes<float>>) << 16);
}
template <class V>
STN_HD V load_pixels(const Half* from) {
#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
  return (V)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__x86_64__) && STN_VECTOR_BYTES == 32
  return (V)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  V v;
  for (int k = 0; k < kLanes<float>; ++k) v[k] = to_float(from[k]);
  return v;
#endif
}

// The first n of them; zeros in the other lanes.
template <class V, class Element>
STN_HD V load_pixels(const Element* from, int n) {
  if constexpr (std::is_same<Element, Scalar<V>>::value) {
    return load_first(from, n);
  } else {
    Element pixels[kLanes<Scalar<V>>] = {};
    std::memcpy(pixels, from, n * sizeof(Element));
    return load_pixels<V>(pixels);
  }
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
    Scalar<V> values[L];
    store<L>(values, v);
    Element pixels[L];
    for (int k = 0; k < L; ++k) pixels[k] = Rounded<Element>::from(values[k]);
    std::memcpy(to, pixels, n * sizeof(Element));
  }
}

}  // namespace STN_ISA
}  // namespace cpu
}  // namespace stn_cuda
