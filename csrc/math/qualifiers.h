// What makes one header serve host and device, and several instruction sets in one binary.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define STN_HD __host__ __device__ __forceinline__
#elif !defined(STN_HD)  // the walk has its own (cuda/walk.cpp)
#define STN_HD inline __attribute__((always_inline))
#endif

// Before a function of which one copy serves all types that it does not depend on: inlined, it
// would be compiled once for each of its callers'.
#define STN_SHARED __attribute__((noinline))

// Before a loop whose body is to be repeated by the device's compiler.
#if defined(__CUDA_ARCH__)
#define STN_UNROLL _Pragma("unroll")
#else
#define STN_UNROLL
#endif

// Every instruction set (and the device code) gets its own copy of the inline functions under its
// own name; otherwise the linker would keep one of them for all, perhaps the newest's.
#if !defined(STN_ISA)
#define STN_ISA portable
#endif
