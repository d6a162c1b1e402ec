// The kernels for x86-64 with AVX2, FMA and F16C.
#include "cpu/standard_headers.h"

#if defined(STN_EXTENSIONS)
#define STN_VECTOR_BYTES 32
#define STN_ISA avx2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include "cpu/table.h"

STN_KERNELS(avx2);
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
