// Sums whose result does not depend on the order of the additions: 64-bit integers, added
// atomically. The unit is a power of two, as small as the largest value and the number of terms
// allow without overflow, so that a float32 sum loses less than in float32 arithmetic.
//
// Terms that are not finite have no place in integers: they are added in floating point to a sum
// of their own, which is 0, +-Inf or NaN whatever the order.
#pragma once

#include "cuda/work.h"
#include "math/element.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

using Fixed = unsigned long long;  // two's complement, the type that atomicAdd has

template <class A>
STN_HD void atomic_add(A* to, A x) {
#if defined(__CUDA_ARCH__)
  atomicAdd(to, x);
#else
  *to += x;
#endif
}

STN_HD void atomic_max(Fixed* to, Fixed x) {
#if defined(__CUDA_ARCH__)
  atomicMax(to, x);
#else
  *to = *to > x ? *to : x;
#endif
}

// |x| as an integer that orders as |x| does; what is not finite counts as 0.
STN_HD Fixed magnitude_bits(float x) {
  const uint32_t bits = float_bits(x) & 0x7fffffffu;
  return bits < 0x7f800000u ? bits : 0;
}
STN_HD Fixed magnitude_bits(double x) {
  Fixed bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= ~(Fixed(1) << 63);
  return bits < (Fixed(0x7ff) << 52) ? bits : 0;
}

// e such that every value of that magnitude is below 2^e.
template <class A>
STN_HD int exponent_above(Fixed magnitude) {
  constexpr bool wide = sizeof(A) == sizeof(double);
  constexpr int mantissa = wide ? 52 : 23;
  constexpr int bias = wide ? 1023 : 127;
  return static_cast<int>(magnitude >> mantissa) - bias + 1;
}

STN_HD double power_of_two(int e) {  // of a normal number
  const Fixed bits = static_cast<Fixed>(e + 1023) << 52;
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The unit of a sum of values below 2^exponent is 2^-unit(...). A point's weights on one pixel add
// up to at most 1.9 in magnitude (bicubic, clamped at an edge), so that `points` = 2^log_points or
// fewer points make at most 2^(log_points + 1) times the largest value; one more bit leaves room
// for rounding.
STN_HD int fixed_unit(int exponent, int log_points) {
  const int unit = 61 - log_points - exponent;
  const int high = unit < 960 ? unit : 960;  // both limbs' powers of two stay normal
  return high > -1000 ? high : -1000;
}

// The weights' derivatives along one axis add up to at most 2^kSlopeBits in magnitude.
constexpr int kSlopeBits = 2;

// float64 keeps what is below the unit in a second integer.
template <class A>
constexpr int kLimbs = sizeof(A) == sizeof(double) ? 2 : 1;

// The second limb's unit: remainders are at most half a unit, and a point adds at most 16 of them.
STN_HD int low_bits(int log_points) { return 57 - log_points; }

template <class A>
struct FixedSums {
  Fixed* limb[kLimbs<A>];
  A* not_finite;  // the terms that are not finite
  Fixed* largest;
  Fixed* farthest;  // the largest magnitude of a direction (in double), or null where there is none
  int log_points;

  // Such that every value, times what its weights are differentiated along, is below 2^exponent.
  STN_HD int exponent() const {
    const int values = exponent_above<A>(*largest);
    return farthest ? values + exponent_above<double>(*farthest) + kSlopeBits : values;
  }
};

template <class A>
struct FixedScale {
  double high, low;

  STN_HD explicit FixedScale(const FixedSums<A>& sums)
      : high(power_of_two(fixed_unit(sums.exponent(), sums.log_points))),
        low(power_of_two(low_bits(sums.log_points))) {}
};

template <class A>
STN_HD void fixed_add(const FixedSums<A>& sums, const FixedScale<A>& scale, int64_t i, A weight,
                      A value) {
  const A product = weight * value;
  if (!(product - product == 0)) {
    atomic_add(sums.not_finite + i, product);
    return;
  }
  const double term = static_cast<double>(product) * scale.high;
  const long long whole = llrint(term);
  atomic_add(sums.limb[0] + i, static_cast<Fixed>(whole));
  if constexpr (kLimbs<A> == 2) {
    const long long rest = llrint((term - static_cast<double>(whole)) * scale.low);
    atomic_add(sums.limb[1] + i, static_cast<Fixed>(rest));
  }
}

template <class A>
STN_HD A fixed_value(const FixedSums<A>& sums, const FixedScale<A>& scale, int64_t i) {
  const A not_finite = sums.not_finite[i];
  if (!(not_finite == 0)) return not_finite;
  double value = static_cast<double>(static_cast<long long>(sums.limb[0][i]));
  if constexpr (kLimbs<A> == 2) {
    value += static_cast<double>(static_cast<long long>(sums.limb[1][i])) / scale.low;
  }
  return static_cast<A>(value / scale.high);
}

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
