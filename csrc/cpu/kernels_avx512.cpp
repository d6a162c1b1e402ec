// The kernels for x86-64 with AVX-512 (F, BW, CD, DQ, VL).
#include "cpu/standard_headers.h"

#if defined(STN_EXTENSIONS)
#define STN_VECTOR_BYTES 64
#define STN_ISA avx512
#if defined(__clang__)
#pragma clang attribute push(                                                             \
    __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC target( \
    "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif
#include "cpu/table.h"

STN_KERNELS(avx512);
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
