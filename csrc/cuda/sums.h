// Where splat's values are added up: the sums of an image's elements, which many threads add to.
//   zero(i), adder().add(i, weight, values), reader().value(i)
#pragma once

#include "cuda/channels.h"
#include "cuda/fixed_point.h"

namespace stn_cuda {
namespace cuda {
inline namespace STN_ISA {

// None: nothing was added.
template <class A>
struct NoSums {
  struct Reader {
    STN_HD A value(int64_t) const { return A(0); }
  };
  STN_HD Reader reader() const { return {}; }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
STN_HD void atomic_add_vector(float* to, const float (&x)[4]) {
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(x[0], x[1], x[2], x[3]));
}
#endif

// N neighbouring sums; the device adds four of float32 with one operation from sm_90 on.
template <int N, class A>
STN_HD void atomic_add_pack(A* to, const A (&x)[N]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr bool vector = N == 4 && sizeof(A) == sizeof(float);
#else
  constexpr bool vector = false;
#endif
  if constexpr (vector) {
    atomic_add_vector(to, x);
  } else {
    STN_UNROLL
    for (int j = 0; j < N; ++j) atomic_add(to + j, x[j]);
  }
}

// Sums in floating point, in the order in which they come.
template <class A>
struct FloatSums {
  A* data;

  STN_HD void zero(int64_t i) const { data[i] = 0; }

  struct Adder {
    A* data;
    template <int N>
    STN_HD void add(int64_t i, A weight, const A (&value)[N]) const {
      A product[N];
      STN_UNROLL
      for (int j = 0; j < N; ++j) product[j] = weight * value[j];
      atomic_add_pack(data + i, product);
    }
  };
  STN_HD Adder adder() const { return {data}; }

  struct Reader {
    const A* data;
    STN_HD A value(int64_t i) const { return data[i]; }
  };
  STN_HD Reader reader() const { return {data}; }
};

// Sums in fixed point: the same whatever the order.
template <class A>
struct RepeatableSums {
  FixedSums<A> fixed;

  STN_HD void zero(int64_t i) const {
    for (Fixed* limb : fixed.limb) limb[i] = 0;
    fixed.not_finite[i] = 0;
  }

  struct Adder {
    FixedSums<A> fixed;
    FixedScale<A> scale;
    template <int N>
    STN_HD void add(int64_t i, A weight, const A (&value)[N]) const {
      STN_UNROLL
      for (int j = 0; j < N; ++j) fixed_add(fixed, scale, i + j, weight, value[j]);
    }
  };
  STN_HD Adder adder() const { return {fixed, FixedScale<A>(fixed)}; }

  struct Reader {
    FixedSums<A> fixed;
    FixedScale<A> scale;
    STN_HD A value(int64_t i) const { return fixed_value(fixed, scale, i); }
  };
  STN_HD Reader reader() const { return {fixed, FixedScale<A>(fixed)}; }
};

}  // namespace STN_ISA
}  // namespace cuda
}  // namespace stn_cuda
