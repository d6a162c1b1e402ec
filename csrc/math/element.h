// Element types: how each is read into and written from the arithmetic type.
#pragma once

#include <cstring>

#include "math/lanes.h"
#include "params.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace stn_cuda {
inline namespace STN_ISA {

// The type in which sums over an element type accumulate.
template <class T>
struct AccumulateOf {
  using type = float;
};
template <>
struct AccumulateOf<double> {
  using type = double;
};
template <class T>
using Accumulate = typename AccumulateOf<T>::type;

STN_HD uint32_t float_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

STN_HD float float_from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

STN_HD float to_float(float x) { return x; }
STN_HD double to_float(double x) { return x; }

STN_HD float to_float(BFloat16 x) { return float_from_bits(uint32_t(x.bits) << 16); }

// IEEE half -> float in integer arithmetic that vectorises: the exponent is re-biased by a
// multiplication, which also normalises subnormals; infinities and NaN get their exponent back.
STN_HD float to_float(Half x) {
  const uint32_t magnitude = (uint32_t(x.bits) & 0x7fffu) << 13;
  const uint32_t sign = (uint32_t(x.bits) & 0x8000u) << 16;
  const float rebias = float_from_bits(239u << 23);  // 2^112
  const uint32_t finite = float_bits(float_from_bits(magnitude) * rebias);
  const uint32_t special = magnitude | 0x7f800000u;
  return float_from_bits(sign | (magnitude >= 0x0f800000u ? special : finite));
}

STN_HD float to_float(Byte x) { return static_cast<float>(x.bits); }

template <class T>
struct Rounded;  // Rounded<T>::from(x): x rounded to nearest even in T

template <>
struct Rounded<float> {
  template <class A>
  STN_HD static float from(A x) {
    return static_cast<float>(x);
  }
};
template <>
struct Rounded<double> {
  template <class A>
  STN_HD static double from(A x) {
    return static_cast<double>(x);
  }
};

// The upper half of a float's bits, rounded; not of NaN. U: uint32_t or a vector of them.
template <class U>
STN_HD U rounded_upper_half(U bits) {
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
constexpr uint32_t kBFloat16NaN = 0x7fc0u;

template <>
struct Rounded<BFloat16> {
  STN_HD static BFloat16 from(float x) {
    const uint32_t rounded = rounded_upper_half(float_bits(x));
    return {static_cast<uint16_t>(x == x ? rounded : kBFloat16NaN)};
  }
};

template <>
struct Rounded<Half> {
  // Normal numbers: re-bias and round in integers. Below 2^-14: adding 0.5 aligns the mantissa so
  // that the addition itself rounds to the subnormal grid.
  STN_HD static Half from(float x) {
    const uint32_t bits = float_bits(x);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t subnormal = float_bits(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    const uint32_t overflow = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return {static_cast<uint16_t>(sign | (magnitude >= 0x477ff000u ? overflow : finite))};
  }
};

// What a byte makes of x, saturated, as the low bits of a number: to 2^23 only whole ones are
// added. NaN becomes 0. V: float or a vector of them.
constexpr float kWholeNumbers = 8388608.0f;
template <class V>
STN_HD V saturated_byte(V x) {
  return smaller(larger(x, V{}), all<V>(255)) + kWholeNumbers;
}

template <>
struct Rounded<Byte> {
  STN_HD static Byte from(float x) { return {static_cast<uint8_t>(float_bits(saturated_byte(x)))}; }
};

}  // namespace STN_ISA
}  // namespace stn_cuda
