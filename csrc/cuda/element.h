// Conversions of elements by the device's own instructions; the values are those of
// math/element.h.
#pragma once

#include "math/element.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

template <class Element>
STN_HD Accumulate<Element> widen(Element x) {
  return to_float(x);
}

// Without a conversion, of which the device makes a quarter as many in the same time.
template <>
STN_HD float widen<Byte>(Byte x) {
  return float_from_bits(float_bits(kWholeNumbers) | x.bits) - kWholeNumbers;
}

template <class Element>
struct Narrow {
  template <class A>
  STN_HD static Element from(A x) {
    return Rounded<Element>::from(x);
  }
};

#if defined(__CUDA_ARCH__)
template <>
__device__ __forceinline__ float widen<Half>(Half x) {
  return __half2float(__ushort_as_half(x.bits));
}
template <>
struct Narrow<Half> {
  __device__ __forceinline__ static Half from(float x) {
    return {__half_as_ushort(__float2half_rn(x))};
  }
};
template <>
struct Narrow<BFloat16> {
  __device__ __forceinline__ static BFloat16 from(float x) {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  }
};
#endif

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
