// The natural logarithm of vectors and scalars alike, to about one unit of the last place. The
// device has its own.
#pragma once

#include <cstring>

#include "math/lanes.h"

namespace stn_cuda {
inline namespace STN_ISA {

// Integers as wide as V's lanes.
template <class V>
struct BitsOf {
  using type = Integer<V>;
};
template <>
struct BitsOf<double> {
  using type = int64_t;
};

template <class To, class From>
STN_HD To same_bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "");
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}

// of(f, e): log((1 + f) 2^e), where 1 + f is in [2/3, 4/3) or [sqrt(1/2), sqrt(2)). e comes times
// 2^unit.
template <class T>
struct LogarithmOf;

// With a polynomial (Juffa's logf) in two chains, the odd powers and the even ones. The exponent
// stays where it stands among the bits: shifting it down were an instruction more.
template <>
struct LogarithmOf<float> {
  static constexpr int mantissa = 23, unit = mantissa;
  static constexpr int32_t least = 0x3f2aaaab;  // the bits of 2/3
  static constexpr float smallest = 1.17549435e-38f;

  template <class V>
  STN_HD static V of(V f, V e) {
    const V square = f * f;
    V even = square * -1.30310059e-1f - 1.21483512e-1f;
    V odd = square * 1.40869141e-1f + 1.39814854e-1f;
    even = even * square - 1.66846126e-1f;
    odd = odd * square + 2.00120345e-1f;
    even = even * square - 2.49996200e-1f;
    const V p = ((odd * f + even) * f + 3.33331972e-1f) * f - 0.5f;
    return e * (6.9314718056e-1f / 8388608) + (p * square + f);  // ln2: as good as 30 bits of it
  }
};

// FreeBSD's e_log.c (Sun Microsystems 1993).
template <>
struct LogarithmOf<double> {
  static constexpr int mantissa = 52, unit = 0;
  static constexpr int64_t least = 0x3fe6a09e667f3bcd;  // of sqrt(1/2)
  static constexpr double smallest = 2.2250738585072014e-308;
  // Of the first, multiples by an exponent are exact.
  static constexpr double ln2_high = 6.93147180369123816490e-01;
  static constexpr double ln2_low = 1.90821492927058770002e-10;

  template <class V>
  STN_HD static V of(V f, V e) {
    const V half_square = f * f * 0.5;
    const V s = f / (f + 2), z = s * s;
    V p = z * 1.479819860511658591e-01 + 1.531383769920937332e-01;
    p = p * z + 1.818357216161805012e-01;
    p = p * z + 2.222219843214978396e-01;
    p = p * z + 2.857142874366239149e-01;
    p = p * z + 3.999999999940941908e-01;
    p = p * z + 6.666666666666735130e-01;
    const V rest = s * (half_square + p * z) + e * ln2_low - half_square;
    return e * ln2_high + (f + rest);
  }
};

// Of a number that is at least LogarithmOf::smallest; of others, any finite number.
template <class V>
STN_HD V logarithm(V x) {
#if defined(__CUDA_ARCH__)
  return log(larger(x, V(LogarithmOf<V>::smallest)));
#else
  using Of = LogarithmOf<Scalar<V> >;
  using Bits = typename BitsOf<V>::type;
  const Bits bits = same_bits<Bits>(x);
  const Bits exponent = (bits - Of::least) >> Of::mantissa << Of::mantissa;
  const V f = same_bits<V>(Bits(bits - exponent)) - 1;
  return Of::of(f, to_real<V>(exponent >> (Of::mantissa - Of::unit)));
#endif
}

}  // namespace STN_ISA
}  // namespace stn_cuda
