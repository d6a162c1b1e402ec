// Conversions of elements by the device's own instructions; the values are those of
// math/element.h.
#pragma once

#include <type_traits>

#include "math/element.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// In the place of float32 and 16-bit elements in kernels that serve them all: which of them an
// image has is asked for at run time.
struct AnyFloat {};

// The element of a kernel that serves others as well.
template <class Element>
using AnyOf =
    std::conditional_t<std::is_same<Element, double>::value || std::is_same<Element, Byte>::value,
                       Element, AnyFloat>;

// f(elements) with the image's elements by their own type: a branch that all threads take alike.
template <class Element, class F>
STN_HD void with_elements(const Image& image, F&& f) {
  if constexpr (std::is_same<Element, AnyFloat>::value) {
    switch (image.type) {
      case ElementType::f16:
        return f(static_cast<Half*>(image.data));
      case ElementType::bf16:
        return f(static_cast<BFloat16*>(image.data));
      default:
        return f(static_cast<float*>(image.data));
    }
  } else {
    f(static_cast<Element*>(image.data));
  }
}

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
