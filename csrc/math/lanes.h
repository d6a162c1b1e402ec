// The formulas are written once for a value type V: a scalar on the device, a vector of
// consecutive points (a compiler vector type, cpu/simd.h) on the CPU. Comparisons of vectors give
// masks, and `mask ? a : b` selects lane by lane; on scalars it is the ordinary operator.
#pragma once

#include "math/qualifiers.h"

namespace stn_cuda {
inline namespace STN_ISA {

template <class V>
struct Lanes {
  using scalar = V;
  using integer = int32_t;  // what indices are computed in
};

template <class V>
using Scalar = typename Lanes<V>::scalar;
template <class V>
using Integer = typename Lanes<V>::integer;

// The same value in every lane.
template <class V>
STN_HD V all(Scalar<V> x) {
  return x - V{};  // adding 0 would turn -0 to 0, and cost an instruction
}
template <class V>
STN_HD Integer<V> all_index(int32_t i) {
  return Integer<V>{} + i;
}

// a * b + c. On the device it is rounded once, wherever it stands: two kernels that compute the
// same get the same. (On the CPU the compiler decides, once for each instruction set.)
template <class V>
STN_HD V multiply_add(Scalar<V> a, V b, V c) {
#if defined(__CUDA_ARCH__)
  return fma(a, b, c);
#else
  return a * b + c;
#endif
}

// The second where the first is NaN. (cpu/simd.h overloads what is one instruction of vectors; it
// has to be included before what uses them.)
template <class V>
STN_HD V smaller(V x, V y) {
  return x < y ? x : y;
}
template <class V>
STN_HD V larger(V x, V y) {
  return x > y ? x : y;
}

template <class V>
STN_HD V absolute(V x) {
  return larger(x, V(-x));
}

// min(|x|, y), of y >= 0; y where x is NaN.
template <class V>
STN_HD V smaller_magnitude(V x, V y) {
  return smaller(absolute(x), y);
}

// x where d is negative, -x where it is not. d is no -0.
template <class V>
STN_HD V turned_unless_negative(V d, V x) {
  return d < 0 ? x : -x;
}

// Conversions; cpu/simd.h overloads them for vectors.
STN_HD int32_t truncate(float x) { return static_cast<int32_t>(x); }
STN_HD int32_t truncate(double x) { return static_cast<int32_t>(x); }
template <class V>
struct FromInteger {
  STN_HD static V convert(int32_t i) { return static_cast<V>(i); }
};
template <class V>
STN_HD V to_real(Integer<V> i) {
  return FromInteger<V>::convert(i);
}

}  // namespace STN_ISA
}  // namespace stn_cuda
