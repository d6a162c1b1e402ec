// The CPU's vectors: the compiler's own vector types, as wide as the instruction set of the
// translation unit. They lower to plain code where a processor has no such registers.
#pragma once

#include <cstring>

#include "math/lanes.h"

#if !defined(STN_VECTOR_BYTES)
#define STN_VECTOR_BYTES 16
#endif

namespace stn_cuda {
inline namespace STN_ISA {

template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using Vector = typename VectorOf<T, N>::type;

template <class T>
constexpr int kLanes = STN_VECTOR_BYTES / sizeof(T);

using FloatVector = Vector<float, kLanes<float>>;
using DoubleVector = Vector<double, kLanes<double>>;
using IntVector = Vector<int32_t, kLanes<float>>;
using LongVector = Vector<int64_t, kLanes<double>>;

template <class T>
using Native = Vector<T, kLanes<T>>;

template <>
struct Lanes<FloatVector> {
  using scalar = float;
  using integer = IntVector;
};
template <>
struct Lanes<DoubleVector> {
  using scalar = double;
  using integer = LongVector;
};

STN_HD IntVector truncate(FloatVector x) { return __builtin_convertvector(x, IntVector); }
STN_HD LongVector truncate(DoubleVector x) { return __builtin_convertvector(x, LongVector); }
template <>
struct FromInteger<FloatVector> {
  STN_HD static FloatVector convert(IntVector i) { return __builtin_convertvector(i, FloatVector); }
};
template <>
struct FromInteger<DoubleVector> {
  STN_HD static DoubleVector convert(LongVector i) {
    return __builtin_convertvector(i, DoubleVector);
  }
};

// Lane k: lane index[k] of `low` and `high` laid end to end.
template <class V>
STN_HD V select_lanes(V low, V high, Integer<V> index) {
#if defined(__clang__)
  constexpr int L = kLanes<Scalar<V>>;
  V v;
  for (int k = 0; k < L; ++k) v[k] = index[k] < L ? low[index[k]] : high[index[k] - L];
  return v;
#else
  return __builtin_shuffle(low, high, index);
#endif
}

// Lane k: lane index[k] of v.
template <class V>
STN_HD V permute(V v, Integer<V> index) {
#if defined(__clang__)
  V lanes;
  for (int k = 0; k < kLanes<Scalar<V>>; ++k) lanes[k] = v[index[k]];
  return lanes;
#else
  return __builtin_shuffle(v, index);
#endif
}

// By its sign bit: two operations.
template <class V>
STN_HD V turn_by_sign(V d, V x) {
  const Integer<V> sign = (Integer<V>)V(-V{});
  return V((Integer<V>)x ^ (~(Integer<V>)d & sign));
}
STN_HD FloatVector turned_unless_negative(FloatVector d, FloatVector x) {
  return turn_by_sign(d, x);
}
STN_HD DoubleVector turned_unless_negative(DoubleVector d, DoubleVector x) {
  return turn_by_sign(d, x);
}

#if defined(__x86_64__) && STN_VECTOR_BYTES == 64
STN_HD FloatVector absolute(FloatVector x) { return (FloatVector)_mm512_abs_ps((__m512)x); }
STN_HD DoubleVector absolute(DoubleVector x) { return (DoubleVector)_mm512_abs_pd((__m512d)x); }
constexpr int kMagnitudes = 0b1010;  // the smaller of two, without a sign
STN_HD FloatVector smaller_magnitude(FloatVector x, FloatVector y) {
  return (FloatVector)_mm512_range_ps((__m512)x, (__m512)y, kMagnitudes);
}
STN_HD DoubleVector smaller_magnitude(DoubleVector x, DoubleVector y) {
  return (DoubleVector)_mm512_range_pd((__m512d)x, (__m512d)y, kMagnitudes);
}
STN_HD FloatVector floor_of(FloatVector x) {
  return (FloatVector)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
STN_HD DoubleVector floor_of(DoubleVector x) {
  return (DoubleVector)_mm512_roundscale_pd((__m512d)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
STN_HD FloatVector round_half_even(FloatVector x) {
  return (FloatVector)_mm512_roundscale_ps((__m512)x,
                                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
STN_HD DoubleVector round_half_even(DoubleVector x) {
  return (DoubleVector)_mm512_roundscale_pd((__m512d)x,
                                            _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
STN_HD FloatVector smaller(FloatVector x, FloatVector y) {
  return (FloatVector)_mm512_min_ps((__m512)x, (__m512)y);
}
STN_HD DoubleVector smaller(DoubleVector x, DoubleVector y) {
  return (DoubleVector)_mm512_min_pd((__m512d)x, (__m512d)y);
}
STN_HD FloatVector larger(FloatVector x, FloatVector y) {
  return (FloatVector)_mm512_max_ps((__m512)x, (__m512)y);
}
STN_HD DoubleVector larger(DoubleVector x, DoubleVector y) {
  return (DoubleVector)_mm512_max_pd((__m512d)x, (__m512d)y);
}
#elif defined(__x86_64__) && STN_VECTOR_BYTES == 32
STN_HD FloatVector absolute(FloatVector x) {
  return (FloatVector)_mm256_andnot_ps(_mm256_set1_ps(-0.0f), (__m256)x);
}
STN_HD DoubleVector absolute(DoubleVector x) {
  return (DoubleVector)_mm256_andnot_pd(_mm256_set1_pd(-0.0), (__m256d)x);
}
STN_HD FloatVector floor_of(FloatVector x) { return (FloatVector)_mm256_floor_ps((__m256)x); }
STN_HD DoubleVector floor_of(DoubleVector x) { return (DoubleVector)_mm256_floor_pd((__m256d)x); }
STN_HD FloatVector round_half_even(FloatVector x) {
  return (FloatVector)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
STN_HD DoubleVector round_half_even(DoubleVector x) {
  return (DoubleVector)_mm256_round_pd((__m256d)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
STN_HD FloatVector smaller(FloatVector x, FloatVector y) {
  return (FloatVector)_mm256_min_ps((__m256)x, (__m256)y);
}
STN_HD DoubleVector smaller(DoubleVector x, DoubleVector y) {
  return (DoubleVector)_mm256_min_pd((__m256d)x, (__m256d)y);
}
STN_HD FloatVector larger(FloatVector x, FloatVector y) {
  return (FloatVector)_mm256_max_ps((__m256)x, (__m256)y);
}
STN_HD DoubleVector larger(DoubleVector x, DoubleVector y) {
  return (DoubleVector)_mm256_max_pd((__m256d)x, (__m256d)y);
}
#endif

template <class V>
STN_HD V load(const Scalar<V>* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

// As many numbers of type From as V has lanes.
template <class V, class From>
STN_HD V load_converted(const From* from) {
  Vector<From, kLanes<Scalar<V>>> v;
  std::memcpy(&v, from, sizeof v);
  return __builtin_convertvector(v, V);
}

// Stores N lanes of v as elements of type To.
template <int N, class To, class V>
STN_HD void store(To* to, V v) {
  const auto converted = __builtin_convertvector(v, Vector<To, N>);
  std::memcpy(to, &converted, sizeof converted);
}

// 0, 1, 2, ...
template <class V>
STN_HD V counting() {
  V v;
  for (size_t k = 0; k < sizeof(V) / sizeof(Scalar<V>); ++k) v[k] = static_cast<Scalar<V>>(k);
  return v;
}

// The sum of the lanes, in order.
template <class V>
STN_HD Scalar<V> sum_lanes(V v) {
  Scalar<V> sum = 0;
  for (size_t k = 0; k < sizeof(V) / sizeof(Scalar<V>); ++k) sum += v[k];
  return sum;
}

}  // namespace STN_ISA
}  // namespace stn_cuda
