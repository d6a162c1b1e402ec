// Pixels of every element type as vectors of the type that they are computed in.
#pragma once

#include "cpu/partial.h"
#include "math/element.h"

namespace stn_cuda {
namespace cpu {
inline namespace STN_ISA {

// 16-bit pixels as they are stored, a vector of them, to float32.
STN_HD FloatVector widen(Vector<uint16_t, kLanes<float>> bits, BFloat16) {
  return (FloatVector)(__builtin_convertvector(bits, Vector<uint32_t, kLanes<float>>) << 16);
}
STN_HD FloatVector widen(Vector<uint16_t, kLanes<float>> bits, Half) {
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

// load_pixels<V>(from): as many consecutive pixels as V has lanes.
template <class V, class Element>
STN_HD V load_pixels(const Element* from) {
  if constexpr (std::is_same<Element, Scalar<V>>::value) {
    return load<V>(from);
  } else {
    Vector<uint16_t, kLanes<float>> bits;
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

// Of as many runs of K consecutive pixels as V has lanes: each one's k-th pixel.
template <class V, int K, class Element>
STN_HD V pixels_of_runs(const Element* runs, int k) {
  constexpr int L = kLanes<Scalar<V>>;
  if constexpr (K == 1) {
    return load_pixels<V>(runs);
  } else if constexpr (K == 2 && sizeof(Element) == 2) {
    Vector<uint32_t, L> pairs;
    std::memcpy(&pairs, runs, sizeof pairs);
    return widen(__builtin_convertvector(pairs >> (16 * k), Vector<uint16_t, L>), Element{});
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
